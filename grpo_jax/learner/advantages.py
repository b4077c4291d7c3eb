"""Relative to what is a reward good? Set once, on complete fresh groups, in numpy on the host.

A rollout's advantage is (its reward - a baseline) / a scale: two independent choices. GRPO
(arXiv 2402.03300) is A_i = (r_i - mean(r)) / (std(r) + epsilon) over the rollouts of one group,
with the population standard deviation. A recomputed advantage of a partly filtered or replayed
group would be another number, often of another sign: never call this twice on the same rollouts.
"""

import math
from collections.abc import Callable

import numpy as np

from grpo_jax.errors import UserError

EPSILON = 1e-6


def group_advantages(
  reward_R: np.ndarray,
  group_R: np.ndarray,
  scored_R: np.ndarray,
  *,
  baseline: str = "mean",
  scale: str = "group_std",
) -> np.ndarray:
  """Group-relative advantages of rollouts on a flat axis; groups may be uneven.

  Args:
    reward_R: float rewards; ignored where a rollout is unscored (NaN allowed there).
    group_R: int group of each rollout, in any order.
    scored_R: False where the verifier gave no verdict: such a rollout, and one whose reward is not
      finite, has no part in any baseline or scale and gets advantage 0.
    baseline: a name of BASELINES, what is subtracted within a group.
    scale: a name of SCALES, what is divided by; batch-wide ones are over all scored rollouts.

  Returns:
    float32 [R]. With a baseline, a group whose rewards are all equal (or with one scored rollout)
    gets zeros.

  Raises:
    UserError: of `check_choices`, or scale "beta" with more than two different rewards.
  """
  check_choices(baseline, scale)
  advantage_R = np.zeros(len(reward_R), np.float64)
  scored_R = scored_R & np.isfinite(reward_R)
  if not scored_R.any():
    return advantage_R.astype(np.float32)
  reward_S = np.asarray(reward_R, np.float64)[scored_R]
  _, group_S = np.unique(np.asarray(group_R)[scored_R], return_inverse=True)
  centred_S = BASELINES[baseline](reward_S, group_S)
  advantage_R[scored_R] = centred_S / SCALES[scale](reward_S, centred_S, group_S)
  return advantage_R.astype(np.float32)


def newcomer_advantage(delta, count, variance, *, baseline: str, scale: str):
  """What a rollout would be worth as one more member of a complete group: its `group_advantages`
  in that group with itself added, from the group's moments. Numbers, or arrays of numpy or jax.

  A group of `count` equal rewards gives +-sqrt(count) by `group_std`, and exactly 0 to a reward
  equal to them: no division by zero, and no bound but that of groups one larger.

  Args:
    delta: the rollout's reward less the mean of the group.
    count: rollouts in the group, without it.
    variance: of the group's rewards (population).
    baseline: "mean" or "leave_one_out".
    scale: "group_std" or "none": the others are of a whole batch.
  """
  others = count / (count + 1)
  centred = delta if baseline == "leave_one_out" else delta * others
  if scale == "none":
    return centred
  return centred / ((others * (variance + delta**2 / (count + 1))) ** 0.5 + EPSILON)


def check_choices(baseline: str, scale: str) -> None:
  """
  Raises:
    UserError: an unknown name, or a scale that needs another baseline.
  """
  for key, name, table in (("baseline", baseline, BASELINES), ("scale", scale, SCALES)):
    if name not in table:
      raise UserError(f"config.advantage.{key} is {name!r}; known: {', '.join(table)}")
  if baseline == "none" and scale in ("group_std", "beta"):
    raise UserError(
      f"config.advantage.scale is {scale!r} with baseline 'none': a group of equal rewards would "
      "be divided by zero; set a baseline, or scale 'batch_std' or 'none'"
    )


# ------------------------------------------------------------------------------ baselines
# S are the scored rollouts, their groups numbered from 0.


