"""Every way to attend gives the same numbers, and none of them keeps a T x T tensor."""

import functools
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.errors import UserError
from grpo_jax.model import attention
from grpo_jax.model.attention import attend, check_kernel, cudnn_attention, xla_attention
from grpo_jax.model.config import PUBLISHED, Qwen3Config
from grpo_jax.model.qwen3 import (
  REMAT,
  Qwen3,
  abstract_params,
  empty_cache,
  init_params,
  split_layers,
)
from grpo_jax.model.sharding import make_layout

HEADS = {"every head its own keys": (4, 4), "pairs share": (4, 2), "one key head for all": (4, 1)}


def one_device():
  return make_layout(devices=jax.devices()[:1])


def random_qkv(B, H, K, T, h, *, S=None, dtype=jnp.float32):
  shapes = ((B, H, T, h), (B, K, S or T, h), (B, K, S or T, h))
  noise = np.random.default_rng(T)
  return [jnp.asarray(noise.normal(size=shape), dtype) for shape in shapes]


def exact(q, k, v, place_BT=None):
  """One query at a time, in float64, over the keys it sees and no others."""
  q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
  B, H, T, h = q.shape
  share = H // k.shape[1]
  out = np.zeros(q.shape)
  for b, n, t in np.ndindex(B, H, T):
    seen = slice((t if place_BT is None else place_BT[b, t]) + 1)
    score = k[b, n // share, seen] @ q[b, n, t] / np.sqrt(h)
    weight = np.exp(score - score.max())
    out[b, n, t] = weight @ v[b, n // share, seen] / weight.sum()
  return out


def gradients(function, *qkv):
  """Of a sum in which every output has its own weight."""
  weight = jnp.cos(jnp.arange(qkv[0].size, dtype=jnp.float32)).reshape(qkv[0].shape)
  loss = lambda q, k, v: jnp.sum(weight * function(q, k, v).astype(jnp.float32))
  return jax.block_until_ready(jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*qkv))


def assert_close(ours, theirs, atol=1e-5):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=atol, atol=atol), ours, theirs)


def small_blocks(monkeypatch):
  """What happens at thousands of tokens, at dozens."""
  monkeypatch.setattr(attention, "LONGEST_WHOLE", 8)
  monkeypatch.setattr(attention, "BLOCK", 8)


def spans(monkeypatch, block):
  """Rows of dozens of tokens cut as those of thousands are; `block` queries at a time."""
  monkeypatch.setattr(attention, "SHORTEST_SPAN", 4)
  monkeypatch.setattr(attention, "SPANS", 3)
  monkeypatch.setattr(attention, "BLOCK", block)


# ------------------------------------------------------------------------- plain XLA


@pytest.mark.parametrize("block", [256, 3, 8])
@pytest.mark.parametrize(("H", "K"), HEADS.values(), ids=HEADS)
def test_rows_see_what_stands_before_them(monkeypatch, H, K, block):
  spans(monkeypatch, block)
  qkv = random_qkv(2, H, K, 21, 16)  # the last span is not full, nor is its last block
  assert attention._spans(21) == [(0, 8), (8, 16), (16, 21)]
  assert_close(attend(*qkv, one_device()), exact(*qkv))


@pytest.mark.parametrize("blockwise", [False, True], ids=["whole", "in blocks"])
@pytest.mark.parametrize("T", [1, 13])
def test_queries_in_a_cache_see_up_to_their_own_place(monkeypatch, T, blockwise):
  """Rows stand at different places; what the cache holds behind them is someone else's."""
  if blockwise:
    small_blocks(monkeypatch)
  qkv = random_qkv(3, 4, 2, T, 16, S=30)
  place_BT = np.array([0, 7, 29 - T])[:, None] + np.arange(T)
  assert_close(attend(*qkv, one_device(), jnp.asarray(place_BT)), exact(*qkv, place_BT))


