"""How likely is a token, without the logits of all positions?

The logits of T positions of a batch are B x T x V numbers, for Qwen3's 151,936 ids far more than
the model. Here each device packs the positions that are asked for to the front, and walks them in
chunks, as many as there are: what nobody asks for costs nothing, and only one chunk's logits exist
at a time, in the backward pass too, where they are formed again.
"""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from grpo_jax import distribution
from grpo_jax.distribution import Decoding
from grpo_jax.model.sharding import Layout

# Float32 logits that exist together on one device: 256 MiB.
LOGITS_AT_ONCE = 2**26

Scores = tuple[jax.Array, jax.Array]  # log-probabilities and entropies


def chosen_log_probs(
  layout: Layout,
  hidden_BTD: jax.Array,
  table_VD: jax.Array,
  target_BT: jax.Array,
  chosen_BT: jax.Array,
  how: Decoding,
) -> Scores:
  """Log-probability of one token at each chosen position, under the sampler's distribution.

  Letters beside those of model/qwen3.py: S devices a batch is split over, N positions of each, n
  chunks of C positions.

  Args:
    layout: mesh and axis table; B is a multiple of its `batch_shards`.
    hidden_BTD: the model's last states.
    table_VD: one row for each id of the vocabulary, in the dtype to compute in.
    target_BT: int32 ids.
    chosen_BT: bool, the positions that are asked for.
    how: temperature and filters.

  Returns:
    Two float32 arrays [B, T]: log-probabilities and entropies (nats); 0 where not chosen. Gradients
    reach states and table.
  """
  S = layout.batch_shards

  def by_device(x_BT):
    x_SN = x_BT.reshape(S, -1, *x_BT.shape[2:])
    return layout.constrain(x_SN, "batch", *(None for _ in x_SN.shape[1:]))

  hidden_SND, target_SN, chosen_SN = map(by_device, (hidden_BTD, target_BT, chosen_BT))
  # A copy a device, so that each adds up its own gradient: they meet once, not at every chunk.
  table_SVD = jnp.broadcast_to(table_VD, (S, *table_VD.shape))
  table_SVD = layout.constrain(table_SVD, "batch", "vocab", None)
  walk = _walk(chosen_SN, _chunk_size(table_VD.shape[0], chosen_SN.shape[1]))
  scores = _scores(layout, hidden_SND, table_SVD, target_SN, walk, how)
  return jax.tree.map(lambda x_SN: x_SN.reshape(chosen_BT.shape), scores)


