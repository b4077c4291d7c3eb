"""The numbers of a report, on curves drawn by hand."""

import json
import math

import numpy as np
import pytest

from experiments import outcomes
from experiments.outcomes import Outcome, at_cost, cost_to, holm, mean_to_cost, paired


def curve(right=(0.2, 0.4, 0.8), rollouts=(0, 100, 200)) -> Outcome:
  spent = np.array(rollouts, float)
  cost = {name: spent * factor for factor, name in enumerate(outcomes.COSTS, start=1)}
  right = np.array(right)
  return Outcome(right, right, 4, np.full(len(right), 10.0), cost, {})


@pytest.mark.parametrize(
  ("target", "rollouts"), [(0.2, 0), (0.3, 50), (0.4, 100), (0.7, 175), (0.9, math.inf)]
)
def test_cost_to_a_target_is_read_between_two_exams(target, rollouts):
  assert cost_to(curve(), "rollouts", target) == pytest.approx(rollouts)
  assert cost_to(curve(), "trained tokens", target) == pytest.approx(3 * rollouts)


def test_cost_to_a_target_is_that_of_the_first_time():
  assert cost_to(curve((0.2, 0.6, 0.1, 0.9), (0, 10, 20, 30)), "rollouts", 0.6) == 10


def test_a_run_that_measured_before_its_first_step_is_read_earlier():
  plain, late = curve(), curve(rollouts=(100, 200, 300))
  assert at_cost(plain, plain.accuracy_E, 200) == pytest.approx(0.8)
  assert at_cost(late, late.accuracy_E, 200) == pytest.approx(0.4)
  assert at_cost(late, late.accuracy_E, 50) == pytest.approx(0.2)
  assert mean_to_cost(plain, 200) == pytest.approx((0.3 + 0.6) / 2)
  assert mean_to_cost(late, 200) == pytest.approx((0.2 + 0.3) / 2)


def test_paired_differences_have_students_interval():
  found = paired({0: 1.0, 1: 2.0, 2: 3.0, 9: 100.0}, {0: 0.0, 1: 0.0, 2: 0.0})
  assert (found.mean, found.seeds) == (2.0, 3)
  reach = 4.302653 / math.sqrt(3)  # t of 2 degrees of freedom at 97.5 %
  assert (found.low, found.high) == pytest.approx((2 - reach, 2 + reach))
  assert found.p == pytest.approx(0.0742, abs=1e-4)


def test_pairs_that_never_differ_are_no_difference():
  assert paired({0: 1.0, 1: 1.0}, {0: 1.0, 1: 1.0}) == outcomes.Paired(0, 0, 0, 1, 2)
  assert math.isnan(paired({0: 1.0}, {0: 0.0}).low)


def test_p_values_are_adjusted_for_their_number():
  adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": math.nan})
  assert [adjusted[name] for name in "abc"] == pytest.approx([0.03, 0.06, 0.06])
  assert math.isnan(adjusted["d"])


def test_a_run_is_read_at_its_exams(tmp_path):
  cost = dict.fromkeys(outcomes.COSTS.values(), 7)
  rows = [
    {"step": 0, "eval/accuracy": 0.1, "eval/pass_at_1": 0.1, "eval/pass_at_16": 0.3,
     "eval/length_mean": 5.0},
    {"step": 1, "train/entropy": 0.5},
    {"step": 2, "train/entropy": 0.7, "eval/accuracy": 0.4, "eval/pass_at_1": 0.4,
     "eval/pass_at_16": 0.5, "eval/length_mean": 6.0},
  ]  # fmt: skip
  (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row | cost) + "\n" for row in rows))
  found = outcomes.read_outcome(tmp_path)
  assert found.accuracy_E.tolist() == [0.1, 0.4]
  assert found.pass_E.tolist() == [0.3, 0.5]
  assert found.k == 16
  assert found.reasons["entropy"] == pytest.approx(0.6)
  assert math.isnan(found.reasons["age of replayed"])
  assert found.cost_E["rollouts"].tolist() == [7, 7]