@pytest.mark.parametrize(("H", "K"), HEADS.values(), ids=HEADS)
def test_blocks_have_the_gradients_of_the_whole(monkeypatch, H, K):
  """And these are what differentiation makes of the plain formula."""
  qkv = random_qkv(2, H, K, 21, 16)
  place_BT = jnp.broadcast_to(jnp.arange(21), (2, 21))
  plainly = gradients(functools.partial(xla_attention, place_BT=place_BT), *qkv)
  assert_close(gradients(xla_attention, *qkv), plainly)
  spans(monkeypatch, 3)
  assert_close(gradients(xla_attention, *qkv), plainly)


def test_blocks_do_not_round_the_gradients_of_keys_between_them(monkeypatch):
  """A bfloat16 sum over blocks loses what each block adds once the sum is large."""
  qkv = random_qkv(1, 2, 1, 512, 16, dtype=jnp.bfloat16)
  exactly = gradients(xla_attention, *(x.astype(jnp.float32) for x in qkv))

  def error():
    found = gradients(xla_attention, *qkv)
    return max(
      np.abs(np.asarray(a, np.float32) - b).max() / np.abs(b).max()
      for a, b in zip(found[1:], exactly[1:], strict=True)
    )

  whole = error()
  spans(monkeypatch, 8)
  assert error() < 1.5 * whole


def temporary_bytes(T):
  """Of a forward and backward pass of one row, and its program."""
  shapes = [jax.ShapeDtypeStruct((1, n, T, 8), jnp.float32) for n in (2, 1, 1)]
  loss = lambda q, k, v: jnp.sum(xla_attention(q, k, v) ** 2)
  compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*shapes).compile()
  return compiled.memory_analysis().temp_size_in_bytes, compiled.as_text()


def test_memory_grows_with_the_length_and_not_with_its_square():
  sizes = {T: temporary_bytes(T)[0] for T in (2048, 4096, 8192)}
  assert sizes[4096] < 2.2 * sizes[2048]
  assert sizes[8192] < 2.2 * sizes[4096]
  assert sizes[8192] < 8192 * 8192 * 4 / 3, "a third of the scores of one of the two heads"


# ------------------------------------------------------------------------- the model


def tiny_model(layout=None, **options):
  """Heads as large as the published ones, so that kernels take them; the rest is small."""
  shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
  config = Qwen3Config(
    vocab_size=32, hidden_size=16, intermediate_size=32, head_dim=128, rope_theta=1e6, **shape
  )
  return Qwen3(config, layout or one_device(), **options)


def random_tokens(B, T):
  tokens_BT = jnp.asarray(np.random.default_rng(T).integers(1, 32, (B, T)), jnp.int32)
  return tokens_BT, jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T))


def loss_of(model, weight_BT, tokens_BT, positions_BT, valid_BT, params):
  hidden_BTD, _ = model.apply({"params": params}, tokens_BT, positions_BT, valid_BT)
  return jnp.sum(jnp.sin(hidden_BTD) * weight_BT[:, :, None])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_gradient(side):
  model = tiny_model()
  params = init_params(model, jax.random.key(0))
  tokens_BT, positions_BT = random_tokens(2, 9)
  length = 5
  start = 9 - length if side == "left" else 0
  index_T = jnp.arange(9)
  valid_T = (index_T >= start) & (index_T < start + length)
  valid_BT = jnp.stack([valid_T, index_T >= 0])  # beside a row without padding
  positions_BT = positions_BT.at[0].set(jnp.maximum(index_T - start, 0))

  @jax.jit
  def gradient(params, weight, tokens, positions, valid=None):
    loss = functools.partial(loss_of, model, weight, tokens, positions, valid)
    return jax.grad(loss)(params)

  weight_BT = jnp.cos(jnp.arange(18.0)).reshape(2, 9) * valid_BT
  padded = gradient(params, weight_BT, tokens_BT, positions_BT, valid_BT)
  row = slice(start, start + length)
  alone = jax.block_until_ready((
    gradient(params, weight_BT[:1, row], tokens_BT[:1, row], positions_BT[:1, row]),
    gradient(params, weight_BT[1:], tokens_BT[1:], positions_BT[1:]),
  ))
  assert_close(padded, jax.tree.map(jnp.add, *alone), atol=1e-4)


