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
import math
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from grpo_jax.model.attention import ATTENDED, attend, is_kernel
from grpo_jax.model.config import Qwen3Config
from grpo_jax.model.lines import Lines
from grpo_jax.model.sharding import Layout

Params = dict[str, Any]


@flax.struct.dataclass
class LayerCache:
  """Keys and values one layer has seen; with scanned layers both lead with L."""

  k_BKSh: jax.Array
  v_BKSh: jax.Array

  def write(self, k_BKTh: jax.Array, v_BKTh: jax.Array, start_B: jax.Array) -> "LayerCache":
    """Puts T new keys and values of each row at its own place start..start+T."""
    def place(old_BKSh, new_BKTh):
      new_BKTh = new_BKTh.astype(old_BKSh.dtype)
      if new_BKTh.shape[:3:2] == (1, 1):
        # One token of one row: XLA's CPU backend would copy the whole cache four times around the
        # slice update this is. A scatter of two, the second out of range, stays in place.
        at_2 = jnp.stack([start_B[0], old_BKSh.shape[2]])
        twice_2Kh = jnp.broadcast_to(new_BKTh[0, :, 0], (2, *new_BKTh.shape[1::2]))
        return old_BKSh.at[0, :, at_2].set(twice_2Kh, mode="drop")
      update = jax.vmap(lambda old, new, at: jax.lax.dynamic_update_slice(old, new, (0, at, 0)))
      return update(old_BKSh, new_BKTh, start_B)

    return LayerCache(place(self.k_BKSh, k_BKTh), place(self.v_BKSh, v_BKTh))


Cache = tuple[LayerCache, ...]


class Linear(nn.Module):
  """A matrix of the model, applied by an einsum whose letters are its documentation, and the
  low-rank adapters that model/lora.py may have put beside it."""

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
    product = self._product(self.equation, x, kernel)
    if self.has_variable("params", "lora_a"):
      a, b = (self.get_variable("params", name) for name in ("lora_a", "lora_b"))
      into_rank, out_of_rank = _through_rank(self.equation)
      product += self._product(out_of_rank, self._product(into_rank, x, a), b)
    return checkpoint_name(product, "product")

  def _product(self, equation: str, x: jax.Array, matrix: jax.Array) -> jax.Array:
    """On a CPU as a product of two matrices: where a gradient is a sum over two axes, B and T, XLA
    turns whole activations around first there, which takes longer than the product itself.
    Elsewhere axes stay apart: devices split some of them."""
    formed_in = self.layout.arithmetic_dtype(self.dtype)
    if self.layout.platform != "cpu":
      product = jnp.einsum(equation, x, matrix.astype(self.dtype), preferred_element_type=formed_in)
      return product.astype(self.dtype)
    letters, kernel, _ = re.split(",|->", equation)
    summed = [letters.index(letter) for letter in kernel if letter in letters]
    x = jnp.moveaxis(x, summed, range(-len(summed), 0))
    rows, outputs = x.shape[: -len(summed)], matrix.shape[len(summed) :]
    x_NI = x.reshape(math.prod(rows), -1)
    matrix_IO = matrix.astype(self.dtype).reshape(x_NI.shape[1], -1)
    product_NO = jnp.einsum("NI,IO->NO", x_NI, matrix_IO, preferred_element_type=formed_in)
    return product_NO.astype(self.dtype).reshape(*rows, *outputs)


