"""Log-probs by chunks of packed positions are those of the plain formula, and so are gradients."""

import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import distribution
from grpo_jax.distribution import decoding
from grpo_jax.learner import vocabulary
from grpo_jax.learner.logprobs import sample_log_probs
from grpo_jax.model.config import Qwen3Config
from grpo_jax.model.qwen3 import Qwen3, init_params
from grpo_jax.model.sharding import make_layout
from grpo_jax.records import Samples, completion_mask

B, T, V = 8, 16, 48
FILTERED = decoding(0.8, 20, 0.9, V - 4)
PLAIN = decoding(1.0, 0, 1.0, V)
# Positions of a chunk and blocks of the vocabulary; 5 divides nothing.
SIZES = [(1, 1), (5, 4), (16, 2), (B * T, 1), (B * T, 16)]


def make(mesh=None, *, tied=True):
  config = Qwen3Config(
    vocab_size=V,
    hidden_size=16,
    intermediate_size=40,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=8,
    rope_theta=1e4,
    initializer_range=0.3,
    tie_word_embeddings=tied,
  )
  layout = make_layout(*mesh) if mesh else make_layout(devices=jax.devices()[:1])
  model = Qwen3(config, layout)
  return model, init_params(model, jax.random.key(0))


def make_samples() -> Samples:
  """Ragged rows; one without a completion, one without a prompt, one without a token."""
  rng = np.random.default_rng(1)
  prompt_len, completion_len = rng.integers(1, 8, B), rng.integers(1, 9, B)
  completion_len[2], prompt_len[3] = 0, 0
  prompt_len[4] = completion_len[4] = 0
  return Samples(
    tokens_RT=rng.integers(0, V - 4, (B, T)).astype(np.int32),
    prompt_len_R=prompt_len.astype(np.int32),
    completion_len_R=completion_len.astype(np.int32),
    behaviour_logp_RT=np.zeros((B, T), np.float32),
    finish_R=np.zeros(B, np.int32),
  )


def plainly(model, params, samples, how):
  """All logits of all positions."""
  tokens_BT = jnp.asarray(samples.tokens_RT)
  positions_BT = jnp.broadcast_to(jnp.arange(T), (B, T))
  hidden_BTD, _ = model.apply({"params": params}, tokens_BT, positions_BT)
  logits_BTV = model.apply({"params": params}, hidden_BTD, method="logits")
  flat = distribution.token_log_probs(
    logits_BTV[:, :-1].reshape(-1, V), tokens_BT[:, 1:].reshape(-1), how
  )
  mask_BT = completion_mask(samples).at[:, 0].set(False)
  shifted = [jnp.pad(x.reshape(B, T - 1), ((0, 0), (1, 0))) for x in flat]
  return [jnp.where(mask_BT, x_BT, 0) for x_BT in shifted]


def total(of, model, params, samples, how):
  """Something of which log-probs and entropies all get another gradient."""
  logp_BT, entropy_BT = of(model, params, samples, how)
  weight_BT = jnp.sin(jnp.arange(B * T)).reshape(B, T)
  return jnp.sum(weight_BT * logp_BT + jnp.cos(weight_BT) * entropy_BT), (logp_BT, entropy_BT)


def results(of, model, params, samples, how):
  function = jax.value_and_grad(functools.partial(total, of), argnums=1, has_aux=True)
  compiled = jax.jit(lambda params, samples: function(model, params, samples, how))
  (_, scores), gradient = jax.block_until_ready(compiled(params, samples))
  return jax.device_get((scores, gradient))


def assert_same(ours, theirs, atol=2e-5):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), ours, theirs)


