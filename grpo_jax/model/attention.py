"""What does each query take from the keys it may see? One function for every phase and backend.

Rows are packed from index 0, so nobody needs a mask: a query at place p sees the keys at 0..p. What
pads the end of a row is seen by no token before it. No way of computing this holds a T x T tensor
once T is long:

  xla     einsums that run anywhere; for long T in blocks, recomputed in the backward pass
  splash  Pallas kernel, whole rows on a TPU
  cudnn   cuDNN's kernel, whole rows on a GPU

The kernels are for reading whole rows: training and prefill. Decoding, one query against a cache,
is bound by reading that cache, and stays with XLA everywhere.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.pallas.ops.tpu import splash_attention as splash

from grpo_jax.errors import UserError
from grpo_jax.model.sharding import Layout

LONGEST_WHOLE = 1024  # queries up to which XLA forms all scores against a cache at once
BLOCK = 256  # queries whose scores it forms together beyond, and in whole rows
SPANS = 8  # of whole rows, at most: each is compiled by itself
SHORTEST_SPAN = 128  # queries
SHORTEST_FOR_KERNEL = 128  # tokens; a kernel's smallest block
ATTENDED = "attended"  # what the backward pass needs of attention, by this name of checkpoint_name
SPLASH_BLOCKS = (512, 384, 256, 128)  # its sizes are multiples of 128 that divide the length


def attend(
  q_BHTh: jax.Array,
  k_BKSh: jax.Array,
  v_BKSh: jax.Array,
  layout: Layout,
  place_BT: jax.Array | None = None,
  kernel: str = "auto",
) -> jax.Array:
  """Softmax attention, H query heads sharing K key heads; scores and softmax in float32.

  Args:
    q_BHTh: queries; head n reads key head n // (H / K).
    k_BKSh: keys.
    v_BKSh: values.
    layout: whose devices compute this.
    place_BT: int32, the last key each query sees, 0 or above; None: queries and keys are the same
      tokens, S = T, and query t sees the keys 0..t.
    kernel: "xla", a name of KERNELS, or "auto": the kernel of the layout's platform. XLA takes over
      what a kernel does not take: `place_BT`, fewer than 128 tokens, a dtype or head size that is
      not its own.

  Returns:
    Array [B, H, T, h] of the queries' dtype.

  Raises:
    UserError: an unknown kernel, or one of another platform.
  """
  check_kernel(kernel, layout)
  name = AUTO.get(layout.platform, "xla") if kernel == "auto" else kernel
  *_, T, h = q_BHTh.shape
  whole_rows = place_BT is None and T >= SHORTEST_FOR_KERNEL
  q = q_BHTh.astype(k_BKSh.dtype)
  if name != "xla" and whole_rows and KERNELS[name].takes(h, q.dtype):
    mixed_BHTh = _on_each_device(KERNELS[name].function, layout, len(q))(q, k_BKSh, v_BKSh)
  else:
    mixed_BHTh = xla_attention(q, k_BKSh, v_BKSh, place_BT)
  return mixed_BHTh.astype(q_BHTh.dtype)


def check_kernel(kernel: str, layout: Layout) -> None:
  """Raises UserError where `attend` would not know the kernel or its platform is another one."""
  if kernel in ("auto", "xla"):
    return
  if kernel not in KERNELS:
    raise UserError(f"config.model.attention is {kernel!r}; known: auto, xla, {', '.join(KERNELS)}")
  needed, found = KERNELS[kernel].platform, layout.platform
  if needed != found:
    raise UserError(
      f"config.model.attention is {kernel!r}, which runs on {needed} devices; these are {found}: "
      "'auto' takes what suits them"
    )


# ------------------------------------------------------------------------- plain XLA


def xla_attention(
  q_BHTh: jax.Array, k_BKSh: jax.Array, v_BKSh: jax.Array, place_BT: jax.Array | None = None
) -> jax.Array:
  """What `attend` describes, in einsums. Memory grows with BLOCK x S once T is long."""
  B, H, T, h = q_BHTh.shape
  K = k_BKSh.shape[1]
  q_BKGTh = q_BHTh.reshape(B, K, H // K, T, h)
  if place_BT is None:
    mixed = _mix_rows(q_BKGTh, k_BKSh, v_BKSh)
  else:
    mix = _mix if T <= LONGEST_WHOLE else _mix_in_blocks
    mixed = mix(q_BKGTh, k_BKSh, v_BKSh, place_BT)
  return mixed.reshape(B, H, T, h)


def _mix(q_BKGTh, k_BKSh, v_BKSh, place_BT) -> jax.Array:
  """Queries against a cache, all scores at once."""
  h, T = q_BKGTh.shape[-1], q_BKGTh.shape[-2]
  if T == 1:
    # Many keys against few queries: with the keys on the left, XLA's CPU backend reads them in the
    # order they lie in, up to four times as fast.
    scores = jnp.einsum("BKSh,BKGTh->BKSGT", k_BKSh, q_BKGTh, preferred_element_type=jnp.float32)
    scores = jnp.moveaxis(scores, 2, -1)
  else:
    scores = jnp.einsum("BKGTh,BKSh->BKGTS", q_BKGTh, k_BKSh, preferred_element_type=jnp.float32)
  visible_BTS = jnp.arange(k_BKSh.shape[2]) <= place_BT[:, :, None]
  scores = jnp.where(visible_BTS[:, None, None], scores * h**-0.5, jnp.finfo(jnp.float32).min)
  weights = jax.nn.softmax(scores, axis=-1).astype(v_BKSh.dtype)
  mixed = jnp.einsum(
    "BKGTS,BKSh->BKGTh", weights, v_BKSh, preferred_element_type=jnp.float32
  )
  return mixed.astype(v_BKSh.dtype)


def _mix_in_blocks(q_BKGTh, k_BKSh, v_BKSh, place_BT) -> jax.Array:
  """One block of queries after the other."""
  blocks = (_cut(q_BKGTh, 3), _cut(place_BT, 1))
  mixed_nBKGth = jax.lax.map(lambda block: _mix(block[0], k_BKSh, v_BKSh, block[1]), blocks)
  return _joined(mixed_nBKGth, q_BKGTh.shape[3])


# Whole rows: training, and prompts. They are cut into a few spans of queries, each with the keys up
# to its own end: almost half of the scores are seen by nobody, and are not formed. The backward
# pass forms scores again, from the logarithm of what they add up to (arXiv 2205.14135).


@jax.custom_vjp
def _mix_rows(q_BKGTh, k_BKTh, v_BKTh) -> jax.Array:
  return _mix_rows_forward(q_BKGTh, k_BKTh, v_BKTh)[0]


def _mix_rows_forward(q_BKGTh, k_BKTh, v_BKTh):
  parts = []
  for first, last in _spans(q_BKGTh.shape[3]):
    mix = functools.partial(_mix_block, k_BKTh[:, :, :last], v_BKTh[:, :, :last])
    parts.append(_over_blocks(mix, None, first, (q_BKGTh[:, :, :, first:last],))[1])
  mixed_BKGTh, total_BKGT = jax.tree.map(lambda *x: jnp.concatenate(x, axis=3), *parts)
  mixed_BKGTh, total_BKGT = (checkpoint_name(x, ATTENDED) for x in (mixed_BKGTh, total_BKGT))
  return mixed_BKGTh, (q_BKGTh, k_BKTh, v_BKTh, mixed_BKGTh, total_BKGT)


def _mix_block(k_BKSh, v_BKSh, carry, first, q_BKGth):
  """Of the queries at first.. onwards; and the log of the sum of each one's exponentials."""
  scores_BKQS = _scores(q_BKGth, k_BKSh, first)
  most_BKQ = jnp.max(scores_BKQS, axis=-1)
  weight_BKQS = jnp.exp(scores_BKQS - most_BKQ[..., None])
  sum_BKQ = jnp.sum(weight_BKQS, axis=-1)
  mixed_BKQh = _product("BKQS,BKSh->BKQh", weight_BKQS.astype(v_BKSh.dtype), v_BKSh)
  mixed_BKQh = (mixed_BKQh / sum_BKQ[..., None]).astype(v_BKSh.dtype)
  total_BKQ = most_BKQ + jnp.log(sum_BKQ)
  return carry, (mixed_BKQh.reshape(q_BKGth.shape), total_BKQ.reshape(q_BKGth.shape[:-1]))


