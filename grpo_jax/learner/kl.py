"""How far has the policy gone from the reference? Estimates of KL from sampled tokens, for the loss
and for the reward (Schulman, "Approximating KL divergence", 2020).

With d = log pi_reference(y_t) - log pi(y_t) on a sample of pi:

  k1 = -d              unbiased, may be negative; as a loss its gradient is zero on average
  k2 = d^2 / 2         biased; as a loss its gradient is that of the KL, on policy
  k3 = exp(d) - 1 - d  unbiased, never negative, low variance; as a loss its gradient is another's
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from grpo_jax.distribution import Decoding
from grpo_jax.learner.logprobs import sample_log_probs
from grpo_jax.masked import masked_sum
from grpo_jax.model.qwen3 import Params, Qwen3
from grpo_jax.records import Samples, completion_mask


def k1(log_ratio_BT: jax.Array) -> jax.Array:
  return -log_ratio_BT


def k2(log_ratio_BT: jax.Array) -> jax.Array:
  return jnp.square(log_ratio_BT) / 2


def k3(log_ratio_BT: jax.Array) -> jax.Array:
  return jnp.expm1(log_ratio_BT) - log_ratio_BT


ESTIMATORS: dict[str, Callable[[jax.Array], jax.Array]] = {"k1": k1, "k2": k2, "k3": k3}


class KLPenalty:
  """What a rollout's reward loses for its distance from the reference: coef x the sum of the
  estimates over its tokens (with k1 the penalty of RLHF; RLOO, arXiv 2402.14740)."""

  def __init__(
    self,
    model: Qwen3,
    reference: Params,
    how: Decoding,
    *,
    estimator: str,
    coef: float,
    microbatch_rows: int,
  ):
    """
    Args:
      how: temperature and filters the rollouts are sampled with.
      estimator: a name of ESTIMATORS.
      microbatch_rows: rows in one forward pass.
    """
    self._reference, self._how, self._coef = reference, how, coef
    self._rows, self._layout = microbatch_rows, model.layout

    def of_rows(reference: Params, samples: Samples, how: Decoding) -> jax.Array:
      reference_BT, _ = sample_log_probs(model, reference, samples, how)
      mask_BT = completion_mask(samples)
      log_ratio_BT = jnp.where(mask_BT, reference_BT - samples.behaviour_logp_RT, 0.0)
      return masked_sum(ESTIMATORS[estimator](log_ratio_BT), mask_BT, axis=1)

    self._of_rows = jax.jit(of_rows, out_shardings=model.layout.replicated)

  def __call__(self, samples: Samples) -> np.ndarray:
    """float32 [R] on the host, to be subtracted from the rewards; `samples` are numpy."""
    R = len(samples.prompt_len_R)
    parts = [self._penalties(samples, start) for start in range(0, R, self._rows)]
    return self._coef * np.concatenate(parts)[:R]

  def _penalties(self, samples: Samples, start: int) -> np.ndarray:
    """Of one microbatch; the last one is filled up with rows that nobody reads."""
    rows = np.minimum(np.arange(start, start + self._rows), len(samples.prompt_len_R) - 1)
    part = jax.tree.map(lambda leaf: leaf[rows], samples)
    part = self._layout.split_rows(part)
    return np.asarray(self._of_rows(self._reference, part, self._how))
