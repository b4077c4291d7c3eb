"""The synthetic task: right, reproducible anywhere, and never with a test question in training."""

import collections
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_jax.data.arithmetic import (
  ALPHABET,
  arithmetic_problems,
  arithmetic_programs,
  with_mistakes,
)
from grpo_jax.data.problems import Problem
from grpo_jax.data.tokenizer import ASCII, character_tokenizer
from grpo_jax.errors import UserError

STEP = re.compile(r"(\d)\+(\d)(?:\+([01]))?=(\d)(\d);")


def operands(problem: Problem) -> tuple[int, int]:
  left, right = problem.question.removesuffix("=").split("+")
  return int(left), int(right)


def draw(count=200, levels=(2,), seed=0, split="train"):
  return arithmetic_problems(count=count, levels=levels, seed=seed, split=split)


def columns_wrong(problem: Problem, text: str) -> list[bool]:
  """Checks that `text` follows from its own steps; says which columns are wrong, given a carry."""
  left, right = (str(n)[::-1] for n in operands(problem))
  steps, box = text.rsplit("\\boxed", 1)
  found = STEP.findall(steps)
  assert "".join(m[0] for m in STEP.finditer(steps)) == steps
  assert [(a, b) for a, b, *_ in found] == list(zip(left, right, strict=True))
  carry, value, wrong = "", 0, []
  for place, (a, b, received, handed_on, digit) in enumerate(found):
    assert received == carry
    wrong.append(int(handed_on + digit) != int(a) + int(b) + int(received or 0))
    value += int(digit) * 10**place
    carry = handed_on
  assert box == f"{{{value + int(carry) * 10 ** len(found)}}}"
  return wrong


def test_a_problem_reads_as_documented():
  everything = (*draw(count=6480), *draw(count=1620, split="test"))
  assert next(p for p in everything if p.question == "47+38=") == Problem(
    "47+38=", "85", "7+8=15;4+3+1=08;\\boxed{85}", level="2", source="arithmetic"
  )


@pytest.mark.parametrize("level", range(1, 9))
def test_solutions_are_right_step_by_step(level):
  for problem in draw(count=50, levels=(level,)):
    assert problem.answer == str(sum(operands(problem)))
    assert problem.solution.endswith(f"\\boxed{{{problem.answer}}}")
    assert not any(columns_wrong(problem, problem.solution))
    assert [len(str(n)) for n in operands(problem)] == [level, level]
    assert problem.level == str(level)


def test_two_digit_solutions_stay_short():
  # Decoding is what a run on this task spends its time on.
  assert max(len(p.solution) for p in draw(count=6000)) <= 30


def test_the_alphabet_covers_everything_written():
  used = {c for p in draw(levels=(1, 4, 8)) for c in (p.question + p.solution)}
  assert used <= {c for token in ALPHABET for c in token}


def test_the_set_is_the_same_on_every_machine():
  # Saved runs name problems by index: a change of this value ends their resumption.
  problems = draw(count=64, levels={1: 1, 2: 3, 5: 1}, seed=7, split="test")
  assert problems.fingerprint[:16] == "9f407822e50786c3"


def test_a_smaller_set_is_a_prefix_of_a_larger_one():
  levels = {1: 0.02, 2: 0.5, 3: 0.48}
  assert draw(count=1000, levels=levels)[:100] == draw(count=100, levels=levels).problems


def test_seeds_draw_different_questions():
  first, second = ({p.question for p in draw(seed=seed, levels=(4,))} for seed in (0, 1))
  assert len(first & second) < 5


@pytest.mark.parametrize("level", [1, 2, 3])
def test_train_and_test_share_no_sum_in_either_order(level):
  available = {1: 12, 2: 1000, 3: 4000}[level]
  train, test = (
    {tuple(sorted(operands(p))) for seed in range(3) for p in draw(available, (level,), seed, s)}
    for s in ("train", "test")
  )
  assert train and test
  assert not train & test


def test_no_question_comes_twice():
  problems = draw(count=6000)
  assert len({p.question for p in problems}) == 6000


def test_both_splits_together_are_all_sums():
  sizes = {}
  for split in ("train", "test"):
    with pytest.raises(UserError, match=f"level 1 has only .* {split} questions") as refused:
      draw(count=101, levels=(1,), split=split)
    sizes[split] = int(re.search(r"only (\d+)", str(refused.value))[1])
    draw(count=sizes[split], levels=(1,), split=split)
  assert sizes == {"train": 77, "test": 23}


def test_the_mixture_of_levels_is_exact():
  counts = collections.Counter(p.level for p in draw(count=400, levels={2: 1, 3: 2, 8: 1}))
  assert counts == {"2": 100, "3": 200, "8": 100}


@pytest.mark.parametrize(
  ("changed", "complaint"),
  [
    ({"count": 0}, "count is 0"),
    ({"levels": ()}, "no levels"),
    ({"levels": (0,)}, "no level 0"),
    ({"levels": (9,)}, "no level 9"),
    ({"levels": ("2",)}, "no level '2'"),
    ({"levels": {2: 0.0}}, "weight 0.0"),
    ({"levels": {2: float("nan")}}, "weight nan"),
    ({"split": "validation"}, "no split 'validation'"),
  ],
)
def test_bad_values_are_named(changed, complaint):
  with pytest.raises(UserError, match=re.escape(complaint)):
    draw(**changed)


@given(
  level=st.integers(1, 8),
  seed=st.integers(0, 2**32),
  rate=st.floats(0, 1),
)
def test_a_mistake_is_carried_through_to_the_boxed_answer(level, seed, rate):
  problem = draw(count=3, levels=(level,))[seed % 3]
  columns_wrong(problem, with_mistakes(problem, np.random.default_rng(seed), rate))


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_columns_are_wrong_at_the_asked_rate(rate):
  rng = np.random.default_rng(0)
  wrong = [w for p in draw(count=2000) for w in columns_wrong(p, with_mistakes(p, rng, rate))]
  assert np.mean(wrong) == pytest.approx(rate, abs=0.025)  # over 3 standard errors of 4000 draws


def test_sums_as_programs_are_the_same_sums():
  choices = {"count": 20, "levels": (2,), "seed": 0, "split": "test"}
  tokenizer = character_tokenizer(ASCII)
  for program, total in zip(arithmetic_programs(**choices), draw(20, split="test"), strict=True):
    assert program.question == f"print {total.question[:-1]}\n"
    assert program.judge == "program"
    assert json.loads(program.answer) == {"pairs": [["", total.answer]]}
    assert tokenizer.decode(tokenizer.encode(program.solution)) == program.solution
    printed = program.solution.removeprefix("```python\nprint(").removesuffix(")\n```")
    assert sum(map(int, printed.split("+"))) == int(total.answer)


def test_without_mistakes_the_text_is_the_solution():
  rng = np.random.default_rng(0)
  assert all(with_mistakes(p, rng, 0.0) == p.solution for p in draw())


def test_mistakes_are_reproducible():
  problem = draw(levels=(8,))[0]
  first, second = (with_mistakes(problem, np.random.default_rng(3), 0.5) for _ in range(2))
  assert first == second != problem.solution


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_is_a_probability(rate):
  with pytest.raises(UserError, match="between 0 and 1"):
    with_mistakes(draw(count=1)[0], np.random.default_rng(0), rate)
