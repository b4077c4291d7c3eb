"""Hand-drawn groups: which rollouts stay."""

import numpy as np
import pytest

from grpo_jax.methods.keep import KEEP

REWARD = np.array([1, 0, 1, 1, 0, 0, 1, np.nan, 1])
GROUP = np.array([0, 0, 1, 1, 2, 2, 3, 3, 0])
SCORED = ~np.isnan(REWARD)


@pytest.mark.parametrize(
  ("name", "expected"),
  [
    ("everything", [1, 1, 1, 1, 1, 1, 1, 0, 1]),
    # group 1 all right, group 2 all wrong, group 3 right beside one that could not be scored
    ("mixed_groups", [1, 1, 0, 0, 0, 0, 0, 0, 1]),
  ],
)
def test_keep(name, expected):
  np.testing.assert_array_equal(KEEP[name](REWARD, GROUP, SCORED), np.array(expected, bool))


@pytest.mark.parametrize(("spread", "kept"), [(0.0, [0, 1]), (0.04, [0, 1]), (0.06, [1]), (1, [])])
def test_grades_that_hardly_differ_are_no_signal(spread, kept):
  """Standard deviations 0.05, 0.5 and 0."""
  grade = np.array([0.5, 0.6, 0.0, 1.0, 0.3, 0.3])
  group = np.array([0, 0, 1, 1, 2, 2])
  mixed = KEEP["mixed_groups"](grade, group, np.ones(6, bool), spread=spread)
  np.testing.assert_array_equal(mixed, np.isin(group, kept))
  assert KEEP["everything"](grade, group, np.ones(6, bool), spread=spread).all()
