"""What a rollout is worth: verdict, penalties, what is unscored, what is cut."""

import functools

import jax
import numpy as np
import pytest

from grpo_jax.answers import Answers
from grpo_jax.collect import Collector
from grpo_jax.data.prompts import Prompt
from grpo_jax.distribution import decoding
from grpo_jax.learner.advantages import group_advantages
from grpo_jax.learner.overlong import overlong_penalty
from grpo_jax.methods.allocate import AsSelected
from grpo_jax.methods.choice import Budget
from grpo_jax.methods.decide import Decisions
from grpo_jax.methods.keep import KEEP
from grpo_jax.methods.perplexity import PerplexityWindow
from grpo_jax.methods.select import ShuffledEpochs
from grpo_jax.methods.stages import OneStage
from grpo_jax.methods.weigh import WEIGH
from grpo_jax.model.sharding import make_layout
from grpo_jax.records import Finish, Samples
from grpo_jax.verify import Outcome, Verdict

LENGTH_R = np.array([10, 4, 9, 2, 10, 10], np.int32)
ALL_KEPT = [1, 1, 1, 0, 1, 1]
OUTCOMES = [Outcome.RIGHT, Outcome.WRONG, Outcome.RIGHT, Outcome.UNSCORED] + [Outcome.RIGHT] * 2


def answers() -> Answers:
  """Two groups of three, of at most 10 tokens; the second one all right or unscored."""
  samples = Samples(
    tokens_RT=np.zeros((6, 12), np.int32),
    prompt_len_R=np.ones(6, np.int32),
    completion_len_R=LENGTH_R,
    behaviour_logp_RT=np.zeros((6, 12), np.float32),
    finish_R=np.where(LENGTH_R == 10, Finish.LENGTH, Finish.EOS).astype(np.int32),
  )
  verdicts = [Verdict(outcome, None, "") for outcome in OUTCOMES]
  group_R = np.array([0, 0, 0, 1, 1, 1], np.int32)
  return Answers(samples, group_R, group_R, [""] * 6, verdicts, 1.0, 0.0)


def collect(**changes):
  choices = {
    "decide": Decisions(
      OneStage(), ShuffledEpochs(np.random.default_rng), AsSelected(), Budget(2, 3), 1
    ),
    "prompts": [None] * 8,
    "rounds": 1,
    "answerer": lambda *_: answers(),
    "keep": KEEP["everything"],
    "weigh": WEIGH["equal"],
    "keep_truncated": True,
    "zero_truncated": False,
    "reward_right": 1.0,
    "reward_wrong": -1.0,
    "penalties": {},
    "advantages": functools.partial(group_advantages, scale="none"),
    "how": decoding(1.0, 0, 1.0, 10),
    "layout": make_layout(devices=jax.devices()[:1]),
  }
  collector = Collector(**(choices | changes))
  return collector(None, collector.decide.start(8), jax.random.key(0), 1)[0]


def test_penalties_come_off_before_the_baseline():
  overlong = functools.partial(overlong_penalty, limit=10, share=0.2)
  fresh = collect(penalties={"overlong": lambda answers: overlong(answers.samples)})
  np.testing.assert_allclose(fresh.reward_R, [0, -1, 0.5, np.nan, 0, 0])
  np.testing.assert_allclose(fresh.advantage_R, np.array([1, -5, 4, 0, 0, 0]) / 6, atol=1e-6)
  np.testing.assert_allclose(fresh.metrics["reward/overlong_penalty"], 3.5 / 6)


def test_a_filter_looks_at_verdicts_not_at_penalties():
  """Answers all right but of different lengths are still a group without signal on being right."""
  uneven = {"any": lambda answers: 0.1 * np.arange(6)}
  fresh = collect(penalties=uneven, keep=KEEP["mixed_groups"])
  np.testing.assert_array_equal(fresh.rollouts.weight_R, [1, 1, 1, 0, 0, 0])


@pytest.mark.parametrize(
  ("kept", "weight"), [(True, ALL_KEPT), (False, [0, 1, 1, 0, 0, 0])]
)
def test_truncated_rollouts_may_be_left_out_of_the_loss_but_not_of_the_baseline(kept, weight):
  fresh = collect(keep_truncated=kept)
  np.testing.assert_array_equal(fresh.rollouts.weight_R, weight)
  np.testing.assert_allclose(fresh.advantage_R[:3], [2 / 3, -4 / 3, 2 / 3], rtol=1e-6)
  assert fresh.survivors == sum(weight)


