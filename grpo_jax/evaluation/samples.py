"""What did the model answer, and how was each answer judged? A line of JSON a sample.

The file is also what a killed evaluation goes on from: a line is written when its verdict is there,
and a last line that the kill has torn is dropped.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator

from grpo_jax.errors import UserError
from grpo_jax.run.files import disk_errors


@dataclasses.dataclass(frozen=True)
class JudgedSample:
  """One completion and its verdict."""

  problem: int  # index in the problem set
  sample: int  # which of the problem's samples
  completion: str
  length: int  # tokens of the completion, the end-of-sequence id included
  finish: str  # `stop` for an end token, `length` where cut off, `nonfinite` for NaN logits
  verdict: str  # a value of verify.Outcome
  reason: str  # of the verdict, one line
  answer: str | None  # as it was extracted
  gold: str

  @property
  def place(self) -> tuple[int, int]:
    return self.problem, self.sample


class SampleLog:
  """A context manager that adds lines to a file of samples, after those that are whole.

  Raises UserError if the disk refuses.
  """

  def __init__(self, path: str | os.PathLike):
    self._path = pathlib.Path(path)
    with disk_errors(self._path):
      self._path.touch()
      _drop_torn_line(self._path)
      self._file = self._path.open("a", encoding="utf-8")

  def write(self, sample: JudgedSample) -> None:
    """Adds a line and hands it to the operating system: it outlives this process."""
    line = json.dumps(dataclasses.asdict(sample), ensure_ascii=False)
    with disk_errors(self._path):
      self._file.write(line + "\n")
      self._file.flush()

  def __enter__(self) -> "SampleLog":
    return self

  def __exit__(self, *exception: object) -> None:
    self._file.close()


def read_samples(path: str | os.PathLike) -> Iterator[JudgedSample]:
  """Yields the samples of all complete lines, one at a time: completions may fill gigabytes.

  Raises:
    UserError: the file cannot be read, or a complete line of it is no sample.
  """
  with disk_errors(path), pathlib.Path(path).open("rb") as lines:
    for number, line in enumerate(lines, start=1):
      if line.endswith(b"\n"):
        yield _sample(line, f"{path}, line {number}")


def _sample(line: bytes, place: str) -> JudgedSample:
  try:
    return JudgedSample(**json.loads(line))
  except (ValueError, TypeError) as error:
    raise UserError(f"{place}: not a sample of an evaluation: {line[:60]!r}") from error


def _drop_torn_line(path: pathlib.Path) -> None:
  """Shortens the file to its last line end, looking for it from the back."""
  with path.open("rb+") as file:
    end = file.seek(0, os.SEEK_END)
    while end > 0:
      start = max(0, end - (1 << 20))
      file.seek(start)
      last = file.read(end - start).rfind(b"\n")
      if last >= 0:
        end = start + last + 1
        break
      end = start
    file.truncate(end)
