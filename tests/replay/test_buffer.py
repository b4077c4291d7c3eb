"""The buffer in device memory against a plain model of it: a list of dictionaries."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.model.sharding import make_layout
from grpo_jax.records import Rollouts, Samples
from grpo_jax.replay.buffer import Replay, draw
from grpo_jax.replay.priority import PRIORITY_EPSILON

CAPACITY, FRESH, MAX_DRAW = 8, 5, 4


def rollouts(ids, *, birth, advantages=None, weights=None, T=3) -> Rollouts:
  """One rollout an id; the id stands in every field, so that a torn row shows."""
  ids = np.asarray(ids, np.int32)
  advantages = np.ones(len(ids)) if advantages is None else advantages
  weights = np.ones(len(ids)) if weights is None else weights
  return Rollouts(
    samples=Samples(
      tokens_RT=np.repeat(ids[:, None], T, axis=1),
      prompt_len_R=ids,
      completion_len_R=ids,
      behaviour_logp_RT=-np.repeat(ids[:, None], T, axis=1).astype(np.float32),
      finish_R=ids % 2,
    ),
    reward_R=ids.astype(np.float32),
    advantage_R=np.asarray(advantages, np.float32),
    weight_R=np.asarray(weights, np.float32),
    group_R=ids // 2,
    problem_R=ids,
    birth_R=np.full(len(ids), birth, np.int32),
    group_size_R=ids % 7 + 1,
  )


@functools.cache
def store(capacity=CAPACITY, max_draw=MAX_DRAW, devices=1) -> Replay:
  layout = make_layout(devices=jax.devices()[:devices])
  return Replay(capacity, max_draw, rollouts(range(FRESH), birth=0), layout)


def stored_ids(buffer) -> list[int]:
  buffer = jax.device_get(buffer)
  return sorted(buffer.rollouts.problem_R[buffer.occupied_C].tolist())


def drawn_ids(drawn) -> list[int]:
  return np.asarray(drawn.problem_R)[np.asarray(drawn.weight_R) > 0].tolist()


def assert_rows_are_whole(buffer):
  """All fields of a slot belong to one rollout."""
  buffer = jax.device_get(buffer)
  rows = jax.tree.map(lambda leaf: leaf[buffer.occupied_C], buffer.rollouts)
  ids = rows.problem_R
  assert (rows.samples.tokens_RT == ids[:, None]).all()
  assert (rows.samples.behaviour_logp_RT == -ids[:, None]).all()
  assert (rows.reward_R == ids).all()
  assert (rows.group_R == ids // 2).all()
  assert (rows.group_size_R == ids % 7 + 1).all()


class Model:
  """What the buffer should do, in a dozen lines."""

  def __init__(self, capacity):
    self.slots, self.cursor = [None] * capacity, 0

  def add(self, ids, birth, kept):
    for i in [i for i, keep in zip(ids, kept, strict=True) if keep]:
      self.slots[self.cursor % len(self.slots)] = (i, birth)
      self.cursor += 1

  def evict(self, step, max_age):
    self.slots = [s if s and step - s[1] <= max_age else None for s in self.slots]

  def ids(self):
    return sorted(s[0] for s in self.slots if s)


OPERATIONS = st.lists(
  st.tuples(st.lists(st.booleans(), min_size=FRESH, max_size=FRESH), st.integers(0, 4)),
  min_size=1,
  max_size=12,
)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(OPERATIONS, st.integers(0, 6))
def test_any_history_equals_the_plain_model(history, max_age):
  """Adds of any number of survivors (wrap-around included), evictions and draws, step by step."""
  replay, model = store(), Model(CAPACITY)
  buffer = replay.create()
  next_id = 0
  for step, (kept, size) in enumerate(history):
    buffer = replay.evict(buffer, step, max_age)
    model.evict(step, max_age)
    buffer, drawn = replay.draw(buffer, jax.random.key(step), size, 0.5)
    ids = drawn_ids(drawn)
    assert len(ids) == min(size, len(model.ids()), MAX_DRAW)
    assert len(set(ids)) == len(ids)
    assert set(ids) <= set(model.ids())
    fresh = range(next_id, next_id + FRESH)
    next_id += FRESH
    buffer = replay.add(buffer, rollouts(fresh, birth=step, weights=kept))
    model.add(fresh, step, kept)
    assert stored_ids(buffer) == model.ids()
    assert_rows_are_whole(buffer)


def test_age_equal_to_the_limit_stays_and_one_more_goes():
  replay = store()
  buffer = replay.add(replay.create(), rollouts(range(5), birth=3))
  buffer = replay.evict(buffer, 13, 10)
  assert stored_ids(buffer) == [0, 1, 2, 3, 4]
  assert stored_ids(replay.evict(buffer, 14, 10)) == []


def test_more_fresh_rollouts_than_slots_keep_the_last_ones():
  replay = Replay(3, 3, rollouts(range(5), birth=0), make_layout(devices=jax.devices()[:1]))
  buffer = replay.add(replay.create(), rollouts(range(5), birth=0))
  assert stored_ids(buffer) == [2, 3, 4]
  assert stored_ids(replay.add(buffer, rollouts([5], birth=1))) == [3, 4, 5]


def test_an_empty_buffer_gives_nothing_and_no_nan():
  replay = store()
  _, drawn = replay.draw(replay.create(), jax.random.key(0), 4, 0.5)
  assert drawn_ids(drawn) == []
  for leaf in jax.tree.leaves(drawn):
    assert np.isfinite(np.asarray(leaf, np.float64)).all()


def test_a_drawn_rollout_stays_and_its_uses_are_counted():
  replay = store()
  buffer = replay.add(replay.create(), rollouts(range(4), birth=0))
  for step in range(3):
    buffer, drawn = replay.draw(buffer, jax.random.key(step), 4, 0.5)
    assert sorted(drawn_ids(drawn)) == [0, 1, 2, 3]
  assert np.asarray(buffer.uses_C)[:4].tolist() == [3, 3, 3, 3]
  buffer = replay.add(buffer, rollouts(range(4, 9), birth=1))  # slot 0 gets a new rollout
  assert np.asarray(buffer.uses_C)[0] == 0


def test_a_rollout_comes_back_with_the_weight_it_was_stored_with():
  replay = store()
  buffer = replay.add(replay.create(), rollouts(range(1, 4), birth=1, weights=[0.5, 2.0, 0.0]))
  _, drawn = replay.draw(buffer, jax.random.key(0), 4, 1.0)
  weight_of = dict(zip(drawn.problem_R.tolist(), drawn.weight_R.tolist(), strict=True))
  assert (weight_of[1], weight_of[2]) == (0.5, 2.0)
  assert drawn.weight_R.sum() == 2.5


def test_advantages_and_behaviour_log_probs_are_frozen_at_birth():
  replay = store()
  advantages = [1.5, -0.5, 0.25, -2.0, 1e-3]
  buffer = replay.add(replay.create(), rollouts(range(5), birth=0, advantages=advantages))
  for step in range(1, 4):
    buffer, drawn = replay.draw(buffer, jax.random.key(step), 4, 0.5)
    for row, identity in enumerate(drawn_ids(drawn)):
      assert drawn.advantage_R[row] == np.float32(advantages[identity])
      assert (np.asarray(drawn.samples.behaviour_logp_RT)[row] == -identity).all()
      assert drawn.birth_R[row] == 0


def successive_draw_frequencies(weights, size):
  """Exact inclusion probabilities of drawing one after another without replacement."""
  if size == 0:
    return np.zeros(len(weights))
  total, inclusion = sum(weights), np.zeros(len(weights))
  for i, w in enumerate(weights):
    rest = [0.0 if j == i else v for j, v in enumerate(weights)]
    inclusion += w / total * successive_draw_frequencies(rest, size - 1)
    inclusion[i] += w / total
  return inclusion


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("size", [1, 3])
def test_draw_frequencies_follow_the_priorities(alpha, size):
  """The |A| of one correct rollout among eight and of its wrong siblings, and a tie."""
  replay = store()
  advantages = np.array([2.646, -0.378, -0.378, 1.0, -1.732])
  buffer = replay.add(replay.create(), rollouts(range(5), birth=0, advantages=advantages))
  draws, counts = 4000, np.zeros(5)

  def ids_of(key):
    _, drawn = draw(buffer, key, size, alpha, max_size=MAX_DRAW)
    return jnp.where(drawn.weight_R > 0, drawn.problem_R, -1)

  drawn = np.asarray(jax.jit(jax.vmap(ids_of))(jax.random.split(jax.random.key(1), draws)))
  for i in range(5):
    counts[i] = (drawn == i).sum()
  expected = successive_draw_frequencies((np.abs(advantages) + PRIORITY_EPSILON) ** alpha, size)
  error = np.sqrt(expected * (1 - expected) / draws)
  np.testing.assert_array_less(np.abs(counts / draws - expected), 4 * error + 1e-9)


def test_nothing_compiles_again_when_fill_or_survivors_change():
  replay = Replay(CAPACITY, MAX_DRAW, rollouts(range(FRESH), birth=0), make_layout())
  buffer = replay.create()
  rng = np.random.default_rng(0)
  for step in range(6):
    buffer = replay.evict(buffer, np.int32(step), np.int32(2))
    buffer, _ = replay.draw(buffer, jax.random.key(step), np.int32(step % 5), np.float32(0.5))
    kept = rng.random(FRESH) < 0.5
    buffer = replay.add(buffer, rollouts(range(FRESH), birth=step, weights=kept))
  assert [f._cache_size() for f in (replay.add, replay.evict, replay.draw)] == [1, 1, 1]


def test_the_buffer_is_donated_and_sharded_over_eight_devices():
  replay = store(devices=8)
  buffer = replay.create()
  tokens = buffer.rollouts.samples.tokens_RT
  assert tokens.addressable_shards[0].data.shape[0] == CAPACITY // 8
  after = replay.add(buffer, rollouts(range(5), birth=0))
  assert tokens.is_deleted()
  assert after.rollouts.samples.tokens_RT.sharding == replay.shardings.rollouts.samples.tokens_RT
  assert stored_ids(after) == [0, 1, 2, 3, 4]


def test_a_sharded_buffer_draws_the_same_rows():
  drawn = []
  for devices in (1, 8):
    replay = store(devices=devices)
    advantages = [2.6, -0.4, 1.0, -1.0, 0.1]
    buffer = replay.add(replay.create(), rollouts(range(5), birth=0, advantages=advantages))
    drawn.append(drawn_ids(replay.draw(buffer, jax.random.key(3), 3, 0.5)[1]))
  assert drawn[0] == drawn[1]
