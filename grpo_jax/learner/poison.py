"""What if a number is not finite? The row that holds it is dropped, the rest of the batch trains.

A masked loss is not enough: the gradient of where(mask, f(x), 0) is 0 * f'(x), which is NaN where
f'(x) is infinite. Poison is therefore taken out of the inputs, before anything is computed of them.
"""

import jax
import jax.numpy as jnp

from grpo_jax.learner.surrogate import Tokens
from grpo_jax.records import Rollouts, completion_mask


def drop_poisoned_rollouts(rollouts: Rollouts) -> Rollouts:
  """Weight 0 for rows whose reward, advantage or behaviour log-probs are not all finite."""
  finite_RT = jnp.isfinite(rollouts.samples.behaviour_logp_RT)
  finite_R = jnp.all(finite_RT | ~completion_mask(rollouts.samples), axis=1)
  finite_R &= jnp.isfinite(rollouts.reward_R) & jnp.isfinite(rollouts.advantage_R)
  return rollouts.replace(weight_R=jnp.where(finite_R, rollouts.weight_R, 0.0))


def drop_poisoned_tokens(tokens: Tokens) -> tuple[Tokens, jax.Array]:
  """Takes rows out of the mask that hold a log-prob, an entropy or a ratio that is not finite, and
  sets everything off the mask to 0, so that no gradient reaches it.

  Returns:
    The tokens, and bool [B], True on the rows taken out.
  """
  arrays = (tokens.logp_BT, tokens.entropy_BT, tokens.behaviour_BT, tokens.anchor_BT)
  arrays += (tokens.reference_BT, tokens.advantage_BT)
  finite_BT = jnp.isfinite(jnp.exp(tokens.logp_BT - tokens.behaviour_BT))
  for array_BT in arrays:
    finite_BT &= jnp.isfinite(array_BT)
  poisoned_B = jnp.any(tokens.mask_BT & ~finite_BT, axis=1)
  mask_BT = tokens.mask_BT & ~poisoned_B[:, None]
  cleaned = jax.tree.map(lambda array_BT: jnp.where(mask_BT, array_BT, 0.0), tokens)
  return cleaned.replace(mask_BT=mask_BT, replayed_B1=tokens.replayed_B1), poisoned_B
