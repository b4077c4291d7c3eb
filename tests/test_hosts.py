"""Several processes train what one process trains on the same devices, and notice each other.

The processes are real ones on this machine: they meet at a port of the loopback device, and their
simulated devices reduce over gloo.
"""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from grpo_jax import agreement, hosts
from grpo_jax.build import load_task
from grpo_jax.errors import UserError
from grpo_jax.run.folder import RunFolder
from grpo_jax.run.manifest import find_fault
from grpo_jax.train import train
from tests.test_train import tiny, untimed, weights

ROOT = pathlib.Path(__file__).resolve().parent.parent
PATIENCE = 400  # seconds: a loaded machine is no failure

CHANGES = {
  "steps": 3,
  "keep": "everything",  # so that the store has something to draw, however little is right
  "warm_start.steps": 60,
  "eval.every": 3,
  "log.rollouts_every": 1,
  "log.groups": 99,
}
CONFIG = """
from tests.test_train import tiny
def get_config(_=None):
  return tiny(**{changes})
"""


@dataclasses.dataclass(frozen=True)
class Place:
  """How one process finds the others: flags, or what a scheduler tells it."""

  flags: tuple[str, ...]
  environment: dict[str, str] = dataclasses.field(default_factory=dict)


def by_flags(count: int) -> list[Place]:
  coordinator = f"--coordinator=127.0.0.1:{free_port()}"
  return [Place((coordinator, f"--processes={count}", f"--process_id={i}")) for i in range(count)]


def by_slurm(count: int) -> list[Place]:
  """What srun sets, one task a node; jax takes its port from the job's number."""
  of_job = {
    "SLURM_JOB_ID": str(free_port(above=61440) - 61440),
    "SLURM_STEP_NODELIST": "127.0.0.1",
    "SLURM_NTASKS": str(count),
    "SLURM_STEP_NUM_TASKS": str(count),
    "SLURM_STEP_NUM_NODES": str(count),
    "SLURM_LOCALID": "0",
  }
  return [Place(("--distributed",), of_job | {"SLURM_PROCID": str(i)}) for i in range(count)]


@contextlib.contextmanager
def started(folder: pathlib.Path, places: list[Place], devices: int, command: list[str]):
  """One process a place, all of `python -m` this command; ended if the test fails."""
  common = os.environ | {
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    "XDG_CACHE_HOME": str(folder / "cache"),
  }
  running = []
  try:
    for number, place in enumerate(places):
      with (folder / f"log{number}").open("w") as log:
        running.append(
          subprocess.Popen(
            [sys.executable, "-m", *command, "--peer_timeout=20", *place.flags],
            cwd=ROOT,
            env=common | place.environment,
            stdout=log,
            stderr=log,
          )
        )
    yield running
  finally:
    for process in running:
      process.kill()
      process.wait()


def training(folder: pathlib.Path, changes: dict) -> list[str]:
  """The command of the tiny run, changed, in `folder`."""
  config = folder / "tiny_config.py"
  config.write_text(CONFIG.format(changes=changes))
  return ["grpo_jax.train", f"--config={config}", f"--workdir={folder / 'run'}"]


def free_port(above: int = 0) -> int:
  """One that is free now; above 0: from that one on."""
  for port in itertools.count(above) if above else [0]:
    with contextlib.suppress(OSError), socket.socket() as there:
      there.bind(("127.0.0.1", port))
      return there.getsockname()[1]
  raise AssertionError("no port is free")


def ends(running: list[subprocess.Popen]) -> list[int]:
  deadline = time.monotonic() + PATIENCE
  return [process.wait(timeout=max(1, deadline - time.monotonic())) for process in running]


def say(folder: pathlib.Path, number: int) -> str:
  return (folder / f"log{number}").read_text()


def assert_same_run(one: pathlib.Path, other: pathlib.Path) -> None:
  """Every token and verdict the same, every number to rounding."""
  texts = [{p.name: p.read_text() for p in (run / "rollouts").iterdir()} for run in (one, other)]
  assert texts[0] == texts[1]
  rows = [untimed(run) for run in (one, other)]
  assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
  for expected, row in zip(*rows, strict=True):
    for name, value in expected.items():
      same = value if value is None else pytest.approx(value, rel=1e-5, abs=1e-5)
      assert row[name] == same, (row["step"], name)
  for name, value in weights(one).items():
    np.testing.assert_allclose(weights(other)[name], value, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
  ("places", "devices", "stops", "mesh"),
  [
    pytest.param(lambda: by_slurm(2), 2, [3], {}, id="2 x 2"),
    pytest.param(
      lambda: by_flags(4),
      2,
      [2, 3],
      {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2},
      marks=pytest.mark.slow,
      id="4 x 2, resumed",
    ),
  ],
)
def test_several_processes_train_what_one_does(
  tmp_path, monkeypatch, places, devices, stops, mesh
):
  """Tokens, verdicts, draws from the store and weights; and the run they leave is one run."""
  changes = CHANGES | mesh
  for steps in stops:
    here, command = places(), training(tmp_path, changes | {"steps": steps})
    with started(tmp_path, here, devices, command) as running:
      assert ends(running) == [0] * len(here), say(tmp_path, 0) + say(tmp_path, 1)
  # The warm start of several is also that of the one: its 60 steps would make much of rounding.
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  some = jax.devices()[: len(here) * devices]
  monkeypatch.setattr(jax, "devices", lambda: some)
  train(tiny(**changes), str(tmp_path / "one"))
  assert_same_run(tmp_path / "one", tmp_path / "run")
  assert sum(row["replay/drawn"] for row in untimed(tmp_path / "run")[1:]) > 0
  assert "Accuracy on held-out problems" in say(tmp_path, 0)
  assert "problems" not in say(tmp_path, 1), "the first one speaks for all"


