"""Published sets load as published: every problem, in file order, without TensorFlow or network."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from grpo_jax.data.sources import load_problems
from grpo_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]


def write_jsonl(file: pathlib.Path, rows: list[dict]) -> pathlib.Path:
  file.parent.mkdir(parents=True, exist_ok=True)
  file.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return file


def write_parquet(file: pathlib.Path, rows: list[dict]) -> pathlib.Path:
  import pyarrow
  import pyarrow.parquet

  file.parent.mkdir(parents=True, exist_ok=True)
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
  return file


def math_rows(*numbers: int) -> list[dict]:
  return [{"problem": f"{n}?", "solution": f"\\boxed{{{n}}}", "level": "Level 1"} for n in numbers]


def answers(problems) -> list[str]:
  return [problem.answer for problem in problems]


@pytest.fixture
def load(tmp_path):
  def load_with_own_cache(source, path, **settings):
    return load_problems(source, path=path, cache_dir=tmp_path / "cache", **settings)

  return load_with_own_cache


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
  return tmp_path / "some_set"


@pytest.mark.parametrize(
  ("source", "name", "split", "count"),
  [
    ("gsm8k", "gsm8k", "train", 7473),
    ("gsm8k", "gsm8k", "test", 1319),
    ("math", "math", "train", 7474),
    ("math", "math500", "test", 500),
    ("math", "aime", "train", 975),
    ("math", "aime24", "test", 30),
    ("math", "amc23", "test", 40),
    ("math", "minerva", "test", 272),
    ("math", "olympiadbench", "test", 675),
    ("math", "mawps", "test", 2065),
  ],
)
def test_published_sets_load_completely_and_in_order(shared, load, source, name, split, count):
  file = shared / "data" / name / f"{split}.jsonl"
  published = [json.loads(line) for line in file.read_bytes().splitlines()]
  problems = load(source, file.parent, split=split)
  assert len(problems) == len(published) == count
  assert problems.name == name
  assert [p.question for p in problems] == [r.get("problem", r.get("question")) for r in published]
  empty = 2 if name == "math" else 0
  assert sum(not p.answer for p in problems) == empty
  assert not any("####" in p.answer or "\\boxed" in p.answer for p in problems)
  again = load(source, file.parent, split=split)
  assert again.fingerprint == problems.fingerprint


def test_gsm8k_keeps_a_solution_to_learn_from(shared, load):
  problem = load("gsm8k", shared / "data" / "gsm8k", limit=1)[0]
  assert problem.answer == "72"
  assert problem.solution.endswith("in April and May.\n#### 72")
  assert "<<" not in problem.solution
  assert problem.source == "gsm8k"


@pytest.mark.parametrize(
  "layout",
  [
    {"train.jsonl": [1, 2, 3]},
    {"train.json": [1, 2, 3]},
    {"train.parquet": [1, 2, 3]},
    {"train-00000-of-00002.parquet": [1, 2], "train-00001-of-00002.parquet": [3]},
    {"data/train-00000-of-00001.parquet": [1, 2, 3], "data/test-00000-of-00001.parquet": [9]},
    {"main/train-00000-of-00001.parquet": [1, 2, 3], "socratic/train-0.parquet": [9]},
    {"algebra/train-00000-of-00001.parquet": [1, 2], "geometry/train-00000-of-00001.parquet": [3]},
    {"train/algebra/2.json": [1], "train/algebra/10.json": [2], "train/geometry/1.json": [3]},
  ],
)
def test_every_published_layout(load, folder, layout):
  for name, numbers in layout.items():
    file, rows = folder / name, math_rows(*numbers)
    if file.suffix == ".parquet":
      write_parquet(file, rows)
    else:
      write_jsonl(file, rows)
      if name == "train.json":
        file.write_text(json.dumps(rows))
  for source in ("math", "jsonl"):
    problems = load(source, folder)
    assert answers(problems) == ["1", "2", "3"]
    assert problems.name == problems[0].source == "some_set"
    assert problems[0].level == "1"


def test_a_file_is_read_whole_and_named_after_itself(load, folder):
  file = write_jsonl(folder / "deepscaler.jsonl", math_rows(1, 2))
  assert load("math", file).name == "deepscaler"
  assert load("math", file, split="test").fingerprint == load("jsonl", file).fingerprint


def test_a_set_prepared_by_tfds_can_be_read(shared, load, folder):
  import tensorflow_datasets as tfds
  from tensorflow_datasets.text.gsm8k import gsm8k

  class Local(gsm8k.Gsm8k, skip_registration=True):
    name = "gsm8k"

    def _split_generators(self, dl_manager):
      return {"test": self._generate_examples(shared / "data" / "gsm8k" / "test.jsonl")}

  tfds.disable_progress_bar()
  Local(data_dir=folder, file_format="array_record").download_and_prepare()
  problems = load("gsm8k", folder / "gsm8k", split="test")
  published = load("gsm8k", shared / "data" / "gsm8k", split="test")
  assert sorted(answers(problems)) == sorted(answers(published))
  assert {p.question for p in problems} == {p.question for p in published}
  assert problems.name == "gsm8k"
  with pytest.raises(UserError, match="split 'train' cannot be read"):
    load("gsm8k", folder / "gsm8k")


def test_a_changed_file_is_not_served_from_the_cache(load, folder):
  file = write_jsonl(folder / "train.jsonl", math_rows(1, 2))
  before = file.stat()
  first = load("math", folder)
  write_jsonl(file, math_rows(1, 3))
  os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
  second = load("math", folder)
  assert (answers(first), answers(second)) == (["1", "2"], ["1", "3"])
  assert first.fingerprint != second.fingerprint


def test_one_content_read_as_two_formats_is_kept_apart(load, folder):
  file = write_jsonl(folder / "a.jsonl", [{"question": "?", "answer": "so 5\n#### 5"}])
  assert answers(load("gsm8k", file)) == ["5"]
  with pytest.raises(UserError, match="read this set as source 'gsm8k'"):
    load("math", file)


def test_limit_keeps_the_first(load, folder):
  write_jsonl(folder / "train.jsonl", math_rows(*range(10)))
  assert answers(load("math", folder, limit=3)) == ["0", "1", "2"]
  assert len(load("math", folder, limit=0)) == 10


@pytest.mark.parametrize("source", ["math", "gsm8k", "jsonl"])
def test_a_broken_line_is_named_and_leaves_nothing_in_the_cache(load, folder, tmp_path, source):
  row = {"question": "?", "answer": "#### 1"} if source == "gsm8k" else math_rows(1)[0]
  file = write_jsonl(folder / "train.jsonl", [row, {"question": "??"}, row])
  with pytest.raises(UserError, match=r"train\.jsonl, line 2: no field 'answer'") as refused:
    load(source, folder)
  assert str(refused.value).startswith(str(file))
  assert not list(tmp_path.glob("cache/**/*.array_record*"))


@pytest.mark.parametrize("source", ["math", "gsm8k", "jsonl"])
@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_set_is_refused(load, folder, source, content):
  write_jsonl(folder / "train.jsonl", []).write_text(content)
  with pytest.raises(UserError, match="there is no problem"):
    load(source, folder)


def test_answers_that_are_all_empty_are_refused(load, folder):
  write_jsonl(folder / "train.jsonl", [{"problem": "?", "answer": ""}] * 2)
  with pytest.raises(UserError, match="no problem with an answer"):
    load("jsonl", folder)


@pytest.mark.parametrize(
  ("settings", "complaint"),
  [
    ({"source": "gms8k"}, "no source 'gms8k', did you mean 'gsm8k'"),
    ({"source": "MATH"}, "no source 'MATH', did you mean"),
    ({"limit": -1}, "limit is -1"),
    ({"path": ""}, "needs a path"),
    ({"path": "nowhere"}, "nowhere: no such file or folder"),
    ({"split": "dev"}, "nothing for split 'dev'; looked for dev.jsonl"),
    ({"split": "*"}, "nothing for split '*'"),
    ({"answer_field": "label"}, "are for source 'jsonl', not 'math'"),
  ],
)
def test_bad_settings_are_named(load, folder, settings, complaint):
  write_jsonl(folder / "train.jsonl", math_rows(1))
  with pytest.raises(UserError) as refused:
    load(**{"source": "math", "path": folder, **settings})
  assert complaint in str(refused.value)


def test_a_cache_that_cannot_be_written_is_named(folder, tmp_path):
  write_jsonl(folder / "train.jsonl", math_rows(1))
  blocked = tmp_path / "file"
  blocked.write_text("in the way")
  with pytest.raises(UserError, match=r"file/.*: cannot keep prepared data here"):
    load_problems("math", path=folder, cache_dir=blocked)


def run_python(code: str, **environment: str) -> str:
  result = subprocess.run(
    [sys.executable, "-c", code],
    cwd=ROOT,
    env={"PATH": "", "PYTHONPATH": str(ROOT), **environment},
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  return result.stdout.strip()


def test_preparing_needs_neither_tensorflow_nor_network(folder, tmp_path):
  # TFDS turns to TensorFlow for its default file format, and to the network for known names.
  write_jsonl(folder / "train.jsonl", [{"question": f"{n}?", "answer": "#### 1"} for n in range(9)])
  code = f"""
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("network")
socket.socket.connect = socket.getaddrinfo = refuse
from grpo_jax.data.sources import load_problems
for _ in range(2):
  print([p.question for p in load_problems("gsm8k", path={str(folder)!r})])
