"""From samples in any order to the numbers of a table."""

import math
import random

import pytest

from grpo_jax.evaluation.samples import JudgedSample
from grpo_jax.evaluation.scores import describe, powers_of_two, tally

# Two problems of four samples: verdict, answer, length, end.
TABLE = {
  7: [("right", "4", 10, "stop"), ("right", "\\boxed{4}", 20, "stop"), ("wrong", "5", 30, "stop"),
      ("unparseable", None, 100, "length")],
  9: [("wrong", "\\frac12", 10, "stop"), ("wrong", "\\dfrac{1}{2}", 10, "stop"),
      ("right", "3", 50, "stop"), ("unscored", "x", 10, "nonfinite")],
}  # fmt: skip


def samples() -> list[JudgedSample]:
  return [
    JudgedSample(problem, number, "text", length, finish, verdict, "", answer, "gold")
    for problem, rows in TABLE.items()
    for number, (verdict, answer, length, finish) in enumerate(rows)
  ]


def test_every_number_by_hand():
  metrics = describe(tally(samples(), [7, 9], 4))
  assert metrics["accuracy"] == 3 / 8
  assert metrics["pass_at_1"] == pytest.approx(3 / 8)
  assert metrics["pass_at_2"] == pytest.approx((5 / 6 + 1 / 2) / 2)
  assert metrics["pass_at_4"] == 1
  # The two ways to write one half are one vote and beat the one right answer.
  assert metrics["maj_at_4"] == 1 / 2
  assert metrics["truncated"] == metrics["nonfinite"] == 1 / 8
  assert metrics["unparseable"] == metrics["unscored"] == 1 / 8
  assert metrics["length_mean"] == 30
  assert metrics["length_right"] == pytest.approx(80 / 3)
  assert metrics["length_wrong"] == 32
  rates = [1 / 2, 1 / 4]
  assert metrics["accuracy_stderr"] == pytest.approx(math.dist(rates, [3 / 8] * 2) / math.sqrt(2))


def test_order_changes_nothing_and_others_are_left_out():
  expected = describe(tally(samples(), [7, 9], 4))
  mixed = [*samples(), *[JudgedSample(8, 0, "", 1, "stop", "right", "", "1", "1")]]
  random.Random(0).shuffle(mixed)
  assert describe(tally(mixed, [7, 9], 4)) == expected
  assert tally(mixed, [9, 7], 2).right_NS.tolist() == [[False, False], [True, True]]


def test_a_missing_sample_is_no_wrong_answer():
  with pytest.raises(ValueError, match="1 of 8 samples are missing"):
    tally(samples()[1:], [7, 9], 4)


@pytest.mark.parametrize(
  ("last", "expected"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8])]
)
def test_powers_of_two(last, expected):
  assert powers_of_two(last) == expected
