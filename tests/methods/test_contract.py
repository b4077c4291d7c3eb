"""The contract of every row of configs/methods.py and of every pair that makes sense: what a step
collects costs the budget, has one shape, is the same again, and goes on from a checkpoint in
mid-epoch as if nothing had happened. Pairs that make none are refused with the reason."""

import dataclasses
import functools
import itertools
import json

import jax
import numpy as np
import pytest

from configs import math, methods, quickstart
from grpo_jax.answers import Answers, occurrence
from grpo_jax.build import load_task, make_model, make_questioners
from grpo_jax.check import check
from grpo_jax.distribution import decoding
from grpo_jax.errors import UserError
from grpo_jax.methods.decide import DecisionState
from grpo_jax.methods.profile import Profile
from grpo_jax.model.sharding import make_layout
from grpo_jax.randomness import Purpose, key_for
from grpo_jax.records import Finish, Samples, abstract_rollouts
from grpo_jax.slots import make_decisions, make_penalties
from grpo_jax.verify import Outcome, Verdict

PROBLEMS, SECOND_SET, BUDGET = 30, 12, 8 * 3
ROWS = methods.METHODS
PAIRS = [f"{a}+{b}" for a, b in itertools.combinations(ROWS, 2)]
# What collecting does not look at: pairs that differ in nothing else are tried once.
ELSEWHERE = ("loss.", "replay.")


def changes(method: str) -> dict:
  """The keys its rows set."""
  return functools.reduce(lambda all_, row: all_ | ROWS[row], method.split("+"), {})


def config_of(method: str):
  """A small task under a method.

  Raises:
    UserError: the method makes no sense.
  """
  config = quickstart.get_config(f"method={method}")
  config.data.limit = PROBLEMS - SECOND_SET
  config.more.update(source="arithmetic", levels=(2,), limit=SECOND_SET, template="plain")
  config.eval.every, config.stages.window = 1, 1  # the second stage begins after two steps
  config.eval.limit = 8
  config.rollout.problems, config.rollout.samples, config.rollout.slots = 8, 3, 8
  config.rollout.rounds = min(config.rollout.rounds, 3)
  config.most_uncertain.warmup_steps, config.most_uncertain.candidates = 2, 5
  config.easy_to_hard.profile = "profile.json"
  if config.warm_start.epochs:
    config.warm_start.steps = 0
  check(config)
  return config


# ------------------------------------------------------------------------- which make sense


def silly(method: str) -> str:
  """Why no two rows, or no row alone, should set these keys together; "": nothing is wrong."""
  set_to = changes(method)
  scale = set_to.get("advantage.scale", "group_std")
  if set_to.get("replay.priority") == "normalised_advantage" and scale != "group_std":
    return "do not grow with their group"
  if set_to.get("replay.advantage"):
    if scale in ("batch_std", "beta"):
      return "by a group of a rollout's problem"
    if set_to.get("advantage.zero_truncated"):
      return "the worth again that config.advantage.zero_truncated took"
  if set_to.get("replay.most") and set_to.get("replay.level") == "query":
    return "so that groups are drawn whole"
  of_draws = {f"replay.{key}" for key in ("level", "priority", "composition", "decay", "advantage")}
  of_draws |= {key for key, value in set_to.items() if str(value).endswith("_replayed")}
  if of_draws & set(set_to) and not set_to.get("replay.ratio"):
    return "config.replay.ratio is 0, so that nothing is replayed"
  if set_to.get("allocate") == "by_capability":
    if set_to.get("select") == "most_uncertain":
      return "one problem a step: there is nothing to split"
    if set_to.get("select") == "easy_to_hard":
      return "the sizes of their phases"
  shaped = any(set_to.get(f"reward.{key}") for key in ("format", "language_mix", "overlong"))
  if set_to.get("advantage.scale") == "beta" and shaped:
    return "rewards of two values"
  if set_to.get("loss.clip") == "minirl" and set_to.get("loss.correction"):
    return "weighed by the ratio to the sampler already"
  if set_to.get("stages.switch") and set_to.get("select") == "easy_to_hard":
    return "whose phases are the stages"
  return ""


def contradicts(method: str) -> bool:
  """Whether two rows want different values of one key."""
  rows = [ROWS[row] for row in method.split("+")]
  return any(a[key] != b[key] for a, b in itertools.pairwise(rows) for key in a.keys() & b.keys())


def test_every_row_and_pair_is_taken_or_refused_for_its_reason():
  taken = []
  for method in [*ROWS, *PAIRS]:
    reason = "disagree on" if contradicts(method) else silly(method)
    try:
      config_of(method)
      told = ""
      taken.append(method)
    except UserError as error:
      told = str(error)
    assert bool(told) == bool(reason), f"{method}: {told or 'taken'}, expected {reason or 'taken'}"
    assert reason in told, method
  assert {"aper+sgpo", "aper+coba", "aper+history_resampling", "prepo+coba"} <= set(taken)
  assert len(taken) > len(PAIRS) / 2


@pytest.mark.parametrize("method", ["sgpo+aper", "prepo+aper+ibro", "coba+dapo"])
def test_methods_join_on_the_command_line_of_a_real_task(method):
  config = math.get_config(f"method={method},shrunk=true")
  config.update_from_flattened_dict({"easy_to_hard.profile": "profile.json", "tokenizer": "qwen"})
  config.rollout.slots = 8
  check(config)
  for key, value in changes(method).items():
    if key != "replay.warmup_steps":  # which shrinking scales
      assert functools.reduce(getattr, key.split("."), config) == value