def _mix_rows_backward(saved, d_mixed_BKGTh):
  q_BKGTh, k_BKTh, v_BKTh, mixed_BKGTh, total_BKGT = saved
  mean_BKGT = jnp.sum(d_mixed_BKGTh.astype(jnp.float32) * mixed_BKGTh, axis=-1)
  d_k, d_v = (jnp.zeros(x.shape, jnp.float32) for x in (k_BKTh, v_BKTh))
  d_q = []
  for first, last in _spans(q_BKGTh.shape[3]):
    k_BKSh, v_BKSh = k_BKTh[:, :, :last], v_BKTh[:, :, :last]
    of_queries = (x[:, :, :, first:last] for x in (q_BKGTh, d_mixed_BKGTh, total_BKGT, mean_BKGT))
    pull_back = functools.partial(_pull_back_block, k_BKSh, v_BKSh)
    carry = (d_k[:, :, :last], d_v[:, :, :last])
    (d_k_BKSh, d_v_BKSh), d_q_BKGth = _over_blocks(pull_back, carry, first, tuple(of_queries))
    d_k, d_v = d_k.at[:, :, :last].set(d_k_BKSh), d_v.at[:, :, :last].set(d_v_BKSh)
    d_q.append(d_q_BKGth)
  return jnp.concatenate(d_q, axis=3), d_k.astype(k_BKTh.dtype), d_v.astype(v_BKTh.dtype)


