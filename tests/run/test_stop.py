"""A run that is told to stop stops soon, whatever its main thread is doing, and says so."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from grpo_jax.run.stop import TOO_LATE, Stop, StopRequested

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks(number, capfd):
  before = signal.getsignal(number)
  with Stop(60.0) as stop:
    stop.check()
    assert not stop.requested_anywhere()
    os.kill(os.getpid(), number)
    wait_until(stop.requested_anywhere)
    with pytest.raises(StopRequested):
      stop.check()
  assert signal.getsignal(number) is before
  told = capfd.readouterr().err
  assert f"{number.name}: saving, then leaving, within 60 s" in told
  assert "A second signal ends at once" in told


def test_a_run_that_ends_by_itself_says_nothing(capfd):
  for _ in range(2):
    with Stop(0.01):
      pass
  assert capfd.readouterr().err == ""


def test_signals_of_others_ask_nothing():
  before = signal.signal(signal.SIGALRM, lambda *_: None)
  with Stop(60.0) as stop:
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(0.1)
    assert not stop.requested_anywhere()
  signal.signal(signal.SIGALRM, before)


# A main thread that no Python handler reaches: it waits in C and is not to be interrupted.
BUSY = """
import ctypes, sys
from grpo_jax.run.stop import Stop
with Stop(float(sys.argv[1])):
  print("ready", flush=True)
  ctypes.CDLL(None).pause()
  while True:
    ctypes.CDLL(None).poll(None, 0, 60_000)
"""


@pytest.mark.parametrize(
  ("deadline", "signals", "code", "told"),
  [
    (60.0, [signal.SIGTERM, signal.SIGTERM], 143, "SIGTERM again: ended at once."),
    (60.0, [signal.SIGTERM, signal.SIGINT], 130, "SIGINT again: ended at once."),
    (0.2, [signal.SIGTERM], TOO_LATE, "Not saved 0.2 s after SIGTERM: ended."),
  ],
)
def test_a_second_signal_or_the_deadline_ends_at_once(deadline, signals, code, told):
  process = subprocess.Popen(
    [sys.executable, "-c", BUSY, str(deadline)],
    cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  assert process.stdout.readline() == "ready\n"
  for number in signals:
    process.send_signal(number)
    time.sleep(0.2)
  _, stderr = process.communicate(timeout=30)
  assert process.returncode == code
  assert f"{told} The same command goes on from the last checkpoint." in stderr


def wait_until(condition, seconds=10.0):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.005)
