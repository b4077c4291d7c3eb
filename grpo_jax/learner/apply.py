"""How does a gradient become new parameters, without a second copy of any of them?

The optimizer is applied to one slice after the other, a layer's matrix or a part of one: each slice
of parameters and moments is read once and written back to its own place, and what is computed on
the way is as small as the slice.
"""

import functools
import math

import jax
import jax.numpy as jnp
import optax

from grpo_jax.learner.state import TrainState
from grpo_jax.model.qwen3 import Params
from grpo_jax.model.sharding import Layout

LARGEST_SLICE = 2**20  # elements; four such arrays and what is made of them stay in a cache


def apply_gradient(
  layout: Layout,
  optimizer: optax.GradientTransformation,
  state: TrainState,
  grads: Params,
  tokens_2: jax.Array,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """The optimizer step, or nothing at all where the gradient is unusable; and norms.

  Args:
    optimizer: what becomes of a parameter may depend on its own gradient and on the norm of all,
      which it is told as `grad_norm`, alone.
    tokens_2: how many the gradient is of; none: unusable.
  """
  norm = optax.tree.norm(grads)
  usable = (jnp.sum(tokens_2) > 0) & jnp.isfinite(norm)
  optimizer = optax.with_extra_args_support(optimizer)
  whole = jax.tree.structure(state.params)
  is_moment = lambda node: jax.tree.structure(node) == whole
  leaves, shape = jax.tree.flatten(state.opt_state, is_leaf=is_moment)
  moments = {i: jax.tree.leaves(leaf) for i, leaf in enumerate(leaves) if is_moment(leaf)}
  counts = {i: leaf for i, leaf in enumerate(leaves) if i not in moments}

  def step(path, grad, _, old):
    """Of a slice of the parameter at `path` and of its moments."""
    param, of_param, _, _ = old
    at_path = lambda x: functools.reduce(lambda tree, key: {key.key: tree}, reversed(path), x)
    named = {i: at_path(moment) for i, moment in of_param.items()} | counts
    before = shape.unflatten([named[i] for i in range(len(leaves))])
    updates, after = optimizer.update(at_path(grad), before, at_path(param), grad_norm=norm)
    (param,) = jax.tree.leaves(optax.apply_updates(at_path(param), updates))
    after = shape.flatten_up_to(after)
    of_param = {i: jax.tree.leaves(after[i])[0] for i in of_param}
    return param, of_param, {i: after[i] for i in counts}, optax.tree.norm(updates, squared=True)

  def turn(path, grad_n, i, carry):
    old_n, _, squares_2 = carry
    take = lambda x_n: jax.lax.dynamic_index_in_dim(x_n, i, keepdims=False)
    grad, param, of_param = jax.tree.map(take, (grad_n, *old_n))
    # A loop of one turn or none. It also keeps XLA from reading a slice again once its place is
    # written, before which it would copy the whole array.
    param, of_param, new_counts, moved = jax.lax.fori_loop(
      0, usable.astype(int), functools.partial(step, path, grad), (param, of_param, counts, 0.0)
    )
    put = lambda x_n, x: jax.lax.dynamic_update_index_in_dim(x_n, x, i, 0)
    new_n = jax.tree.map(put, old_n, (param, of_param))
    return new_n, new_counts, squares_2 + jnp.stack([moved, jnp.sum(jnp.square(param))])

  params, squares_2, new_counts = [], jnp.zeros(2), counts
  for place, (path, param) in enumerate(jax.tree_util.tree_leaves_with_path(state.params)):
    old = (param, {i: moment[place] for i, moment in moments.items()})
    cut = functools.partial(_cut, _parts(layout, path, param))
    grad_n = cut(jax.tree.leaves(grads)[place])
    new_n, new_counts, squares_2 = jax.lax.fori_loop(
      0,
      len(grad_n),
      functools.partial(turn, path, grad_n),
      (jax.tree.map(cut, old), counts, squares_2),
    )
    param, of_param = jax.tree.map(lambda x_n, x: x_n.reshape(x.shape), new_n, old)
    params.append(param)
    for i, moment in of_param.items():
      moments[i][place] = moment
  new_leaves = {i: whole.unflatten(moment) for i, moment in moments.items()} | new_counts
  opt_state = shape.unflatten([new_leaves[i] for i in range(len(leaves))])
  norms = {
    "train/grad_norm": norm,
    "train/update_norm": jnp.sqrt(squares_2[0]),
    "train/param_norm": jnp.sqrt(squares_2[1]),
    "train/skipped": (~usable).astype(jnp.float32),
  }
  return TrainState(whole.unflatten(params), opt_state, state.updates + usable), norms


def _parts(layout: Layout, path: tuple, param: jax.Array) -> int:
  """How many slices: layers, and blocks of what no devices split, by powers of two."""
  stacked = path[0].key == "layers"
  parts = len(param) if stacked else 1
  rows = math.prod(param.shape[: 1 + (stacked and param.ndim > 2)])
  while layout.mesh.size == 1 and param.size // parts > LARGEST_SLICE and rows % (2 * parts) == 0:
    parts *= 2
  return parts


def _cut(parts: int, x: jax.Array) -> jax.Array:
  """Into slices, along a new first axis: whole entries of the first axis, or parts of one."""
  if parts == len(x):
    return x
  first = (x.shape[0],) if parts < len(x) else x.shape[:2]
  return x.reshape(parts, math.prod(first) // parts, *x.shape[len(first) :])
