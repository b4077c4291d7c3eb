"""Applied in slices, an optimizer does what it does to the whole, and holds no second copy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grpo_jax.learner import apply
from grpo_jax.learner.apply import apply_gradient
from grpo_jax.learner.optimizer import make_optimizer
from grpo_jax.learner.state import TrainState
from grpo_jax.model.sharding import make_layout

SHAPES = {
  "embedding": (48, 16),
  "final_norm": {"scale": (16,)},
  "layers": {"up": {"kernel": (3, 16, 8)}, "norm": {"scale": (3, 16)}},
}
ADAMW = make_optimizer(
  learning_rate=0.1, warmup_steps=3, b1=0.9, b2=0.99, weight_decay=0.1, max_grad_norm=1.0
)
TOKENS = np.array([5.0, 0.0], np.float32)


def random_params(seed):
  rng = np.random.default_rng(seed)
  draw = lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  return jax.tree.map(draw, SHAPES, is_leaf=lambda node: isinstance(node, tuple))


def applying(optimizer):
  layout = make_layout(devices=jax.devices()[:1])
  return jax.jit(functools.partial(apply_gradient, layout, optimizer), donate_argnums=0)


@pytest.mark.parametrize("optimizer", [ADAMW, optax.sgd(0.1)], ids=["adamw", "sgd"])
def test_slices_are_stepped_as_the_whole_would_be(monkeypatch, optimizer):
  """Three steps of a rising rate; gradients are clipped by the norm of all of them."""
  monkeypatch.setattr(apply, "LARGEST_SLICE", 100)
  step = applying(optimizer)
  params = random_params(0)
  opt_state = optimizer.init(params)
  state = TrainState(jax.tree.map(jnp.copy, params), optimizer.init(params), jnp.int32(0))
  for seed in (1, 2, 3):
    grads = random_params(seed)
    state, norms = step(state, grads, TOKENS)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    expected = {"grad": grads, "update": updates, "param": params}
    for name, tree in expected.items():
      np.testing.assert_allclose(norms[f"train/{name}_norm"], optax.tree.norm(tree), rtol=1e-5)
    jax.tree.map(
      lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6),
      (state.params, state.opt_state),
      (params, opt_state),
    )
  assert state.updates == 3


def test_only_a_slice_is_held_beside_the_state():
  """Four bytes of parameters and eight of moments stay where they are."""
  shapes = {"embedding": (2**18, 256), "layers": {"up": {"kernel": (64, 512, 2048)}}}
  params = jax.tree.map(
    lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
    shapes,
    is_leaf=lambda node: isinstance(node, tuple),
  )
  state = TrainState(
    params, jax.eval_shape(ADAMW.init, params), jax.ShapeDtypeStruct((), jnp.int32)
  )
  memory = applying(ADAMW).lower(state, params, TOKENS).compile().memory_analysis()
  held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
  assert memory.alias_size_in_bytes == held
  assert memory.temp_size_in_bytes < 12 * 4 * apply.LARGEST_SLICE < 0.4 * held
