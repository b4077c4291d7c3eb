"""Relative to what is a reward good? Set once, on complete fresh groups, in numpy on the host.

GRPO (arXiv 2402.03300): A_i = (r_i - mean(r)) / (std(r) + epsilon) over the rollouts of one group,
with the population standard deviation. A recomputed advantage of a partly filtered or replayed
group would be another number, often of another sign: never call this twice on the same rollouts.
"""

import numpy as np

EPSILON = 1e-6


def group_advantages(reward_R: np.ndarray, group_R: np.ndarray, scored_R: np.ndarray) -> np.ndarray:
  """Group-relative advantages of rollouts on a flat axis; groups may be uneven.

  Args:
    reward_R: float rewards; ignored where a rollout is unscored (NaN allowed there).
    group_R: int group of each rollout, in any order.
    scored_R: False where the verifier gave no verdict: such a rollout has no part in the baseline
      and gets advantage 0.

  Returns:
    float32 [R]. A group whose rewards are all equal (or with one scored rollout) gets zeros.
  """
  advantage_R = np.zeros(len(reward_R), np.float64)
  for group in np.unique(group_R):
    members = np.flatnonzero((group_R == group) & scored_R)
    rewards = np.asarray(reward_R, np.float64)[members]
    if len(members) and rewards.max() > rewards.min():
      advantage_R[members] = (rewards - rewards.mean()) / (rewards.std() + EPSILON)
  return advantage_R.astype(np.float32)
