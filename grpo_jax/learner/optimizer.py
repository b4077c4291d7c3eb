"""Which step does a gradient become? AdamW behind a global-norm clip."""

import jax
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
    optax.clip_by_global_norm(max_grad_norm),
    optax.adamw(
      schedule or learning_rate,
      b1,
      b2,
      mu_dtype=momentum_dtype,
      weight_decay=weight_decay,
      mask=_has_columns,
    ),
  )


def _has_columns(params):
  """True for matrices, stacked or not: every parameter but the norms' scales."""
  return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key != "scale", params)
