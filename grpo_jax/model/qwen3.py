"""Qwen3, once: the same module trains, prefills and decodes.

Shapes are letters, in names and in einsum equations alike:

  B rows   T tokens   S cached tokens   L layers   V vocabulary
  D hidden   F feed-forward   H query heads   K key/value heads   h head_dim

The block is pre-norm attention with per-head RMSNorm on queries and keys, rotary positions, grouped
key heads, and a SwiGLU feed-forward; no biases (Qwen3 technical report, arXiv 2505.09388). The
arithmetic follows the released weights: norms, softmax and rotations in float32, the norm's scale
applied after casting back.

`scan_layers=True` keeps each parameter stacked [L, ...] and compiles one block: training.
`scan_layers=False` reads per-layer parameters made by `split_layers` and unrolls the blocks:
sampling, where slicing a stack at every token would copy all weights through memory.
"""

import functools
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from grpo_jax.model.attention import attend
from grpo_jax.model.config import Qwen3Config
from grpo_jax.model.sharding import Layout

Params = dict[str, Any]


@flax.struct.dataclass
class LayerCache:
  """Keys and values one layer has seen; with scanned layers both lead with L."""

  k_BKSh: jax.Array
  v_BKSh: jax.Array

  def write(self, k_BKTh: jax.Array, v_BKTh: jax.Array, start_B: jax.Array) -> "LayerCache":
    """Puts T new keys and values of each row at its own place start..start+T."""
    place = jax.vmap(lambda old, new, at: jax.lax.dynamic_update_slice(old, new, (0, at, 0)))
    k_BKTh, v_BKTh = (x.astype(self.k_BKSh.dtype) for x in (k_BKTh, v_BKTh))
    return LayerCache(place(self.k_BKSh, k_BKTh, start_B), place(self.v_BKSh, v_BKTh, start_B))


Cache = tuple[LayerCache, ...]


class Linear(nn.Module):
  """A matrix of the model, applied by an einsum whose letters are its documentation."""

  equation: str  # "<activation>,<kernel>-><result>"
  shape: tuple[int, ...]
  axes: tuple[str, ...]  # logical names, one for each kernel axis
  std: float
  layout: Layout
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    init = nn.with_logical_partitioning(nn.initializers.normal(self.std), self.axes)
    kernel = self.param("kernel", init, self.shape, jnp.float32)
    formed_in = self.layout.arithmetic_dtype(self.dtype)
    product = jnp.einsum(
      self.equation, x, kernel.astype(self.dtype), preferred_element_type=formed_in
    )
    return product.astype(self.dtype)


class RMSNorm(nn.Module):
  """x / rms(x) over the last axis, times a learned scale."""

  size: int
  epsilon: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    init = nn.with_logical_partitioning(nn.initializers.ones, ("norm",))
    scale = self.param("scale", init, (self.size,), jnp.float32)
    x32 = x.astype(jnp.float32)
    normal = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), -1, keepdims=True) + self.epsilon)
    return normal.astype(x.dtype) * _along_last_axis(scale, x)


class Attention(nn.Module):
  config: Qwen3Config
  layout: Layout
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x_BTD, rotation, visible_BTS, start_B, cache: LayerCache | None):
    c = self.config
    D, H, K, h = c.hidden_size, c.num_attention_heads, c.num_key_value_heads, c.head_dim

    def linear(name, equation, shape, axes):
      return Linear(
        equation, shape, axes, c.initializer_range, self.layout, self.dtype, name=name
      )

    def norm(name):
      return RMSNorm(h, c.rms_norm_eps, name=name)

    kv_axes = ("embed", "kv_heads", "head_dim")
    q = linear("query", "BTD,DHh->BHTh", (D, H, h), ("embed", "heads", "head_dim"))(x_BTD)
    k = linear("key", "BTD,DKh->BKTh", (D, K, h), kv_axes)(x_BTD)
    v = linear("value", "BTD,DKh->BKTh", (D, K, h), kv_axes)(x_BTD)
    q = rotate(norm("query_norm")(q), rotation)
    k = rotate(norm("key_norm")(k), rotation)
    q = self.layout.constrain(q, "batch", "heads", "length", "head_dim")
    k = self.layout.constrain(k, "batch", "kv_heads", "length", "head_dim")
    v = self.layout.constrain(v, "batch", "kv_heads", "length", "head_dim")

    if cache is not None:
      cache = cache.write(k, v, start_B)
      k, v = cache.k_BKSh, cache.v_BKSh
    mixed = attend(q, k, v, visible_BTS)
    out = linear("out", "BHTh,HhD->BTD", (H, h, D), ("heads", "head_dim", "embed"))(mixed)
    return out, cache


