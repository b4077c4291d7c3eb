"""A broken file is answered with its name, the line, and what was expected there."""

import json

import pytest

from grpo_jax.data.rows import read_rows
from grpo_jax.errors import UserError

GOOD = '{"problem": "1+1?", "answer": "2"}'


def read(folder, name: str, content: str | bytes):
  file = folder / name
  file.write_bytes(content.encode() if isinstance(content, str) else content)
  return list(read_rows(file))


def fields(rows) -> list[dict]:
  return [dict(row.fields) for row in rows]


def test_lines_keep_their_numbers_past_blank_ones(tmp_path):
  rows = read(tmp_path, "a.jsonl", f"{GOOD}\n\n  \n{GOOD}")
  assert [row.place for row in rows] == [f"{tmp_path}/a.jsonl, line {n}" for n in (1, 4)]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0c", "\\n", "\\r\\n"])
def test_only_a_newline_ends_a_line(tmp_path, separator):
  # Text-mode splitting cuts a row in two at each of these, which JSON allows inside of strings.
  line = '{"problem": "one' + separator + 'two"}'
  rows = read(tmp_path, "a.jsonl", f"{line}\n{line}\n".replace("\x0c", "\\f"))
  assert len(rows) == 2


def test_windows_files_read_alike(tmp_path):
  rows = read(tmp_path, "a.jsonl", b"\xef\xbb\xbf" + f"{GOOD}\r\n{GOOD}\r\n".encode())
  assert fields(rows) == [json.loads(GOOD)] * 2


@pytest.mark.parametrize(
  ("line", "complaint"),
  [
    ('{"problem": "1+1?"', "expected a JSON object in UTF-8"),
    ("question,answer", "expected a JSON object in UTF-8"),
    (b'{"problem": "\xff"}', "expected a JSON object in UTF-8"),
    ("[" * 100_000, "expected a JSON object in UTF-8"),
    ('{"answer": ' + "9" * 5000 + "}", "expected a JSON object in UTF-8"),
    ('["1+1?", "2"]', "not an array"),
    ('"1+1?"', "not a string"),
    ("null", "not null"),
    ("7", "not a number"),
    ('{"answer": "2", "answer": "3"}', "'answer' stands there twice"),
  ],
)
def test_a_broken_line_is_named(tmp_path, line, complaint):
  line = line.encode() if isinstance(line, str) else line
  with pytest.raises(UserError, match=complaint) as refused:
    read(tmp_path, "bad.jsonl", GOOD.encode() + b"\n" + line + b"\n" + GOOD.encode())
  assert f"{tmp_path}/bad.jsonl, line 2: " in str(refused.value)


def test_a_json_file_is_an_array_or_one_object(tmp_path):
  assert fields(read(tmp_path, "a.json", f"[{GOOD}, {GOOD}]")) == [json.loads(GOOD)] * 2
  assert fields(read(tmp_path, "b.json", GOOD)) == [json.loads(GOOD)]


@pytest.mark.parametrize(
  ("content", "complaint"),
  [("7", "an array of them, not a number"), (f"[{GOOD}, 7]", "item 2: "), ("[", "UTF-8")],
)
def test_a_broken_json_file_is_named(tmp_path, content, complaint):
  with pytest.raises(UserError, match=complaint):
    read(tmp_path, "a.json", content)


def test_parquet_rows_are_read_in_order(tmp_path):
  import pyarrow
  import pyarrow.parquet

  table = pyarrow.table({"problem": [f"{n}?" for n in range(5)], "answer": list(range(5))})
  pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=2)
  rows = list(read_rows(tmp_path / "a.parquet"))
  assert fields(rows) == [{"problem": f"{n}?", "answer": n} for n in range(5)]
  assert rows[3].place == f"{tmp_path}/a.parquet, row 4"


def test_a_broken_parquet_file_is_named(tmp_path):
  with pytest.raises(UserError, match=r"a\.parquet: not a readable parquet file"):
    read(tmp_path, "a.parquet", "PAR1 but not really")


def test_other_kinds_of_file_are_refused(tmp_path):
  with pytest.raises(UserError, match=r"cannot read '\.csv' files, only \.jsonl, \.json"):
    read(tmp_path, "a.csv", "problem,answer")


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(UserError, match=r"none\.jsonl: cannot be read"):
    list(read_rows(tmp_path / "none.jsonl"))
