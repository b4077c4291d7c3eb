"""Asking again for groups that differ: when it stops, what it costs, what is learned from."""

import functools

import jax
import numpy as np
import pytest

from grpo_jax.answers import Answers
from grpo_jax.collect import Collector
from grpo_jax.distribution import decoding
from grpo_jax.learner.advantages import group_advantages
from grpo_jax.methods.allocate import AsSelected
from grpo_jax.methods.choice import Budget
from grpo_jax.methods.decide import Decisions
from grpo_jax.methods.keep import KEEP
from grpo_jax.methods.select import ShuffledEpochs
from grpo_jax.methods.stages import OneStage
from grpo_jax.methods.weigh import WEIGH
from grpo_jax.model.sharding import make_layout
from grpo_jax.records import Finish, Samples
from grpo_jax.verify import Outcome, Verdict

ALL_RIGHT, ALL_WRONG, MIXED, OTHER = "11", "00", "10", "01"
BUDGET = Budget(problems=2, samples=2)


def answers(prompts, verdicts, number) -> Answers:
  """Two groups of two; a token says in which round, and of which group, a rollout was sampled."""
  group_R = np.repeat(np.arange(2, dtype=np.int32), 2)
  samples = Samples(
    tokens_RT=(10 * number + group_R)[:, None] * np.ones((1, 3), np.int32),
    prompt_len_R=np.ones(4, np.int32),
    completion_len_R=np.full(4, 2, np.int32),
    behaviour_logp_RT=np.full((4, 3), -0.5, np.float32),
    finish_R=np.full(4, Finish.EOS, np.int32),
  )
  outcomes = [Outcome.RIGHT if letter == "1" else Outcome.WRONG for letter in "".join(verdicts)]
  judged = [Verdict(outcome, None, "") for outcome in outcomes]
  return Answers(samples, np.array(prompts)[group_R], group_R, [""] * 4, judged, 1.0, 0.0)


def step_of(*rounds, most, keep="mixed_groups"):
  """A step whose n-th round gets the verdicts `rounds[n]`; also the keys that were used."""
  keys = []

  def answerer(prepared, prompts, copies_N, key, how):
    keys.append(jax.random.key_data(key).tolist())
    return answers(prompts, rounds[len(keys) - 1], len(keys))

  collector = Collector(
    decide=Decisions(
      OneStage(), ShuffledEpochs(np.random.default_rng), AsSelected(), BUDGET, window=1
    ),
    prompts=list(range(9)),
    rounds=most,
    answerer=answerer,
    keep=KEEP[keep],
    weigh=WEIGH["equal"],
    keep_truncated=True,
    zero_truncated=False,
    reward_right=1.0,
    reward_wrong=0.0,
    penalties={},
    advantages=functools.partial(group_advantages, scale="none"),
    how=decoding(1.0, 0, 1.0, 10),
    layout=make_layout(devices=jax.devices()[:1]),
  )
  fresh, deciding = collector(None, collector.decide.start(9), jax.random.key(0), 1)
  return fresh, deciding, keys


@pytest.mark.parametrize(
  ("rounds", "most", "asked", "survivors"),
  [
    ([(MIXED, OTHER)], 5, 1, 4),
    ([(ALL_RIGHT, ALL_WRONG), (MIXED, ALL_RIGHT), (OTHER, MIXED)], 5, 3, 4),
    ([(ALL_RIGHT, MIXED), (ALL_RIGHT, ALL_RIGHT)], 2, 2, 2),  # the rounds are bounded
    ([(ALL_RIGHT, MIXED)], 1, 1, 2),  # no refill
  ],
)
def test_it_asks_until_enough_groups_differ(rounds, most, asked, survivors):
  fresh, _, keys = step_of(*rounds, most=most)
  assert len(keys) == fresh.metrics["rollout/rounds"] == asked
  assert fresh.survivors == survivors
  assert fresh.rollouts.size == BUDGET.rollouts, "the batch keeps its shape"
  assert int(np.sum(np.asarray(fresh.rollouts.weight_R) > 0)) == survivors


def test_the_batch_is_the_first_groups_that_differ_and_groups_of_two_rounds_never_merge():
  fresh, _, _ = step_of((ALL_RIGHT, ALL_WRONG), (MIXED, ALL_RIGHT), (OTHER, MIXED), most=5)
  assert np.asarray(fresh.rollouts.samples.tokens_RT)[:, 0].tolist() == [20, 20, 30, 30]
  assert np.asarray(fresh.rollouts.group_R).tolist() == [2, 2, 4, 4]
  np.testing.assert_allclose(fresh.rollouts.advantage_R, [0.5, -0.5, -0.5, 0.5])


def test_all_rollouts_are_paid_for_described_and_remembered():
  fresh, deciding, _ = step_of((ALL_RIGHT, ALL_WRONG), (MIXED, OTHER), most=5)
  assert len(fresh.answers.texts) == len(fresh.answers.verdicts) == 8
  assert fresh.answers.sample_seconds == 2.0
  assert fresh.metrics["reward/right"] == 0.5
  assert fresh.metrics["reward/groups_all_right"] == 0.25
  assert deciding.ledger.tries_P.sum() == 8
  assert (deciding.ledger.tries_P > 0).sum() == 4, "the second round asks other problems"


def test_each_round_has_noise_of_its_own_and_the_first_that_of_a_step_without_refill():
  _, _, keys = step_of((ALL_RIGHT, ALL_WRONG), (ALL_RIGHT, ALL_WRONG), most=2)
  assert keys[0] == jax.random.key_data(jax.random.key(0)).tolist()
  assert keys[1] != keys[0]
