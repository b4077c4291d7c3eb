"""What the paper compares its replay with: groups, other priorities, softer ages, one pool."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.errors import UserError
from grpo_jax.model.sharding import make_layout
from grpo_jax.replay.buffer import Replay, draw, draw_batch
from grpo_jax.replay.priority import PRIORITY_EPSILON, Draw
from tests.replay.test_buffer import (
  drawn_ids,
  rollouts,
  store,
  stored_ids,
  successive_draw_frequencies,
)

DRAWS = 4000


def filled(*births):
  """Ids 0 to 4 of each birth in turn; ids 2n and 2n + 1 are one group."""
  replay = store(capacity=16)
  buffer = replay.create()
  for birth in births:
    buffer = replay.add(buffer, rollouts(range(5), birth=birth))
  return buffer


def inclusion(draw_once, count):
  """How often each id is drawn, of `draw_once(key) -> ids [M], -1 where none`."""
  ids = np.asarray(jax.jit(jax.vmap(draw_once))(jax.random.split(jax.random.key(1), DRAWS)))
  return np.array([(ids == i).sum() for i in range(count)]) / DRAWS


def assert_close(found, expected):
  error = np.sqrt(expected * (1 - expected) / DRAWS)
  np.testing.assert_array_less(np.abs(found - expected), 4 * error + 1e-9)


def ids_of(rows):
  return jnp.where(rows.weight_R > 0, rows.problem_R, -1)


@pytest.mark.parametrize(
  ("size", "allowed"),
  [
    (1, [{4}]),  # the group of one is the only one that fits, if it is the first
    (2, [{0, 1}, {2, 3}, {4}]),
    (3, [{0, 1}, {2, 3}, {0, 1, 4}, {2, 3, 4}]),
    (9, [{0, 1, 2, 3, 4}]),
  ],
)
def test_a_group_is_drawn_whole_or_not_at_all(size, allowed):
  buffer, seen = filled(0), set()
  pick = jax.jit(lambda key: draw(buffer, key, size, 0.5, max_size=8, how=Draw(level="query"))[1])
  for seed in range(30):
    ids = drawn_ids(pick(jax.random.key(seed)))
    seen.add(frozenset(ids))
    assert len(ids) == len(set(ids))
  assert seen - {frozenset()} <= set(map(frozenset, allowed))
  assert len(seen - {frozenset()}) == len(allowed)


def test_groups_of_two_births_are_two_groups_though_they_share_a_number():
  buffer = filled(0, 1)
  for seed in range(10):
    _, rows = draw(buffer, jax.random.key(seed), 2, 0.0, max_size=8, how=Draw(level="query"))
    births = np.asarray(rows.birth_R)[np.asarray(rows.weight_R) > 0]
    assert len(set(births.tolist())) == 1


def test_what_is_left_of_a_group_is_drawn_with_its_own_mean():
  """The slot of id 0 was overwritten: its |A| of 9 must not speak for id 1 any more."""
  replay = Replay(5, 5, rollouts(range(5), birth=0), make_layout(devices=jax.devices()[:1]))
  buffer = replay.add(replay.create(), rollouts(range(5), birth=0, advantages=[9, 1, 1, 1, 2]))
  buffer = replay.add(buffer, rollouts([9], birth=1, advantages=[1e-6]))
  assert stored_ids(buffer) == [1, 2, 3, 4, 9]

  def once(key):
    return ids_of(draw(buffer, key, 2, 1.0, max_size=5, how=Draw(level="query"))[1])

  found = inclusion(once, 10)
  # Groups {1}, {2, 3}, {4} of priority 1, 1, 2. First {2, 3}: full. First {1}: {4} follows unless
  # {2, 3} comes before it, which no longer fits.
  first_4_then_1, first_1_then_4 = 1 / 2 * 1 / 2, 1 / 4 * 2 / 3
  assert_close(found[2:3], np.array([1 / 4]))
  assert_close(found[4:5], np.array([1 / 2 + first_1_then_4]))
  assert_close(found[1:2], np.array([1 / 4 + first_4_then_1]))


@pytest.mark.parametrize(
  ("priority", "weights"),
  [
    ("uniform", [1, 1, 1, 1, 1]),
    ("advantage", [0.5, 1, 1, 1, 2]),
    # Ids 0 to 4 come from groups of 1 to 5; a group of one has no advantage but 0.
    ("normalised_advantage", [0.5, 1, 1 / 2**0.5, 1 / 3**0.5, 1]),
    ("group_spread", [0.5, 0.5, 0.5, 0.5, 0]),  # rewards are ids: 0 and 1, 2 and 3, 4 alone
  ],
)
def test_rollouts_by_each_priority(priority, weights):
  replay = store(capacity=16)
  fresh = rollouts(range(5), birth=0, advantages=[-0.5, 1, -1, 1, 2])
  buffer = replay.add(replay.create(), fresh)
  how = Draw(priority=priority)
  found = inclusion(lambda key: ids_of(draw(buffer, key, 2, 1.0, max_size=4, how=how)[1]), 5)
  priorities = (np.array(weights) + PRIORITY_EPSILON).tolist()
  assert_close(found, successive_draw_frequencies(priorities, 2))


def test_of_one_problem_at_most_so_many_are_drawn():
  """Problems of 3, 1 and 1 rollouts: at most 2 of the first, which two by priority."""
  replay = store(capacity=16)
  fresh = rollouts(range(5), birth=0, advantages=[1, 3, 2, 1, 1])
  fresh = fresh.replace(problem_R=np.array([7, 7, 7, 8, 9], np.int32))  # rewards are the ids
  buffer = replay.add(replay.create(), fresh)

  def once(key):
    rows = draw(buffer, key, 4, 1.0, max_size=8, how=Draw(most=2))[1]
    return jnp.where(rows.weight_R > 0, rows.reward_R.astype(int), -1)

  found = inclusion(once, 5)
  assert (found[3:] == 1).all()
  assert_close(found[:3], successive_draw_frequencies([1, 3, 2], 2))
  with pytest.raises(UserError, match="most is 2"):
    Draw(level="query", most=2)


def test_the_likeliest_at_birth_is_drawn_first_whatever_its_length():
  replay = store(capacity=16)
  fresh = rollouts(range(3), birth=0)
  logp_RT = np.array([[-2, -2, 0], [-1.5, 0, 0], [-1.6, -1.6, -1.6]], np.float32)
  samples = fresh.samples.replace(
    behaviour_logp_RT=logp_RT, completion_len_R=np.array([2, 1, 3], np.int32)
  )
  buffer = replay.add(replay.create(), fresh.replace(samples=samples))
  how = Draw(priority="likelihood")
  found = inclusion(lambda key: ids_of(draw(buffer, key, 1, 1.0, max_size=1, how=how)[1]), 3)
  assert_close(found, np.exp([-2, -1.5, -1.6]) / np.exp([-2, -1.5, -1.6]).sum())
  in_order = draw(buffer, jax.random.key(0), 3, 1000.0, max_size=3, how=how)[1]
  assert drawn_ids(in_order) == [1, 2, 0]


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_a_priority_falls_to_one_e_th_in_its_decay(alpha):
  buffer = filled(3, 13)
  how = Draw(priority="uniform", decay=10.0)

  def births(key):
    rows = draw(buffer, key, 1, alpha, max_size=1, how=how)[1]
    return rows.birth_R

  old = inclusion(births, 14)[3]
  expected = np.exp(-alpha) / (1 + np.exp(-alpha))
  assert_close(np.array([old]), np.array([expected]))


def test_a_batch_from_one_pool_is_a_draw_from_one_store():
  """Three stored and three fresh rollouts, of which one did not survive."""
  replay = store(capacity=16)
  buffer = replay.add(replay.create(), rollouts([0, 1, 2], birth=0, advantages=[1, 2, 3]))
  fresh = rollouts([3, 4, 5], birth=1, advantages=[1, 2, 9], weights=[1, 1, 0])

  def once(key):
    _, old, new = draw_batch(buffer, fresh, key, 3, 1.0, max_size=6, how=Draw())
    return jnp.concatenate([ids_of(old), ids_of(new)])

  found = inclusion(once, 6)
  assert found[5] == 0
  assert_close(found[:5], successive_draw_frequencies([1, 2, 3, 1, 2], 3))


def test_a_pool_counts_uses_of_stored_rollouts_alone_and_leaves_the_fresh_ones_as_they_were():
  replay = store(max_draw=8)
  buffer = replay.add(replay.create(), rollouts(range(3), birth=0))
  fresh = rollouts([10, 11], birth=1)
  buffer, old, new = replay.draw_batch(buffer, fresh, jax.random.key(0), 8, 0.5)
  assert sorted(drawn_ids(old)) == [0, 1, 2]
  assert drawn_ids(new) == [10, 11]
  assert np.asarray(buffer.uses_C).sum() == 3
  assert np.asarray(fresh.weight_R).tolist() == [1, 1]
  assert stored_ids(buffer) == [0, 1, 2]


@pytest.mark.parametrize("how", [Draw(level="query"), Draw("query", "group_spread", 5.0)])
def test_a_sharded_buffer_draws_the_same_groups(how):
  drawn = []
  for devices in (1, 8):
    layout = make_layout(devices=jax.devices()[:devices])
    replay = Replay(16, 8, rollouts(range(8), birth=0), layout, how)
    buffer = jax.block_until_ready(replay.add(replay.create(), rollouts(range(8), birth=3)))
    buffer, rows = jax.block_until_ready(replay.draw(buffer, jax.random.key(3), 4, 0.5))
    fresh = jax.device_put(rollouts(range(8, 16), birth=4), layout.sharding("batch"))
    both = jax.block_until_ready(replay.draw_batch(buffer, fresh, jax.random.key(4), 6, 0.5))
    drawn.append([drawn_ids(rows), *map(drawn_ids, both[1:])])
  assert drawn[0] == drawn[1]


@pytest.mark.parametrize(
  ("values", "named"),
  [
    ({"level": "token"}, "config.replay.level is 'token'; known: rollout, query"),
    ({"priority": "age"}, "config.replay.priority is 'age'; known: advantage"),
    ({"decay": -1.0}, "config.replay.decay is -1.0"),
  ],
)
def test_what_is_unknown_is_refused(values, named):
  with pytest.raises(UserError) as error:
    Draw(**values)
  assert named in str(error.value)
