"""How does a gradient become new parameters, without a second copy of any of them?

The optimizer is applied to one layer after the other, and to a large table in blocks: each slice of
parameters and moments is read once and written back to its own place, and what is computed on the
way is as small as the slice.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from grpo_jax.learner.state import TrainState
from grpo_jax.model.qwen3 import Params
from grpo_jax.model.sharding import Layout

LARGEST_BLOCK = 2**22  # elements of a table's block


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
  moments = {i: leaf for i, leaf in enumerate(leaves) if is_moment(leaf)}
  counts = {i: leaf for i, leaf in enumerate(leaves) if not is_moment(leaf)}

  def step(name, grads, _, old):
    """Of one slice of the parameters of this name and their moments."""
    params, moments, _, _ = old
    named = {i: {name: moment} for i, moment in moments.items()} | counts
    before = shape.unflatten([named[i] for i in range(len(leaves))])
    updates, after = optimizer.update({name: grads}, before, {name: params}, grad_norm=norm)
    after = shape.flatten_up_to(after)
    params = optax.apply_updates({name: params}, updates)[name]
    new_moments = {i: after[i][name] for i in moments}
    new_counts = {i: after[i] for i in counts}
    return params, new_moments, new_counts, optax.tree.norm(updates, squared=True)

  def turn(name, grads_n, i, carry):
    (params_n, moments_n), _, squares_2 = carry
    take = lambda x_n: jax.lax.dynamic_index_in_dim(x_n, i, keepdims=False)
    grads, params, moments = jax.tree.map(take, (grads_n, params_n, moments_n))
    # A loop of one turn or none. It also keeps XLA from reading a slice again once its place is
    # written, before which it would copy the whole array.
    params, moments, new_counts, moved = jax.lax.fori_loop(
      0, usable.astype(int), functools.partial(step, name, grads), (params, moments, counts, 0.0)
    )
    put = lambda x_n, x: jax.lax.dynamic_update_index_in_dim(x_n, x, i, 0)
    new_n = jax.tree.map(put, (params_n, moments_n), (params, moments))
    more_2 = jnp.stack([moved, optax.tree.norm(params, squared=True)])
    return new_n, new_counts, squares_2 + more_2

  params, squares_2, new_counts = {}, jnp.zeros(2), counts
  for name in state.params:
    of_name = (state.params[name], {i: moment[name] for i, moment in moments.items()})
    parts = _parts(layout, name, state.params[name])
    new_n, new_counts, squares_2 = jax.lax.fori_loop(
      0,
      parts,
      functools.partial(turn, name, _cut(grads[name], parts)),
      (_cut(of_name, parts), counts, squares_2),
    )
    new = jax.tree.map(lambda x_n, x: x_n.reshape(x.shape), new_n, of_name)
    params[name], new_moments = new
    moments = {i: moment | {name: new_moments[i]} for i, moment in moments.items()}
  opt_state = shape.unflatten([(moments | new_counts)[i] for i in range(len(leaves))])
  norms = {
    "train/grad_norm": norm,
    "train/update_norm": jnp.sqrt(squares_2[0]),
    "train/param_norm": jnp.sqrt(squares_2[1]),
    "train/skipped": (~usable).astype(jnp.float32),
  }
  return TrainState(params, opt_state, state.updates + usable), norms


def _parts(layout: Layout, name: str, params: Params) -> int:
  """How many slices: layers, or blocks of a table that devices do not split, a power of two."""
  if name == "layers":
    return len(jax.tree.leaves(params)[0])
  (table,) = jax.tree.leaves(params)
  parts = 1
  while layout.mesh.shape["tensor"] == 1 and table.size // parts > LARGEST_BLOCK:
    if len(table) % (2 * parts):
      break
    parts *= 2
  return parts


def _cut(tree, parts: int):
  """Every array's first axis in so many parts: a new first axis, unless it has that length."""
  def cut(x):
    return x if len(x) == parts else x.reshape(parts, len(x) // parts, *x.shape[1:])

  return jax.tree.map(cut, tree)
