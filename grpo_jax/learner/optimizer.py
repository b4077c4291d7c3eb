"""Which step does a gradient become? AdamW behind a global-norm clip."""

import jax
import jax.numpy as jnp
import optax


def make_optimizer(
  *,
  learning_rate: float,
  warmup_steps: int,
  b1: float,
  b2: float,
  weight_decay: float,
  max_grad_norm: float,
  momentum_dtype: str = "float32",
) -> optax.GradientTransformation:
  """AdamW (arXiv 1711.05101) with a constant learning rate after a linear warm-up.

  Args:
    learning_rate: after the warm-up.
    warmup_steps: optimizer steps over which it rises from 0; 0: none.
    b1, b2: decay of the two moments.
    weight_decay: decoupled, on matrices and embeddings only; norms' scales are left alone.
    max_grad_norm: gradients of a larger global norm are scaled down to it.
    momentum_dtype: what the first moment is kept in; "bfloat16" saves two bytes a parameter. The
      second moment stays float32: a step moves it by 1 - b2 of itself at most when it shrinks,
      which for b2 = 0.999 is less than half the distance of two bfloat16 numbers, and rounds away.
  """
  schedule = optax.linear_schedule(0.0, learning_rate, warmup_steps) if warmup_steps else None
  return optax.chain(
    _clip_by_norm(max_grad_norm),
    optax.adamw(
      schedule or learning_rate,
      b1,
      b2,
      mu_dtype=momentum_dtype,
      weight_decay=weight_decay,
      mask=_has_columns,
    ),
  )


def _clip_by_norm(most: float) -> optax.GradientTransformationExtraArgs:
  """As optax's, but told the norm as `grad_norm` where it is given a part of the gradients."""

  def update(updates, state, params=None, *, grad_norm=None):
    del params
    norm = optax.tree.norm(updates) if grad_norm is None else grad_norm
    clipped = jax.tree.map(lambda g: jnp.where(norm < most, g, g / norm * most), updates)
    return clipped, state

  return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def _has_columns(params):
  """True for matrices, stacked or not: every parameter but the norms' scales."""
  return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key != "scale", params)