def test_a_process_with_another_seed_is_named_before_anything_is_trained(tmp_path):
  first, second = by_flags(2)
  places = [first, dataclasses.replace(second, flags=(*second.flags, "--config.seed=7"))]
  with started(tmp_path, places, 1, training(tmp_path, CHANGES)) as running:
    assert ends(running) == [2, 2]
  for number in range(2):
    assert "process 1 would run something else: config.seed is 7, but in process 0 0" in say(
      tmp_path, number
    )
  assert not (tmp_path / "run/start").exists()


def test_when_one_process_dies_the_others_end_and_say_so(tmp_path):
  command = training(tmp_path, CHANGES | {"steps": 1000})
  with started(tmp_path, by_flags(2), 1, command) as running:
    metrics = tmp_path / "run/metrics.jsonl"
    wait_for(lambda: metrics.exists() and metrics.read_text(), running)
    running[1].kill()
    died = time.monotonic()
    assert ends(running)[0] in (1, -signal.SIGABRT)
    assert time.monotonic() - died < 60
  said = say(tmp_path, 0)
  assert "process 0 of 2 ends here" in said or "another task died" in said


@pytest.mark.slow
def test_when_one_process_is_told_to_stop_all_save_and_leave(tmp_path):
  """They agree on the step: its checkpoint has the parts of both, and the metrics end with it."""
  changes = CHANGES | {"steps": 1000, "checkpoint.every": 500, "log.rollouts_every": 500}
  with started(tmp_path, by_flags(2), 1, training(tmp_path, changes)) as running:
    metrics = tmp_path / "run/metrics.jsonl"
    wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") > 2, running)
    running[1].terminate()
    assert ends(running) == [0, 0]
  (saved,) = (tmp_path / "run/checkpoints").iterdir()
  assert f"Stopped and saved after step {saved.name}" in say(tmp_path, 0)
  assert "SIGTERM: saving, then leaving" in say(tmp_path, 1)
  assert untimed(tmp_path / "run")[-1]["step"] == int(saved.name)
  assert find_fault(saved, int(saved.name), None) == ""


def wait_for(condition, running: list[subprocess.Popen]) -> None:
  deadline = time.monotonic() + PATIENCE
  while not condition():
    assert time.monotonic() < deadline
    assert all(process.poll() is None for process in running)
    time.sleep(0.1)


@pytest.mark.parametrize(
  ("given", "named"),
  [
    (("here", 2, 0), "--coordinator=here: write HOST:PORT"),
    (("here:1", 2, None), "give all three"),
    (("", None, 1), "give all three"),
    (("here:1", 2, 2), "--process_id=2: it must be 0 to 1"),
  ],
)
def test_flags_that_cannot_be_are_refused(given, named):
  with pytest.raises(UserError, match=named):
    hosts._explicit(*given)


def test_without_a_scheduler_there_is_nobody_to_find(tmp_path):
  command = [sys.executable, "-m", *training(tmp_path, CHANGES), "--distributed"]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 2, done.stderr
  assert "--distributed: the processes did not find each other" in done.stderr.splitlines()[-1]
  assert not (tmp_path / "run").exists()


def test_tasks_of_srun_do_not_each_train_alone(monkeypatch):
  """Without --distributed."""
  monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
  with pytest.raises(UserError, match="srun started 8 processes: add --distributed"):
    hosts._refuse_one_of_several()


# ------------------------------------------------------------------------------ what is compared


def test_what_differs_is_named():
  facts = {"config.seed": 0, "the code of grpo_jax": "a", "the checkpoints": [3, 6]}
  agreement.compare([facts, dict(facts)])
  with pytest.raises(UserError, match=r"process 2 .* the code of grpo_jax is 'b', but .* 'a'"):
    agreement.compare([facts, dict(facts), facts | {"the code of grpo_jax": "b"}])
  with pytest.raises(UserError, match=r"config.new is 1, but in process 0 None"):
    agreement.compare([facts, facts | {"config.new": 1}])
  many = {f"key{i}": i for i in range(9)}
  with pytest.raises(UserError, match=r"key4 is 4, but in process 0 None; and 4 more"):
    agreement.compare([facts, facts | many])


def test_every_part_of_a_run_is_a_fact(tmp_path):
  """Code, problems, prompts, weights, folder and checkpoints: a change of each one shows."""
  config = tiny()
  task = load_task(config)
  (tmp_path / "model").mkdir()
  (tmp_path / "model/weights").write_text("1")
  run = RunFolder(tmp_path / "run")
  (run.checkpoints / "3").mkdir(parents=True)
  run.commands.write_text("begun\n")
  config.model.folder = str(tmp_path / "model")
  before = agreement.facts(config.to_dict(), task, run)

  other = tiny(**{"data.limit": 47, "seed": 1, "eval.limit": 19})
  other.model.folder = config.model.folder
  (tmp_path / "model/weights").write_text("12")
  (run.checkpoints / "6").mkdir()
  run.commands.write_text("begun\nagain\n")
  after = agreement.facts(other.to_dict(), load_task(other), run)
  assert {name for name in before if before[name] != after[name]} == {
    "config.data.limit", "config.seed", "config.eval.limit",
    "the training problems", "the held-out problems", "the prompts",
    "the files of model.folder", "what --workdir holds", "the checkpoints",
  }  # fmt: skip