def _pull_back_block(k_BKSh, v_BKSh, carry, first, q_BKGth, d_mixed_BKGth, total_BKGt, mean_BKGt):
  """Adds to the gradients of keys and values, in float32; returns that of the queries."""
  d_k_BKSh, d_v_BKSh = carry
  q_BKQh, d_mixed_BKQh = _flat(q_BKGth), _flat(d_mixed_BKGth)
  weight_BKQS = jnp.exp(_scores(q_BKGth, k_BKSh, first) - _flat(total_BKGt[..., None]))
  d_weight_BKQS = _product("BKQh,BKSh->BKQS", d_mixed_BKQh, v_BKSh)
  d_score_BKQS = weight_BKQS * (d_weight_BKQS - _flat(mean_BKGt[..., None]))
  d_score_BKQS = (d_score_BKQS * q_BKQh.shape[-1] ** -0.5).astype(q_BKQh.dtype)
  d_q_BKQh = _product("BKQS,BKSh->BKQh", d_score_BKQS, k_BKSh).astype(q_BKQh.dtype)
  d_k_BKSh += _product("BKQS,BKQh->BKSh", d_score_BKQS, q_BKQh)
  d_v_BKSh += _product("BKQS,BKQh->BKSh", weight_BKQS.astype(v_BKSh.dtype), d_mixed_BKQh)
  return (d_k_BKSh, d_v_BKSh), d_q_BKQh.reshape(q_BKGth.shape)


_mix_rows.defvjp(_mix_rows_forward, _mix_rows_backward)


def _scores(q_BKGth, k_BKSh, first) -> jax.Array:
  """Float32; queries of all heads that share keys on one axis Q, so that a product sums over one
  axis: over two, XLA's CPU backend turns whole arrays around first."""
  *_, G, t, h = q_BKGth.shape
  scores_BKQS = _product("BKQh,BKSh->BKQS", _flat(q_BKGth), k_BKSh) * h**-0.5
  place_Q = first + jnp.tile(jnp.arange(t), G)
  visible_QS = jnp.arange(k_BKSh.shape[2]) <= place_Q[:, None]
  return jnp.where(visible_QS, scores_BKQS, jnp.finfo(jnp.float32).min)


def _product(equation: str, left: jax.Array, right: jax.Array) -> jax.Array:
  return jnp.einsum(equation, left, right, preferred_element_type=jnp.float32)


def _flat(x_BKGth: jax.Array) -> jax.Array:
  """[B, K, G, t, h] to [B, K, Q, h]."""
  B, K, G, t, h = x_BKGth.shape
  return x_BKGth.reshape(B, K, G * t, h)


