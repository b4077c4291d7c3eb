"""Where do the numbers of each step go? One JSON object a line, and TensorBoard beside it.

`metrics.jsonl` is the record: each step stands in it once, whatever was killed and resumed in
between. A metric without a finite value is `null` there and absent from TensorBoard: most often a
mean over nothing (the replayed tokens of a run without replay), else a loss that blew up.
"""

import json
import math
import numbers
import os
import pathlib
from collections.abc import Iterator, Mapping

from grpo_jax.errors import UserError
from grpo_jax.run.files import disk_errors, sync, write_atomically


class MetricsLog:
  """Appends rows to `metrics.jsonl` and to TensorBoard; a context manager."""

  def __init__(
    self, path: str | os.PathLike, tensorboard_dir: str | os.PathLike | None, start_step: int
  ):
    """Opens the log for a run whose next step is `start_step`.

    Rows of that step and later ones come from work that was lost with the last kill, and are
    dropped, as is a torn last line. tensorboard_dir: None for no TensorBoard.
    """
    self._path = pathlib.Path(path)
    self._next_step = start_step
    _drop_from(self._path, start_step)
    with disk_errors(self._path):
      self._file = self._path.open("a", encoding="utf-8")
    self._tensorboard = _tensorboard_writer(tensorboard_dir, start_step)

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes the one row of `step`; scalars of any library will do.

    Flushed to the operating system: the row outlives the process, not a power cut.
    """
    if step < self._next_step:
      raise ValueError(f"metrics of step {step}, but step {self._next_step} is next")
    row = {name: _plain(name, value) for name, value in metrics.items()}
    line = json.dumps({"step": step, **dict(sorted(row.items()))}, allow_nan=False)
    with disk_errors(self._path):
      self._file.write(line + "\n")
      self._file.flush()
    self._next_step = step + 1
    self._write_tensorboard(step, row)

  def _write_tensorboard(self, step: int, row: Mapping[str, float | None]) -> None:
    if self._tensorboard is None:
      return
    for name, value in row.items():
      if value is not None:
        self._tensorboard.add_scalar(name, value, step)

  def sync(self) -> None:
    """From here on the rows outlive a power cut too, as the checkpoint that follows them will."""
    with disk_errors(self._path):
      sync(self._path)
      sync(self._path.parent)

  def close(self) -> None:
    """Closes both files; a second call does nothing."""
    if not self._file.closed:
      self.sync()
      self._file.close()
    if self._tensorboard is not None:
      self._tensorboard.close()

  def __enter__(self) -> "MetricsLog":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()


class SilentLog:
  """What hosts have that do not write."""

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """The first host does."""

  def sync(self) -> None:
    """Nothing was written."""

  def __enter__(self) -> "SilentLog":
    return self

  def __exit__(self, *exception: object) -> None:
    """Nothing is open."""


def read_metrics(path: str | os.PathLike) -> list[dict]:
  """The rows of a `metrics.jsonl`, in order; a torn last line is not a row.

  Safe while a run still writes. Raises UserError if the file cannot be read or if another line is
  not a row.
  """
  try:
    text = pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
  except OSError as error:
    raise UserError(f"cannot read metrics from {path}: {error.strerror}") from error
  return list(_rows(path, text))


def _rows(path: str | os.PathLike, text: str) -> Iterator[dict]:
  """The rows of all complete lines: whatever follows the last newline was cut off by a kill."""
  for number, line in enumerate(text.split("\n")[:-1], start=1):
    row = _parsed(line)
    if row is None:
      raise UserError(
        f'{path}, line {number}: not a row of metrics ({{"step": 12, ...}}): {line[:60]!r}'
      )
    yield row


def _parsed(line: str) -> dict | None:
  try:
    row = json.loads(line)
  except ValueError:
    return None
  return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def _drop_from(path: pathlib.Path, start_step: int) -> None:
  """Removes the rows of `start_step` and later, and a torn last line."""
  if not path.exists():
    return
  kept = [row for row in read_metrics(path) if row["step"] < start_step]
  text = "".join(json.dumps(row) + "\n" for row in kept)
  if text.encode() != path.read_bytes():
    write_atomically(path, text)


def _plain(name: str, value: float) -> int | float | None:
  """`value` as a JSON number, or None where it is not finite."""
  if name == "step":
    raise ValueError("a metric may not be called step: it is the row's own name")
  if isinstance(value, numbers.Integral):
    return int(value)
  value = float(value)
  return value if math.isfinite(value) else None


def _tensorboard_writer(folder: str | os.PathLike | None, start_step: int):
  if folder is None:
    return None
  # Imported here because it takes a second, and longer where PyTorch is installed.
  from tensorboardX import SummaryWriter

  # Event files are named by the second, and a second writer would empty the file of the first.
  suffix = f".{os.getpid()}.{start_step}"
  with disk_errors(folder):
    return SummaryWriter(
      str(folder), purge_step=start_step, flush_secs=10, filename_suffix=suffix
    )