def test_rollouts_weigh_by_their_entropy_and_those_that_do_not_learn_nothing():
  uncertain = answers()
  # Minus the mean log-prob of a token: 1, 2, 3, 4, 5, 6.
  uncertain.samples.behaviour_logp_RT[:, 1] = -LENGTH_R * np.arange(1, 7)
  fresh = collect(answerer=lambda *_: uncertain, weigh=WEIGH["relative_entropy"])
  np.testing.assert_allclose(
    fresh.rollouts.weight_R, np.array([1, 2, 3, 0, 5, 6]) / 3.4, rtol=1e-6
  )
  assert fresh.survivors == 5


def test_prompts_are_measured_before_they_are_chosen():
  """Of eight one-token prompts, whose perplexities are their ids, the two lowest are asked."""
  select = PerplexityWindow(np.random.default_rng, share=0.25, steps=10)
  asked = []

  def answerer(prepared, prompts, *rest):
    asked.extend(prompt.problem for prompt in prompts)
    return answers()

  fresh = collect(
    decide=Decisions(OneStage(), select, AsSelected(), Budget(2, 3), 1, select.candidates),
    prompts=[Prompt(place, (9 - place,)) for place in range(8)],
    answerer=answerer,
    measure=lambda prepared, prompts: np.array([tokens[0] for tokens in prompts], float),
  )
  assert asked == [7, 6]
  assert fresh.probe_tokens == 8
  assert fresh.metrics["rollout/prompt_perplexity"] == 2.5


def test_truncated_rollouts_may_keep_their_place_and_learn_nothing():
  """Advantage 0 after the baseline, weight 1: a token mean still counts their tokens."""
  fresh = collect(zero_truncated=True)
  np.testing.assert_array_equal(fresh.rollouts.weight_R, ALL_KEPT)
  np.testing.assert_allclose(fresh.advantage_R, [0, -4 / 3, 2 / 3, 0, 0, 0], rtol=1e-6)


def test_a_graded_answer_is_worth_its_share_of_what_lies_between_wrong_and_right():
  """The filter sees that the marks differ; the ledger counts full marks only."""
  graded = answers()
  for r, score in ((0, 0.25), (1, 0.5), (2, 0.25)):
    graded.verdicts[r] = Verdict(Outcome.WRONG, "", "", score)
  graded.verdicts[3] = Verdict(Outcome.RIGHT, "", "")
  fresh = collect(answerer=lambda *_: graded, keep=KEEP["mixed_groups"])
  np.testing.assert_allclose(fresh.reward_R, [-0.5, 0, -0.5, 1, 1, 1])
  np.testing.assert_array_equal(fresh.rollouts.weight_R, [1, 1, 1, 0, 0, 0])
  assert fresh.metrics["reward/groups_with_a_right"] == 0.5
  assert fresh.metrics["reward/zero_variance_share"] == 0.5


def test_what_a_store_needs_to_know_of_a_rollout():
  """The size of the group its advantage is relative to, whatever is kept of it; the verdict."""
  fresh = collect(keep=KEEP["mixed_groups"])
  assert fresh.rollouts.group_size_R.tolist() == [3, 3, 3, 2, 2, 2]
  assert fresh.right_R.tolist() == [True, False, True, False, True, True]


def test_a_penalty_that_is_not_finite_leaves_its_rollout_unscored():
  fresh = collect(penalties={"kl": lambda answers: np.array([np.inf, 0, 0, 0, 0, np.nan])})
  np.testing.assert_allclose(fresh.advantage_R[:3], [0, -1, 1])
  np.testing.assert_array_equal(fresh.rollouts.weight_R, [0, 1, 1, 0, 1, 0])
  assert np.isfinite(fresh.rollouts.reward_R).all()


@pytest.mark.parametrize("keep", KEEP)
@pytest.mark.parametrize("what", ["a log-prob", "the end"])
def test_a_rollout_whose_numbers_are_not_finite_is_neither_scored_nor_kept(keep, what):
  """Weight 0 is also what keeps it out of the replay store, from which it would come back."""
  broken = answers()
  if what == "a log-prob":
    broken.samples.behaviour_logp_RT[0, 3] = np.nan
  else:
    broken.samples.finish_R[0] = Finish.NONFINITE
  fresh = collect(answerer=lambda *_: broken, keep=KEEP[keep])
  assert fresh.rollouts.weight_R[:3].tolist() == [0, 1, 1]
  np.testing.assert_allclose(fresh.advantage_R[:3], [0, -1, 1])
  np.testing.assert_allclose(fresh.metrics["rollout/nonfinite"], 1 / 6)
  assert fresh.nonfinite == f"row 0 (problem 0, token {LENGTH_R[0]})"
