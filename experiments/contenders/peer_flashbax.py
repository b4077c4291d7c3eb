"""The contender flashbax: its prioritised buffer of single items, a sum tree over priorities.

It draws with replacement, and knows no age: nothing is evicted but by new items. The state is
donated, as its documentation advises.
"""

import dataclasses
import functools
import importlib.metadata
from collections.abc import Callable

import flashbax
import jax
import jax.numpy as jnp

from contenders.protocol import Setup, serve
from contenders.replay_work import ALPHA, Fresh, Recall, ReplayWork, timed

TINY = 1e-6  # the same floor of priorities as ours


class Store:
  """A buffer of one size, and its compiled functions."""

  def __init__(self, work: ReplayWork, rows: dict[str, jax.Array]):
    buffer = flashbax.make_prioritised_item_buffer(
      max_length=work.capacity,
      min_length=1,
      sample_batch_size=work.drawn,
      add_batches=True,
      priority_exponent=ALPHA,
      device=jax.devices()[0].platform,
    )

    @functools.partial(jax.jit, donate_argnums=0)
    def add(state, rows):
      index_R = (state.current_index + jnp.arange(work.fresh)) % work.capacity
      priority_R = jnp.abs(rows["advantage_R"]) + TINY
      return buffer.set_priorities(buffer.add(state, rows), index_R, priority_R)

    self.add, self.sample = add, jax.jit(buffer.sample)
    self.state = buffer.init(jax.tree.map(lambda leaf: leaf[0], rows))
    for _ in range(-(-work.capacity // work.fresh)):
      self.state = jax.block_until_ready(self.add(self.state, rows))


def load(setup: Setup) -> tuple[Recall, dict]:
  """One store a size, filled when it is first asked for."""
  del setup
  stores: dict[tuple[int, int], Store] = {}

  def recall(work: ReplayWork, fresh: Fresh) -> Callable[[], int]:
    rows = jax.block_until_ready(jax.device_put(dataclasses.asdict(fresh)))
    size = work.capacity, work.length
    if size not in stores:
      stores[size] = Store(work, rows)
    store = stores[size]

    def draw_and_add() -> int:
      drawn = store.sample(store.state, jax.random.key(work.step))
      store.state, drawn = jax.block_until_ready((store.add(store.state, rows), drawn))
      return len(drawn.experience["advantage_R"])

    return draw_and_add

  versions = {name: importlib.metadata.version(name) for name in ("flashbax", "jax")}
  return recall, {"versions": versions}


if __name__ == "__main__":
  serve(load, ReplayWork, timed)