def _less_mean(reward_S: np.ndarray, group_S: np.ndarray) -> np.ndarray:
  """Exactly 0 in a group of equal rewards, whatever their mean's rounding."""
  centred_S = reward_S - _of_group(np.mean, reward_S, group_S)
  return np.where(_of_group(np.ptp, reward_S, group_S) > 0, centred_S, 0.0)


def _less_mean_of_others(reward_S: np.ndarray, group_S: np.ndarray) -> np.ndarray:
  """RLOO (arXiv 2402.14740): r_i - mean_(j != i) r_j = n / (n - 1) (r_i - mean r)."""
  size_S = _of_group(len, reward_S, group_S)
  return _less_mean(reward_S, group_S) * size_S / np.maximum(size_S - 1, 1)


def _as_it_is(reward_S: np.ndarray, group_S: np.ndarray) -> np.ndarray:
  del group_S
  return reward_S


BASELINES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
  "mean": _less_mean,
  "leave_one_out": _less_mean_of_others,
  "none": _as_it_is,
}


# ------------------------------------------------------------------------------ scales


def _group_std(reward_S: np.ndarray, centred_S: np.ndarray, group_S: np.ndarray) -> np.ndarray:
  """Of the rewards of the group."""
  del centred_S
  return _of_group(np.std, reward_S, group_S) + EPSILON


def _batch_std(reward_S: np.ndarray, centred_S: np.ndarray, group_S: np.ndarray) -> np.ndarray:
  """Of the centred rewards of the step (REINFORCE++-baseline, arXiv 2501.03262); 1 where they do
  not differ at all."""
  del group_S
  spread = centred_S.std() if np.ptp(centred_S) else 1.0
  return np.full(len(reward_S), spread + EPSILON)


def _one(reward_S: np.ndarray, centred_S: np.ndarray, group_S: np.ndarray) -> np.ndarray:
  """Dr. GRPO (arXiv 2503.20783): easy and hard problems are not blown up."""
  del centred_S, group_S
  return np.ones(len(reward_S))


def _beta(reward_S: np.ndarray, centred_S: np.ndarray, group_S: np.ndarray) -> np.ndarray:
  """BNPO (arXiv 2506.02864): the density of Beta(1 + a/3, 1 + b/3) at the group's share of right
  answers p, where Beta(a, b) has the mean and the variance of p over this step's groups.

  Beta(3/2, 3/2) is proportional to sqrt(p (1 - p)), GRPO's standard deviation; it stands in where
  all groups have one p and there is nothing to fit.
  """
  del centred_S
  if len(np.unique(reward_S)) > 2:
    raise UserError("config.advantage.scale 'beta' is for rewards of two values, right and wrong")
  width = np.ptp(reward_S) or 1.0
  share_S = (_of_group(np.mean, reward_S, group_S) - reward_S.min()) / width
  share_G = share_S[np.unique(group_S, return_index=True)[1]]
  mean, variance = share_G.mean(), share_G.var()
  strength = mean * (1 - mean) / variance - 1 if np.ptp(share_G) else None
  a, b = (strength * mean, strength * (1 - mean)) if strength is not None else (1.5, 1.5)
  density_S = _beta_density(share_S, 1 + a / 3, 1 + b / 3)
  # All right or all wrong: the centred reward is 0, and so may the density be.
  return width * np.where((share_S > 0) & (share_S < 1), density_S, 1.0)


def _beta_density(p: np.ndarray, alpha: float, beta: float) -> np.ndarray:
  log_scale = math.lgamma(alpha + beta) - math.lgamma(alpha) - math.lgamma(beta)
  return math.exp(log_scale) * p ** (alpha - 1) * (1 - p) ** (beta - 1)


SCALES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
  "group_std": _group_std,
  "batch_std": _batch_std,
  "beta": _beta,
  "none": _one,
}


def _of_group(reduce: Callable, values_S: np.ndarray, group_S: np.ndarray) -> np.ndarray:
  """`reduce` of each group's values, at each of its members."""
  reduced_S = np.zeros(len(values_S))
  for group in np.unique(group_S):
    members = group_S == group
    reduced_S[members] = reduce(values_S[members])
  return reduced_S
