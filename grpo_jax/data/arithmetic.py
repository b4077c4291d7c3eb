"""A task small enough to learn on a CPU: addition, worked out column by column.

A problem of level k adds two k-digit numbers. Its solution goes from the last column to the first,
one step each: the two digits, the carry they receive, and their sum in two places (the carry handed
on, then the digit that stays); the answer is then copied together from those digits:

    47+38=    7+8=15;4+3+1=08;\\boxed{85}

Every step needs a few tokens of context only, and nothing is longer than it must be, since decoding
is what a run spends its time on. Everything is derived from sha256, never from a library's random
stream, so a set is the same on every machine and for every version.
"""

import collections
import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from grpo_jax.data.problems import Problem, ProblemSet
from grpo_jax.errors import UserError

# The tokens of this task, for `tokenizer.character_tokenizer`. `\boxed` is one token: spelling it
# teaches nothing and would lengthen every rollout by five.
ALPHABET = (*"0123456789+=;{}", "\\boxed")

SPLITS = ("train", "test")
MAX_LEVEL = 8

# One pair of operands in five is kept for the test split.
_TEST_SHARE = 5

# Drawing a question that was drawn before is no failure; this many draws for each existing pair
# without a new question is: all of them are out (a miss has a chance of e^-20 for each question).
_DRAWS_PER_PAIR = 20


def arithmetic_problems(
  *, count: int, levels: tuple[int, ...] | Mapping[int, float], seed: int, split: str
) -> ProblemSet:
  """Draws `count` different addition problems.

  Args:
    count: number of problems. A smaller set is a prefix of a larger one. Low levels are small:
      level 1 has 77 questions for training and 23 for the test, level 2 has 6480 and 1620.
    levels: digits of the operands, 1 to 8; a level named twice comes twice as often, and a mapping
      gives each level its weight. The mixture is exact: after n problems each level has its share
      of n, give or take one.
    seed: another seed draws other questions, from the same split.
    split: "train" or "test". A sum, in either order of its operands, belongs to one of them only,
      whatever the seed, count and levels.

  Raises:
    UserError: a value out of range, or a level with fewer questions than were asked of it.
  """
  weights = _level_weights(levels)
  if split not in SPLITS:
    raise UserError(f"arithmetic: no split {split!r}; there are {' and '.join(SPLITS)}")
  if count < 1:
    raise UserError(f"arithmetic: count is {count}, it must be at least 1")
  streams = {level: _distinct_sums(level, seed, split) for level in weights}
  problems = []
  for level, asked in itertools.islice(_level_sequence(weights), count):
    operands = next(streams[level], None)
    if operands is None:
      raise UserError(
        f"arithmetic: level {level} has only {asked - 1} {split} questions; "
        "lower count, or give more weight to higher levels"
      )
    problems.append(_problem(*operands, level))
  return ProblemSet(name="arithmetic", problems=tuple(problems))


def arithmetic_programs(**choices) -> ProblemSet:
  """The same sums as programs to write: `print 47+38` asks for one that prints 85.

  Args:
    choices: of `arithmetic_problems`.
  """
  problems = arithmetic_problems(**choices).problems
  return ProblemSet("arithmetic_programs", tuple(map(_program, problems)))


def _program(problem: Problem) -> Problem:
  terms = problem.question.removesuffix("=")
  return dataclasses.replace(
    problem,
    question=f"print {terms}\n",
    answer=json.dumps({"pairs": [["", problem.answer]]}),
    solution=f"```python\nprint({terms})\n```",
    source="arithmetic_programs",
    judge="program",
  )


def with_mistakes(problem: Problem, rng: np.random.Generator, rate: float) -> str:
  """A solution of an arithmetic problem in which steps go wrong.

  Each column's two-place sum is replaced, with probability `rate`, by another value from 00 to 19,
  all equally likely; the carry handed on and the boxed answer then follow from what was written. A
  warm start on such texts teaches the form but not the skill.

  Args:
    problem: a problem of `arithmetic_problems`.
    rng: the source of the mistakes; two draws a column are taken from it, whatever the rate.
    rate: probability of a mistake in one column, 0 to 1; at 0 this is `problem.solution`.
  """
  if not 0 <= rate <= 1:
    raise UserError(f"arithmetic: the rate of mistakes is {rate}, it must lie between 0 and 1")
  left, right = (int(operand) for operand in problem.question.removesuffix("=").split("+"))

  def slip(total: int) -> int:
    wrong, distance = rng.random() < rate, 1 + int(rng.random() * 19)
    return (total + distance) % 20 if wrong else total

  return _worked_sum(left, right, slip)[0]


def _problem(left: int, right: int, level: int) -> Problem:
  solution, answer = _worked_sum(left, right)
  return Problem(f"{left}+{right}=", str(answer), solution, str(level), "arithmetic")


def _worked_sum(
  left: int, right: int, slip: Callable[[int], int] = lambda total: total
) -> tuple[str, int]:
  """The solution's text and the number it boxes, each column's sum having gone through `slip`."""
  steps, answer, carry = [], 0, 0
  columns = list(zip(reversed(str(left)), reversed(str(right)), strict=True))
  for place, (a, b) in enumerate(columns):
    total = slip(int(a) + int(b) + carry)
    received = f"+{carry}" if place else ""
    steps.append(f"{a}+{b}{received}={total:02d};")
    carry, digit = divmod(total, 10)
    answer += digit * 10**place
  answer += carry * 10 ** len(columns)
  return "".join(steps) + f"\\boxed{{{answer}}}", answer


def _level_weights(levels: tuple[int, ...] | Mapping[int, float]) -> dict[int, float]:
  weights = dict(levels) if isinstance(levels, Mapping) else dict(collections.Counter(levels))
  if not weights:
    raise UserError("arithmetic: no levels were given; give some of 1 to 8, such as (2,)")
  for level, weight in weights.items():
    if level not in range(1, MAX_LEVEL + 1):
      raise UserError(f"arithmetic: no level {level!r}; a level is a number of digits, 1 to 8")
    if not (math.isfinite(weight) and weight > 0):
      raise UserError(f"arithmetic: level {level} has weight {weight}, it must be above 0")
  return weights


def _level_sequence(weights: Mapping[int, float]) -> Iterator[tuple[int, int]]:
  """Yields (level, how often it came so far) for ever: next is the level most behind its share."""
  total = sum(weights.values())
  given: collections.Counter[int] = collections.Counter()
  for position in itertools.count(1):
    level = max(weights, key=lambda k: weights[k] / total * position - given[k])
    given[level] += 1
    yield level, given[level]


def _distinct_sums(level: int, seed: int, split: str) -> Iterator[tuple[int, int]]:
  """Yields operands of the split, no pair twice, in an order that `seed` decides; then ends."""
  lowest, highest = (0 if level == 1 else 10 ** (level - 1)), 10**level
  span, seen = highest - lowest, set()
  for draw in range(_DRAWS_PER_PAIR * span**2):
    high, low = divmod(_hash64(f"{seed}/{level}/{draw}") % span**2, span)
    operands = lowest + high, lowest + low
    if operands not in seen and _split_of(*operands) == split:
      seen.add(operands)
      yield operands


def _split_of(left: int, right: int) -> str:
  """Both orders of a sum share a split: whoever has learned one of them knows the other."""
  first, second = sorted((left, right))
  return "test" if _hash64(f"split {first}+{second}") % _TEST_SHARE == 0 else "train"


def _hash64(text: str) -> int:
  return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
