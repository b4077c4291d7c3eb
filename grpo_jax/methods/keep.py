"""Which finished rollouts carry signal?

A choice maps (reward_R, group_R, scored_R) to bool [R]. It comes after advantages are set, so it
can drop rollouts but never change what the others are worth.
"""

import numpy as np


def everything(reward_R: np.ndarray, group_R: np.ndarray, scored_R: np.ndarray) -> np.ndarray:
  """All scored rollouts, as GRPO does: groups without variance dilute the token mean."""
  del reward_R, group_R
  return scored_R.copy()


def mixed_groups(reward_R: np.ndarray, group_R: np.ndarray, scored_R: np.ndarray) -> np.ndarray:
  """Scored rollouts of groups whose rewards differ: the zero-variance filter of arXiv 2606.04560
  (and, without its refill, of DAPO, arXiv 2503.14476)."""
  keep_R = np.zeros(len(reward_R), bool)
  for group in np.unique(group_R):
    members = np.flatnonzero((group_R == group) & scored_R)
    if len(members):
      keep_R[members] = np.ptp(np.asarray(reward_R)[members]) > 0
  return keep_R


KEEP = {"everything": everything, "mixed_groups": mixed_groups}