def _through_rank(equation: str) -> tuple[str, str]:
  """The equations of x A and (x A) B: "BTD,DF->BTF" gives "BTD,Dr->BTr" and "BTr,rF->BTF"."""
  x, kernel, result = re.split(",|->", equation)
  inputs = "".join(letter for letter in kernel if letter in x)
  outputs = "".join(letter for letter in kernel if letter not in x)
  narrow = "".join(letter for letter in x if letter not in kernel) + "r"
  return f"{x},{inputs}r->{narrow}", f"{narrow},r{outputs}->{result}"


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
  attention_kernel: str

  @nn.compact
  def __call__(self, x_BTD, rotation, place_BT, start_B, lines: Lines | None, cache):
    c = self.config
    D, H, K, h = c.hidden_size, c.num_attention_heads, c.num_key_value_heads, c.head_dim

    def linear(name, equation, shape, axes):
      return Linear(
        equation, shape, axes, c.initializer_range, self.layout, self.dtype, name=name
      )

    def norm(name):
      return RMSNorm(h, c.rms_norm_eps, name=name)

    kv_axes = ("embed", "kv_heads", "head_dim")
    q = linear("query", "BTD,DHh->BTHh", (D, H, h), ("embed", "heads", "head_dim"))(x_BTD)
    k = linear("key", "BTD,DKh->BTKh", (D, K, h), kv_axes)(x_BTD)
    v = linear("value", "BTD,DKh->BTKh", (D, K, h), kv_axes)(x_BTD)
    if lines is not None:
      apart = functools.partial(lines.apart, rows=len(start_B))
      q = apart(q, names=("heads", "head_dim"))
      k, v = (apart(x, names=("kv_heads", "head_dim")) for x in (k, v))
    # Heads first only now: an einsum straight to that order makes XLA's CPU backend turn the whole
    # matrix around for every token.
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    q = rotate(norm("query_norm")(q), rotation)
    k = rotate(norm("key_norm")(k), rotation)
    q = self.layout.constrain(q, "batch", "heads", "length", "head_dim")
    k = self.layout.constrain(k, "batch", "kv_heads", "length", "head_dim")
    v = self.layout.constrain(v, "batch", "kv_heads", "length", "head_dim")

    if cache is not None:
      cache = cache.write(k, v, start_B)
      k, v = cache.k_BKSh, cache.v_BKSh
    mixed = attend(q, k, v, self.layout, place_BT, self.attention_kernel)
    mixed = jnp.swapaxes(mixed, 1, 2)
    if lines is not None:
      mixed = lines.joined(mixed, names=("heads", "head_dim"))
    out = linear("out", "BTHh,HhD->BTD", (H, h, D), ("heads", "head_dim", "embed"))(mixed)
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
  attention_kernel: str

  @nn.compact
  def __call__(self, x_BTD, rotation, place_BT, start_B, lines, cache):
    c = self.config
    parts = (c, self.layout, self.dtype)

    def norm(name, x_BTD):
      normal_BTD = RMSNorm(c.hidden_size, c.rms_norm_eps, name=name)(x_BTD)
      return self.layout.constrain(normal_BTD, "batch", "length", None)

    x_BTD = checkpoint_name(x_BTD, "block_input")
    with jax.named_scope("attention"):
      attention = Attention(*parts, self.attention_kernel, name="attention")
      normal_BTD = norm("attention_norm", x_BTD)
      mixed, cache = attention(normal_BTD, rotation, place_BT, start_B, lines, cache)
      x_BTD = _constrain_between(self.layout, x_BTD + mixed)
    with jax.named_scope("feed_forward"):
      x_BTD += FeedForward(*parts, name="feed_forward")(norm("feed_forward_norm", x_BTD))
    return _constrain_between(self.layout, x_BTD), cache


# What of a block the backward pass finds again, as policies of jax.checkpoint.
REMAT = {
  "none": jax.checkpoint_policies.everything_saveable,
  # Its input and what products and attention gave, but for splash's kernel: only what is cheap is
  # recomputed.
  "elementwise": jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.save_only_these_names("product", ATTENDED), is_kernel
  ),
  "block": jax.checkpoint_policies.nothing_saveable,  # its input, from which all is recomputed
  "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
    names_which_can_be_saved=[],
    names_which_can_be_offloaded=["block_input"],  # the same, in the host's memory
    offload_src="device",
    offload_dst="pinned_host",
  ),
}