class FeedForward(nn.Module):
  config: Qwen3Config
  layout: Layout
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x_BTD):
    D, F = self.config.hidden_size, self.config.intermediate_size

    def linear(name, equation, shape, axes):
      std = self.config.initializer_range
      return Linear(equation, shape, axes, std, self.layout, self.dtype, name=name)

    gate_BTF = linear("gate", "BTD,DF->BTF", (D, F), ("embed", "mlp"))(x_BTD)
    up_BTF = linear("up", "BTD,DF->BTF", (D, F), ("embed", "mlp"))(x_BTD)
    hidden_BTF = self.layout.constrain(nn.silu(gate_BTF) * up_BTF, "batch", "length", "mlp")
    return linear("down", "BTF,FD->BTD", (F, D), ("mlp", "embed"))(hidden_BTF)


class Block(nn.Module):
  """One layer. Takes and returns its cache, so that scanned and unrolled layers are alike."""

  config: Qwen3Config
  layout: Layout
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x_BTD, rotation, visible_BTS, start_B, cache):
    c = self.config
    parts = (c, self.layout, self.dtype)

    def norm(name):
      return RMSNorm(c.hidden_size, c.rms_norm_eps, name=name)

    with jax.named_scope("attention"):
      attention = Attention(*parts, name="attention")
      normal = norm("attention_norm")(x_BTD)
      mixed, cache = attention(normal, rotation, visible_BTS, start_B, cache)
      x_BTD = x_BTD + mixed
    with jax.named_scope("feed_forward"):
      x_BTD += FeedForward(*parts, name="feed_forward")(norm("feed_forward_norm")(x_BTD))
    return self.layout.constrain(x_BTD, "batch", "length", None), cache


class Qwen3(nn.Module):
  """Tokens to hidden states; `logits` is apart, so that callers choose the positions they pay for.

  Attributes:
    config: the model's shape.
    layout: mesh and axis table.
    dtype: of activations and of the weights as they are used; parameters stay float32.
    scan_layers: see the module's docstring.
    remat: recompute each block in the backward pass instead of storing its activations.
  """

  config: Qwen3Config
  layout: Layout
  dtype: jnp.dtype = jnp.float32
  scan_layers: bool = True
  remat: bool = False

  def setup(self):
    c = self.config
    init = nn.initializers.normal(c.initializer_range)
    init = nn.with_logical_partitioning(init, ("vocab", "embed"))
    shape = (c.vocab_size, c.hidden_size)
    self.embedding = self.param("embedding", init, shape, jnp.float32)
    if not c.tie_word_embeddings:
      self.head = self.param("head", init, shape, jnp.float32)
    self.final_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)

    parts = (c, self.layout, self.dtype)
    block = nn.remat(Block, prevent_cse=not self.scan_layers) if self.remat else Block
    if self.scan_layers:
      self.layers = nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(nn.broadcast, nn.broadcast, nn.broadcast, 0),
        length=c.num_hidden_layers,
        metadata_params={nn.PARTITION_NAME: "layers"},
      )(*parts)
    else:
      self.layers = [block(*parts) for _ in range(c.num_hidden_layers)]

  def __call__(
    self,
    tokens_BT: jax.Array,
    positions_BT: jax.Array,
    valid_BT: jax.Array | None = None,
    cache: Cache | LayerCache | None = None,
  ) -> tuple[jax.Array, Cache | LayerCache | None]:
    """Runs all layers.

    Without a cache, token t sees the tokens s <= t of its row where `valid_BT` (padding on either
    side is marked there). With a cache, a token at position p is stored at index p and sees the
    indices up to p: rows are packed from index 0, and what an index held before is overwritten
    before it can be seen.

    Args:
      tokens_BT: int32 ids.
      positions_BT: int32 positions for the rotation; contiguous in each row if there is a cache.
      valid_BT: False on padding; None: no padding (or a cache).
      cache: of `empty_cache`; a tuple of layers if they are unrolled, one stacked LayerCache if
        they are scanned.

    Returns:
      Hidden states [B, T, D] after the final norm, and the cache with these tokens in it.
    """
    # The table is gathered over fsdp before the look-up: looked up first, its rows would have to
    # move from a split over D to a split over B, which XLA can only do by replicating them.
    table_VD = self.layout.constrain(self.embedding, "vocab", None)
    x_BTD = table_VD[self.layout.constrain(tokens_BT, "batch", "length")].astype(self.dtype)
    x_BTD = self.layout.constrain(x_BTD, "batch", "length", None)
    rotation = rotation_at(positions_BT, self.config.head_dim, self.config.rope_theta)
    visible_BTS = _visible(positions_BT, valid_BT, cache)
    start_B = positions_BT[:, 0]

    if self.scan_layers:
      x_BTD, cache = self.layers(x_BTD, rotation, visible_BTS, start_B, cache)
    else:
      caches = cache if cache is not None else [None] * len(self.layers)
      new = []
      for block, layer_cache in zip(self.layers, caches, strict=True):
        x_BTD, layer_cache = block(x_BTD, rotation, visible_BTS, start_B, layer_cache)
        new.append(layer_cache)
      cache = tuple(new) if cache is not None else None
    return self.final_norm(x_BTD), cache

  def logits(self, hidden: jax.Array) -> jax.Array:
    """Hidden states [..., D] to float32 logits [..., V]."""
    head_VD = self.embedding if self.config.tie_word_embeddings else self.head
    return jnp.einsum(
      "...D,VD->...V", hidden, head_VD.astype(self.dtype), preferred_element_type=jnp.float32
    )


