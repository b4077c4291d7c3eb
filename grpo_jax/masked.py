"""Reductions under a mask; the only place where padding could leak into a number."""

import jax
import jax.numpy as jnp


def masked_sum(x: jax.Array, mask: jax.Array, axis=None) -> jax.Array:
  """Sum of x where mask is set. Values elsewhere may be anything, NaN included."""
  return jnp.sum(jnp.where(mask, x, 0), axis=axis)


def masked_max(x: jax.Array, mask: jax.Array, axis=None) -> jax.Array:
  """Largest x where mask is set; -inf where it nowhere is."""
  return jnp.max(jnp.where(mask, x, -jnp.inf), axis=axis)
