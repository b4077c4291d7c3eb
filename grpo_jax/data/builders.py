"""TFDS builders over local files: published rows in, checked problems out, prepared once.

Nothing is ever downloaded. Prepared sets lie in a cache under the hash of the files they came
from, so a changed file is prepared anew and never served stale. The array_record format keeps TFDS
from reaching for TensorFlow; without `disable_shuffling` it would reorder examples by the hash of
their keys, and a problem's index would no longer be its line.
"""

import contextlib
import dataclasses
import hashlib
import io
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import tensorflow_datasets as tfds

from grpo_jax.data import formats
from grpo_jax.data.problems import Problem
from grpo_jax.data.rows import Row, read_rows
from grpo_jax.errors import UserError

_SPLIT = "problems"
_TEXT_FIELDS = ("question", "answer", "solution", "level")


class ProblemFiles(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Prepares the problems of some files, in the order of the files and of the rows in them.

  A subclass gives the name of the format and the function that reads one row of it.
  """

  # Part of the path in the cache: raise it when a row would be read differently.
  VERSION = tfds.core.Version("1.0.0")
  read_problem: ClassVar[Callable[[Row], Problem]]

  def __init__(self, files: Sequence[pathlib.Path], data_dir: pathlib.Path):
    self._files = tuple(files)
    super().__init__(data_dir=data_dir, file_format="array_record")

  def _info(self) -> tfds.core.DatasetInfo:
    features = {field: tfds.features.Text() for field in _TEXT_FIELDS}
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    del dl_manager  # there is nothing to download
    return {_SPLIT: self._generate_examples()}

  def _generate_examples(self) -> Iterator[tuple[int, dict[str, str]]]:
    index = -1
    for index, problem in enumerate(map(self.read_problem, _rows(self._files))):
      yield index, {field: getattr(problem, field) or "" for field in _TEXT_FIELDS}
    if index < 0:
      raise UserError(f"{self._files[0]}: there is no problem in it")


class Gsm8k(ProblemFiles, skip_registration=True):
  """Grade-school word problems (arXiv 2110.14168), as in openai/gsm8k."""

  name = "gsm8k"
  read_problem = staticmethod(formats.gsm8k_problem)


class Math(ProblemFiles, skip_registration=True):
  """Competition problems (arXiv 2103.03874) and the many sets published in the same form."""

  name = "math"
  read_problem = staticmethod(formats.math_problem)


class Minerva(ProblemFiles, skip_registration=True):
  """Undergraduate physics, chemistry and more (arXiv 2206.14858, OCW courses)."""

  name = "minerva"
  read_problem = staticmethod(formats.minerva_problem)


class OlympiadBench(ProblemFiles, skip_registration=True):
  """Olympiad problems (arXiv 2402.14008), the open-ended English text-only part in mathematics."""

  name = "olympiadbench"
  read_problem = staticmethod(formats.olympiadbench_problem)


def prepared_problems(
  builder: type[ProblemFiles], files: Sequence[pathlib.Path], cache_dir: pathlib.Path
) -> list[Problem]:
  """The problems of the files, prepared by the builder or read back from the cache.

  Several processes may prepare the same set at once: the first to finish wins, all read the same.

  Raises:
    UserError: a broken row, no rows, or a cache folder that cannot be written.
  """
  folder = cache_dir / _content_key(files)
  try:
    prepared = builder(files, folder)
    _prepare(prepared)
  except OSError as error:
    prepared = builder(files, folder)
    if not prepared.data_path.exists():  # else another process was faster, with the same content
      raise UserError(f"{folder}: cannot keep prepared data here: {error}") from error
  return [_problem(example) for example in prepared.as_data_source(split=_SPLIT)]


def published_rows(folder: pathlib.Path, split: str) -> Iterator[Row]:
  """Rows of a set that TFDS itself has prepared, in its stored order.

  Args:
    folder: the version's folder, the one with `dataset_info.json`.
    split: a split of it; TFDS slices such as "train[:10%]" are understood.
  """
  try:
    examples = tfds.builder_from_directory(folder).as_data_source(split=split)
  except Exception as error:  # TFDS has no common type for what can be wrong here
    reason = " ".join(str(error).split())[:200]
    raise UserError(
      f"{folder}: split {split!r} cannot be read ({reason}); without TensorFlow a set must have "
      "been prepared with file_format='array_record'"
    ) from error
  for number, example in enumerate(examples, start=1):
    fields = {
      key: value.decode() if isinstance(value, bytes) else value for key, value in example.items()
    }
    yield Row(fields, f"{folder}, {split} example {number}")


def _rows(files: Sequence[pathlib.Path]) -> Iterator[Row]:
  for file in files:
    yield from read_rows(file)


def _prepare(builder: ProblemFiles) -> None:
  tfds.disable_progress_bar()
  with contextlib.redirect_stdout(io.StringIO()):  # two lines for seconds of work say nothing new
    builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )


def _content_key(files: Sequence[pathlib.Path]) -> str:
  """Of every file's suffix, which decides how it is read, and content; not of names or times."""
  digest = hashlib.sha256()
  for file in files:
    try:
      content = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
      raise UserError(f"{file}: cannot be read: {error}") from error
    digest.update(f"{file.suffix} {content}\n".encode())
  return digest.hexdigest()[:32]


def _problem(example: dict[str, bytes]) -> Problem:
  fields = {field: example[field].decode() for field in _TEXT_FIELDS}
  optional = {field: fields[field] or None for field in ("solution", "level")}
  return dataclasses.replace(Problem(**fields), **optional)
