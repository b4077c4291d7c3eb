"""Which surrogate is minimised? The clipped policy-gradient loss, token by token.

With rho = pi_theta(y_t) / pi_birth(y_t), A the rollout's advantage and everything a minimum over

  loss_t = max(-rho A, -clip(rho, 1 - low, 1 + high) A)           PPO-clip (arXiv 1707.06347)
  loss_t = min(loss_t, -c A)                       where A < 0    dual clip (arXiv 1912.09729)

`high > low` is clip-higher (DAPO, arXiv 2503.14476). The denominator is the log-probability stored
when the rollout was sampled, for fresh and for replayed rows alike (arXiv 2606.04560, section 1.4
of its algorithm), so a replayed row's ratio measures its drift since birth.
"""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Surrogate:
  """Constants of the loss."""

  clip_low: float
  clip_high: float
  dual_clip: float  # c > 1; 0: off
  kl_coef: float  # weight of k3 to the reference policy; 0: no reference is kept


def clipped_loss(
  ratio_BT: jax.Array, advantage_B1: jax.Array, surrogate: Surrogate
) -> tuple[jax.Array, jax.Array]:
  """Loss of each token, and whether clipping stopped its gradient (the clip fraction's count)."""
  plain_BT = -ratio_BT * advantage_B1
  low, high = 1 - surrogate.clip_low, 1 + surrogate.clip_high
  clipped_BT = -jnp.clip(ratio_BT, low, high) * advantage_B1
  loss_BT = jnp.maximum(plain_BT, clipped_BT)
  stopped_BT = clipped_BT > plain_BT
  if surrogate.dual_clip:
    ceiling_BT = -surrogate.dual_clip * advantage_B1
    over_BT = (advantage_B1 < 0) & (loss_BT > ceiling_BT)
    loss_BT = jnp.where(over_BT, ceiling_BT, loss_BT)
    stopped_BT |= over_BT
  return loss_BT, stopped_BT


def k3(log_ratio_BT: jax.Array) -> jax.Array:
  """exp(d) - 1 - d with d = log p - log q: an estimate of KL(q || p) on samples of q, never
  negative (Schulman, "Approximating KL divergence", 2020)."""
  return jnp.expm1(log_ratio_BT) - log_ratio_BT