# ------------------------------------------------------------------------- what they collect


def of_collecting(method: str) -> str:
  named = {key: v for key, v in changes(method).items() if not key.startswith(ELSEWHERE)}
  return json.dumps(named, sort_keys=True)


SENSIBLE = [method for method in [*ROWS, *PAIRS] if not contradicts(method) and not silly(method)]
DIFFERENT = list({of_collecting(method): method for method in reversed(SENSIBLE)}.values())


@functools.cache
def task_and_model():
  config = config_of("grpo")
  task = load_task(config)
  return task, make_model(config, task, make_layout(devices=jax.devices()[:1]))


def collector_of(method: str):
  """As a run makes it, but for the model, which is made up."""
  config, (task, model) = config_of(method), task_and_model()
  profile = Profile(np.arange(PROBLEMS) % 9 / 8, 8, 1, 1, "")
  decide = make_decisions(config, task, profile)
  how = decoding(1.0, 0, 1.0, task.tokenizer.size)
  penalties = make_penalties(config, model, None, how)
  collector, _ = make_questioners(
    config, task, model, None, None, how, penalties, decide, None, lambda: None
  )
  length = config.data.max_prompt_tokens + config.rollout.max_new_tokens
  return dataclasses.replace(
    collector,
    answerer=functools.partial(answered, config.rollout.max_new_tokens, length),
    measure=lambda prepared, prompts: np.array([sum(tokens) % 7 for tokens in prompts], float),
  )


def answered(limit, length, prepared, prompts, copies_N, key, how) -> Answers:
  """Problem p is right with probability p / PROBLEMS; a few answers have no verdict, or numbers
  that are not finite."""
  rng = np.random.default_rng(jax.random.key_data(key).tolist())
  group_R = np.repeat(np.arange(len(prompts), dtype=np.int32), copies_N)
  problem_R = np.array([prompts[n].problem for n in group_R], np.int32)
  R = len(group_R)
  prompt_len_R = np.array([len(prompts[n].tokens) for n in group_R], np.int32)
  completion_len_R = rng.integers(1, limit + 1, R).astype(np.int32)
  logp_RT = -rng.random((R, length)).astype(np.float32)
  logp_RT[rng.random(R) < 0.02, 0] = np.nan
  ends_R = np.where(completion_len_R == limit, Finish.LENGTH, Finish.EOS).astype(np.int32)
  tokens_RT = rng.integers(0, 9, (R, length)).astype(np.int32)
  right_R = rng.random(R) < problem_R / PROBLEMS
  outcome_R = np.where(right_R, Outcome.RIGHT, Outcome.WRONG)
  outcome_R[rng.random(R) < 0.05] = Outcome.UNSCORED
  return Answers(
    samples=Samples(tokens_RT, prompt_len_R, completion_len_R, logp_RT, ends_R),
    problem_R=problem_R,
    group_R=group_R,
    texts=[f"{p}, {n}" for p, n in zip(problem_R, occurrence(problem_R), strict=True)],
    verdicts=[Verdict(outcome, None, "") for outcome in outcome_R],
    sample_seconds=1.0,
    verify_seconds=0.0,
  )


def steps_of(collector, state, steps):
  """What each step collected, and the state after them."""
  collected = []
  for step in steps:
    fresh, state = collector(None, state, key_for(0, Purpose.ROLLOUT, step), step)
    state, _ = collector.decide.passed(state, step, {"eval/accuracy": 0.5})
    collected.append(dataclasses.replace(fresh, rollouts=jax.device_get(fresh.rollouts)))
  return collected, state


def facts(fresh):
  """Everything later code sees, to be compared bit for bit."""
  leaves = [leaf.tobytes() for leaf in jax.tree.leaves(fresh.rollouts)]
  return leaves, fresh.answers.texts, fresh.survivors, fresh.probe_tokens


@pytest.mark.parametrize("method", DIFFERENT)
def test_collecting(method):
  collector = collector_of(method)
  start = collector.decide.start(PROBLEMS)
  whole, _ = steps_of(collector, start, range(1, 13))
  wanted = abstract_rollouts(BUDGET, whole[0].rollouts.samples.tokens_RT.shape[1])
  for fresh in whole:
    rounds, rollouts = fresh.metrics["rollout/rounds"], fresh.rollouts
    assert len(fresh.answers.texts) == BUDGET * rounds, "a round costs the budget"
    assert set(fresh.answers.problem_R) <= set(range(PROBLEMS))
    for leaf, like in zip(jax.tree.leaves(rollouts), jax.tree.leaves(wanted), strict=True):
      assert (leaf.shape, leaf.dtype) == (like.shape, like.dtype)
    assert (rollouts.weight_R > 0).sum() == fresh.survivors
    assert np.isfinite(rollouts.weight_R).all()
    assert np.isfinite(rollouts.advantage_R).all()
  assert any(fresh.survivors for fresh in whole)
  assert len({place for fresh in whole for place in fresh.answers.problem_R.tolist()}) > 5

  expected = [facts(fresh) for fresh in whole]
  for cut in (0, 1, 2, 5):
    _, state = steps_of(collector, start, range(1, cut + 1))
    saved = json.loads(json.dumps(state.to_dict()))
    again = collector_of(method)
    rest, _ = steps_of(again, DecisionState.from_dict(saved), range(cut + 1, 13))
    assert [facts(fresh) for fresh in rest] == expected[cut:], f"cut after step {cut}"
  assert json.dumps(start.to_dict()) == json.dumps(collector.decide.start(PROBLEMS).to_dict())