def test_the_model_never_holds_a_square():
  """A mask [T, T] of booleans, made once for all layers, was 64 MB at 8192 tokens a row."""
  T = 2048
  model = tiny_model()
  tokens = jax.ShapeDtypeStruct((1, T), jnp.int32)
  weight = jax.ShapeDtypeStruct((1, T), jnp.float32)
  loss = lambda weight, tokens, params: loss_of(model, weight, tokens, tokens, None, params)
  lowered = jax.jit(jax.grad(loss, argnums=2)).lower(weight, tokens, abstract_params(model))
  squares = re.findall(rf"tensor<[\dx]*{T}x{T}x\w+>", lowered.as_text())
  assert not squares


# ------------------------------------------------------------------------- splash, interpreted

interpreted = functools.partial(attend, kernel="splash_interpreted")


def calls_pallas(function, *args):
  return "pallas_call" in str(jax.make_jaxpr(function)(*args))


@pytest.mark.parametrize("T", [128, 200, 768])
@pytest.mark.parametrize(("H", "K"), HEADS.values(), ids=HEADS)
def test_splash_equals_xla(H, K, T):
  """Lengths of one block, of padding, and of two blocks."""
  if T == 768 and K != 2:
    pytest.skip("one ratio of heads is enough for the larger blocks")
  layout = one_device()
  qkv = random_qkv(2, H, K, T, 128)
  splash = functools.partial(interpreted, layout=layout)
  assert calls_pallas(splash, *qkv)
  assert_close(jax.jit(splash)(*qkv), xla_attention(*qkv))
  assert_close(gradients(splash, *qkv), gradients(xla_attention, *qkv), atol=1e-4)


@pytest.mark.parametrize("rows", [4, 3], ids=["rows divide", "rows do not divide"])
def test_splash_on_a_mesh_equals_xla(rows):
  layout = make_layout(2, 2, 2)
  qkv = random_qkv(rows, 4, 2, 128, 128)
  splash = functools.partial(interpreted, layout=layout)
  assert_close(jax.block_until_ready(jax.jit(splash)(*qkv)), xla_attention(*qkv))
  assert_close(gradients(splash, *qkv), gradients(xla_attention, *qkv), atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_prefill_and_training_use_the_kernel_and_decoding_does_not(dtype):
  plain = tiny_model(dtype=dtype)
  model = plain.clone(attention_kernel="splash_interpreted")
  params = init_params(plain, jax.random.key(0))
  tokens_BT, positions_BT = random_tokens(2, 128)

  def train(model, params):
    return model.apply({"params": params}, tokens_BT, positions_BT)[0]

  def prefill(model, params):
    model = model.clone(scan_layers=False)
    cache = empty_cache(model.config, model.layout, 2, 128, dtype)
    variables = {"params": split_layers(params)}
    return model.apply(variables, tokens_BT, positions_BT, None, cache)

  def decode(model, params):
    model = model.clone(scan_layers=False)
    cache = empty_cache(model.config, model.layout, 2, 128, dtype)
    variables = {"params": split_layers(params)}
    return model.apply(variables, tokens_BT[:, :1], positions_BT[:, -1:], None, cache)

  assert not calls_pallas(functools.partial(decode, model), params)
  for phase in (train, prefill):
    assert calls_pallas(functools.partial(phase, model), params)
    ours, theirs = (
      jax.block_until_ready(jax.jit(functools.partial(phase, m))(params)) for m in (model, plain)
    )
    wide = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float32), tree)
    assert_close(wide(ours), wide(theirs), atol=1e-4 if dtype == jnp.float32 else 0.1)


# ------------------------------------------------------------------------- which kernel


@pytest.mark.parametrize(
  ("T", "h", "dtype"),
  [(64, 128, jnp.float32), (128, 16, jnp.float32), (128, 128, jnp.float16)],
  ids=["few tokens", "small heads", "dtype"],
)
def test_what_a_kernel_does_not_take_is_left_to_xla(T, h, dtype):
  qkv = random_qkv(1, 2, 1, T, h, dtype=dtype)
  assert not calls_pallas(functools.partial(interpreted, layout=one_device()), *qkv)


