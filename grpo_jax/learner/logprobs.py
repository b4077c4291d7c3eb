"""Log-probabilities the current parameters give to sampled tokens.

The vocabulary projection is taken in chunks of positions and recomputed in the backward pass, so
the [B, T, V] logits, far larger than the model for Qwen3's 151,936 ids, never exist at once.
"""

import jax
import jax.numpy as jnp

from grpo_jax import distribution
from grpo_jax.distribution import Decoding
from grpo_jax.model.qwen3 import Params, Qwen3
from grpo_jax.records import Samples, row_mask

CHUNK = 64  # positions whose logits exist together


def sample_log_probs(
  model: Qwen3, params: Params, samples: Samples, how: Decoding
) -> tuple[jax.Array, jax.Array]:
  """Log-probability of every token given those before it, under the sampler's distribution.

  Args:
    samples: B rows.
    how: temperature and filters the rows were sampled with.

  Returns:
    Two float32 arrays [B, T]: log-probabilities (0 for the first token, which nothing predicts) and
    entropies (nats). Only positions in `completion_mask` mean anything.
  """
  tokens_BT = samples.tokens_RT
  B, T = tokens_BT.shape
  positions_BT = jnp.broadcast_to(jnp.arange(T), (B, T))
  hidden_BTD, _ = model.apply({"params": params}, tokens_BT, positions_BT, row_mask(samples))

  @jax.checkpoint
  def chunk_log_probs(chunk):
    hidden_BCD, target_BC = chunk
    with jax.named_scope("vocabulary"):
      logits_BCV = model.apply({"params": params}, hidden_BCD, method="logits")
      V = logits_BCV.shape[-1]
      flat = distribution.token_log_probs(logits_BCV.reshape(-1, V), target_BC.reshape(-1), how)
    return jax.tree.map(lambda x: x.reshape(target_BC.shape), flat)

  # The state at t predicts token t + 1.
  chunks = (_split(hidden_BTD[:, :-1]), _split(tokens_BT[:, 1:]))
  logp_nBC, entropy_nBC = jax.lax.map(chunk_log_probs, chunks)
  return _join(logp_nBC, T), _join(entropy_nBC, T)


def _split(x_BT: jax.Array) -> jax.Array:
  """[B, T, ...] to [T / C, B, C, ...], zero-padded; rows stay on their devices."""
  B, T, *rest = x_BT.shape
  count = -(-T // CHUNK)
  padded = jnp.pad(x_BT, ((0, 0), (0, count * CHUNK - T), *((0, 0) for _ in rest)))
  return jnp.moveaxis(padded.reshape(B, count, CHUNK, *rest), 1, 0)


def _join(x_nBC: jax.Array, T: int) -> jax.Array:
  """Back to [B, T], shifted so that index t holds token t."""
  count, B, C = x_nBC.shape
  x_BT = jnp.moveaxis(x_nBC, 0, 1).reshape(B, count * C)[:, : T - 1]
  return jnp.pad(x_BT, ((0, 0), (1, 0)))
