"""From the name of a source and a path to a `ProblemSet`.

`path` is a file, or a folder in one of the layouts in which sets are published: a file for each
split, parquet shards as on the Hugging Face hub, one JSON file for each problem as in the first
release of MATH, or a folder prepared by TFDS.
"""

import dataclasses
import difflib
import glob
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator

from grpo_jax.data import formats
from grpo_jax.data.problems import Problem, ProblemSet
from grpo_jax.data.rows import read_rows
from grpo_jax.data.segments import segment_problems
from grpo_jax.errors import UserError

SOURCES = ("gsm8k", "math", "minerva", "olympiadbench", "jsonl", "code", "text")

# Where a folder may keep a split; the first pattern that matches anything gives all its matches.
_LAYOUTS = (
  "{split}.jsonl",
  "{split}.json",
  "{split}.parquet",
  "{split}-*.parquet",
  "data/{split}-*.parquet",
  "main/{split}-*.parquet",  # before the next one: GSM8K has a second wording in `socratic`
  "*/{split}-*.parquet",
  "{split}/*/*.json",
  "aime2025-*.jsonl",  # AIME 2025 is published as its two papers, -I and -II
)
_PREPARED_BY_TFDS = ("dataset_info.json", "*/dataset_info.json")


def load_problems(
  source: str,
  *,
  path: str | pathlib.Path,
  split: str = "train",
  limit: int = 0,
  question_field: str = "",
  answer_field: str = "",
  cache_dir: str | pathlib.Path | None = None,
) -> ProblemSet:
  """Reads a set of problems, in the order of its files.

  Args:
    source: "gsm8k" (solutions that end in `#### N`), "math" (MATH and the sets in its style),
      "minerva" (several ways to write an answer), "olympiadbench" (several answers), "jsonl" (the
      same fields as "math", or others by name), "code" (programs to write, with their tests:
      `formats.program_problem`), or "text" (documents in `text`, each as many problems as
      `segments` makes of it).
    path: a file, or a folder that has the split.
    split: which part of the folder; a file is read whole.
    limit: keep the first this many problems; 0 keeps all.
    question_field, answer_field: the fields to read with source "jsonl", where they have other
      names than `problem`, `question` or `prompt` and `answer` or `solution`.
    cache_dir: where prepared sets are kept; by default in the user's cache folder.

  Raises:
    UserError: no such source, path or split; a broken row (with its place); or no problem at all.
  """
  if source not in SOURCES:
    close = difflib.get_close_matches(source, SOURCES, n=1, cutoff=0.0)[0]
    raise UserError(f"no source {source!r}, did you mean {close!r}? known: {', '.join(SOURCES)}")
  if limit < 0:
    raise UserError(f"limit is {limit}; it is a number of problems, or 0 for all")
  if source != "jsonl" and (question_field or answer_field):
    raise UserError(f"question_field and answer_field are for source 'jsonl', not {source!r}")
  if not path:
    raise UserError(f"source {source!r} needs a path: a file, or a folder with {split}.jsonl")

  location = pathlib.Path(path).expanduser()
  problems = _read(source, location, split, question_field, answer_field, cache_dir)
  chosen = list(itertools.islice(problems, limit or None))
  if not any(problem.answer for problem in chosen):
    raise UserError(f"{location}: there is no problem with an answer in it")
  name = _set_name(location, split)
  return ProblemSet(name, tuple(dataclasses.replace(p, source=name) for p in chosen))


def read_demonstrations(path: str | pathlib.Path) -> ProblemSet:
  """Prompts and how to answer them, from a file of rows (`formats.demonstration`).

  Raises:
    UserError: no such file, a broken row (with its place), or no row at all.
  """
  file = pathlib.Path(path).expanduser()
  problems = tuple(map(formats.demonstration, read_rows(file)))
  if not problems:
    raise UserError(f"{file}: there is no demonstration in it")
  return ProblemSet(file.stem, problems)


def _read(
  source: str,
  location: pathlib.Path,
  split: str,
  question_field: str,
  answer_field: str,
  cache_dir: str | pathlib.Path | None,
) -> Iterable[Problem]:
  if source in ("jsonl", "code", "text"):
    rows = itertools.chain.from_iterable(map(read_rows, _split_files(location, split)))
    if source == "code":
      return map(formats.program_problem, rows)
    if source == "text":
      return itertools.chain.from_iterable(map(segment_problems, map(formats.plain_text, rows)))
    return (formats.math_problem(row, question_field, answer_field) for row in rows)

  from grpo_jax.data import builders  # brings in TFDS, which the other sources do without

  builder = {
    "gsm8k": builders.Gsm8k,
    "math": builders.Math,
    "minerva": builders.Minerva,
    "olympiadbench": builders.OlympiadBench,
  }[source]
  prepared = next(_matches(location, _PREPARED_BY_TFDS), None)
  if prepared:
    return map(builder.read_problem, builders.published_rows(prepared[-1].parent, split))
  cache = pathlib.Path(cache_dir).expanduser() if cache_dir else _default_cache()
  return builders.prepared_problems(builder, _split_files(location, split), cache)


def _split_files(location: pathlib.Path, split: str) -> list[pathlib.Path]:
  if location.is_file():
    return [location]
  if not location.is_dir():
    raise UserError(f"{location}: no such file or folder")
  patterns = [layout.format(split=glob.escape(split)) for layout in _LAYOUTS]
  files = next(_matches(location, patterns), None)
  if files is None:
    there = ", ".join(sorted(entry.name for entry in location.iterdir())[:10]) or "nothing"
    raise UserError(
      f"{location}: nothing for split {split!r}; looked for {', '.join(patterns)}; found {there}"
    )
  return files


def _matches(folder: pathlib.Path, patterns: Iterable[str]) -> Iterator[list[pathlib.Path]]:
  """For each pattern with matches, these in natural order (2.json before 10.json)."""
  for pattern in patterns:
    found = sorted(folder.glob(pattern), key=_natural_key)
    if found:
      yield found


def _natural_key(file: pathlib.Path) -> tuple[str, int, str]:
  return str(file.parent), int(file.stem) if file.stem.isdecimal() else -1, file.name


def _set_name(location: pathlib.Path, split: str) -> str:
  """The folder's name for a folder, and for a file that is only named after its split."""
  location = location.resolve()
  if location.is_file() and location.stem != split:
    return location.stem
  is_whole_set = location.is_dir() and not (location / "dataset_info.json").exists()
  return location.name if is_whole_set else location.parent.name


def _default_cache() -> pathlib.Path:
  root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  return pathlib.Path(root) / "grpo_jax" / "problems"
