"""A ring buffer of single rollouts in device memory: add, evict by age, draw by priority.

Rollout-level advantage-prioritised replay (arXiv 2606.04560): rollouts are kept with the advantages
and behaviour log-probs of their birth; those older than `max_age` steps are evicted before a draw;
rollout i is drawn with probability proportional to (|A_i| + epsilon)^alpha, without replacement.
Drawing removes nothing: a rollout may be drawn again until it ages out. Other priorities, and
whole groups, are for comparison (priority.py).

All functions are pure, and jitted by `Replay` with the buffer donated, so a step updates it in
place. Fill, survivors and draw size are data: nothing compiles twice. The capacity axis is sharded
like any batch.

Where the paper is silent: epsilon is 1e-6; the draw is without replacement (Gumbel top-k, which
draws exactly like successive renormalised draws: Efraimidis & Spirakis 2006; Vieira 2014).
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp

from grpo_jax.masked import masked_max, masked_sum
from grpo_jax.model.sharding import Layout
from grpo_jax.records import Rollouts, take_rows
from grpo_jax.replay.asked import Asked, Newcomer, among_drawn, places, revalued
from grpo_jax.replay.priority import BY_ADVANTAGE, Draw, Pool, joined, pool_of, scores


@flax.struct.dataclass
class Buffer:
  """C slots. Once full, the next rollout takes the slot of the oldest."""

  rollouts: Rollouts  # leading axis C
  occupied_C: jax.Array  # bool; False: never filled, or evicted
  uses_C: jax.Array  # int32, how often the rollout has been drawn
  cursor: jax.Array  # int32 scalar, the slot written next

  @property
  def capacity(self) -> int:
    return self.occupied_C.shape[0]


def empty(capacity: int, example: Rollouts) -> Buffer:
  """A buffer for rollouts shaped like `example` (arrays or shapes), all slots free."""

  def slots(leaf):
    return jnp.zeros((capacity, *leaf.shape[1:]), leaf.dtype)

  return Buffer(
    rollouts=jax.tree.map(slots, example),
    occupied_C=jnp.zeros(capacity, bool),
    uses_C=jnp.zeros(capacity, jnp.int32),
    cursor=jnp.int32(0),
  )


def add(buffer: Buffer, fresh: Rollouts) -> Buffer:
  """Stores the rollouts of positive weight in the order they come; more than C of them keep the
  last C."""
  kept_R = fresh.weight_R > 0
  count = jnp.sum(kept_R)
  rank_R = jnp.cumsum(kept_R) - 1
  stored_R = kept_R & (rank_R >= count - buffer.capacity)
  slot_R = (buffer.cursor + rank_R) % buffer.capacity
  slot_R = jnp.where(stored_R, slot_R, buffer.capacity)  # beyond the end: dropped

  def write(old, new):
    return old.at[slot_R].set(new, mode="drop")

  return Buffer(
    rollouts=jax.tree.map(write, buffer.rollouts, fresh),
    occupied_C=write(buffer.occupied_C, True),
    uses_C=write(buffer.uses_C, 0),
    cursor=(buffer.cursor + count) % buffer.capacity,
  )


def evict(buffer: Buffer, step: jax.Array, max_age: jax.Array) -> Buffer:
  """Frees the slots of rollouts born more than `max_age` steps ago."""
  young_C = step - buffer.rollouts.birth_R <= max_age
  return buffer.replace(occupied_C=buffer.occupied_C & young_C)


def refresh(buffer: Buffer, asked: Asked, *, newcomer: Newcomer) -> tuple[Buffer, jax.Array]:
  """The buffer after what was asked this step, and how many rollouts have a new advantage; those
  for which it is 0 are freed (asked.py)."""
  rollouts, occupied_C, new_C = revalued(buffer.rollouts, buffer.occupied_C, asked, newcomer)
  return buffer.replace(rollouts=rollouts, occupied_C=occupied_C), jnp.sum(new_C)


def draw(
  buffer: Buffer,
  key: jax.Array,
  size: jax.Array,
  alpha: jax.Array,
  asked: Asked | None = None,
  *,
  max_size: int,
  how: Draw = BY_ADVANTAGE,
  newcomer: Newcomer | None = None,
) -> tuple[Buffer, Rollouts]:
  """Draws `size` different rollouts; by default with P(i) proportional to (|A_i| + epsilon)^alpha.

  Args:
    buffer: already evicted for this step.
    key: this step's randomness.
    size: int32, how many; fewer stored ones are all drawn.
    alpha: float32; 0: uniform, 1: proportional to the priority.
    asked: the problems of this step, where `how` looks at them.
    max_size: rows of the result, the largest `size` there can be.
    how: what is drawn, and by which priority.
    newcomer: what sets advantages among those drawn, where `how` says so.

  Returns:
    The buffer with its use counts, and `max_size` rollouts of which the drawn ones come first with
    the weight they were stored with, the rest having weight 0.
  """
  pool = pool_of(buffer.rollouts, _open(buffer, asked, how))
  drawn = _drawn(pool, key, size, alpha, max_size, how)
  return _taken(buffer, *drawn, how, newcomer)


def draw_batch(
  buffer: Buffer,
  fresh: Rollouts,
  key: jax.Array,
  size: jax.Array,
  alpha: jax.Array,
  asked: Asked | None = None,
  *,
  max_size: int,
  how: Draw,
  newcomer: Newcomer | None = None,
) -> tuple[Buffer, Rollouts, Rollouts]:
  """Draws `size` rollouts from the stored and the fresh ones of positive weight alike, as if all
  lay in one store.

  Returns:
    The buffer, the stored ones as `draw` gives them, though anywhere among its rows, and `fresh`
    with weight 0 where a rollout was not drawn.
  """
  stored = pool_of(buffer.rollouts, _open(buffer, asked, how))
  pool = joined(stored, pool_of(fresh, fresh.weight_R > 0))
  slot_M, drawn_M = _drawn(pool, key, size, alpha, max_size, how)
  of_fresh_R = jnp.zeros(len(pool.open_C), bool).at[slot_M].set(drawn_M)[buffer.capacity :]
  buffer, replayed = _taken(buffer, slot_M, drawn_M & (slot_M < buffer.capacity), how, newcomer)
  return buffer, replayed, fresh.replace(weight_R=jnp.where(of_fresh_R, fresh.weight_R, 0))


def _open(buffer: Buffer, asked: Asked | None, how: Draw) -> jax.Array:
  """bool [C]: what may be drawn."""
  if how.problems == "any":
    return buffer.occupied_C
  return buffer.occupied_C & places(buffer.rollouts.problem_R, asked)[1]


def _drawn(
  pool: Pool, key: jax.Array, size: jax.Array, alpha: jax.Array, max_size: int, how: Draw
) -> tuple[jax.Array, jax.Array]:
  """Places in the pool, drawn ones first, and which of them are drawn."""
  score_C = scores(pool, key, size, alpha, how)
  score_M, slot_M = jax.lax.top_k(score_C, min(max_size, len(score_C)))
  return slot_M, (jnp.arange(len(slot_M)) < size) & (score_M > -jnp.inf)


def _taken(
  buffer: Buffer, slot_M: jax.Array, drawn_M: jax.Array, how: Draw, newcomer: Newcomer | None
) -> tuple[Buffer, Rollouts]:
  """The rollouts of these slots, of weight 0 where not drawn, and the buffer with their uses."""
  rows = take_rows(buffer.rollouts, jnp.minimum(slot_M, buffer.capacity - 1))
  if how.advantage == "drawn":
    rows = rows.replace(advantage_R=among_drawn(rows, drawn_M, newcomer))
  uses_C = buffer.uses_C.at[slot_M].add(drawn_M.astype(jnp.int32), mode="drop")
  return buffer.replace(uses_C=uses_C), rows.replace(weight_R=jnp.where(drawn_M, rows.weight_R, 0))


def describe(buffer: Buffer, drawn: Rollouts, step: jax.Array) -> dict[str, jax.Array]:
  """Float32 scalar metrics: fill, ages in steps, reuse."""
  age_C = step - buffer.rollouts.birth_R
  age_M = step - drawn.birth_R
  fill, size = jnp.sum(buffer.occupied_C), jnp.sum(drawn.weight_R > 0)
  metrics = {
    "replay/size": fill,
    "replay/fill": fill / buffer.capacity,
    "replay/age_mean": masked_sum(age_C, buffer.occupied_C) / fill,
    "replay/age_max": masked_max(age_C, buffer.occupied_C),
    "replay/uses_mean": masked_sum(buffer.uses_C, buffer.occupied_C) / fill,
    "replay/drawn": size,
    "replay/drawn_age_mean": masked_sum(age_M, drawn.weight_R > 0) / size,
    "replay/drawn_abs_advantage_mean": masked_sum(jnp.abs(drawn.advantage_R), drawn.weight_R > 0)
    / size,
  }
  return {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}


class Replay:
  """The functions above, compiled for one capacity, one draw size, one priority and one mesh."""

  def __init__(
    self,
    capacity: int,
    max_draw: int,
    example: Rollouts,
    layout: Layout,
    how: Draw = BY_ADVANTAGE,
    newcomer: Newcomer | None = None,
  ):
    """
    Args:
      capacity: C; a multiple of `layout.batch_shards`.
      max_draw: the largest draw there can be.
      example: a fresh batch as arrays or shapes, for the slots' shapes.
      layout: mesh and axis table.
      how: what is drawn, and by which priority.
      newcomer: what sets advantages anew, where `how` says so.
    """
    self.how, self.layout = how, layout
    make = functools.partial(empty, capacity, example)
    self.shardings = jax.tree.map(
      lambda leaf: layout.sharding(*("batch", *(None,) * (leaf.ndim - 1))[: leaf.ndim]),
      jax.eval_shape(make),
    )
    jit = functools.partial(jax.jit, donate_argnums=0)
    self.create = jax.jit(make, out_shardings=self.shardings)
    self.add = jit(add, out_shardings=self.shardings)
    self.evict = jit(evict, out_shardings=self.shardings)
    self.refresh = jit(
      functools.partial(refresh, newcomer=newcomer), out_shardings=(self.shardings, None)
    )
    self.draw = jit(
      functools.partial(draw, max_size=max_draw, how=how, newcomer=newcomer),
      out_shardings=(self.shardings, None),
    )
    self.draw_batch = jit(
      functools.partial(draw_batch, max_size=max_draw, how=how, newcomer=newcomer),
      out_shardings=(self.shardings, None, layout.sharding("batch")),
    )
    self.describe = jax.jit(describe, out_shardings=layout.replicated)

  def abstract(self) -> Buffer:
    """The buffer as shapes, dtypes and shardings, for restoring a checkpoint."""
    return jax.tree.map(
      lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
      jax.eval_shape(self.create),
      self.shardings,
    )
