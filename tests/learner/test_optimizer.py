"""What a gradient becomes: clipped, decayed where it should be, in few bytes where they suffice."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grpo_jax.learner.optimizer import make_optimizer

PARAMS = {"kernel": jnp.full((4, 4), 2.0), "scale": jnp.full(4, 2.0)}


def make(**changes):
  choices = {
    "learning_rate": 0.1,
    "warmup_steps": 0,
    "b1": 0.9,
    "b2": 0.999,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
  }
  return make_optimizer(**(choices | changes))


def walk(optimizer, gradients):
  params, state = PARAMS, optimizer.init(PARAMS)
  for gradient in gradients:
    updates, state = optimizer.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  return params, state


def random_gradients(steps):
  rng = np.random.default_rng(0)
  return [
    jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), PARAMS)
    for _ in range(steps)
  ]


def test_norm_scales_do_not_decay():
  nothing = jax.tree.map(jnp.zeros_like, PARAMS)
  params, _ = walk(make(weight_decay=0.5), [nothing])
  np.testing.assert_allclose(params["kernel"], 2.0 * (1 - 0.1 * 0.5), rtol=1e-6)
  np.testing.assert_array_equal(params["scale"], 2.0)


def test_the_rate_rises_from_zero():
  gradient = jax.tree.map(jnp.ones_like, PARAMS)
  params, _ = walk(make(warmup_steps=10), [gradient])
  np.testing.assert_array_equal(params["kernel"], PARAMS["kernel"])


@pytest.mark.parametrize("factor", [1.0, 1e6])
def test_a_larger_gradient_is_clipped_to_the_norm(factor):
  gradient = jax.tree.map(jnp.ones_like, PARAMS)
  _, state = walk(make(), [jax.tree.map(lambda g: factor * g, gradient)])
  momentum = optax.tree.norm(optax.tree.get(state, "mu"))
  np.testing.assert_allclose(momentum, 0.1, rtol=1e-5)


def test_a_bfloat16_momentum_takes_nearly_the_same_way_in_half_the_bytes():
  full, _ = walk(make(), random_gradients(50))
  half, state = walk(make(momentum_dtype="bfloat16"), random_gradients(50))
  moments = {name: jax.tree.leaves(optax.tree.get(state, name)) for name in ("mu", "nu")}
  assert {leaf.dtype.name for leaf in moments["mu"]} == {"bfloat16"}
  assert {leaf.dtype.name for leaf in moments["nu"]} == {"float32"}
  distance = optax.tree.norm(jax.tree.map(lambda a, b: a - b, full, PARAMS))
  difference = optax.tree.norm(jax.tree.map(lambda a, b: a - b, full, half))
  assert 0 < difference < 0.02 * distance


def test_a_second_moment_in_bfloat16_would_stand_still():
  """Why only the first one may be short: a thousandth of a number is below its half last bit."""
  moment = jnp.bfloat16(1.0)
  assert (0.999 * moment.astype(jnp.float32)).astype(jnp.bfloat16) == moment
