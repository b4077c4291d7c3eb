"""Group-relative advantages by their closed form, and what must not move them."""

import numpy as np
import pytest

from grpo_jax.learner.advantages import group_advantages

# arXiv 2606.04560, section 1.4: |A| of k correct of 8, sqrt((G-k)/k) and sqrt(k/(G-k)).
CLOSED_FORM = [
  (1, 2.646, 0.378),
  (2, 1.732, 0.577),
  (3, 1.291, 0.775),
  (4, 1.000, 1.000),
  (5, 0.775, 1.291),
  (6, 0.577, 1.732),
  (7, 0.378, 2.646),
]


def all_scored(rewards):
  return np.ones(len(rewards), bool)


@pytest.mark.parametrize(("correct", "of_correct", "of_wrong"), CLOSED_FORM)
@pytest.mark.parametrize("values", [(1.0, 0.0), (1.0, -1.0), (5.0, 2.0)])
def test_closed_form_of_a_group_of_eight(correct, of_correct, of_wrong, values):
  right, wrong = values
  rewards = np.array([right] * correct + [wrong] * (8 - correct))
  advantages = group_advantages(rewards, np.zeros(8, int), all_scored(rewards))
  np.testing.assert_allclose(advantages[:correct], of_correct, atol=1e-3)
  np.testing.assert_allclose(advantages[correct:], -of_wrong, atol=1e-3)


@pytest.mark.parametrize("reward", [0.0, 1.0, -1.0, 0.1])
def test_equal_rewards_give_exactly_zero(reward):
  """0.1 has no exact mean: a tiny residue over a tiny epsilon would be a gradient from nothing."""
  rewards = np.full(7, reward)
  assert (group_advantages(rewards, np.zeros(7, int), all_scored(rewards)) == 0).all()


def test_uneven_groups_in_any_order():
  rewards = np.array([1.0, 0, 0, 1, 0, 1, 1])
  groups = np.array([3, 3, 9, 9, 9, 9, 3])
  together = group_advantages(rewards, groups, all_scored(rewards))
  for group in (3, 9):
    mine = groups == group
    alone = group_advantages(rewards[mine], groups[mine], all_scored(rewards[mine]))
    np.testing.assert_array_equal(together[mine], alone)
  shuffle = np.random.default_rng(0).permutation(7)
  np.testing.assert_array_equal(
    group_advantages(rewards[shuffle], groups[shuffle], all_scored(rewards)), together[shuffle]
  )


def test_one_unscored_rollout_poisons_nothing():
  """A single NaN reward turned whole groups to NaN elsewhere."""
  rewards = np.array([1.0, np.nan, 0.0, 0.0])
  scored = ~np.isnan(rewards)
  advantages = group_advantages(rewards, np.zeros(4, int), scored)
  assert advantages[1] == 0
  expected = group_advantages(rewards[scored], np.zeros(3, int), all_scored(rewards[scored]))
  np.testing.assert_array_equal(advantages[scored], expected)
