"""The contender grpo_jax's replay store: evict by age, draw without replacement, add."""

import functools
import importlib.metadata
from collections.abc import Callable

import jax
import numpy as np

from contenders.protocol import Setup, serve
from contenders.replay_work import ALPHA, MAX_AGE, Fresh, Recall, ReplayWork, timed
from grpo_jax.model.sharding import make_layout
from grpo_jax.randomness import Purpose, key_for
from grpo_jax.records import Rollouts, Samples, abstract_rollouts
from grpo_jax.replay.buffer import Buffer, Replay


def load(setup: Setup) -> tuple[Recall, dict]:
  """One store at a time, filled when it is first asked for."""
  del setup
  layout = make_layout(devices=jax.devices()[:1])

  @functools.cache
  def replay(capacity: int, drawn: int, rows: int, length: int) -> Replay:
    return Replay(capacity, drawn, abstract_rollouts(rows, length), layout)

  buffers: dict[Replay, Buffer] = {}

  def recall(work: ReplayWork, fresh: Fresh) -> Callable[[], int]:
    store = replay(work.capacity, work.drawn, work.fresh, work.length)
    new = jax.block_until_ready(rollouts(fresh, work.step))
    if store not in buffers:
      buffers[store] = filled(store, new, work)

    def draw_and_add() -> int:
      key = key_for(0, Purpose.REPLAY, work.step)
      buffer = store.evict(buffers[store], work.step, MAX_AGE)
      buffer, drawn = store.draw(buffer, key, work.drawn, ALPHA)
      buffers[store], drawn = jax.block_until_ready((store.add(buffer, new), drawn))
      return int(np.sum(np.asarray(drawn.weight_R) > 0))

    return draw_and_add

  return recall, {"versions": {"jax": importlib.metadata.version("jax")}}


def filled(store: Replay, new: Rollouts, work: ReplayWork) -> Buffer:
  buffer = store.create()
  for _ in range(-(-work.capacity // work.fresh)):
    buffer = jax.block_until_ready(store.add(buffer, new))
  return buffer


def rollouts(fresh: Fresh, step: int) -> Rollouts:
  """The rows in our words, all of them whole."""
  rows, length = fresh.tokens_RT.shape
  int_R, ones_R = np.zeros(rows, np.int32), np.ones(rows, np.float32)
  samples = Samples(
    tokens_RT=fresh.tokens_RT,
    prompt_len_R=int_R,
    completion_len_R=int_R + length,
    behaviour_logp_RT=fresh.behaviour_RT,
    finish_R=int_R,
  )
  return jax.device_put(
    Rollouts(
      samples, ones_R, fresh.advantage_R, ones_R, int_R, int_R, int_R + np.int32(step), int_R + 1
    )
  )


if __name__ == "__main__":
  serve(load, ReplayWork, timed)