def rotation_at(positions_BT: jax.Array, head_dim: int, theta: float) -> tuple[jax.Array, ...]:
  """Cosine and sine [B, 1, T, h/2] of the rotary angles; in float32 whatever the model computes
  in, since bfloat16 rounds position 257 to 256."""
  frequency = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
  angle = positions_BT[:, None, :, None].astype(jnp.float32) * frequency[None, None, None, :]
  return jnp.cos(angle), jnp.sin(angle)


def rotate(x_BNTh: jax.Array, rotation: tuple[jax.Array, ...]) -> jax.Array:
  """Rotates the pairs (i, i + h/2) of each head (RoPE, arXiv 2104.09864, half-split layout)."""
  cos, sin = (part.astype(x_BNTh.dtype) for part in rotation)
  first, second = jnp.split(x_BNTh, 2, axis=-1)
  return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def split_layers(params: Params) -> Params:
  """Stacked parameters to per-layer ones, for `scan_layers=False`. Do it once a sampling phase."""
  stacked = params["layers"]
  count = jax.tree.leaves(stacked)[0].shape[0]
  rest = {name: value for name, value in params.items() if name != "layers"}
  return rest | {f"layers_{i}": jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(count)}


def empty_cache(
  config: Qwen3Config, layout: Layout, rows: int, length: int, dtype: jnp.dtype
) -> Cache:
  """A cache of zeros for unrolled layers: L x 2 arrays [B, K, S, h], split over rows and heads."""
  shape = (rows, config.num_key_value_heads, length, config.head_dim)

  def zeros():
    x_BKSh = jnp.zeros(shape, layout.arithmetic_dtype(dtype))
    return layout.constrain(x_BKSh, "batch", "kv_heads", "length", "head_dim")

  return tuple(LayerCache(zeros(), zeros()) for _ in range(config.num_hidden_layers))


def cache_bytes_per_device(model: Qwen3, rows: int, length: int) -> int:
  """Size of `empty_cache` on one device."""
  make = functools.partial(
    empty_cache, model.config, model.layout, rows, length, model.dtype
  )
  mesh = model.layout.mesh.shape
  total = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(make)))
  return total // (model.layout.batch_shards * mesh["tensor"])


def abstract_params(model: Qwen3) -> Params:
  """Shapes, dtypes and shardings of the parameters, without making any."""

  def init(key):
    tokens = jnp.zeros((1, 1), jnp.int32)
    return model.init(key, tokens, tokens, method=_touch_everything)["params"]

  boxed = jax.eval_shape(init, jax.random.key(0))
  specs = nn.get_partition_spec(boxed)
  return jax.tree.map(
    lambda leaf, names: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=model.layout.sharding(*names)
    ),
    nn.unbox(boxed),
    specs,
  )


def init_params(model: Qwen3, key: jax.Array) -> Params:
  """Random parameters, each made on the devices that will hold it."""
  shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_params(model))

  def init(key):
    tokens = jnp.zeros((1, 1), jnp.int32)
    return nn.unbox(model.init(key, tokens, tokens, method=_touch_everything)["params"])

  return jax.jit(init, out_shardings=shardings)(key)


def _touch_everything(model: Qwen3, tokens_BT, positions_BT):
  """A forward pass through all parameters, for initialisation."""
  hidden, _ = model(tokens_BT, positions_BT)
  return model.logits(hidden)


def _visible(positions_BT, valid_BT, cache) -> jax.Array:
  """Which keys each query may see, [B, T, S] or [1, T, S]."""
  if cache is not None:
    length = jax.tree.leaves(cache)[0].shape[-2]
    return jnp.arange(length)[None, None, :] <= positions_BT[:, :, None]
  T = positions_BT.shape[1]
  causal_1TT = jnp.tril(jnp.ones((T, T), bool))[None]
  return causal_1TT if valid_BT is None else causal_1TT & valid_BT[:, None, :]


def _along_last_axis(vector: jax.Array, like: jax.Array) -> jax.Array:
  return vector.astype(like.dtype).reshape((1,) * (like.ndim - 1) + (-1,))
