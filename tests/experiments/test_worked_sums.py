"""The sums are right, nobody learns from what is held out, and the judges read the form."""

import hashlib
import json
import re

import pytest

from experiments import worked_sums
from grpo_jax.data.sources import load_problems, read_demonstrations
from grpo_jax.data.steps import step_problems
from grpo_jax.data.tokenizer import load_tokenizer
from grpo_jax.verify.segments import BEGIN, END, same_words
from grpo_jax.verify.verifier import verify


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  out = tmp_path_factory.mktemp("sums")
  worked_sums.write(out, seed=0)
  return out


def terms_of(question: str) -> tuple[int, ...]:
  return tuple(map(int, re.findall(r"\d+", question.partition("=")[0])))


def test_each_line_adds_the_next_term_and_the_answer_is_the_last_total(files):
  for split, size in (("train", 480), ("test", 128)):
    problems = load_problems("jsonl", path=files, split=split)
    assert len(problems) == size
    for problem in problems:
      first, *further = terms_of(problem.question)
      *lines, last = problem.solution.split("\n")
      for line, term in zip(lines, further, strict=True):
        first += term
        assert line == f"+ {term} = {first} so far"
      assert last == f"\\boxed{{{first}}} it is"
      assert problem.answer == str(first)
      assert verify(problem.solution, problem.answer)


def test_no_sum_is_in_two_sets(files):
  shown = {terms_of(p.question) for p in read_demonstrations(files / "demonstrations.jsonl")}
  training, held_out = (
    {terms_of(p.question) for p in load_problems("jsonl", path=files, split=split)}
    for split in ("train", "test")
  )
  assert len(shown) > 700
  assert not shown & training
  assert not shown & held_out
  assert not training & held_out


def test_demonstrations_are_of_all_three_forms_and_some_totals_are_wrong(files):
  rows = read_demonstrations(files / "demonstrations.jsonl").problems
  whole = [row for row in rows if row.solution.startswith("+ ")]
  steps = [row for row in rows if row.solution.startswith("<think>")]
  pieces = [row for row in rows if row.solution.startswith(BEGIN)]
  assert len(whole) + len(steps) + len(pieces) == len(rows)
  assert len(whole) == 400
  assert min(len(steps), len(pieces)) > 400
  right = sum(
    bool(verify(row.solution, str(sum(terms_of(row.question))))) for row in whole
  ) / len(whole)
  assert 0.55 < right < 0.7, "0.85 to the power of two, three and four lines"


def test_the_tokenizer_spells_everything_that_is_asked(files):
  tokenizer = load_tokenizer(files / "tokenizer")
  whole = load_problems("jsonl", path=files)
  asked = [*whole, *step_problems(whole), *load_problems("text", path=files / "texts")]
  for problem in asked:
    for text in (problem.question, problem.solution):
      assert tokenizer.decode(tokenizer.encode(text)) == text
  assert max(len(tokenizer.encode(problem.question)) for problem in asked) <= 46


@pytest.mark.parametrize(
  ("predicted", "right"),
  [
    ("+ 8 = 33 so far", True),
    ("+ 8 = 33 so far\n+ 2 = 35 so far", True),
    ("+ 8 = 33", True),
    ("+ 8 = 34 so far", False),
    ("+ 7 = 33 so far", False),
    ("+ 8 = 34", False),
    ("+ 8 =", False),
  ],
)
def test_a_sentence_passes_only_with_its_number(predicted, right):
  reference = "+ 8 = 33 so far\n+ 2 = 35 so far\n\\boxed{35} it is"
  assert bool(same_words(f"{BEGIN}{predicted}{END}", reference)) is right


def test_files_are_the_same_on_every_machine_and_others_for_another_seed(files, tmp_path):
  digest = hashlib.sha256((files / "demonstrations.jsonl").read_bytes()).hexdigest()
  assert digest.startswith("e3a1190ac9091254")
  worked_sums.write(tmp_path, seed=1)
  rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
  assert rows[0]["question"] != load_problems("jsonl", path=files)[0].question
  vocabularies = [load_tokenizer(folder / "tokenizer").backend.get_vocab()
                  for folder in (files, tmp_path)]  # fmt: skip
  assert vocabularies[0] == vocabularies[1], "one model fits all seeds"