def _chunk_size(vocabulary: int, positions: int) -> int:
  """A power of two of positions, or all of them."""
  largest = max(1, LOGITS_AT_ONCE // vocabulary)
  return min(1 << (largest.bit_length() - 1), positions)


@flax.struct.dataclass
class _Walk:
  """In which order positions are visited: chosen ones first."""

  position_nSC: jax.Array  # int32, into N
  live_nSC: jax.Array  # bool, False behind the last chosen position of a device
  place_SN: jax.Array  # int32, where in that order a chosen position stands
  chosen_SN: jax.Array
  count: jax.Array  # int32, chunks that hold a chosen position of any device


def _walk(chosen_SN: jax.Array, C: int) -> _Walk:
  S, N = chosen_SN.shape
  n = -(-N // C)
  position_SN = jnp.argsort(~chosen_SN, axis=1, stable=True)
  chosen_S = chosen_SN.sum(axis=1)

  def in_chunks(x_SN):
    padded = jnp.pad(x_SN, ((0, 0), (0, n * C - N)))
    return jnp.moveaxis(padded.reshape(S, n, C), 1, 0)

  return _Walk(
    position_nSC=in_chunks(position_SN),
    live_nSC=in_chunks(jnp.arange(N)[None] < chosen_S[:, None]),
    place_SN=jnp.maximum(jnp.cumsum(chosen_SN, axis=1) - 1, 0),
    chosen_SN=chosen_SN,
    count=jnp.max(-(-chosen_S // C)),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scores(layout: Layout, hidden_SND, table_SVD, target_SN, walk: _Walk, how) -> Scores:
  """Of every position [S, N]; 0 where it is not chosen."""

  def visit(i, scores_nSC):
    at_SC = walk.position_nSC[i]
    of_chunk = _score_chunk(
      layout, _take(hidden_SND, at_SC), table_SVD, _take(target_SN, at_SC), how
    )
    return jax.tree.map(lambda all_nSC, new_SC: all_nSC.at[i].set(new_SC), scores_nSC, of_chunk)

  zeros_nSC = jnp.zeros(walk.position_nSC.shape, jnp.float32)
  scores_nSC = jax.lax.fori_loop(0, walk.count, visit, (zeros_nSC, zeros_nSC))
  return jax.tree.map(lambda x_nSC: _put_back(x_nSC, walk), scores_nSC)


def _scores_forward(layout: Layout, *inputs) -> tuple[Scores, Any]:
  return _scores(layout, *inputs), inputs


def _scores_backward(layout: Layout, inputs, gradient_SN: Scores):
  """Walks the same chunks again; logits are formed a second time."""
  hidden_SND, table_SVD, target_SN, walk, how = inputs

  def visit(i, carry):
    d_hidden_nSCD, d_table_SVD = carry
    at_SC, live_SC = walk.position_nSC[i], walk.live_nSC[i]
    target_SC = _take(target_SN, at_SC)
    _, pull_back = jax.vjp(
      lambda hidden_SCD, table_SVD: _score_chunk(layout, hidden_SCD, table_SVD, target_SC, how),
      _take(hidden_SND, at_SC),
      table_SVD,
    )
    of_chunk = jax.tree.map(lambda g_SN: jnp.where(live_SC, _take(g_SN, at_SC), 0.0), gradient_SN)
    d_hidden_SCD, d_new_SVD = pull_back(of_chunk)
    return d_hidden_nSCD.at[i].set(d_hidden_SCD), d_table_SVD + d_new_SVD

  nothing = (
    jnp.zeros((*walk.position_nSC.shape, hidden_SND.shape[-1]), hidden_SND.dtype),
    jnp.zeros(table_SVD.shape, jnp.float32),
  )
  d_hidden_nSCD, d_table_SVD = jax.lax.fori_loop(0, walk.count, visit, nothing)
  d_hidden_SND = _put_back(d_hidden_nSCD, walk)
  return d_hidden_SND, d_table_SVD.astype(table_SVD.dtype), None, None, None


_scores.defvjp(_scores_forward, _scores_backward)


def _score_chunk(layout: Layout, hidden_SCD, table_SVD, target_SC, how: Decoding) -> Scores:
  with jax.named_scope("vocabulary"):
    logits_SCV = jnp.einsum(
      "SCD,SVD->SCV", hidden_SCD, table_SVD, preferred_element_type=jnp.float32
    )
    logits_SCV = layout.constrain(logits_SCV, "batch", None, "vocab")
    flat = logits_SCV.reshape(-1, logits_SCV.shape[-1])
    scores = distribution.token_log_probs(flat, target_SC.reshape(-1), how)
  return jax.tree.map(lambda x: x.reshape(target_SC.shape), scores)


def _take(x_SN: jax.Array, at_SC: jax.Array) -> jax.Array:
  """x[s, at[s, c]], whatever axes follow."""
  index = at_SC.reshape(*at_SC.shape, *(1 for _ in x_SN.shape[2:]))
  return jnp.take_along_axis(x_SN, index, axis=1)


def _put_back(x_nSC: jax.Array, walk: _Walk) -> jax.Array:
  """From chunks to positions [S, N, ...]; 0 where nothing was chosen."""
  S = x_nSC.shape[1]
  ordered = jnp.moveaxis(x_nSC, 0, 1).reshape(S, -1, *x_nSC.shape[3:])
  x_SN = _take(ordered, walk.place_SN)
  chosen = walk.chosen_SN.reshape(*walk.chosen_SN.shape, *(1 for _ in x_SN.shape[2:]))
  return jnp.where(chosen, x_SN, 0)
