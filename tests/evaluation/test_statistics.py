"""Formulas against numbers worked out by hand."""

import math

import numpy as np
import pytest

from grpo_jax.evaluation.statistics import (
  AesConstants,
  accuracy_efficiency_score,
  majority_accuracy,
  paired_bootstrap,
  pass_at_k,
  standard_errors,
)


def rows(*texts: str) -> np.ndarray:
  """`rows("110", "000")`: problems x samples, 1 where right."""
  return np.array([[letter == "1" for letter in text] for text in texts])


@pytest.mark.parametrize(
  ("right", "k", "expected"),
  [
    (rows("1000"), 1, 1 / 4),
    (rows("1000"), 2, 1 / 2),  # 1 - C(3,2)/C(4,2) = 1 - 3/6; the biased 1-(1-p)^2 would be 0.4375
    (rows("1100"), 2, 5 / 6),
    (rows("1100"), 3, 1),  # three answers cannot all be wrong
    (rows("1110", "0000"), 2, 1 / 2),
    (rows("0000", "0000"), 4, 0),
    (rows("1000"), 4, 1),
  ],
)
def test_pass_at_k_is_unbiased(right, k, expected):
  assert pass_at_k(right, k) == pytest.approx(expected)


@pytest.mark.parametrize("k", [0, 5])
def test_pass_at_k_needs_k_samples(k):
  with pytest.raises(ValueError, match=f"pass@{k}"):
    pass_at_k(rows("1000"), k)


def test_pass_at_k_of_many_samples_does_not_overflow():
  right = np.zeros((1, 1024), bool)
  right[0, :3] = True
  expected = 1 - math.prod((1024 - 512 - i) / (1024 - i) for i in range(3))
  assert pass_at_k(right, 512) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
  ("right", "votes", "expected"),
  [
    (rows("110"), [["4", "4", "5"]], 1),
    (rows("100"), [["4", "5", "5"]], 0),
    (rows("100"), [["4", "5", "6"]], 1 / 3),  # a tie of three, one of them right
    (rows("11000"), [["4", "4.0", "5", "5", "6"]], 1 / 2),  # right answers are one vote
    (rows("100"), [["4", None, None]], 1),  # no answer is no vote
    (rows("000"), [[None, None, None]], 0),
    (rows("10", "00"), [["4", "4"], ["5", "5"]], 1 / 4),
  ],
)
def test_majority(right, votes, expected):
  """In the last row one text is right once and wrong once, as after a check that timed out: these
  stay two answers."""
  assert majority_accuracy(right, votes) == pytest.approx(expected)


def test_standard_errors_by_hand():
  """Three problems, two samples: rates 1, 1/2, 0. Total: var 1/4 over 3. Within: only the second,
  (1/2 * 1/2) / (2-1) = 1/4, mean 1/12, over 3."""
  errors = standard_errors(rows("11", "10", "00"))
  assert errors.total**2 == pytest.approx(1 / 12)
  assert errors.of_samples**2 == pytest.approx(1 / 36)
  assert errors.of_problems**2 == pytest.approx(1 / 12 - 1 / 36)


def test_equal_problems_leave_only_the_error_of_samples():
  """A coin for every problem: all spread is luck, and a negative part is none."""
  errors = standard_errors(rows("10", "01", "10", "01"))
  assert errors.total == 0
  assert errors.of_problems == 0
  assert errors.of_samples**2 == pytest.approx(1 / 16)


def test_sure_problems_leave_only_the_error_of_problems():
  errors = standard_errors(rows("11", "00", "11", "00"))
  assert errors.of_samples == 0
  assert errors.of_problems == errors.total == pytest.approx(math.sqrt(1 / 12))


def test_standard_errors_are_what_repeated_evaluations_show():
  """2000 evaluations of 40 problems x 8 samples, with problems drawn anew and with them kept."""
  rng = np.random.default_rng(0)
  chance_N = rng.beta(0.5, 0.5, 40)
  kept = [(rng.random((40, 8)) < chance_N[:, None]) for _ in range(2000)]
  anew = [(rng.random((40, 8)) < rng.beta(0.5, 0.5, (40, 1))) for _ in range(2000)]
  of_samples = np.sqrt(np.mean([standard_errors(right).of_samples ** 2 for right in kept]))
  total = np.sqrt(np.mean([standard_errors(right).total ** 2 for right in anew]))
  assert of_samples == pytest.approx(np.std([right.mean() for right in kept]), rel=0.05)
  assert total == pytest.approx(np.std([right.mean() for right in anew]), rel=0.05)


@pytest.mark.parametrize("right", [rows("1", "0"), rows("10")])
def test_what_cannot_be_told_is_nan(right):
  errors = standard_errors(right)
  assert math.isnan(errors.of_problems)
  assert math.isnan(errors.of_samples) == (right.shape[1] == 1)
  assert math.isnan(errors.total) == (right.shape[0] == 1)


@pytest.mark.parametrize(
  ("accuracy", "length", "expected"),
  [
    (0.5, 1000, 0),
    (0.5, 500, 0.5),
    (0.6, 1000, 3 * 0.2),
    (0.4, 1000, -5 * 0.2),
    (0.4, 500, 0.5 - 1),
  ],
)
def test_aes_by_hand(accuracy, length, expected):
  score = accuracy_efficiency_score(
    accuracy=accuracy, length=length, reference_accuracy=0.5, reference_length=1000,
    constants=AesConstants(),
  )  # fmt: skip
  assert score == pytest.approx(expected)


def test_aes_of_the_paper_of_replay():
  """arXiv 2606.04560, 1.7B: accuracy 15.75 to 16.58, length 2174 to 1938, printed as .266."""
  score = accuracy_efficiency_score(
    accuracy=16.58, length=1938, reference_accuracy=15.75, reference_length=2174,
    constants=AesConstants(),
  )  # fmt: skip
  assert score == pytest.approx(0.266, abs=0.002)


def test_aes_against_a_reference_that_is_never_right_is_no_number():
  score = accuracy_efficiency_score(
    accuracy=0.1, length=10, reference_accuracy=0, reference_length=10, constants=AesConstants()
  )
  assert math.isnan(score)


def test_the_bootstrap_pairs_problems():
  """Both models differ from problem to problem far more than from each other: B is 0.1 better on
  every one, which is sure, although each mean is uncertain by 0.05."""
  first = np.tile([0.0, 0.9], 50)
  difference = paired_bootstrap(first, first + 0.1, seed=0)
  assert difference.mean == difference.low == difference.high == pytest.approx(0.1)
  assert difference.not_better == 0


def test_the_bootstrap_interval_is_the_normal_one_for_many_problems():
  rng = np.random.default_rng(0)
  change = rng.normal(0.02, 0.2, 400)
  difference = paired_bootstrap(np.zeros(400), change, seed=0)
  error = change.std() / 20
  assert difference.low == pytest.approx(change.mean() - 1.96 * error, abs=0.1 * error)
  assert difference.high == pytest.approx(change.mean() + 1.96 * error, abs=0.1 * error)
  assert difference == paired_bootstrap(np.zeros(400), change, seed=0)
  assert difference != paired_bootstrap(np.zeros(400), change, seed=1)


def test_equal_models_are_not_better():
  same = np.array([0.1, 0.7, 0.3])
  assert paired_bootstrap(same, same, seed=0).not_better == 1