@pytest.mark.parametrize("how", [PLAIN, FILTERED], ids=["plain", "filtered"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_chunks_and_blocks_change_nothing(monkeypatch, sizes, how):
  monkeypatch.setattr(vocabulary, "_sizes", lambda *_: sizes)
  model, params = make()
  samples = make_samples()
  scores, gradient = results(sample_log_probs, model, params, samples, how)
  assert_same((scores, gradient), _tupled(results(plainly, model, params, samples, how)))
  assert (scores[0][~np.asarray(completion_mask(samples))] == 0).all()


def test_filters_that_see_few_whole_rows_at_once_change_nothing(monkeypatch):
  monkeypatch.setattr(vocabulary, "_sizes", lambda *_: (5, 4))
  model, params = make()
  samples = make_samples()
  expected = _tupled(results(plainly, model, params, samples, FILTERED))
  for rows in (1, 2, 4):
    monkeypatch.setattr(vocabulary, "LOGITS_AT_ONCE", rows * V)
    assert_same(results(sample_log_probs, model, params, samples, FILTERED), expected)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("mesh", [None, (2, 2, 2)], ids=["alone", "mesh"])
def test_a_gradient_added_in_place_is_the_one_returned(monkeypatch, mesh, tied):
  monkeypatch.setattr(vocabulary, "_sizes", lambda *_: (4, 1) if mesh else (5, 4))
  model, params = make(mesh, tied=tied)
  samples = make_samples()

  @jax.jit
  def added_twice(sum_so_far):
    refs = jax.tree.map(jax.new_ref, sum_so_far)
    of = functools.partial(sample_log_probs, d_params=refs)
    _, pull_back, _ = jax.vjp(lambda p: total(of, model, p, samples, PLAIN), params, has_aux=True)
    for _ in range(2):
      pull_back.with_refs(refs)(jnp.float32(1))
    return jax.tree.map(jax.freeze, refs)

  _, gradient = results(sample_log_probs, model, params, samples, PLAIN)
  expected = jax.tree.map(lambda g, p: np.asarray(p) + 2 * g, gradient, params)
  assert_same(jax.device_get(added_twice(params)), expected)


def test_a_head_of_its_own():
  model, params = make(tied=False)
  samples = make_samples()
  ours = results(sample_log_probs, model, params, samples, PLAIN)
  assert_same(ours, _tupled(results(plainly, model, params, samples, PLAIN)))


@pytest.mark.parametrize("mesh", [(8, 1, 1), (2, 2, 2), (1, 4, 2), (1, 1, 8)], ids=str)
def test_the_mesh_changes_nothing(monkeypatch, mesh):
  monkeypatch.setattr(vocabulary, "_sizes", lambda *_: (4, 1))
  if mesh[2] == 8:
    pytest.skip("two heads do not split over 8 devices")
  samples = make_samples()
  alone = results(sample_log_probs, *make(), samples, FILTERED)
  assert_same(results(sample_log_probs, *make(mesh), samples, FILTERED), alone)


@pytest.mark.parametrize("mesh", [None, (8, 1, 1), (2, 2, 2)], ids=str)
def test_rows_laid_end_to_end_are_the_rows_apart(mesh):
  """Scores and gradients, of lines that are full and of lines that are not."""
  samples = make_samples()
  apart = results(sample_log_probs, *make(), samples, FILTERED)
  model, params = make(mesh)
  length_B = samples.prompt_len_R + samples.completion_len_R
  length_Sb = length_B.reshape(model.layout.batch_shards, -1)
  for line in (length_Sb.sum(axis=1).max(), B * T):
    of_line = functools.partial(sample_log_probs, line=int(line))
    assert_same(results(of_line, model, params, samples, FILTERED), apart)


def test_no_row_of_a_line_sees_another():
  model, params = make()
  samples = make_samples()
  found = jax.jit(lambda samples: sample_log_probs(model, params, samples, PLAIN, B * T)[0])
  before = np.asarray(found(samples))
  other = samples.tokens_RT.copy()
  other[5] = (other[5] + 1) % (V - 4)
  after = np.asarray(found(samples.replace(tokens_RT=other)))
  assert (after[5] != before[5]).any()
  np.testing.assert_array_equal(np.delete(after, 5, axis=0), np.delete(before, 5, axis=0))


def test_no_device_holds_logits_of_the_whole_vocabulary(monkeypatch):
  """With the vocabulary split in two, nothing of its full width but what each device is given."""
  monkeypatch.setattr(vocabulary, "_sizes", lambda *_: (4, 1))
  model, params = make((2, 2, 2))
  function = jax.grad(lambda params, samples: total(
    sample_log_probs, model, params, samples, PLAIN)[0])  # fmt: skip
  text = jax.jit(function).lower(params, make_samples()).compile().as_text()
  assert re.search(rf"f32\[[\d,]*,{V // 2}\]", text), "the pattern must find the halves"
  assert not re.findall(rf"f32\[[\d,]*,{V}\]", text)


def test_positions_nobody_asks_for_cost_no_projection():
  """The loops end where the chosen positions do, in both passes."""
  model, params = make()
  samples = make_samples()
  chosen = jnp.zeros((1, B * T), bool).at[0, 3:9].set(True)
  assert vocabulary._walk(chosen, 4).count == 2
  nobody = samples.replace(completion_len_R=np.zeros(B, np.int32))
  scores, gradient = results(sample_log_probs, model, params, nobody, PLAIN)
  assert all((leaf == 0).all() for leaf in jax.tree.leaves((scores, gradient)))


def test_the_budget_of_logits_decides_the_sizes():
  alone, split = (make_layout(1, 1, n, devices=jax.devices()[:n]) for n in (1, 2))
  assert vocabulary._sizes(alone, 151_936, 8192) == (128, 64)
  assert vocabulary._sizes(alone, 151_936, 100) == (100, 32)
  assert vocabulary._sizes(alone, 18, 2048) == (2048, 1)
  assert vocabulary._sizes(alone, 151_937, 8192) == (128, 1), "a prime number of ids"
  assert vocabulary._sizes(split, 151_936, 8192) == (128, 1), "each device has a block already"


@pytest.mark.parametrize(("tensor", "sizes"), [(1, (2048, 8)), (4, (2048, 1))])
def test_on_an_accelerator_chunks_are_larger(tensor: int, sizes: tuple[int, int]):
  mesh = types.SimpleNamespace(shape={"tensor": tensor})
  layout = types.SimpleNamespace(platform="gpu", mesh=mesh)
  assert vocabulary._sizes(layout, 151_936, 8192) == sizes


def _tupled(result):
  scores, gradient = result
  return tuple(scores), gradient
