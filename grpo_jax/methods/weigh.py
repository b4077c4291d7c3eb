"""How much does a rollout that learns count in the loss?

A choice maps (surprise_R, keep_R) to float [R], 0 where a rollout does not learn. `surprise_R` is
minus the mean log-prob of a rollout's tokens. Its expectation is their mean entropy, and sampling
has left it behind; entropies themselves would cost a forward pass over all rollouts before the
first gradient, since a weight is relative to the batch. It is noisier on short rollouts.
"""

import numpy as np

# Of a rollout that was certain of every token, which still counts as one that learns.
LEAST = 1e-6


def equal(surprise_R: np.ndarray, keep_R: np.ndarray) -> np.ndarray:
  """The same for all."""
  del surprise_R
  return keep_R.astype(float)


def relative_entropy(surprise_R: np.ndarray, keep_R: np.ndarray) -> np.ndarray:
  """Entropy of the rollout / mean of those that learn (PREPO, arXiv 2511.00794): 1 on average."""
  if not keep_R.any():
    return np.zeros(len(keep_R))
  mean = max(surprise_R[keep_R].mean(), LEAST)
  return np.where(keep_R, np.maximum(surprise_R / mean, LEAST), 0.0)


WEIGH = {"equal": equal, "relative_entropy": relative_entropy}
