"""A run that is killed goes on as if nothing had been: experiments/chaos, in part."""

import pathlib
import shutil
import signal

import pytest

from experiments.chaos import scenarios
from experiments.chaos.runs import command, differences, run

STEPS = 6


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("chaos") / "unbroken"
  scenarios.unbroken(folder, STEPS)
  return folder


def test_killed_in_sampling_in_writing_and_before_the_manifest(tmp_path, unbroken):
  """The newest checkpoint alone is kept, so that each moment could lose everything."""
  folder = tmp_path / "run"
  for fault in ("sample@2", "checkpoint_write@4", "before_manifest@4"):
    ended = run(command(folder, STEPS, fault, "--config.checkpoint.keep=1"))
    assert ended.code == -signal.SIGKILL, (fault, ended.stderr)
  ended = run(command(folder, STEPS))
  assert ended.code == 0, ended.stderr
  assert differences(folder, unbroken, STEPS) == []


def test_the_comparison_sees_what_it_is_for(tmp_path, unbroken):
  folder = shutil.copytree(unbroken, tmp_path / "run")
  rows = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
  (folder / "metrics.jsonl").write_text("".join([*rows, rows[-1]]))
  state = folder / "checkpoints" / str(STEPS) / "state.json"
  state.write_text(state.read_text().replace('"rollouts": ', '"rollouts": 1'))
  (folder / "export" / "model.safetensors").write_bytes(b"")
  told = " ".join(differences(folder, unbroken, STEPS))
  for seen in ("steps in metrics.jsonl", "row 7", "state.json", "model.safetensors"):
    assert seen in told
  shutil.rmtree(folder / "checkpoints" / str(STEPS))
  other = unbroken / "checkpoints" / str(STEPS - 2)
  shutil.copytree(other, folder / "checkpoints" / str(STEPS))
  assert "state.params.embed" in " ".join(differences(folder, unbroken, STEPS))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["phases", "stop", "damage", "workers", "disk", "numbers", "hang"])
def test_every_part_of_the_harness(tmp_path_factory, name):
  from experiments.chaos.__main__ import PARTS

  work = tmp_path_factory.mktemp(name)
  scenarios.unbroken(work / "unbroken", scenarios.STEPS)
  outcomes = PARTS[name](work, work / "unbroken")
  assert outcomes and all(outcome.right for outcome in outcomes), outcomes


@pytest.mark.slow
def test_random_kills(tmp_path):
  scenarios.unbroken(tmp_path / "unbroken", 120)
  outcomes = scenarios.killed_at_random(tmp_path, tmp_path / "unbroken", steps=120, kills=20)
  assert all(outcome.right for outcome in outcomes), outcomes