class Qwen3(nn.Module):
  """Tokens to hidden states; `logits` is apart, so that callers choose the positions they pay for.

  Attributes:
    config: the model's shape.
    layout: mesh and axis table.
    dtype: of activations and of the weights as they are used; parameters stay float32.
    scan_layers: see the module's docstring.
    remat: a name of REMAT: memory against work in the backward pass.
    attention_kernel: of attention.attend; "auto" suits the layout's devices.
  """

  config: Qwen3Config
  layout: Layout
  dtype: jnp.dtype = jnp.float32
  scan_layers: bool = True
  remat: str = "none"
  attention_kernel: str = "auto"

  def setup(self):
    c = self.config
    init = nn.initializers.normal(c.initializer_range)
    init = nn.with_logical_partitioning(init, ("vocab", "embed"))
    shape = (c.vocab_size, c.hidden_size)
    self.embedding = self.param("embedding", init, shape, jnp.float32)
    if not c.tie_word_embeddings:
      self.head = self.param("head", init, shape, jnp.float32)
    self.final_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)

    parts = (c, self.layout, self.dtype, self.attention_kernel)
    block = Block
    if self.remat != "none":
      block = nn.remat(Block, policy=REMAT[self.remat], prevent_cse=not self.scan_layers)
    if self.scan_layers:
      self.layers = nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(nn.broadcast, nn.broadcast, nn.broadcast, nn.broadcast, 0),
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
    lines: Lines | None = None,
  ) -> tuple[jax.Array, Cache | LayerCache | None]:
    """Runs all layers.

    Without a cache, token t sees the tokens s <= t of its row; padding before the first one has to
    be marked in `valid_BT`, padding behind the last one is seen by nobody. With a cache, a token at
    position p is stored at index p and sees the indices up to p: rows are packed from index 0, and
    what an index held before is overwritten before it can be seen.

    Args:
      tokens_BT: int32 ids.
      positions_BT: int32 positions for the rotation; contiguous in each row if there is a cache.
      valid_BT: False on padding, which may stand on either side of a row; None: none stands before
        a row (or there is a cache). Rows that need it are packed from index 0 meanwhile, which
        costs a copy of the hidden states.
      cache: of `empty_cache`; a tuple of layers if they are unrolled, one stacked LayerCache if
        they are scanned.
      lines: how rows lie end to end; `tokens_BT` and hidden states are [S, N] then, where positions
        stay those of rows. Without a cache or `valid_BT`.

    Returns:
      Hidden states [B, T, D] after the final norm, and the cache with these tokens in it.
    """
    if valid_BT is not None:
      padding_B = jnp.argmax(valid_BT, axis=1)  # before the first token
      tokens_BT, positions_BT = (_turn(x, padding_B) for x in (tokens_BT, positions_BT))
    x_BTD = _look_up(self.layout, self.embedding, tokens_BT, self.dtype)
    x_BTD = _constrain_between(self.layout, x_BTD)
    rotation = rotation_at(positions_BT, self.config.head_dim, self.config.rope_theta)
    place_BT = _places(positions_BT, cache)
    start_B = positions_BT[:, 0]

    if self.scan_layers:
      x_BTD, cache = self.layers(x_BTD, rotation, place_BT, start_B, lines, cache)
    else:
      caches = cache if cache is not None else [None] * len(self.layers)
      new = []
      for block, layer_cache in zip(self.layers, caches, strict=True):
        x_BTD, layer_cache = block(x_BTD, rotation, place_BT, start_B, lines, layer_cache)
        new.append(layer_cache)
      cache = tuple(new) if cache is not None else None
    if valid_BT is not None:
      x_BTD = _turn(x_BTD, -padding_B)
    return self.final_norm(x_BTD), cache

  def logits(self, hidden: jax.Array) -> jax.Array:
    """Hidden states [..., D] to float32 logits [..., V]."""
    head_VD = self.embedding if self.config.tie_word_embeddings else self.head
    return jnp.einsum(
      "...D,VD->...V", hidden, head_VD.astype(self.dtype), preferred_element_type=jnp.float32
    )


def vocabulary_table(config: Qwen3Config, params: Params) -> jax.Array:
  """[V, D]: a row for each id, whose product with a hidden state is the id's logit."""
  return params["embedding" if config.tie_word_embeddings else "head"]


