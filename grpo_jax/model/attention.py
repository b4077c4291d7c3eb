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
  q_BKGTh = q_BHTh.reshape(B, K, H // K, T, h).astype(k_BKSh.dtype)
  if T == 1:
    # Many keys against few queries: with the keys on the left, XLA's CPU backend reads them in the
    # order they lie in, up to four times as fast.
    scores = jnp.einsum("BKSh,BKGTh->BKSGT", k_BKSh, q_BKGTh, preferred_element_type=jnp.float32)
    scores = jnp.moveaxis(scores, 2, -1)
  else:
    scores = jnp.einsum("BKGTh,BKSh->BKGTS", q_BKGTh, k_BKSh, preferred_element_type=jnp.float32)
  scores = jnp.where(visible_BTS[:, None, None], scores * h**-0.5, jnp.finfo(jnp.float32).min)
  weights = jax.nn.softmax(scores, axis=-1).astype(v_BKSh.dtype)
  mixed = jnp.einsum(
    "BKGTS,BKSh->BKGTh", weights, v_BKSh, preferred_element_type=jnp.float32
  )
  return mixed.reshape(B, H, T, h).astype(q_BHTh.dtype)