print(sorted({{"tensorflow", "torch", "jax"}} & set(sys.modules)))
"""
  lines = run_python(code, HOME=str(tmp_path)).splitlines()
  assert lines == [str([f"{n}?" for n in range(9)])] * 2 + ["[]"]
  assert list(tmp_path.glob(".cache/grpo_jax/problems/*/gsm8k/1.0.0/dataset_info.json"))


def test_processes_may_prepare_one_set_at_the_same_time(folder, tmp_path):
  write_jsonl(folder / "train.jsonl", math_rows(*range(500)))
  code = (
    "from grpo_jax.data.sources import load_problems;"
    f"print(load_problems('math', path={str(folder)!r}).fingerprint)"
  )
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", code],
      cwd=ROOT,
      env={"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for _ in range(4)
  ]
  outputs = [process.communicate(timeout=120) for process in processes]
  assert [process.returncode for process in processes] == [0] * 4, outputs
  assert len({out for out, _ in outputs}) == 1


def test_importing_the_package_stays_light():
  # Entry points print their help in the time that one of these takes to import.
  code = """
import sys
import grpo_jax.data.arithmetic, grpo_jax.data.prompts, grpo_jax.data.sources
heavy = {"jax", "pyarrow", "tensorflow_datasets", "tensorflow", "tokenizers", "transformers"}
print(sorted(heavy & set(sys.modules)))
"""
  assert run_python(code) == "[]"