@pytest.mark.parametrize(
  ("kernel", "message"),
  [
    ("flash", "'flash'; known: auto, xla, splash"),
    ("splash", "runs on tpu devices; these are cpu"),
    ("cudnn", "runs on gpu devices; these are cpu"),
  ],
)
def test_a_kernel_that_cannot_run_is_refused(kernel, message):
  with pytest.raises(UserError, match=message):
    check_kernel(kernel, one_device())
  with pytest.raises(UserError, match=message):
    attend(*random_qkv(1, 2, 1, 4, 8), one_device(), kernel=kernel)


# ------------------------------------------------------------------------- other platforms


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_gpus_are_told_to_call_cudnn(monkeypatch, backward):
  """As far as lowering goes: it wants to know the version of cuDNN, but no GPU."""
  monkeypatch.setattr(
    "jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000
  )
  split = attention._on_each_device(cudnn_attention, make_layout(2, 2, 2), rows=4)
  function = split
  if backward:
    function = jax.grad(lambda *qkv: jnp.sum(split(*qkv).astype(jnp.float32)), argnums=(0, 1, 2))
  qkv = random_qkv(4, 4, 2, 256, 128, dtype=jnp.bfloat16)
  text = jax.jit(function).trace(*qkv).lower(lowering_platforms=("cuda",)).as_text()
  assert "__cudnn$fmhaSoftmaxBackward" in text if backward else "__cudnn$fmhaSoftmax" in text
  assert "256x256" not in text


@pytest.mark.parametrize(("remat", "times"), [("elementwise", 1), ("block", 2)])
def test_cudnn_attends_again_in_the_backward_pass_only_if_it_is_to(monkeypatch, remat, times):
  monkeypatch.setattr(
    "jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000
  )
  attended = jax.checkpoint(cudnn_attention, policy=REMAT[remat])
  loss = lambda *qkv: jnp.sum(jnp.square(attended(*qkv).astype(jnp.float32)))
  qkv = random_qkv(1, 2, 1, 128, 64, dtype=jnp.bfloat16)
  traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(*qkv)
  text = traced.lower(lowering_platforms=("cuda",)).as_text()
  assert text.count("@__cudnn$fmhaSoftmax(") == times


@pytest.mark.slow
def test_an_update_at_8192_tokens_compiles_for_tpus_without_a_square(monkeypatch):
  """The published 0.6B, forward and backward on eight v5e; needs libtpu, but no TPU."""
  pytest.importorskip("libtpu", reason="compiling for TPUs: pip install 'jax[tpu]'")
  from jax.experimental import topologies

  for name, value in {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
  }.items():
    monkeypatch.setitem(os.environ, name, value)
  devices = topologies.get_topology_desc("v5e:2x4", platform="tpu").devices
  layout = make_layout(fsdp=4, tensor=2, data=1, devices=devices)
  model = Qwen3(PUBLISHED["qwen3_0p6b"], layout, dtype=jnp.bfloat16, remat="block")
  T = 8192
  rows = layout.sharding("batch", "length")
  tokens = jax.ShapeDtypeStruct((4, T), jnp.int32, sharding=rows)
  weight = jax.ShapeDtypeStruct((4, T), jnp.float32, sharding=rows)
  loss = lambda weight, tokens, params: loss_of(model, weight, tokens, tokens, None, params)
  lowered = jax.jit(jax.grad(loss, argnums=2)).lower(weight, tokens, abstract_params(model))
  compiled = lowered.compile()
  text = compiled.as_text()
  assert "tpu_custom_call" in text
  assert f"{T},{T}]" not in text
  temporary = compiled.memory_analysis().temp_size_in_bytes
  print(f"{temporary:,} bytes of temporaries on each device")
  assert temporary < 1.2e9, "one layer's scores in float32 would be 2 GB a device alone"
