"""How do the losses of tokens become one number? A weight for each row, set for the whole batch.

The loss of a step is the sum over rows of scale_R times the sum of the row's token losses. The
scales are known before any gradient is taken, so that the result cannot depend on how rows fall
into microbatches. Axes R may be several, such as [microbatches, rows].
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def token_mean(length_R: jax.Array, learns_R: jax.Array, limit: int) -> jax.Array:
  """1 / tokens of the batch: long rows count for more (DAPO, arXiv 2503.14476)."""
  del limit
  return _or_zero(1.0, jnp.sum(length_R * learns_R), learns_R)


def sequence_mean(length_R: jax.Array, learns_R: jax.Array, limit: int) -> jax.Array:
  """1 / (tokens of the row x rows): a row counts the same at any length (GRPO as published,
  arXiv 2402.03300)."""
  del limit
  return _or_zero(1.0, length_R * jnp.sum(learns_R), learns_R)


def constant(length_R: jax.Array, learns_R: jax.Array, limit: int) -> jax.Array:
  """1 / (most tokens a row can have x rows): a token counts the same in any row and in any step
  (Dr. GRPO, arXiv 2503.20783)."""
  del length_R
  return _or_zero(1.0, jnp.sum(learns_R) * limit, learns_R)


def _or_zero(numerator: float, denominator: jax.Array, learns_R: jax.Array) -> jax.Array:
  return jnp.where(learns_R, numerator / jnp.maximum(denominator, 1), 0.0)


# (completion tokens [R], rows that have any and count [R], most completion tokens) -> float32 [R]
AGGREGATES: dict[str, Callable[[jax.Array, jax.Array, int], jax.Array]] = {
  "token_mean": token_mean,
  "sequence_mean": sequence_mean,
  "constant": constant,
}
