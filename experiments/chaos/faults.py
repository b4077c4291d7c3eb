"""The trainer, in which one thing goes wrong at a chosen step.

  python -m experiments.chaos.faults update@3 --config=... --workdir=...

The package knows nothing of this: functions of it are replaced from outside before it starts. What
dies does so by SIGKILL from within, so that the moment is exact and nothing is cleaned up.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp

from grpo_jax import build, cli, collect, train
from grpo_jax.learner import update
from grpo_jax.replay import buffer
from grpo_jax.run import checkpoint, metrics
from grpo_jax.sampling import sampler
from grpo_jax.verify import pool

_now = 0  # the step under way


def die() -> None:
  os.kill(os.getpid(), signal.SIGKILL)


def instead_of(owner: object, name: str) -> Callable[[Callable], None]:
  """Decorates what is called in place of `owner.name`, with the real one before its arguments."""

  def install(changed: Callable) -> None:
    real = getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: changed(real, *args, **kwargs))

  return install


def dies_after(owner: object, name: str) -> Callable[[int], None]:
  """A fault: death as soon as `owner.name` has returned in the step."""

  def fault(step: int) -> None:
    @instead_of(owner, name)
    def call(real, *args, **kwargs):
      result = real(*args, **kwargs)
      if _now == step:
        die()
      return result

  return fault


def sample(step: int) -> None:
  """When the first rollouts have ended and the others have not."""

  @instead_of(sampler.Sampler, "stream")
  def stream(real, *args, **kwargs) -> Iterator:
    for finished in real(*args, **kwargs):
      if _now == step:
        die()
      yield finished


def replay_add(step: int) -> None:
  @instead_of(buffer.Replay, "__init__")
  def init(real, self, *args, **kwargs) -> None:
    real(self, *args, **kwargs)
    dies_after(self, "add")(step)


def metrics_row(step: int) -> None:
  """Half of the line is written."""

  @instead_of(metrics.MetricsLog, "write")
  def write(real, self, step_of_row, row) -> None:
    if step_of_row == step:
      self._file.write('{"cost/device_sec')
      self._file.flush()
      die()
    real(self, step_of_row, row)


def checkpoint_write(step: int) -> None:
  """Some files of the arrays are there."""

  @instead_of(ocp.AsyncCheckpointer, "save")
  def save(real, self, path, **kwargs) -> None:
    if path.parent.name == f"saving-{step}":
      threading.Thread(target=_die_when_there, args=(path.parent,), daemon=True).start()
    real(self, path, **kwargs)


def before_manifest(step: int) -> None:
  """Orbax has given its folder the final name."""

  @instead_of(checkpoint, "write_manifest")
  def write(real, folder, step_of_folder, *args) -> None:
    if step_of_folder == step:
      die()
    real(folder, step_of_folder, *args)


def in_manifest(step: int) -> None:
  """It is written, and has not yet its name."""

  @instead_of(os, "replace")
  def replace(real, source, target, **kwargs) -> None:
    path = pathlib.Path(target)
    if path.name == "manifest.json" and path.parent.name == f"saving-{step}":
      die()
    real(source, target, **kwargs)


def before_rename(step: int) -> None:
  """All is there but the name of the checkpoint."""

  @instead_of(checkpoint, "write_manifest")
  def write(real, folder, step_of_folder, *args) -> None:
    real(folder, step_of_folder, *args)
    if step_of_folder == step:
      die()


def removal(step: int) -> None:
  """An old checkpoint has lost its first file."""

  @instead_of(shutil, "rmtree")
  def rmtree(real, path, *args, **kwargs) -> None:
    if pathlib.Path(path).name.startswith("deleting-") and _now >= step:
      next(file for file in path.rglob("*") if file.is_file()).unlink()
      die()
    real(path, *args, **kwargs)


def export(step: int) -> None:
  """Some files of the exported model are there."""

  @instead_of(train, "export_folder")
  def export_folder(real, folder, *args) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    threading.Thread(target=_die_when_there, args=(partial,), daemon=True).start()
    real(folder, *args)


def start_folder(step: int) -> None:
  """Half of the start policy's files are copied."""

  @instead_of(shutil, "copytree")
  def copytree(real, source, target, **kwargs) -> None:
    target.mkdir()
    files = sorted(source.iterdir())
    for file in files[: len(files) // 2]:
      shutil.copy(file, target)
    die()


def hang(step: int) -> None:
  """A step that never ends."""

  @instead_of(update.Update, "__call__")
  def call(real, *args, **kwargs):
    if _now == step:
      print("hanging", flush=True)
      threading.Event().wait()
    return real(*args, **kwargs)


def nan_weights(step: int) -> None:
  """An optimizer step that spoils the weights."""

  @instead_of(update.Update, "__init__")
  def init(real, self, *args, **kwargs) -> None:
    real(self, *args, **kwargs)

    @instead_of(self, "_apply")
    def apply(real, *args):
      state, norms = real(*args)
      if _now != step:
        return state, norms
      params = jax.tree.map(lambda leaf: leaf * jnp.nan, state.params)
      return state.replace(params=params), norms | {"train/param_norm": optax.tree.norm(params)}


def nan_rewards(step: int) -> None:
  @instead_of(collect.Collector, "_worth")
  def worth(real, *args):
    worth_R = real(*args)
    if _now == step:
      worth_R[:3] = float("nan")
    return worth_R


# The moments of a step's life, in order, and what else can go wrong.
FAULTS: dict[str, Callable[[int], None]] = {
  "start_folder": start_folder,
  "sample": sample,
  "verify": dies_after(pool.VerifierPool, "submit_all"),
  "update": dies_after(update.Update, "_gradient"),
  "replay_add": replay_add,
  "exam": dies_after(build, "examine"),
  "metrics_row": metrics_row,
  "checkpoint_write": checkpoint_write,
  "before_manifest": before_manifest,
  "in_manifest": in_manifest,
  "before_rename": before_rename,
  "removal": removal,
  "export": export,
  "hang": hang,
  "nan_weights": nan_weights,
  "nan_rewards": nan_rewards,
}


def _die_when_there(folder: pathlib.Path) -> None:
  """Dies as soon as some file is in the folder, however deep."""
  while True:
    with contextlib.suppress(OSError):  # a folder that was renamed while we looked into it
      if any(path.is_file() for path in folder.rglob("*")):
        die()
    time.sleep(0.0005)


def _follow_steps() -> None:
  @instead_of(collect.Collector, "__call__")
  def call(real, *args):
    global _now
    _now = args[-1]
    return real(*args)


def main() -> None:
  name, _, step = sys.argv.pop(1).partition("@")
  _follow_steps()
  FAULTS[name](int(step))
  train.main()


if __name__ == "__main__":
  cli.run(main)
