"""A run that hangs ends, and leaves the stacks that say where."""

import pathlib
import subprocess
import sys
import time

import pytest

from grpo_jax.run.watchdog import STALLED, Watchdog

ROOT = pathlib.Path(__file__).resolve().parents[2]

HANGS = """
import pathlib, sys, threading
from grpo_jax.run import watchdog
watchdog._GRACE_SECONDS = 0.5

def a_partner_that_is_gone():
  threading.Event().wait()

def holds_the_interpreter():
  import ctypes
  ctypes.PyDLL(None).poll(None, 0, 60_000)

with watchdog.Watchdog(0.3, pathlib.Path(sys.argv[1])) as dog:
  for _ in range(4):
    threading.Event().wait(0.15)
    dog.beat()
  print("beaten", flush=True)
  globals()[sys.argv[2]]()
"""


def hang(tmp_path, how, stacks="stacks-0.txt"):
  return subprocess.run(
    [sys.executable, "-c", HANGS, str(tmp_path / stacks), how],
    cwd=ROOT, capture_output=True, text=True, timeout=60,
  )  # fmt: skip


def test_a_step_that_does_not_end_ends_the_run(tmp_path):
  done = hang(tmp_path, "a_partner_that_is_gone")
  assert done.returncode == STALLED
  assert done.stdout == "beaten\n", "steps in time must not end it"
  for text in (done.stderr, (tmp_path / "stacks-0.txt").read_text()):
    assert "error: no step has ended for 0.3 s (log.stall_seconds)" in text
    assert "in a_partner_that_is_gone" in text
    assert "in _watch" in text, "all threads, not one"


def test_not_even_the_interpreter_must_be_free(tmp_path):
  done = hang(tmp_path, "holds_the_interpreter")
  assert done.returncode == 1
  assert "in holds_the_interpreter" in done.stderr


def test_a_file_that_cannot_be_written_changes_nothing(tmp_path):
  done = hang(tmp_path, "a_partner_that_is_gone", "nowhere/stacks.txt")
  assert done.returncode == STALLED
  assert "in a_partner_that_is_gone" in done.stderr


@pytest.mark.parametrize("limit", [0.0, 0.2])
def test_after_its_end_or_without_a_limit_it_is_silent(tmp_path, limit):
  with Watchdog(limit, tmp_path / "stacks"):
    pass
  time.sleep(0.4)
  assert not (tmp_path / "stacks").exists()
