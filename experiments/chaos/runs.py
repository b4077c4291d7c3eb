"""One tiny run, started as a user starts it; and are two run folders the same run?"""

import dataclasses
import itertools
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import orbax.checkpoint as ocp

from grpo_jax.run.metrics import read_metrics

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLLOUTS = 16  # of a step

# The quickstart with 30,000 parameters: rewards of both kinds from the first step on, replay from
# the second.
SETTINGS = (
  "--config.warm_start.steps=120",
  "--config.warm_start.learning_rate=0.01",
  "--config.model.shape.hidden_size=32",
  "--config.model.shape.intermediate_size=64",
  "--config.model.shape.num_hidden_layers=2",
  "--config.model.shape.head_dim=16",
  "--config.data.levels=(1,)",
  "--config.eval.levels=(1,)",
  "--config.data.limit=48",
  "--config.eval.limit=20",
  "--config.rollout.problems=4",
  "--config.rollout.samples=4",
  "--config.rollout.slots=8",
  "--config.replay.capacity=48",
  "--config.replay.warmup_steps=1",
  "--config.optimizer.microbatch_tokens=64",
  "--config.eval.every=4",
  "--config.checkpoint.every=2",
  "--config.log.rollouts_every=4",
  "--config.log.tensorboard=False",
)
TIMED = ("perf/", "cost/device_seconds")  # what clocks decide


def command(folder: pathlib.Path, steps: int, fault: str = "", *more: str) -> list[str]:
  """fault: of `faults`, such as update@3; "": the trainer as it is."""
  module = ["experiments.chaos.faults", fault] if fault else ["grpo_jax.train"]
  config = f"--config=configs/quickstart.py:method=aper,steps={steps}"
  return [sys.executable, "-m", *module, config, f"--workdir={folder}", *SETTINGS, *more]


def environment() -> dict[str, str]:
  """One CPU device, as on a machine without settings."""
  ours = ("XLA_FLAGS", "JAX_", "NPROC")
  return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | {
    "JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1",
  }  # fmt: skip


def start(command: Sequence[str]) -> subprocess.Popen:
  return subprocess.Popen(
    command, cwd=ROOT, env=environment(), text=True,
    stdout=subprocess.PIPE, stderr=subprocess.PIPE,
  )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Ended:
  """How a process ended; a negative code is the signal that killed it."""

  code: int
  stdout: str
  stderr: str


def run(command: Sequence[str], timeout: float = 600) -> Ended:
  process = start(command)
  try:
    stdout, stderr = process.communicate(timeout=timeout)
  finally:
    process.kill()
  return Ended(process.returncode, stdout, stderr)


def rows(folder: pathlib.Path) -> list[dict]:
  """Of the metrics, without what clocks decide."""
  found = read_metrics(folder / "metrics.jsonl")
  return [{k: v for k, v in row.items() if not k.startswith(TIMED)} for row in found]


def differences(found: pathlib.Path, wanted: pathlib.Path, steps: int) -> list[str]:
  """What of two finished runs is not the same, bit for bit: nothing, if all went well."""
  told = []
  metrics = rows(found)
  if [row["step"] for row in metrics] != list(range(steps + 1)):
    told.append(f"steps in metrics.jsonl: {[row['step'] for row in metrics]}")
  pairs = itertools.zip_longest(metrics, rows(wanted))
  told += [f"row {number} of the metrics" for number, (a, b) in enumerate(pairs) if a != b]
  if metrics[-1]["cost/rollouts"] != ROLLOUTS * steps:
    told.append(f"{metrics[-1]['cost/rollouts']} rollouts counted instead of {ROLLOUTS * steps}")
  one, other = (_arrays(folder, steps) for folder in (found, wanted))
  told += list(one.keys() ^ other.keys())
  told += [name for name in one.keys() & other.keys() if one[name] != other[name]]
  if _state(found, steps) != _state(wanted, steps):
    told.append("state.json")
  for name in ("export/model.safetensors", *(f"rollouts/{p.name}" for p in _texts(wanted))):
    if (found / name).read_bytes() != (wanted / name).read_bytes():
      told.append(name)
  left = [path.name for path in (found / "checkpoints").iterdir() if not path.name.isdecimal()]
  return told + [f"left over: checkpoints/{name}" for name in left if "unusable" not in name]


def _texts(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted((folder / "rollouts").iterdir())


def _arrays(folder: pathlib.Path, step: int) -> dict[str, tuple]:
  """Parameters, optimizer and replay store of a checkpoint, read without a line of ours."""
  arrays = ocp.PyTreeCheckpointer().restore(folder / "checkpoints" / str(step) / "arrays")
  return {
    name: (str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes())
    for name, leaf in arrays.items()
  }


def _state(folder: pathlib.Path, step: int) -> dict:
  """The rest of a checkpoint: ledger, data cursor, costs."""
  state = json.loads((folder / "checkpoints" / str(step) / "state.json").read_text())
  del state["host"]["cost"]["device_seconds"]
  return state
