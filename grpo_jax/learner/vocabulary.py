"""How likely is a token, without the logits of all positions?

The logits of T positions of a batch are B x T x V numbers, for Qwen3's 151,936 ids far more than
the model. Here each device packs the positions that are asked for to the front, and walks them in
chunks, as many as there are: what nobody asks for costs nothing. A large vocabulary is cut into
blocks, too. Only one chunk's logits of one block exist at a time; the backward pass forms them
again, and its gradients are written out: with p the probabilities, l their logarithms and H the
entropy, d log p_y / d logit_j = [j = y] - p_j and d H / d logit_j = -p_j (l_j + H).
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp

from grpo_jax import distribution
from grpo_jax.distribution import Decoding
from grpo_jax.model.sharding import Layout

# Float32 logits that exist together on one device: 256 MiB; 2 MiB on a CPU, whose caches hold them.
LOGITS_AT_ONCE = 2**26
LOGITS_IN_CACHE = 2**19
# Positions, unless there are fewer: once a chunk the table is read, and its gradient read and
# written, which an accelerator can hide behind the products of many positions only.
SMALLEST_CHUNK = 2048
SMALLEST_CHUNK_IN_CACHE = 128

Scores = tuple[jax.Array, jax.Array]  # log-probabilities and entropies


def chosen_log_probs(
  layout: Layout,
  hidden_BTD: jax.Array,
  table_VD: jax.Array,
  target_BT: jax.Array,
  chosen_BT: jax.Array,
  how: Decoding,
  d_table_VD: jax.Ref | None = None,
) -> Scores:
  """Log-probability of one token at each chosen position, under the sampler's distribution.

  Letters beside those of model/qwen3.py: S devices a batch is split over, N positions of each, n
  chunks of C positions, b blocks of U ids.

  Args:
    layout: mesh and axis table; B is a multiple of its `batch_shards`.
    hidden_BTD: the model's last states.
    table_VD: one row for each id of the vocabulary, in the dtype to compute in.
    target_BT: int32 ids.
    chosen_BT: bool, the positions that are asked for.
    how: temperature and filters.
    d_table_VD: float32, where one device adds the table's gradient, block by block, instead of
      returning it in an array of its own: the table is a constant for whoever differentiates.
      Several devices leave it alone, and return the gradient.

  Returns:
    Two float32 arrays [B, T]: log-probabilities and entropies (nats); 0 where not chosen. Gradients
    reach states and table.
  """
  S = layout.batch_shards
  if layout.mesh.size > 1:
    d_table_VD = None

  def by_device(x_BT):
    x_SN = x_BT.reshape(S, -1, *x_BT.shape[2:])
    return layout.constrain(x_SN, "batch", *(None for _ in x_SN.shape[1:]))

  hidden_SND, target_SN, chosen_SN = map(by_device, (hidden_BTD, target_BT, chosen_BT))
  table_SVD = _copies(layout, table_VD)
  C, b = _sizes(layout, table_VD.shape[0], chosen_SN.shape[1])
  table_SbUD = table_SVD.reshape(S, b, -1, table_VD.shape[1])
  walk = _walk(chosen_SN, C)
  floor_nSC = _floors(layout, hidden_SND, table_SbUD, walk, how)
  scores = _scores(layout, hidden_SND, table_SbUD, target_SN, walk, floor_nSC, how, d_table_VD)
  return jax.tree.map(lambda x_SN: x_SN.reshape(chosen_BT.shape), scores)


def _copies(layout: Layout, table_VD: jax.Array) -> jax.Array:
  """A copy a device, so that each adds up its own gradient: they meet once, not at every chunk, and
  each device keeps the sum of its own columns only."""
  if layout.mesh.size == 1:
    return table_VD[None]
  axis = layout.spec("embed")[0]

  def gather(table_vd):
    if not axis:
      return table_vd[None]
    # Columns are gathered as the first of three axes, since so their gradients are summed: a TPU
    # scatters a sum along its last axis by summing all of it everywhere.
    table_vfd = jnp.moveaxis(jax.lax.all_gather(table_vd, axis), 0, 1)
    return table_vfd.reshape(1, len(table_vd), -1)

  return jax.shard_map(
    gather,
    mesh=layout.mesh,
    in_specs=layout.spec("vocab", "embed"),
    out_specs=layout.spec("batch", "vocab", None),
  )(table_VD)


def _sizes(layout: Layout, vocabulary: int, positions: int) -> tuple[int, int]:
  """Positions of a chunk, a power of two or all of them, and blocks of the vocabulary, a power of
  two; one where devices split it already."""
  budget, least = LOGITS_AT_ONCE, SMALLEST_CHUNK
  if layout.platform == "cpu":
    budget, least = LOGITS_IN_CACHE, SMALLEST_CHUNK_IN_CACHE
  shards = layout.mesh.shape["tensor"]
  most = max(least, budget * shards // vocabulary)
  chunk = min(1 << (most.bit_length() - 1), positions)
  blocks = 1
  while shards == 1 and chunk * (vocabulary // blocks) > budget:
    if vocabulary % (2 * blocks):
      break
    blocks *= 2
  return chunk, blocks


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
def _scores(
  layout: Layout, hidden_SND, table_SbUD, target_SN, walk: _Walk, floor_nSC, how, d_table_VD
) -> Scores:
  """Of every position [S, N]; 0 where it is not chosen. `floor_nSC`: its `lowest_allowed`."""
  return _scores_forward(
    layout, hidden_SND, table_SbUD, target_SN, walk, floor_nSC, how, d_table_VD
  )[0]


def _scores_forward(
  layout: Layout, hidden_SND, table_SbUD, target_SN, walk, floor_nSC, how, d_table_VD
):
  def of_block(sums, block):
    table_SUD, id_U = _block(table_SbUD, block)

    def of_chunk(i, sums: "_Sums") -> "_Sums":
      hidden_SCD, target_SC = (_take(x, walk.position_nSC[i]) for x in (hidden_SND, target_SN))
      is_target_SCU = id_U == target_SC[..., None]
      logits_SCU = _logits(layout, hidden_SCD, table_SUD)
      logits_SCU = distribution.allowed_logits(
        logits_SCU, id_U, floor_nSC[i][..., None], is_target_SCU, how
      )
      so_far = jax.tree.map(lambda x_nSC: x_nSC[i], sums)
      new = _added(so_far, logits_SCU, is_target_SCU)
      return jax.tree.map(lambda x_nSC, x_SC: x_nSC.at[i].set(x_SC), sums, new)

    return jax.lax.fori_loop(0, walk.count, of_chunk, sums), None

  sums, _ = jax.lax.scan(of_block, _no_sums(floor_nSC), jnp.arange(table_SbUD.shape[1]))
  log_sum_nSC = jnp.log(sums.mass_nSC)
  total_nSC = sums.most_nSC + log_sum_nSC
  entropy_nSC = log_sum_nSC - sums.moment_nSC / sums.mass_nSC
  scores = (_put_back(x, walk) for x in (sums.target_nSC - total_nSC, entropy_nSC))
  known = (walk, floor_nSC, how, total_nSC, entropy_nSC)
  return tuple(scores), (hidden_SND, table_SbUD, target_SN, d_table_VD, known)


def _scores_backward(layout: Layout, saved, gradient_SN: Scores):
  """Walks the same blocks and chunks again; logits are formed a second time."""
  hidden_SND, table_SbUD, target_SN, d_table_VD, known = saved
  walk, floor_nSC, how, total_nSC, entropy_nSC = known

  def of_block(carry, block):
    d_hidden_nSCD, d_table_SbUD = carry
    table_SUD, id_U = _block(table_SbUD, block)

    def of_chunk(i, carry):
      d_hidden_nSCD, d_table_SUD = carry
      at_SC, live_SC = walk.position_nSC[i], walk.live_nSC[i]
      hidden_SCD, target_SC = _take(hidden_SND, at_SC), _take(target_SN, at_SC)
      d_logp_SC1, d_entropy_SC1 = (
        jnp.where(live_SC, _take(g_SN, at_SC), 0.0)[..., None] for g_SN in gradient_SN
      )
      is_target_SCU = id_U == target_SC[..., None]
      logits_SCU = _logits(layout, hidden_SCD, table_SUD)
      logits_SCU = distribution.allowed_logits(
        logits_SCU, id_U, floor_nSC[i][..., None], is_target_SCU, how
      )
      logp_SCU = logits_SCU - total_nSC[i][..., None]
      surprise_SCU = logp_SCU + entropy_nSC[i][..., None]
      d_SCU = is_target_SCU * d_logp_SC1
      d_SCU -= jnp.exp(logp_SCU) * (d_logp_SC1 + d_entropy_SC1 * surprise_SCU)
      d_SCU = jnp.where(logits_SCU > -jnp.inf, d_SCU * distribution.scale(how), 0.0)
      d_SCU = layout.constrain(d_SCU.astype(hidden_SCD.dtype), "batch", None, "vocab")
      d_hidden_SCD = _product("SCU,SUD->SCD", d_SCU, table_SUD)
      d_table_SUD += _product("SCU,SCD->SUD", d_SCU, hidden_SCD)
      return d_hidden_nSCD.at[i].add(d_hidden_SCD), d_table_SUD

    nothing_SUD = jnp.zeros(table_SUD.shape, jnp.float32)
    d_hidden_nSCD, d_table_SUD = jax.lax.fori_loop(
      0, walk.count, of_chunk, (d_hidden_nSCD, nothing_SUD)
    )
    if d_table_VD is None:
      return (d_hidden_nSCD, d_table_SbUD.at[:, block].set(d_table_SUD)), None
    rows = jax.ds(block * len(id_U), len(id_U))
    d_table_VD[rows] += d_table_SUD.reshape(len(id_U), -1)
    return (d_hidden_nSCD, None), None

  nothing = (
    jnp.zeros((*walk.position_nSC.shape, hidden_SND.shape[-1]), jnp.float32),
    jnp.zeros(table_SbUD.shape, jnp.float32) if d_table_VD is None else None,
  )
  (d_hidden_nSCD, d_table_SbUD), _ = jax.lax.scan(
    of_block, nothing, jnp.arange(table_SbUD.shape[1])
  )
  d_hidden_SND = _put_back(d_hidden_nSCD, walk).astype(hidden_SND.dtype)
  if d_table_SbUD is not None:
    d_table_SbUD = d_table_SbUD.astype(table_SbUD.dtype)
  return d_hidden_SND, d_table_SbUD, None, None, None, None, None


_scores.defvjp(_scores_forward, _scores_backward)


@flax.struct.dataclass
class _Sums:
  """Of the ids met so far, with m their largest logit: what the scores are made of."""

  most_nSC: jax.Array  # m
  mass_nSC: jax.Array  # of exp(logit - m)
  moment_nSC: jax.Array  # of exp(logit - m) (logit - m)
  target_nSC: jax.Array  # the target's logit, 0 until it was met


def _no_sums(like_nSC: jax.Array) -> _Sums:
  zeros_nSC = jnp.zeros_like(like_nSC)
  return _Sums(zeros_nSC + jnp.finfo(jnp.float32).min, zeros_nSC, zeros_nSC, zeros_nSC)


def _added(sums: _Sums, logits_SCU: jax.Array, is_target_SCU: jax.Array) -> _Sums:
  most = jnp.maximum(sums.most_nSC, logits_SCU.max(axis=-1))
  fallen = sums.most_nSC - most
  below_SCU = logits_SCU - most[..., None]
  mass_SCU = jnp.exp(below_SCU)
  moment_SCU = jnp.where(logits_SCU > -jnp.inf, mass_SCU * below_SCU, 0.0)
  return _Sums(
    most,
    sums.mass_nSC * jnp.exp(fallen) + mass_SCU.sum(axis=-1),
    (sums.moment_nSC + sums.mass_nSC * fallen) * jnp.exp(fallen) + moment_SCU.sum(axis=-1),
    sums.target_nSC + jnp.where(is_target_SCU, logits_SCU, 0.0).sum(axis=-1),
  )


def _floors(layout: Layout, hidden_SND, table_SbUD, walk: _Walk, how: Decoding) -> jax.Array:
  """`lowest_allowed` of every position, -inf without filters. These have to see whole rows: the
  logits of one chunk, formed by the products of the other passes, whose last bits they share; what
  is made of them on the way is of F rows at a time."""
  hidden_SND, table_SbUD = jax.lax.stop_gradient((hidden_SND, table_SbUD))
  n, S, C = walk.position_nSC.shape
  V = table_SbUD.shape[1] * table_SbUD.shape[2]
  F = min(C, max(1, LOGITS_AT_ONCE * layout.mesh.shape["tensor"] // V))

  def of_chunk(i, floor_nSC):
    hidden_SCD = _take(hidden_SND, walk.position_nSC[i])
    logits_bSCU = jax.lax.map(
      lambda block: _logits(layout, hidden_SCD, table_SbUD[:, block]),
      jnp.arange(table_SbUD.shape[1]),
    )

    def of_rows(j, floor_SC):
      first = jnp.minimum(j * F, C - F)  # the last rows may be seen twice
      logits_bSFU = jax.lax.dynamic_slice_in_dim(logits_bSCU, first, F, axis=2)
      logits_BV = jnp.moveaxis(logits_bSFU, 0, 2).reshape(S * F, V)
      floor_SF = distribution.lowest_allowed(logits_BV, how).reshape(S, F)
      return jax.lax.dynamic_update_slice_in_dim(floor_SC, floor_SF, first, axis=1)

    floor_SC = jax.lax.fori_loop(0, -(-C // F), of_rows, floor_nSC[i])
    return floor_nSC.at[i].set(floor_SC)

  none_nSC = jnp.full((n, S, C), -jnp.inf)
  return jax.lax.cond(
    distribution.filtering(how),
    lambda: jax.lax.fori_loop(0, walk.count, of_chunk, none_nSC),
    lambda: none_nSC,
  )


def _block(table_SbUD: jax.Array, block: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Rows of the table, and their ids."""
  U = table_SbUD.shape[2]
  return table_SbUD[:, block], block * U + jnp.arange(U)


def _logits(layout: Layout, hidden_SCD, table_SUD) -> jax.Array:
  with jax.named_scope("vocabulary"):
    logits_SCU = _product("SCD,SUD->SCU", hidden_SCD, table_SUD)
    return layout.constrain(logits_SCU, "batch", None, "vocab")


def _product(equation: str, left: jax.Array, right: jax.Array) -> jax.Array:
  return jnp.einsum(equation, left, right, preferred_element_type=jnp.float32)


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