def _look_up(layout: Layout, table_VD: jax.Array, tokens_BT: jax.Array, dtype: jnp.dtype):
  """Rows of the table, in the model's dtype.

  Where the table is split over D, its devices look up the tokens of all of them in their columns,
  and send rows, not the table, to each other; so do gradients come back.
  """
  if layout.mesh.size == 1 or len(tokens_BT) % layout.batch_shards:
    # Rows that do not divide over the devices are looked up by all of them.
    return _rows(layout, layout.constrain(table_VD, "vocab", None), tokens_BT).astype(dtype)
  of_columns, of_ids = layout.spec("embed", "vocab")

  def on_each_device(table_vd, tokens_bT):
    if of_columns:
      tokens_bT = jax.lax.all_gather(tokens_bT, of_columns, tiled=True)
    place_bT = tokens_bT - len(table_vd) * jax.lax.axis_index(of_ids)
    is_here_bT = (place_bT >= 0) & (place_bT < len(table_vd))
    x_bTd = _rows(layout, table_vd, jnp.where(is_here_bT, place_bT, 0)).astype(dtype)
    x_bTd = jax.lax.psum(jnp.where(is_here_bT[..., None], x_bTd, 0), of_ids)
    if of_columns:
      x_bTd = jax.lax.all_to_all(x_bTd, of_columns, split_axis=0, concat_axis=2, tiled=True)
    return x_bTd

  return jax.shard_map(
    on_each_device,
    mesh=layout.mesh,
    in_specs=(layout.spec("vocab", "embed"), layout.spec("batch", None)),
    out_specs=layout.spec("batch", None, None),
  )(table_VD, tokens_BT)


def _rows(layout: Layout, table_VD: jax.Array, tokens_BT: jax.Array) -> jax.Array:
  """Rows of a table that is here. Those of a bfloat16 table, which nothing is trained through, are
  taken as bits where XLA would widen the whole table first: on a CPU."""
  if table_VD.dtype != jnp.bfloat16 or layout.platform != "cpu":
    return table_VD[tokens_BT]
  bits_BTD = jax.lax.bitcast_convert_type(table_VD, jnp.uint16)[tokens_BT]
  return jax.lax.bitcast_convert_type(bits_BTD, jnp.bfloat16)


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


def layer_of(stacked: Params, i: int | jax.Array) -> Params:
  return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), stacked)


def split_layers(params: Params, take: Callable[[Params, int], Params] = layer_of) -> Params:
  """Stacked parameters to per-layer ones, for `scan_layers=False`. Do it once a sampling phase;
  `take` gives a layer out of the stack."""
  stacked = params["layers"]
  count = jax.tree.leaves(stacked)[0].shape[0]
  rest = {name: value for name, value in params.items() if name != "layers"}
  return rest | {f"layers_{i}": take(stacked, i) for i in range(count)}


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


def _places(positions_BT: jax.Array, cache) -> jax.Array | None:
  """The index each query stands at among its keys; None: its own, as in a cache just filled."""
  if cache is None or jax.tree.leaves(cache)[0].shape[-2] == positions_BT.shape[1]:
    return None
  return positions_BT


def _constrain_between(layout: Layout, x_BTD: jax.Array) -> jax.Array:
  """Hidden states between attention and feed-forward, and between blocks, where the backward pass
  keeps them: their tokens are split over the devices that share heads, which sum up their parts of
  them there and gather them whole after the next norm (sequence parallelism, arXiv 2205.05198)."""
  tokens = "sequence" if x_BTD.shape[1] % layout.mesh.shape["tensor"] == 0 else "length"
  return layout.constrain(x_BTD, "batch", tokens, None)


def _turn(x_BT: jax.Array, places_B: jax.Array) -> jax.Array:
  """Moves each row to the left by its own number of places; what leaves comes back at the end."""
  return jax.vmap(lambda row, places: jnp.roll(row, -places, axis=0))(x_BT, places_B)


def _along_last_axis(vector: jax.Array, like: jax.Array) -> jax.Array:
  return vector.astype(like.dtype).reshape((1,) * (like.ndim - 1) + (-1,))
