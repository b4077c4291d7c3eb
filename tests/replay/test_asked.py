"""What a step says about stored rollouts, against fresh groups of the same rewards."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from grpo_jax.learner.advantages import group_advantages, newcomer_advantage
from grpo_jax.model.sharding import make_layout
from grpo_jax.replay.asked import NO_PROBLEM, asked_of
from grpo_jax.replay.buffer import Replay
from grpo_jax.replay.priority import Draw
from tests.replay.test_buffer import drawn_ids, rollouts

MOST = 6
REWARDS = st.lists(st.sampled_from([-1.0, 1.0, 0.3]), min_size=1, max_size=5)


@functools.cache
def store(baseline="mean", scale="group_std", devices=1, **how) -> Replay:
  layout = make_layout(devices=jax.devices()[:devices])
  newcomer = functools.partial(newcomer_advantage, baseline=baseline, scale=scale)
  return Replay(8, 8, rollouts(range(5), birth=0), layout, Draw(**how), newcomer)


def stored(replay, rewards, problems, birth=1):
  """Ids from 0; advantages of birth all 7, a number no group gives."""
  count = len(rewards)
  fresh = rollouts(range(count), birth=birth, advantages=[7.0] * count)
  return replay.add(
    replay.create(),
    fresh.replace(
      reward_R=np.asarray(rewards, np.float32), problem_R=np.asarray(problems, np.int32)
    ),
  )


def slow_refresh(rewards, problems, problem_R, reward_R, baseline, scale):
  """One stored rollout after another: the group's rewards and its own, as a fresh group."""
  advantages = []
  for reward, problem in zip(rewards, problems, strict=True):
    group = [r for r, p in zip(reward_R, problem_R, strict=True) if p == problem and r == r]
    joined = np.array([*group, reward])
    one = group_advantages(
      joined, np.zeros(len(joined)), np.isfinite(joined), baseline=baseline, scale=scale
    )
    advantages.append((one[-1], len(joined)) if group else (7.0, None))
  return advantages


@hypothesis.settings(max_examples=40)
@hypothesis.given(REWARDS, st.data())
@pytest.mark.parametrize("scale", ["group_std", "none"])
@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
def test_a_stored_rollout_becomes_a_member_of_the_new_group(baseline, scale, rewards, data):
  problems = data.draw(
    st.lists(st.integers(0, 3), min_size=len(rewards), max_size=len(rewards))
  )
  asked = data.draw(
    st.lists(
      st.tuples(st.integers(0, 4), st.sampled_from([-1.0, 1.0, 0.3, np.nan])),
      min_size=1,
      max_size=12,
    )
  )
  problem_R, reward_R = np.array([p for p, _ in asked]), np.array([r for _, r in asked])
  replay = store(baseline, scale)
  buffer = stored(replay, rewards, problems)
  buffer, count = replay.refresh(buffer, asked_of(problem_R, reward_R, MOST))
  buffer = jax.device_get(buffer)
  expected = slow_refresh(rewards, problems, problem_R, reward_R, baseline, scale)
  assert count == sum(size is not None for _, size in expected)
  for slot, (advantage, size) in enumerate(expected):
    np.testing.assert_allclose(
      buffer.rollouts.advantage_R[slot], advantage, rtol=1e-4, atol=1e-5
    )
    assert buffer.occupied_C[slot] == (abs(advantage) > 1e-6)
    assert buffer.rollouts.group_size_R[slot] == (size or slot % 7 + 1)
  assert (buffer.rollouts.reward_R[: len(rewards)] == np.float32(rewards)).all()
  assert (buffer.rollouts.birth_R[: len(rewards)] == 1).all()


def test_groups_that_have_become_all_right_or_all_wrong():
  """Of a problem solved by all four now: its old success goes, its old failure stands alone. Of one
  now failed by all: the success is what the policy has lost."""
  replay = store()
  buffer = stored(replay, [1, -1, 1, -1], [0, 0, 1, 1])
  asked = asked_of(np.repeat([0, 1], 4), np.repeat([1.0, -1.0], 4), MOST)
  buffer, _ = replay.refresh(buffer, asked)
  assert stored_ids_by_slot(buffer) == [1, 2]
  np.testing.assert_allclose(np.asarray(buffer.rollouts.advantage_R)[1:3], [-2, 2], rtol=1e-5)


def stored_ids_by_slot(buffer) -> list[int]:
  return np.flatnonzero(np.asarray(buffer.occupied_C)).tolist()


