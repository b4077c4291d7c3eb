"""Rows laid end to end and taken apart again are the same rows, in the model and in gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.model.lines import lay_end_to_end
from grpo_jax.model.qwen3 import init_params
from grpo_jax.model.sharding import make_layout
from tests.model.test_attention import assert_close, calls_pallas, random_tokens, tiny_model

T = 6
LENGTHS = np.array([2, 0, 6, 1, 4, 4])  # of two lines


def two_lines():
  return make_layout(2, 1, 1, devices=jax.devices()[:2])


def is_token_BT():
  return np.arange(T) < LENGTHS[:, None]


@pytest.mark.parametrize("tokens", [9, 16])
def test_a_line_is_its_rows_without_padding(tokens):
  x_BT = np.arange(1, 37).reshape(6, T)
  lines = lay_end_to_end(jnp.asarray(LENGTHS), T, two_lines(), tokens)
  joined_SN = np.asarray(lines.joined(x_BT))
  for s, rows in enumerate((slice(0, 3), slice(3, 6))):
    expected = x_BT[rows][is_token_BT()[rows]]
    np.testing.assert_array_equal(joined_SN[s, : len(expected)], expected)
    assert not joined_SN[s, len(expected) :].any()
  np.testing.assert_array_equal(lines.apart(joined_SN, 6), x_BT * is_token_BT())


def test_gradients_take_the_way_back():
  lines = lay_end_to_end(jnp.asarray(LENGTHS), T, two_lines(), 10)
  x_BT, y_SN = np.random.default_rng(0).normal(size=(6, T)), jnp.arange(20.0).reshape(2, 10)
  of_rows = jax.grad(lambda x_BT: jnp.sum(y_SN * lines.joined(x_BT)))(x_BT)
  np.testing.assert_allclose(of_rows, lines.apart(y_SN, 6))
  of_lines = jax.grad(lambda y_SN: jnp.sum(x_BT * lines.apart(y_SN, 6)))(y_SN)
  np.testing.assert_allclose(of_lines, lines.joined(jnp.asarray(x_BT)), rtol=1e-6)


def by_rows(model, params, tokens_BT, positions_BT, lines):
  """Hidden states of rows, whether the model runs on them or on lines."""
  if lines is None:
    return model.apply({"params": params}, tokens_BT, positions_BT)[0]
  tokens_SN = lines.joined(tokens_BT)
  hidden_SND, _ = model.apply({"params": params}, tokens_SN, positions_BT, lines=lines)
  return lines.apart(hidden_SND, len(tokens_BT))


@pytest.mark.parametrize(
  ("kernel", "mesh"),
  [
    ("xla", (1, 1, 1)),
    ("xla", (2, 1, 2)),
    ("splash_interpreted", (1, 1, 1)),
    pytest.param("splash_interpreted", (2, 1, 2), marks=pytest.mark.slow),
  ],
  ids=str,
)
def test_the_model_computes_lines_as_rows_apart(kernel, mesh):
  """With the kernel that attends over rows; gradients too."""
  length_B = np.array([128, 3, 60, 77])
  tokens_BT, positions_BT = random_tokens(4, 128)
  is_token_BT = np.arange(128) < length_B[:, None]
  weight_BT = jnp.cos(jnp.arange(512.0)).reshape(4, 128) * is_token_BT
  layout = make_layout(*mesh, devices=jax.devices()[: np.prod(mesh)])
  model = tiny_model(layout, attention_kernel=kernel)
  params = init_params(model, jax.random.key(0))
  lines = lay_end_to_end(jnp.asarray(length_B), 128, layout, 288)

  def loss(lines, params):
    hidden_BTD = by_rows(model, params, tokens_BT, positions_BT, lines)
    return jnp.sum(jnp.sin(hidden_BTD) * weight_BT[..., None]), hidden_BTD

  @functools.partial(jax.jit, static_argnames="on_lines")
  def results(params, on_lines):
    return jax.grad(functools.partial(loss, lines if on_lines else None), has_aux=True)(params)

  assert calls_pallas(functools.partial(loss, lines), params) == (kernel != "xla")
  gradient, hidden_BTD = jax.block_until_ready(results(params, on_lines=True))
  plain_gradient, plain_BTD = jax.block_until_ready(results(params, on_lines=False))
  assert_close(np.asarray(hidden_BTD)[is_token_BT], np.asarray(plain_BTD)[is_token_BT])
  assert_close(gradient, plain_gradient, atol=1e-4)
