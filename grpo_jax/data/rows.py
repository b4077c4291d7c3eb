"""What stands in a file of problems, row by row, and where exactly?

Reads the containers in which sets are published: JSONL, JSON (an array, or one object a file) and
parquet. Each row keeps its place, because an error without file and line number costs its reader
more time than the whole run of this module.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from grpo_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Row:
  """One record as published, and its place in words ("data/train.jsonl, line 7")."""

  fields: Mapping[str, Any]
  place: str


def read_rows(file: pathlib.Path) -> Iterator[Row]:
  """Yields the rows of a .jsonl, .json or .parquet file in order.

  Raises:
    UserError: the file cannot be read, or a row is not an object with distinct string keys.
  """
  reader = _READERS.get(file.suffix)
  if reader is None:
    raise UserError(f"{file}: cannot read {file.suffix!r} files, only {', '.join(_READERS)}")
  try:
    yield from reader(file)
  except OSError as error:
    raise UserError(f"{file}: cannot be read: {error}") from error


def _read_jsonl(file: pathlib.Path) -> Iterator[Row]:
  with file.open("rb") as lines:  # as bytes: text mode would also break lines inside of strings
    for number, line in enumerate(lines, start=1):
      if line.strip():
        place = f"{file}, line {number}"
        yield Row(_object(_parse(line, place), place), place)


def _read_json(file: pathlib.Path) -> Iterator[Row]:
  content = _parse(file.read_bytes(), str(file))
  if isinstance(content, dict):
    yield Row(content, str(file))
    return
  if not isinstance(content, list):
    raise UserError(f"{file}: expected a JSON object or an array of them, not {_kind(content)}")
  for number, item in enumerate(content, start=1):
    place = f"{file}, item {number}"
    yield Row(_object(item, place), place)


def _read_parquet(file: pathlib.Path) -> Iterator[Row]:
  import pyarrow  # most sets are JSONL and can do without
  import pyarrow.parquet

  try:
    with pyarrow.parquet.ParquetFile(file) as table:
      rows = (row for batch in table.iter_batches() for row in batch.to_pylist())
      for number, row in enumerate(rows, start=1):
        yield Row(row, f"{file}, row {number}")
  except pyarrow.ArrowException as error:
    raise UserError(f"{file}: not a readable parquet file: {error}") from error


_READERS: dict[str, Callable[[pathlib.Path], Iterator[Row]]] = {
  ".jsonl": _read_jsonl,
  ".json": _read_json,
  ".parquet": _read_parquet,
}


def _parse(text: bytes, place: str) -> Any:
  try:
    return json.loads(text.decode("utf-8-sig"), object_pairs_hook=_without_duplicates)
  except (ValueError, RecursionError) as error:
    raise UserError(f"{place}: expected a JSON object in UTF-8: {error}") from error


def _object(value: Any, place: str) -> dict[str, Any]:
  if not isinstance(value, dict):
    raise UserError(f"{place}: expected a JSON object with named fields, not {_kind(value)}")
  return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """Of two fields with one name `json` would keep the last, silently."""
  fields = dict(pairs)
  if len(fields) < len(pairs):
    names = [name for name, _ in pairs]
    raise ValueError(f"field {next(n for n in names if names.count(n) > 1)!r} stands there twice")
  return fields


def _kind(value: Any) -> str:
  names = {list: "an array", str: "a string", type(None): "null", bool: "a truth value"}
  return names.get(type(value), "a number")