def test_a_freed_slot_stays_free_when_its_problem_is_asked_again():
  replay = store()
  buffer = stored(replay, [1, 1], [0, 0])
  buffer, _ = replay.refresh(buffer, asked_of(np.zeros(3, int), np.ones(3), MOST))
  assert stored_ids_by_slot(buffer) == []
  buffer, count = replay.refresh(buffer, asked_of(np.zeros(2, int), np.array([1.0, -1.0]), MOST))
  assert stored_ids_by_slot(buffer) == []
  assert count == 0


def test_a_draw_follows_the_new_advantages():
  """Two of one problem, equal at birth; the problem is now failed nine times in ten."""
  replay = store()
  buffer = stored(replay, [1, -1], [3, 3])
  reward_R = np.array([1.0] + [-1.0] * 9)
  buffer, _ = replay.refresh(buffer, asked_of(np.full(10, 3), reward_R, MOST))
  first = 0
  for seed in range(40):
    buffer, rows = replay.draw(buffer, jax.random.key(seed), 1, 8.0)
    first += np.asarray(rows.reward_R)[0] == 1
  assert first == 40


def test_a_step_asks_what_it_asks():
  asked = asked_of(np.array([5, 2, 5, 2, 9]), np.array([1.0, -1, -1, -1, np.nan]), MOST)
  assert asked.problem_N.tolist() == [2, 5, 9] + [NO_PROBLEM] * 3
  assert asked.count_N.tolist() == [2, 2, 0, 0, 0, 0]
  assert asked.mean_N.tolist() == [-1, 0, 0, 0, 0, 0]
  assert asked.variance_N.tolist() == [0, 1, 0, 0, 0, 0]


def test_equal_rewards_are_equal_whatever_their_mean_rounds_to():
  asked = asked_of(np.zeros(3, int), np.full(3, 0.1), 1)
  replay = store()
  buffer, _ = replay.refresh(stored(replay, [0.1], [0]), asked)
  assert stored_ids_by_slot(buffer) == []


def test_nothing_compiles_twice_and_a_sharded_buffer_is_refreshed_alike():
  advantages = []
  for devices in (1, 8):
    replay = store(devices=devices)
    buffer = jax.block_until_ready(stored(replay, [1, -1, 1, -1, 1], [0, 0, 1, 2, 2]))
    for count in (1, 2, 3):
      problem_R = np.arange(4) % count
      asked = asked_of(problem_R, np.array([1.0, -1, -1, 1]), MOST)
      buffer, _ = jax.block_until_ready(replay.refresh(buffer, asked))
    assert replay.refresh._cache_size() == 1
    advantages.append(np.asarray(buffer.rollouts.advantage_R).tolist())
    _, rows = replay.draw(buffer, jax.random.key(0), 8, 0.5)
    assert len(drawn_ids(rows)) == 3  # what the last groups of their problems did not do
  assert advantages[0] == advantages[1]


@hypothesis.settings(max_examples=40)
@hypothesis.given(REWARDS, st.data(), st.integers(1, 5))
@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
def test_what_is_drawn_of_a_problem_is_a_group_of_its_own(baseline, rewards, data, size):
  problems = data.draw(
    st.lists(st.integers(0, 2), min_size=len(rewards), max_size=len(rewards))
  )
  replay = store(baseline, advantage="drawn")
  buffer = stored(replay, rewards, problems)
  buffer, rows = jax.device_get(replay.draw(buffer, jax.random.key(0), size, 0.5))
  drawn = rows.weight_R > 0
  assert drawn.sum() == min(size, len(rewards))
  expected = group_advantages(
    rows.reward_R[drawn], rows.problem_R[drawn], np.ones(drawn.sum(), bool), baseline=baseline
  )
  np.testing.assert_allclose(rows.advantage_R[drawn], expected, rtol=1e-4, atol=1e-5)
  assert (buffer.rollouts.advantage_R[: len(rewards)] == 7).all()


def test_only_answers_to_the_problems_of_the_step_are_drawn():
  replay = store(problems="asked")
  buffer = stored(replay, [1, 1, 1, -1, 1], [0, 3, 3, 5, 0])
  for asked, problems in (([3, 5], [3, 3, 5]), ([0], [0, 0]), ([7], []), ([3, 7, 0], [0, 0, 3, 3])):
    buffer, rows = replay.draw(
      buffer, jax.random.key(0), 8, 0.5, asked_of(np.array(asked), np.zeros(len(asked)), MOST)
    )
    assert sorted(drawn_ids(rows)) == problems  # the id of a row is its problem
  assert replay.draw._cache_size() == 1
