"""How far is a row from the policy it is compared with? Levels of the ratio, and what corrects for
a sampler whose log-probs are not the trainer's.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from grpo_jax.masked import masked_sum


def of_token(log_ratio_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
  """Each token's own log-ratio."""
  del mask_BT
  return log_ratio_BT


def of_sequence(log_ratio_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
  """The row's mean log-ratio at each of its tokens: s_i = (pi(y) / pi_anchor(y))^(1 / |y|), GSPO
  (arXiv 2507.18071). 0 off the mask."""
  length_B1 = jnp.maximum(mask_BT.sum(axis=1, keepdims=True), 1)
  mean_B1 = masked_sum(log_ratio_BT, mask_BT, axis=1)[:, None] / length_B1
  return jnp.where(mask_BT, mean_B1, 0.0)


LEVELS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  "token": of_token,
  "sequence": of_sequence,
}


def uncorrected(weight_BT: jax.Array, low: float, high: float) -> jax.Array:
  del low, high
  return jnp.ones_like(weight_BT)


def truncated(weight_BT: jax.Array, low: float, high: float) -> jax.Array:
  """Truncated importance sampling: min(pi_anchor / pi_behaviour, high)
  (Yao et al., fengyao.notion.site/off-policy-rl, 2025)."""
  del low
  return jnp.minimum(weight_BT, high)


def masked(weight_BT: jax.Array, low: float, high: float) -> jax.Array:
  """IcePop: the weight inside [low, high], 0 outside (Ring-1T, arXiv 2510.18855)."""
  return jnp.where((weight_BT >= low) & (weight_BT <= high), weight_BT, 0.0)


# What a token's loss is multiplied by, from pi_anchor / pi_behaviour.
CORRECTIONS: dict[str, Callable[[jax.Array, float, float], jax.Array]] = {
  "none": uncorrected,
  "truncate": truncated,
  "mask": masked,
}
