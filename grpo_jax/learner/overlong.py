"""What does an answer lose for being too long? DAPO's soft punishment (arXiv 2503.14476)."""

import numpy as np

from grpo_jax.records import Samples


def overlong_penalty(samples: Samples, *, limit: int, share: float) -> np.ndarray:
  """To be subtracted from the rewards: 0 up to the last `share` of the limit, then linearly to 1.

  Args:
    samples: R rows.
    limit: most tokens a completion can have.
    share: in (0, 1]; DAPO's is 0.2, 4,096 of 20,480 tokens.

  Returns:
    float64 [R] in [0, 1].
  """
  allowance = share * limit
  over_R = np.asarray(samples.completion_len_R) - (limit - allowance)
  return np.clip(over_R / allowance, 0.0, 1.0)