def _spans(length: int) -> list[tuple[int, int]]:
  """First and last of at most SPANS spans of equal size."""
  size = -(-length // (SPANS * SHORTEST_SPAN)) * SHORTEST_SPAN
  return [(first, min(first + size, length)) for first in range(0, length, size)]


def _over_blocks(function: Callable, carry, first: int, of_queries: tuple[jax.Array, ...]):
  """`function(carry, first, *of_queries)` -> (carry, results), a block of queries at a time."""
  count = of_queries[0].shape[3]
  if count <= BLOCK:
    return function(carry, first, *of_queries)
  blocks = tuple(_cut(x, 3) for x in of_queries)
  first_n = first + BLOCK * jnp.arange(len(blocks[0]))
  carry, results = jax.lax.scan(lambda c, block: function(c, *block), carry, (first_n, *blocks))
  return carry, jax.tree.map(lambda x: _joined(x, count), results)


def _cut(x: jax.Array, axis: int) -> jax.Array:
  """Pads an axis with zeros to whole blocks; which block comes first: [n, ..., BLOCK, ...]."""
  shape = x.shape
  blocks = -(-shape[axis] // BLOCK)
  padding = [(0, 0)] * x.ndim
  padding[axis] = (0, blocks * BLOCK - shape[axis])
  cut = jnp.pad(x, padding).reshape(*shape[:axis], blocks, BLOCK, *shape[axis + 1 :])
  return jnp.moveaxis(cut, axis, 0)


def _joined(x_nBKGt: jax.Array, count: int) -> jax.Array:
  """The first `count` of [B, K, G, n x BLOCK, ...], from blocks."""
  joined = jnp.moveaxis(x_nBKGt, 0, 3)
  return joined.reshape(*joined.shape[:3], -1, *joined.shape[5:])[:, :, :, :count]


# ------------------------------------------------------------------------- kernels


def splash_attention(
  q_BHTh: jax.Array, k_BKTh: jax.Array, v_BKTh: jax.Array, *, interpret: bool = False
) -> jax.Array:
  """Whole rows on one TPU, by the Pallas kernel that comes with jax; `interpret` runs its program
  in XLA, on any device and slowly."""
  _, H, T, h = q_BHTh.shape
  # Padding keys stand behind every query that counts.
  q, k, v = (_pad_length(x, -T % SPLASH_BLOCKS[-1]) for x in (q_BHTh, k_BKTh, v_BKTh))
  length = q.shape[2]
  block = next(size for size in SPLASH_BLOCKS if length % size == 0)
  passes = ("q", "kv", "q_dkv", "kv_dkv", "q_dq", "kv_dq")  # forward, and two backward
  kernel = splash.make_splash_mha(
    splash.MultiHeadMask([splash.CausalMask((length, length))] * H),
    block_sizes=splash.BlockSizes(
      **{f"block_{name}": block for name in passes}, block_kv_dkv_compute=block
    ),
    head_shards=1,
    q_seq_shards=1,
    interpret=interpret,
  )
  return jax.vmap(kernel)(q * h**-0.5, k, v)[:, :, :T]


def cudnn_attention(q_BHTh: jax.Array, k_BKTh: jax.Array, v_BKTh: jax.Array) -> jax.Array:
  """Whole rows on one GPU, by cuDNN."""
  q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q_BHTh, k_BKTh, v_BKTh))
  mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation="cudnn")
  return jnp.swapaxes(mixed, 1, 2)


def is_kernel(primitive, *_, **__) -> bool:
  """Of jax.checkpoint, a policy: cuDNN's kernel, whose results have no name."""
  return primitive.name == "dot_product_attention_fwd_wrapper"


@dataclasses.dataclass(frozen=True)
class Kernel:
  """A way to attend over whole rows on the devices of one platform."""

  function: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
  platform: str
  takes: Callable[[int, jnp.dtype], bool]  # by head size and dtype


def _is_tile(h: int, dtype: jnp.dtype) -> bool:
  return h % 128 == 0 and dtype in (jnp.bfloat16, jnp.float32)


def _is_for_tensor_cores(h: int, dtype: jnp.dtype) -> bool:
  return h % 8 == 0 and h <= 128 and dtype in (jnp.bfloat16, jnp.float16)


KERNELS = {
  "splash": Kernel(splash_attention, "tpu", _is_tile),
  "splash_interpreted": Kernel(
    functools.partial(splash_attention, interpret=True), "cpu", _is_tile
  ),
  "cudnn": Kernel(cudnn_attention, "gpu", _is_for_tensor_cores),
}
AUTO = {"tpu": "splash", "gpu": "cudnn"}  # platform -> kernel; XLA where none is named


def _on_each_device(function: Callable, layout: Layout, rows: int) -> Callable:
  """Gives a kernel each device's own rows and heads, which the compiler could not split by itself.
  Rows that do not divide over the devices are computed by all of them: a few prompts at a time."""
  batch = "batch" if rows % layout.batch_shards == 0 else None
  queries = layout.spec(batch, "heads", "length", "head_dim")
  keys = layout.spec(batch, "kv_heads", "length", "head_dim")
  return jax.shard_map(
    function,
    mesh=layout.mesh,
    in_specs=(queries, keys, keys),
    out_specs=queries,
    check_vma=False,  # kernels do not say over which axes their results vary
  )


def _pad_length(x_BNTh: jax.Array, places: int) -> jax.Array:
  return jnp.pad(x_BNTh, ((0, 0), (0, 0), (0, places), (0, 0)))
