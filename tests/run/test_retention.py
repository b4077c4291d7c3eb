"""Which checkpoints stay, by their steps and accuracies."""

import pytest

from grpo_jax.run.retention import kept

SCORED = {10: 0.1, 20: 0.7, 30: 0.3, 40: 0.7, 50: None}


@pytest.mark.parametrize(
  ("accuracy_of", "how", "expected"),
  [
    ({}, {"last": 2, "best": 1, "every": 10}, set()),
    (SCORED, {"last": 2, "best": 0, "every": 0}, {40, 50}),
    (SCORED, {"last": 9, "best": 0, "every": 0}, {10, 20, 30, 40, 50}),
    (SCORED, {"last": 0, "best": 1, "every": 0}, {40}),  # of equal ones the newer
    (SCORED, {"last": 1, "best": 2, "every": 0}, {20, 40, 50}),
    (SCORED, {"last": 1, "best": 9, "every": 0}, {10, 20, 30, 40, 50}),
    ({10: None, 20: None}, {"last": 1, "best": 1, "every": 0}, {20}),  # unknown is never best
    (SCORED, {"last": 1, "best": 0, "every": 20}, {20, 40, 50}),
  ],
)
def test_kept(accuracy_of, how, expected):
  assert kept(accuracy_of, **how) == expected
