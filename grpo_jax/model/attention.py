"""Grouped-query attention of queries to keys they may see: one function for every phase."""

import jax
import jax.numpy as jnp


def attend(
  q_BHTh: jax.Array, k_BKSh: jax.Array, v_BKSh: jax.Array, visible_BTS: jax.Array
) -> jax.Array:
  """Softmax attention, H query heads sharing K key heads; scores and softmax in float32.

  Args:
    q_BHTh: queries; head n reads key head n // (H / K).
    k_BKSh: keys.
    v_BKSh: values.
    visible_BTS: True where query t may see key s. A query that sees nothing (padding) gets the
      mean of all values: finite, and read by nobody.

  Returns:
    Array [B, H, T, h] of the queries' dtype.
  """
  B, H, T, h = q_BHTh.shape
  K = k_BKSh.shape[1]
  q_BKGTh = q_BHTh.reshape(B, K, H // K, T, h)
  scores = jnp.einsum("BKGTh,BKSh->BKGTS", q_BKGTh, k_BKSh, preferred_element_type=jnp.float32)
  scores = jnp.where(visible_BTS[:, None, None], scores * h**-0.5, jnp.finfo(jnp.float32).min)
  weights = jax.nn.softmax(scores, axis=-1).astype(v_BKSh.dtype)
  return jnp.einsum("BKGTS,BKSh->BKGTh", weights, v_BKSh).reshape(B, H, T, h)
