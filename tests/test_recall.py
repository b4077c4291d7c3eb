"""A few steps of replay from outside: what comes back, when, and what never does."""

import functools
import types

import jax
import numpy as np
import pytest

from grpo_jax.learner.advantages import newcomer_advantage
from grpo_jax.model.sharding import make_layout
from grpo_jax.recall import Recall
from grpo_jax.replay.buffer import Replay
from grpo_jax.replay.priority import Draw
from tests.replay.test_buffer import rollouts

G = 4


def make_recall(*, how=None, **changes) -> Recall:
  layout = make_layout(devices=jax.devices()[:1])
  newcomer = functools.partial(newcomer_advantage, baseline="mean", scale="group_std")
  replay = Replay(16, 8, rollouts(range(G), birth=0), layout, how or Draw(), newcomer)
  choices = {
    "ratio": 1.0, "alpha": 0.5, "max_age": 2, "warmup_steps": 0, "pool": False,
    "only_right": False, "most_asked": G,
  }  # fmt: skip
  return Recall(replay, **(choices | changes))


def fresh_of(step, problems, rewards, kept=(1,) * G):
  """Ids are steps times ten and up."""
  rows = rollouts(range(10 * step, 10 * step + G), birth=step, weights=kept)
  rows = rows.replace(problem_R=np.array(problems, np.int32), reward_R=np.float32(rewards))
  # The id of a row is then in its group.
  rows = rows.replace(group_R=np.arange(10 * step, 10 * step + G, dtype=np.int32))
  return types.SimpleNamespace(
    rollouts=rows,
    right_R=np.array(rewards) > 0,
    survivors=sum(kept),
    answers=types.SimpleNamespace(problem_R=rows.problem_R),
    reward_R=np.array(rewards, float),
  )


def run(recall, steps):
  """Ids drawn at each step, and the store at the end."""
  buffer, drawn = recall.replay.create(), []
  for step, fresh in enumerate(steps, 1):
    buffer, learned, replayed, metrics = recall(buffer, fresh, jax.random.key(step), step)
    rows = np.asarray(replayed.group_R)[np.asarray(replayed.weight_R) > 0]
    drawn.append(sorted(rows.tolist()))
    assert metrics["replay/drawn"] == len(rows)
    assert learned is fresh.rollouts or recall.pool
  return drawn, sorted(np.asarray(buffer.rollouts.group_R)[np.asarray(buffer.occupied_C)].tolist())


MIXED = [1, 1, -1, -1]


def test_a_step_never_draws_its_own_and_a_warm_up_draws_nothing():
  steps = [fresh_of(step, [step] * G, MIXED) for step in (1, 2, 3)]
  drawn, _ = run(make_recall(warmup_steps=1), steps)
  assert drawn[:2] == [[], [10, 11, 12, 13]]
  assert set(drawn[2]) <= {10, 11, 12, 13, 20, 21, 22, 23}


def test_answers_to_a_problem_that_is_asked_no_more_age_out():
  """As of one that was retired for being always right: harmless until then, gone after."""
  steps = [fresh_of(1, [7] * G, MIXED)] + [fresh_of(s, [s] * G, [1] * G, [0] * G) for s in (2, 3)]
  steps += [fresh_of(4, [4] * G, MIXED)]
  drawn, left = run(make_recall(), steps)
  assert drawn == [[], [], [], []]
  assert left == [40, 41, 42, 43]
  steps[2] = fresh_of(3, [3] * G, MIXED)
  assert run(make_recall(), steps)[0][2] == [10, 11, 12, 13]


def test_only_what_is_right_is_stored():
  drawn, left = run(make_recall(only_right=True), [fresh_of(s, [s] * G, MIXED) for s in (1, 2)])
  assert drawn == [[], [10, 11]]
  assert left == [10, 11, 20, 21]


def test_a_solved_problem_frees_its_successes_before_the_draw():
  steps = [fresh_of(1, [7] * G, MIXED), fresh_of(2, [7] * G, [1] * G)]
  drawn, left = run(make_recall(how=Draw(advantage="refreshed")), steps)
  assert drawn[1] == [12, 13]
  assert left == [12, 13, 20, 21, 22, 23]


@pytest.mark.parametrize("pool", [False, True])
def test_what_comes_back_may_be_worth_what_it_is_among_itself(pool):
  """Three of one problem come back, one of them wrong; the store keeps their birth's advantage."""
  steps = [fresh_of(1, [7, 7, 7, 8], [1, 1, -1, 1]), fresh_of(2, [7] * G, MIXED)]
  recall = make_recall(how=Draw(advantage="drawn", problems="asked"), pool=pool)
  buffer = recall.replay.create()
  for step, fresh in enumerate(steps, 1):
    buffer, _, rows, _ = recall(buffer, fresh, jax.random.key(step), step)
  drawn = np.asarray(rows.weight_R) > 0
  ids, values = np.asarray(rows.group_R)[drawn].tolist(), np.asarray(rows.advantage_R)[drawn]
  advantages = dict(zip(ids, values.tolist(), strict=True))
  assert advantages == pytest.approx({10: 0.5**0.5, 11: 0.5**0.5, 12: -(2**0.5)}, rel=1e-5)
  assert np.asarray(buffer.rollouts.advantage_R)[: 2 * G].tolist() == [1] * (2 * G)


@pytest.mark.parametrize("pool", [False, True])
def test_only_problems_of_the_step_come_back(pool):
  steps = [fresh_of(1, [7, 7, 8, 8], MIXED), fresh_of(2, [8, 8, 9, 9], MIXED)]
  drawn, _ = run(make_recall(how=Draw(problems="asked"), pool=pool), steps)
  assert drawn[1] == [12, 13]
