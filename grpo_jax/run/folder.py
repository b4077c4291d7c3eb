"""Where does a run live, and who may write there?

One folder holds all of a run. It belongs to one live process at a time (`lock`) and to one
configuration for life (`config.json`): two writers, or a resume under other settings, would leave
results that nobody could explain.
"""

import contextlib
import dataclasses
import datetime
import fcntl
import os
import pathlib
import socket
from collections.abc import Mapping
from typing import IO, Any

from grpo_jax import hosts
from grpo_jax.errors import UserError
from grpo_jax.run.config_record import fingerprint, settle_config
from grpo_jax.run.files import disk_errors


@dataclasses.dataclass(frozen=True)
class RunFolder:
  """The paths of a run. `open_run` gives one that is locked until it is closed or we die.

  Hosts other than the first, and readers, have no lock.
  """

  path: pathlib.Path
  lock: IO[str] | None = None
  identity: str | None = None  # of the config: what a checkpoint must have to be this run's

  @property
  def config(self) -> pathlib.Path:
    """The resolved configuration, `config.json`."""
    return self.path / "config.json"

  @property
  def method(self) -> pathlib.Path:
    """What the configuration changes of plain GRPO, `method.json`."""
    return self.path / "method.json"

  @property
  def commands(self) -> pathlib.Path:
    """One line for each start of this run: when, where, and the command."""
    return self.path / "commands.txt"

  @property
  def metrics(self) -> pathlib.Path:
    """One JSON object a step, `metrics.jsonl`."""
    return self.path / "metrics.jsonl"

  @property
  def tensorboard(self) -> pathlib.Path:
    """Folder of TensorBoard's event files."""
    return self.path / "tensorboard"

  @property
  def curves(self) -> pathlib.Path:
    """The picture of the run, `curves.png`."""
    return self.path / "curves.png"

  @property
  def rollouts(self) -> pathlib.Path:
    """Folder of readable rollouts, one text file for each logged step."""
    return self.path / "rollouts"

  @property
  def checkpoints(self) -> pathlib.Path:
    """Folder of checkpoints."""
    return self.path / "checkpoints"

  @property
  def start(self) -> pathlib.Path:
    """The model folder of the start policy, where the run made it itself."""
    return self.path / "start"

  @property
  def export(self) -> pathlib.Path:
    """Folder of the exported model."""
    return self.path / "export"

  def stacks(self, process: int) -> pathlib.Path:
    """What all threads of a process were doing when the run hung."""
    return self.path / f"stacks-{process}.txt"

  def close(self) -> None:
    """Lets go of the lock; a second call does nothing."""
    if self.lock is not None:
      self.lock.close()

  def __enter__(self) -> "RunFolder":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()


def open_run(
  path: str | os.PathLike,
  config: Mapping[str, Any],
  may_change: frozenset[str] = frozenset(),
  command: str = "",
) -> RunFolder:
  """Makes or reopens the folder of a run and holds its lock. With several hosts all call it, and
  the first one does that before the others return.

  config: the resolved configuration, nested mappings of JSON values.
  may_change: dotted keys (`steps`) or sections (`log`) that may differ from the last start.
  command: what the user typed, noted in `commands.txt`.

  Raises UserError if the path cannot be written, if another live process holds the folder, or if
  the folder was started with another configuration.
  """
  if "://" in str(path):
    raise UserError(f"--workdir {path}: not a local path; mount the bucket and name the mount")
  identity = fingerprint(config, may_change)
  run = RunFolder(pathlib.Path(path).expanduser().absolute(), identity=identity)
  if not hosts.is_first():
    hosts.wait_for_all()
    return run
  with disk_errors(run.path):
    run.path.mkdir(parents=True, exist_ok=True)
  lock = _take_lock(run.path / "lock")
  with contextlib.ExitStack() as on_error:
    on_error.callback(lock.close)
    settle_config(run.config, config, may_change)
    _note_command(run.commands, command)
    hosts.wait_for_all()
    on_error.pop_all()
  return dataclasses.replace(run, lock=lock)


def _now() -> str:
  return datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")


def _take_lock(path: pathlib.Path) -> IO[str]:
  """The open lock file. The operating system frees the lock when its holder dies, however."""
  with disk_errors(path):
    file = path.open("a+", encoding="utf-8")
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    file.seek(0)
    holder = file.readline().strip() or "another process"
    file.close()
    raise UserError(
      f"{path.parent} is in use by {holder}; stop that process or choose another --workdir"
    ) from None
  except OSError as error:
    file.close()
    raise UserError(
      f"{path.parent}: its file system has no locks ({error.strerror}); choose a local --workdir"
    ) from error
  with disk_errors(path):
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}, started {_now()}\n")
    file.flush()
  return file


def _note_command(path: pathlib.Path, command: str) -> None:
  line = " ".join(command.split("\n"))
  with disk_errors(path), path.open("a", encoding="utf-8") as file:
    file.write(f"{_now()}  process {os.getpid()} on {socket.gethostname()}  {line}\n")
