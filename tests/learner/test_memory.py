"""What must the update hold at the real vocabulary? Told by XLA's own analysis; nothing is run."""

import functools

import jax
import jax.numpy as jnp
import pytest

from grpo_jax.distribution import decoding
from grpo_jax.learner import tally
from grpo_jax.learner.gradients import Batch, Objective, add_gradients
from grpo_jax.learner.packing import Pack
from grpo_jax.learner.vocabulary import LOGITS_IN_CACHE, chosen_log_probs
from grpo_jax.model.config import Qwen3Config
from grpo_jax.model.qwen3 import Qwen3, abstract_params
from grpo_jax.model.sharding import make_layout
from grpo_jax.records import abstract_rollouts
from tests.learner.choices import make_surrogate
from tests.learner.test_update import assert_close, make_model, random_rollouts, step

V, D = 151_936, 32
HOW = decoding(1.0, 0, 1.0, V)
LOGITS = 4 * V  # bytes of one position


def temporary_bytes(function, *inputs) -> int:
  layout = one_device()
  compiled = jax.jit(function, out_shardings=layout.replicated).lower(*inputs).compile()
  return compiled.memory_analysis().temp_size_in_bytes


@functools.cache
def one_device():
  return make_layout(devices=jax.devices()[:1])


def of_projection(length: int) -> int:
  """One row of `length` tokens, all of them chosen, in both passes."""

  def total(hidden, table, target, chosen):
    logp, entropy = chosen_log_probs(one_device(), hidden, table, target, chosen, HOW)
    return jnp.sum(logp) + jnp.sum(entropy)

  return temporary_bytes(jax.grad(total, argnums=(0, 1)), *projected(length))


def projected(length: int):
  """States, table, targets and chosen positions."""

  def shape(dtype, *dimensions):
    return jax.ShapeDtypeStruct(dimensions, dtype, sharding=one_device().replicated)

  return (
    shape(jnp.float32, 1, length, D),
    shape(jnp.float32, V, D),
    shape(jnp.int32, 1, length),
    shape(bool, 1, length),
  )


def of_projection_in_place(length: int) -> int:
  """The same, where the table's gradient is added to a sum."""

  def add(sum_VD, hidden, table, target, chosen):
    d_table = jax.new_ref(sum_VD)

    def total(hidden):
      logp, entropy = chosen_log_probs(
        one_device(), hidden, table, target, chosen, HOW, d_table
      )
      return jnp.sum(logp) + jnp.sum(entropy)

    return jax.grad(total)(hidden), jax.freeze(d_table)

  hidden, table, target, chosen = projected(length)
  return temporary_bytes(add, table, hidden, table, target, chosen)


def of_update(length: int, *, vocabulary: int = V, layers: int = 1, remat: str = "block") -> int:
  """Four microbatches of one row."""
  config = Qwen3Config(
    vocab_size=vocabulary,
    hidden_size=D,
    intermediate_size=32,
    num_hidden_layers=layers,
    num_attention_heads=1,
    num_key_value_heads=1,
    head_dim=8,
    rope_theta=1e4,
  )
  model = Qwen3(config, one_device(), remat=remat)
  params = abstract_params(model)
  batch = Batch(abstract_rollouts(4, length), jax.ShapeDtypeStruct((4,), bool), None)
  pack = Pack(jax.ShapeDtypeStruct((4, 1, 1), jnp.int32), 4, length, length)
  sums = tally.no_sums(with_reference=False)
  objective = Objective(model, make_surrogate(), length)
  in_step_R = jax.ShapeDtypeStruct((4,), bool)
  function = functools.partial(add_gradients, objective)
  return temporary_bytes(function, (params, sums), params, None, batch, in_step_R, pack, HOW)


def test_the_projection_holds_one_chunk_whatever_the_length():
  short, long = of_projection(512), of_projection(8192)
  assert long < 4 * 4 * LOGITS_IN_CACHE, "four arrays of a block of a chunk; no copy of the table"
  assert long - short < 8 * 8192 * D, "only states grow with the length, two arrays of them"


def test_the_tables_gradient_needs_no_array_of_its_own():
  assert of_projection_in_place(512) < 4 * 4 * LOGITS_IN_CACHE < 4 * V * D


@pytest.mark.slow
def test_the_update_does_not_grow_with_length_times_vocabulary():
  sizes = {length: of_update(length) for length in (512, 2048, 8192)}
  for length in (2048, 8192):
    assert sizes[length] - sizes[512] < 0.03 * (length - 512) * LOGITS, sizes


def test_recomputing_keeps_less():
  """Each of eight layers would keep some twenty arrays of the size of its input: `block` keeps that
  input alone, `elementwise` the results of products too."""
  everything, products, inputs = (
    of_update(512, vocabulary=64, layers=8, remat=remat)
    for remat in ("none", "elementwise", "block")
  )
  assert products < 0.5 * everything
  assert inputs < 0.7 * products


@pytest.mark.parametrize("remat", ["block", "elementwise", "offload"])
def test_what_is_recomputed_is_what_was_computed(remat):
  model, params = make_model()
  fresh = random_rollouts(model, params, 8, drift=0.2)
  plainly, _ = step(model, params, fresh)
  assert_close(step(model.clone(remat=remat), params, fresh)[0], plainly, atol=1e-6)
