"""What does learning change, and on which devices does it live?"""

import flax.struct
import jax
import jax.numpy as jnp
import optax

from grpo_jax.model.qwen3 import Params
from grpo_jax.model.sharding import Layout


@flax.struct.dataclass
class TrainState:
  """Parameters, float32 whatever the model computes in, and what the optimizer remembers."""

  params: Params
  opt_state: optax.OptState
  updates: jax.Array  # int32, optimizer steps taken


def create_state(
  params: Params, optimizer: optax.GradientTransformation, layout: Layout
) -> TrainState:
  """Optimizer moments are made on the devices that hold their parameters."""
  shardings = state_shardings(params, optimizer, layout)
  make = jax.jit(optimizer.init, out_shardings=shardings.opt_state)
  updates = jnp.zeros((), jnp.int32, device=layout.replicated)
  return TrainState(params, make(params), updates)


def abstract_state(
  params: Params, optimizer: optax.GradientTransformation, layout: Layout
) -> TrainState:
  """The state as shapes, dtypes and shardings, from (possibly abstract) parameters."""

  def shape(leaf, sharding):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  opt_state = jax.eval_shape(optimizer.init, params)
  shapes = TrainState(params, opt_state, jax.ShapeDtypeStruct((), jnp.int32))
  return jax.tree.map(shape, shapes, state_shardings(params, optimizer, layout))


def state_shardings(
  params: Params, optimizer: optax.GradientTransformation, layout: Layout
) -> TrainState:
  """Moments are split as their parameters are; scalars are everywhere."""
  of_params = jax.tree.map(lambda leaf: leaf.sharding, params)
  of_opt_state = optax.tree_map_params(
    optimizer,
    lambda _, sharding: sharding,
    jax.eval_shape(optimizer.init, params),
    of_params,
    transform_non_params=lambda _: layout.replicated,
  )
  return TrainState(of_params, of_opt_state, layout.replicated)
