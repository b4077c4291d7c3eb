"""The name of a benchmark means one set: the traps of its files are caught by name."""

import json

import pytest

from grpo_jax.data.templates import TEMPLATES
from grpo_jax.errors import UserError
from grpo_jax.evaluation.benchmarks import (
  BENCHMARKS,
  PRESETS,
  choose_decoding,
  load_benchmark,
)
from grpo_jax.verify import VerifierPool, verify


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def load(name, path, limit=0):
  """The benchmark, and what was said about its file."""
  said = []
  problems = load_benchmark(name, path=str(path), split="test", limit=limit, say=said.append)
  return problems, said


def write(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def rows(count, **fields):
  return [{"problem": f"{n}?", "answer": n, **fields} for n in range(count)]


@pytest.mark.parametrize(
  ("name", "count"),
  [("gsm8k", 1319), ("math500", 500), ("aime24", 30), ("amc23", 40), ("minerva", 272),
   ("olympiadbench", 675)],
)  # fmt: skip
def test_published_sets_load_whole_and_every_gold_answers_itself(shared, name, count):
  problems, said = load(name, shared / "data" / name)
  assert len(problems) == count
  assert problems.name == name
  assert said == []
  golds = [problem.answer for problem in problems]
  boxes = [rf"\boxed{{{_one_writing(gold)}}}" for gold in golds]
  with VerifierPool(1, check=BENCHMARKS[name].check) as pool:
    verdicts = pool.verify_all(boxes, golds)
  wrong = [gold for gold, verdict in zip(golds, verdicts, strict=True) if not verdict]
  assert not wrong


def _one_writing(gold: str) -> str:
  from grpo_jax.verify.normalise import gold_alternatives

  return gold_alternatives(gold)[-1].split(" within ")[0]


def test_the_table_names_only_what_exists():
  for name, benchmark in BENCHMARKS.items():
    assert benchmark.template in TEMPLATES, name
    assert benchmark.preset in PRESETS, name


def test_leading_zeros_of_aime_are_no_difference(shared):
  problems, _ = load("aime24", shared / "data" / "aime24")
  zeros = [problem.answer for problem in problems if problem.answer.startswith("0")]
  assert zeros, "the published golds have leading zeros"
  for gold in zeros:
    assert verify(rf"\boxed{{{int(gold)}}}", gold)
    assert verify(rf"\boxed{{{gold}}}", str(int(gold)))


def test_the_two_sets_that_are_called_amc_are_told_apart(tmp_path):
  file = write(tmp_path / "amc.jsonl", rows(83))
  with pytest.raises(UserError, match="83 problems, but amc23 has 40; amc83 has that many"):
    load("amc23", file)
  assert len(load("amc83", file)[0]) == 83


def test_floats_of_pandas_are_the_whole_numbers_they_were(tmp_path):
  file = write(tmp_path / "amc.jsonl", [{"problem": f"{n}?", "answer": 142.0} for n in range(83)])
  problems, _ = load("amc83", file)
  assert problems[0].answer == "142"


def test_a_file_that_repeats_every_problem_is_taken_once(tmp_path):
  """Some publish AIME with each problem 32 times, to average: counting these as problems would make
  the standard error nearly six times too small."""
  file = write(tmp_path / "aime.jsonl", rows(30) * 32)
  problems, said = load("aime25", file)
  assert [problem.answer for problem in problems] == [str(n) for n in range(30)]
  assert "32 times" in said[0]


def test_a_few_doubles_are_left_as_published(tmp_path):
  file = write(tmp_path / "any.jsonl", [*rows(5), *rows(2)])
  problems, said = load("jsonl", file)
  assert len(problems) == 7
  assert said == []


def test_aime_2025_may_come_as_its_two_papers(tmp_path):
  for paper, first in (("I", 0), ("II", 15)):
    write(tmp_path / f"aime2025-{paper}.jsonl",
          [{"question": f"{n}?", "answer": str(n)} for n in range(first, first + 15)])  # fmt: skip
  problems, _ = load("aime25", tmp_path)
  assert [problem.answer for problem in problems] == [str(n) for n in range(30)]
  with pytest.raises(UserError, match="15 problems, but aime25 has 30"):
    load("aime25", tmp_path / "aime2025-I.jsonl")


def test_the_limit_counts_after_the_size(tmp_path):
  file = write(tmp_path / "aime.jsonl", rows(30))
  assert len(load("aime24", file, limit=3)[0]) == 3


def test_minerva_accepts_every_way_to_write_an_answer(shared):
  problems, _ = load("minerva", shared / "data" / "minerva")
  both = next(p.answer for p in problems if "0.01" in p.answer and "0.02" in p.answer)
  for answer in ("0.01", "0.02"):
    assert verify(rf"\boxed{{{answer}}}", both)
  assert not verify(r"\boxed{0.03}", both)


def test_a_problem_without_an_answer_is_said(tmp_path):
  file = write(tmp_path / "any.jsonl", [*rows(2), {"problem": "lost?", "answer": ""}])
  _, said = load("jsonl", file)
  assert "1 problem(s) without an answer" in said[0]


def test_given_values_lie_over_the_preset():
  given = {"samples": 4, "temperature": None}
  chosen = choose_decoding("aper", given, room=10_000, say=print)
  assert (chosen.samples, chosen.temperature, chosen.top_p) == (4, 0.6, 0.8)


def test_a_preset_is_cut_to_the_models_room_but_a_given_limit_is_not():
  said = []
  assert choose_decoding("aper", {}, room=100, say=said.append).max_new_tokens == 100
  assert "At most 100 new tokens, not 8,192" in said[0]
  with pytest.raises(UserError, match=r"--max_new_tokens=101: .* at most 100"):
    choose_decoding("aper", {"max_new_tokens": 101}, room=100, say=print)
