"""Our Qwen3 is transformers' Qwen3: logits, caches, shardings, gradients of causality."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.model.config import PUBLISHED, read_config
from grpo_jax.model.qwen3 import (
  Qwen3,
  abstract_params,
  empty_cache,
  init_params,
  split_layers,
)
from grpo_jax.model.sharding import make_layout
from grpo_jax.model.weights import load_params
from tests.model.huggingface import write_model

SHAPES = {
  "tied": {},
  "untied": {"tie_word_embeddings": False},
  "every head its own keys": {"num_attention_heads": 4, "num_key_value_heads": 4},
  "one key head for all": {"num_attention_heads": 4, "num_key_value_heads": 1},
  "old rope": {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}},
}


def one_device():
  return make_layout(devices=jax.devices()[:1])


def load(folder, layout=None, **options):
  config, _ = read_config(folder)
  model = Qwen3(config, layout or one_device(), **options)
  return model, load_params(folder, abstract_params(model))


def logits_of(model, params, tokens_BT, positions_BT, valid_BT=None):
  @jax.jit
  def forward(params, tokens, positions, valid):
    hidden, _ = model.apply({"params": params}, tokens, positions, valid)
    return model.apply({"params": params}, hidden, method="logits")

  return np.asarray(forward(params, tokens_BT, positions_BT, valid_BT))


def theirs(reference, tokens_BT, valid_BT=None, positions_BT=None):
  import torch

  def tensor(x):
    return None if x is None else torch.tensor(np.asarray(x), dtype=torch.long)

  with torch.no_grad():
    out = reference(
      tensor(tokens_BT), attention_mask=tensor(valid_BT), position_ids=tensor(positions_BT)
    )
  return out.logits.float().numpy()


def random_tokens(rows, length, vocab=128, seed=0):
  return np.random.default_rng(seed).integers(1, vocab, (rows, length)).astype(np.int32)


def positions_like(tokens_BT):
  return np.broadcast_to(np.arange(tokens_BT.shape[1], dtype=np.int32), tokens_BT.shape)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_logits_equal_transformers(tmp_path, shape):
  reference = write_model(tmp_path, **shape)
  model, params = load(tmp_path)
  tokens = random_tokens(3, 17)
  ours = logits_of(model, params, tokens, positions_like(tokens))
  np.testing.assert_allclose(ours, theirs(reference, tokens), atol=1e-4)
  assert np.abs(ours).max() > 3, "logits near zero would agree with anything"


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_of_unequal_prompts_changes_no_logit(tmp_path, side):
  reference = write_model(tmp_path)
  model, params = load(tmp_path)
  T, lengths = 13, np.array([13, 7, 1])
  index = np.arange(T)
  starts = T - lengths if side == "left" else np.zeros_like(lengths)
  valid = (index >= starts[:, None]) & (index < (starts + lengths)[:, None])
  positions = np.maximum(index - starts[:, None], 0).astype(np.int32)
  tokens = np.where(valid, random_tokens(3, T), 0).astype(np.int32)
  ours = logits_of(model, params, tokens, positions, valid)
  np.testing.assert_allclose(
    ours[valid], theirs(reference, tokens, valid, positions)[valid], atol=1e-4
  )
  for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
    alone = theirs(reference, tokens[row : row + 1, start : start + length])
    np.testing.assert_allclose(ours[row, start : start + length], alone[0], atol=1e-4)


def test_rope_theta_is_read_from_the_config(tmp_path):
  """A peer ignores it: theta 1e6 and 10 give the same logits there."""
  write_model(tmp_path)
  model, params = load(tmp_path)
  tokens = random_tokens(1, 17)
  before = logits_of(model, params, tokens, positions_like(tokens))
  text = (tmp_path / "config.json").read_text()
  assert "5000000.0" in text
  (tmp_path / "config.json").write_text(text.replace("5000000.0", "10.0"))
  model, params = load(tmp_path)
  after = logits_of(model, params, tokens, positions_like(tokens))
  assert np.abs(before - after).max() > 0.1


@pytest.mark.parametrize("scan", [True, False], ids=["scanned", "unrolled"])
def test_cached_steps_equal_one_forward_pass(tmp_path, scan):
  """Prefill of 9 tokens, then single tokens, rows at different positions."""
  write_model(tmp_path)
  model, params = load(tmp_path)
  tokens = random_tokens(2, 15)
  expected = logits_of(model, params, tokens, positions_like(tokens))
  cached = model.clone(scan_layers=scan)
  cache = empty_cache(model.config, model.layout, 2, 15, jnp.float32)
  if scan:
    cache = jax.tree.map(lambda *layers: jnp.stack(layers), *cache)
  else:
    params = split_layers(params)

  @jax.jit
  def forward(tokens, positions, cache):
    hidden, cache = cached.apply({"params": params}, tokens, positions, None, cache)
    return cached.apply({"params": params}, hidden, method="logits"), cache

  lengths = np.array([9, 6])  # what of the prefill counts; row 1 overwrites the rest
  logits, cache = forward(tokens[:, :9], positions_like(tokens[:, :9]), cache)
  for row, length in enumerate(lengths):
    np.testing.assert_allclose(logits[row, :length], expected[row, :length], atol=1e-4)
  for step in range(6):
    at = lengths + step
    logits, cache = forward(tokens[np.arange(2), at][:, None], at[:, None].astype(np.int32), cache)
    np.testing.assert_allclose(logits[:, 0], expected[np.arange(2), at], atol=1e-4)


def test_no_token_sees_the_future(tmp_path):
  write_model(tmp_path)
  model, params = load(tmp_path)
  tokens = random_tokens(1, 8)
  changed = tokens.copy()
  changed[0, 5] += 1
  before = logits_of(model, params, tokens, positions_like(tokens))
  after = logits_of(model, params, changed, positions_like(tokens))
  np.testing.assert_array_equal(before[0, :5], after[0, :5])
  assert np.abs(before[0, 5:] - after[0, 5:]).max() > 1e-3


@pytest.mark.parametrize("mesh", [(8, 1, 1), (2, 2, 2), (1, 4, 2)], ids=str)
def test_logits_do_not_depend_on_the_mesh(tmp_path, mesh):
  reference = write_model(tmp_path)
  model, params = load(tmp_path, make_layout(*mesh))
  used = {d for leaf in jax.tree.leaves(params) for d in leaf.sharding.device_set}
  assert len(used) == 8
  tokens = random_tokens(8, 11)
  ours = logits_of(model, params, tokens, positions_like(tokens))
  np.testing.assert_allclose(ours, theirs(reference, tokens), atol=1e-4)


def test_bfloat16_stays_as_close_to_float32_as_transformers_does(tmp_path):
  import torch

  reference = write_model(tmp_path)
  tokens = random_tokens(4, 17)
  exact = theirs(reference, tokens)
  their_error = np.abs(theirs(reference.to(torch.bfloat16), tokens) - exact).max()
  model, params = load(tmp_path, dtype=jnp.bfloat16)
  ours = logits_of(model, params, tokens, positions_like(tokens))
  assert np.abs(ours - exact).max() < 1.5 * their_error


def test_parameters_are_born_sharded_and_equal_on_every_mesh(tmp_path):
  write_model(tmp_path)
  config, _ = read_config(tmp_path)
  alone = init_params(Qwen3(config, one_device()), jax.random.key(3))
  spread = init_params(Qwen3(config, make_layout(2, 2, 2)), jax.random.key(3))
  kernel = spread["layers"]["feed_forward"]["up"]["kernel"]
  assert kernel.addressable_shards[0].data.size == kernel.size // 4
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), alone, spread)


@pytest.mark.parametrize(
  ("name", "params"),
  [
    ("qwen3_0p6b", 596_049_920),
    ("qwen3_1p7b", 1_720_574_976),
    ("qwen3_4b", 4_022_468_096),
    ("qwen3_8b", 8_190_735_360),
    ("qwen3_14b", 14_768_307_200),
    ("qwen3_32b", 32_762_123_264),
  ],
)
def test_published_sizes_have_their_published_parameter_counts(name, params):
  model = Qwen3(PUBLISHED[name], one_device())
  leaves = jax.tree.leaves(abstract_params(model))
  assert sum(leaf.size for leaf in leaves) == PUBLISHED[name].num_params == params


@pytest.mark.slow
def test_logits_equal_transformers_on_the_true_0p6b_shape(tmp_path):
  c = PUBLISHED["qwen3_0p6b"]
  reference = write_model(
    tmp_path,
    std=0.02,
    vocab_size=c.vocab_size,
    hidden_size=c.hidden_size,
    intermediate_size=c.intermediate_size,
    num_hidden_layers=c.num_hidden_layers,
    num_attention_heads=c.num_attention_heads,
    num_key_value_heads=c.num_key_value_heads,
    head_dim=c.head_dim,
    rope_parameters={"rope_theta": 1e6, "rope_type": "default"},
  )
  model, params = load(tmp_path)
  tokens = random_tokens(2, 33, vocab=150_000)
  ours = logits_of(model, params, tokens, positions_like(tokens))
  np.testing.assert_allclose(ours, theirs(reference, tokens), atol=1e-4)
