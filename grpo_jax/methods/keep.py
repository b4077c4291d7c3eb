"""Which finished rollouts carry signal?

A choice maps (reward_R, group_R, scored_R) and the least spread to bool [R]. It comes after
advantages are set, so it can drop rollouts but never change what the others are worth.
"""

import numpy as np


def everything(
  reward_R: np.ndarray, group_R: np.ndarray, scored_R: np.ndarray, spread: float = 0.0
) -> np.ndarray:
  """All scored rollouts, as GRPO does: groups without variance dilute the token mean."""
  del reward_R, group_R, spread
  return scored_R.copy()


def mixed_groups(
  reward_R: np.ndarray, group_R: np.ndarray, scored_R: np.ndarray, spread: float = 0.0
) -> np.ndarray:
  """Scored rollouts of groups whose rewards differ: the zero-variance filter of arXiv 2606.04560
  (and, without its refill, of DAPO, arXiv 2503.14476).

  spread: their standard deviation must reach it, for rewards that are graded: grades that hardly
    differ would be blown up to advantages like 1 and -1 (SRL, arXiv 2510.25992).
  """
  keep_R = np.zeros(len(reward_R), bool)
  for group in np.unique(group_R):
    members = np.flatnonzero((group_R == group) & scored_R)
    if len(members):
      reward_M = np.asarray(reward_R)[members]
      keep_R[members] = np.ptp(reward_M) > 0 and np.std(reward_M) >= spread
  return keep_R


KEEP = {"everything": everything, "mixed_groups": mixed_groups}
