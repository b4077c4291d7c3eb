"""Group-relative advantages by their closed form, and what must not move them."""

import statistics

import numpy as np
import pytest

from grpo_jax.errors import UserError
from grpo_jax.learner.advantages import check_choices, group_advantages

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


def slow_advantages(rewards, groups, scored, baseline, scale):
  """From the formulas, rollout by rollout."""
  usable = [i for i in range(len(rewards)) if scored[i] and np.isfinite(rewards[i])]
  advantages = [0.0] * len(rewards)
  for i in usable:
    others = [rewards[j] for j in usable if groups[j] == groups[i] and j != i]
    if baseline == "mean":
      advantages[i] = rewards[i] - sum([*others, rewards[i]]) / (len(others) + 1)
    elif baseline == "leave_one_out":
      advantages[i] = rewards[i] - sum(others) / len(others) if others else 0.0
    else:
      advantages[i] = rewards[i]
  spread_of_batch = statistics.pstdev(advantages[i] for i in usable)
  for i in usable:
    mine = [rewards[j] for j in usable if groups[j] == groups[i]]
    if scale == "group_std":
      advantages[i] /= statistics.pstdev(mine) + 1e-6
    elif scale == "batch_std":
      advantages[i] /= spread_of_batch + 1e-6
  return advantages


@pytest.mark.parametrize(
  ("baseline", "scale"),
  [
    ("mean", "group_std"),
    ("mean", "batch_std"),
    ("mean", "none"),
    ("leave_one_out", "group_std"),
    ("leave_one_out", "batch_std"),
    ("leave_one_out", "none"),
    ("none", "batch_std"),
    ("none", "none"),
  ],
)
def test_loops_over_the_formula_agree(baseline, scale):
  """Uneven groups out of order, one of a single rollout, one unscored, one infinite reward."""
  rng = np.random.default_rng(0)
  rewards = rng.integers(-1, 3, 14).astype(float)
  groups = np.array([4, 4, 0, 0, 0, 2, 4, 4, 4, 0, 7, 7, 7, 0])
  rewards[0], rewards[3] = np.nan, np.inf
  scored = ~np.isnan(rewards)
  ours = group_advantages(rewards, groups, scored, baseline=baseline, scale=scale)
  slow = slow_advantages(rewards, groups, scored, baseline, scale)
  np.testing.assert_allclose(ours, slow, rtol=1e-6, atol=1e-7)
  assert ours[0] == ours[3] == 0


def test_without_a_baseline_equal_rewards_stay_what_they_are():
  """All right in the whole step: nothing to scale by, and no division by the epsilon."""
  rewards = np.ones(6)
  ours = group_advantages(
    rewards, np.arange(6) // 2, all_scored(rewards), baseline="none", scale="batch_std"
  )
  np.testing.assert_allclose(ours, 1.0, rtol=1e-5)


@pytest.mark.parametrize("values", [(1.0, 0.0), (1.0, -1.0)])
def test_beta_scale_by_its_formula(values):
  """BNPO, by numerical integration of its density; it does not matter what right and wrong earn."""
  right, wrong = values
  shares = np.array([1, 3, 2, 4, 0]) / 4
  rewards = np.concatenate([[right] * k + [wrong] * (4 - k) for k in (1, 3, 2, 4, 0)])
  ours = group_advantages(rewards, np.arange(20) // 4, all_scored(rewards), scale="beta")

  mean, variance = shares.mean(), shares.var()
  a = (mean * (1 - mean) / variance - 1) * mean
  b = (mean * (1 - mean) / variance - 1) * (1 - mean)
  grid = (np.arange(200_000) + 0.5) / 200_000
  unnormalised = grid ** (a / 3) * (1 - grid) ** (b / 3)
  for group, share in enumerate(shares[:3]):
    density = share ** (a / 3) * (1 - share) ** (b / 3) / unnormalised.mean()
    is_right = np.arange(4) < round(4 * share)
    np.testing.assert_allclose(
      ours[4 * group : 4 * group + 4], (is_right - share) / density, rtol=1e-4
    )
  assert (ours[12:] == 0).all()


def test_beta_scale_of_equal_groups_is_grpos_up_to_a_constant():
  """One share of right answers everywhere leaves nothing to fit."""
  rewards = np.array([1.0, 0, 0, 0] * 3)
  groups = np.arange(12) // 4
  beta = group_advantages(rewards, groups, all_scored(rewards), scale="beta")
  grpo = group_advantages(rewards, groups, all_scored(rewards))
  np.testing.assert_allclose(beta, grpo * np.pi / 8, rtol=1e-4)


@pytest.mark.parametrize("scale", ["group_std", "batch_std", "beta", "none"])
def test_nothing_scored_is_worth_nothing(scale):
  rewards = np.full(4, np.nan)
  ours = group_advantages(rewards, np.zeros(4, int), np.zeros(4, bool), scale=scale)
  assert (ours == 0).all()


@pytest.mark.parametrize(
  ("baseline", "scale", "message"),
  [
    ("median", "none", "config.advantage.baseline is 'median'; known: mean, leave_one_out, none"),
    ("mean", "std", "config.advantage.scale is 'std'; known: group_std, batch_std, beta, none"),
    ("none", "group_std", "would be divided by zero"),
    ("none", "beta", "would be divided by zero"),
  ],
)
def test_what_cannot_be_meant_is_refused(baseline, scale, message):
  with pytest.raises(UserError) as error:
    check_choices(baseline, scale)
  assert message in str(error.value)


def test_beta_scale_refuses_rewards_of_three_values():
  rewards = np.array([0.0, 0.5, 1.0])
  with pytest.raises(UserError, match="two values"):
    group_advantages(rewards, np.zeros(3, int), all_scored(rewards), scale="beta")
