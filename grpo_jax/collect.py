"""One step's fresh rollouts: select, allocate, sample, verify, advantage, keep, weigh."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from grpo_jax.answers import Answerer, Answers
from grpo_jax.data.problems import ProblemSet
from grpo_jax.data.prompts import Prompt
from grpo_jax.distribution import Decoding
from grpo_jax.guards import Audit, Auditor, signs
from grpo_jax.methods.choice import Choice
from grpo_jax.methods.decide import Decisions, DecisionState
from grpo_jax.methods.ledger import Evidence
from grpo_jax.model.qwen3 import Params
from grpo_jax.model.sharding import Layout
from grpo_jax.records import Finish, Rollouts, Samples, take_rows
from grpo_jax.run.rollout_log import RolloutEntry
from grpo_jax.verify import Outcome


@dataclasses.dataclass(frozen=True)
class Fresh:
  """What a step sampled. The rollouts on the device are as many as one round has: those that were
  kept, and others of weight 0; what the host says is of all of them."""

  rollouts: Rollouts
  right_R: jax.Array  # bool, which of these the verifier called right
  survivors: int  # rollouts that were kept
  answers: Answers
  reward_R: np.ndarray
  advantage_R: np.ndarray
  metrics: dict[str, float]
  nonfinite: str  # which completions met logits that are not finite, and where; "": none
  audit: Audit | None  # what a second grader is asked meanwhile
  probe_tokens: int  # of forward passes over prompts, before anything was asked


@dataclasses.dataclass(frozen=True)
class Judged:
  """R rollouts with what each is worth; NaN where there is no verdict."""

  answers: Answers
  sound_R: np.ndarray  # bool; False: sampling met a number that is not finite
  verdict_R: np.ndarray  # by the verdict alone
  penalty_R: dict[str, np.ndarray]
  reward_R: np.ndarray  # the verdict less all penalties
  keep_R: np.ndarray  # bool


@dataclasses.dataclass(frozen=True)
class Collector:
  """The choices of a run's rollout phase.

  Attributes:
    decide: what is asked, and how often.
    prompts: those it chooses from.
    rounds: most rounds of asking in one step. Another one follows while fewer rollouts were kept
      than one round samples: the refill of DAPO (arXiv 2503.14476).
    answerer: samples and verifies.
    keep: which finished rollouts enter the batch (a choice of `methods.keep`), by verdicts alone.
    weigh: how much each of those counts in the loss (a choice of `methods.weigh`).
    keep_truncated: False: rollouts cut at the token limit do not enter it either (DAPO's overlong
      filtering); their rewards stay in the baseline.
    zero_truncated: True: rollouts cut at the token limit learn nothing but stay in the loss's mean,
      with advantage 0 (SRPO, arXiv 2504.14286); their rewards stay in the baseline.
    reward_right, reward_wrong: what an answer is worth; one that is graded lies between them.
    penalties: numbers by name that each rollout's reward loses beside its verdict.
    weight_P: by problem, what the advantages of its rollouts are multiplied by; None: 1.
    advantages: from rewards, groups and what is scored (`learner.advantages`, its choices bound).
    how: temperature and filters of training rollouts.
    layout: where the rollouts live.
    auditor: asks a second grader about some of the rewards; None: nobody does.
    measure: perplexities of prompts; None where `decide` looks at none.
  """

  decide: Decisions
  prompts: Sequence[Prompt]
  rounds: int
  answerer: Answerer
  keep: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
  weigh: Callable[[np.ndarray, np.ndarray], np.ndarray]
  keep_truncated: bool
  zero_truncated: bool
  reward_right: float
  reward_wrong: float
  penalties: Mapping[str, Callable[[Answers], np.ndarray]]
  advantages: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
  how: Decoding
  layout: Layout
  auditor: Auditor | None = None
  weight_P: np.ndarray | None = None
  measure: Callable[[Params, Sequence[Sequence[int]]], np.ndarray] | None = None

  def __call__(
    self, prepared: Params, deciding: DecisionState, key: jax.Array, step: int
  ) -> tuple[Fresh, DecisionState]:
    """Asks, in one round or several, and remembers what came of it; `step` is the birth of the
    rollouts."""
    judged, probe_tokens = None, 0
    for number in range(self.rounds):
      deciding, tokens = self._measured(prepared, deciding, step)
      probe_tokens += tokens
      choice, deciding = self.decide.choose(deciding)
      # The first round's noise is that of a step without others.
      key_of_round = jax.random.fold_in(key, number) if number else key
      now = self._judged(self._answers(prepared, choice, key_of_round))
      deciding = self.decide.record(deciding, choice, evidence(now), step)
      judged = joined(judged, now) if judged else now
      if judged.keep_R.sum() >= self.decide.budget.rollouts:
        break
    fresh = self._fresh(judged, step, probe_tokens)
    fresh.metrics["rollout/rounds"] = number + 1
    fresh.metrics["rollout/stage_problems"] = self.decide.open(deciding)
    if probe_tokens:
      asked = deciding.ledger.perplexity_P[choice.place_N]
      fresh.metrics["rollout/prompt_perplexity"] = asked.mean()
    return fresh, deciding

  def _measured(
    self, prepared: Params, deciding: DecisionState, step: int
  ) -> tuple[DecisionState, int]:
    """The state that knows the prompts the next choice looks at, and how many tokens that took."""
    place_M = self.decide.to_measure(deciding)
    if not len(place_M):
      return deciding, 0
    prompts = [self.prompts[place].tokens for place in place_M]
    perplexity_M = self.measure(prepared, prompts)
    deciding = self.decide.measured(deciding, place_M, perplexity_M, step)
    return deciding, sum(map(len, prompts))

  def _answers(self, prepared: Params, choice: Choice, key: jax.Array) -> Answers:
    prompts = [self.prompts[place] for place in choice.place_N]
    return self.answerer(prepared, prompts, choice.copies_N, key, self.how)

  def _judged(self, answers: Answers) -> Judged:
    sound_R = finite_rows(answers.samples)
    verdict_R = np.where(sound_R, self._worth(answers), np.nan)
    penalty_R = {name: penalty(answers) for name, penalty in self.penalties.items()}
    reward_R = verdict_R - sum(penalty_R.values(), np.zeros(len(verdict_R)))
    keep_R = self.keep(verdict_R, answers.group_R, np.isfinite(reward_R))
    if not self.keep_truncated:
      keep_R &= answers.samples.finish_R != Finish.LENGTH
    return Judged(answers, sound_R, verdict_R, penalty_R, reward_R, keep_R)

  def _fresh(self, judged: Judged, step: int, probe_tokens: int) -> Fresh:
    """Advantages, from all rollouts of the step; then those that learn, on the devices."""
    answers, reward_R, keep_R = judged.answers, judged.reward_R, judged.keep_R
    scored_R = np.isfinite(reward_R)
    advantage_R = self.advantages(reward_R, answers.group_R, scored_R)
    if self.weight_P is not None:
      advantage_R *= self.weight_P[answers.problem_R]
    if self.zero_truncated:
      advantage_R[answers.samples.finish_R == Finish.LENGTH] = 0
    rollouts = Rollouts(
      samples=answers.samples,
      reward_R=np.where(scored_R, reward_R, 0).astype(np.float32),
      advantage_R=advantage_R,
      weight_R=self.weigh(surprise(answers.samples), keep_R).astype(np.float32),
      group_R=answers.group_R,
      problem_R=answers.problem_R,
      birth_R=np.full(len(reward_R), step, np.int32),
      group_size_R=np.bincount(answers.group_R, scored_R)[answers.group_R].astype(np.int32),
    )
    right_R = np.array([verdict.outcome is Outcome.RIGHT for verdict in answers.verdicts])
    rows = np.sort(np.argsort(~keep_R, kind="stable")[: self.decide.budget.rollouts])
    rollouts = take_rows(rollouts, rows)
    return Fresh(
      rollouts=self.layout.split_rows(rollouts),
      right_R=self.layout.split_rows(right_R[rows]),
      survivors=int(keep_R[rows].sum()),
      answers=answers,
      reward_R=reward_R,
      advantage_R=advantage_R,
      metrics=_describe(answers, reward_R, scored_R, advantage_R, keep_R)
      | signs(answers)
      | {f"reward/{name}_penalty": values_R.mean() for name, values_R in judged.penalty_R.items()}
      | {"rollout/nonfinite": 1 - judged.sound_R.mean()},
      nonfinite=name_nonfinite(answers, judged.sound_R),
      audit=self.auditor(answers, step) if self.auditor else None,
      probe_tokens=probe_tokens,
    )

  def _worth(self, answers: Answers) -> np.ndarray:
    """What each answer is worth by its verdict; NaN where there is none."""
    mark_R = np.array([verdict.mark for verdict in answers.verdicts])
    return (1 - mark_R) * self.reward_wrong + mark_R * self.reward_right


def finite_rows(samples: Samples) -> np.ndarray:
  """bool [R]: False where sampling met a number that is not finite. Such a rollout is not scored
  and gets weight 0: neither the update nor the replay store ever sees it."""
  finite_R = np.isfinite(samples.behaviour_logp_RT).all(axis=1)
  return finite_R & (samples.finish_R != Finish.NONFINITE)


def surprise(samples: Samples) -> np.ndarray:
  """float [R]: minus the mean log-prob of a rollout's tokens, nats; what it finds in a row that is
  not sound."""
  return -samples.behaviour_logp_RT.sum(axis=1) / np.maximum(samples.completion_len_R, 1)


def joined(first: Judged, second: Judged) -> Judged:
  """The rollouts of both, in this order; the groups of the second follow those of the first."""
  one, two = first.answers, second.answers
  answers = Answers(
    samples=jax.tree.map(lambda *leaves: np.concatenate(leaves), one.samples, two.samples),
    problem_R=np.append(one.problem_R, two.problem_R),
    group_R=np.append(one.group_R, two.group_R + one.group_R.max() + 1),
    texts=one.texts + two.texts,
    verdicts=one.verdicts + two.verdicts,
    sample_seconds=one.sample_seconds + two.sample_seconds,
    verify_seconds=one.verify_seconds + two.verify_seconds,
  )
  return Judged(
    answers,
    np.append(first.sound_R, second.sound_R),
    np.append(first.verdict_R, second.verdict_R),
    {name: np.append(part, second.penalty_R[name]) for name, part in first.penalty_R.items()},
    np.append(first.reward_R, second.reward_R),
    np.append(first.keep_R, second.keep_R),
  )


def evidence(judged: Judged) -> Evidence:
  """What decisions may know of these rollouts: all of them, whatever is kept."""
  answers, scored_R = judged.answers, np.isfinite(judged.verdict_R)
  samples = answers.samples
  tokens = samples.completion_len_R[scored_R].sum()
  return Evidence(
    group_R=answers.group_R,
    right_R=np.array([verdict.outcome is Outcome.RIGHT for verdict in answers.verdicts]),
    scored_R=scored_R,
    # Minus the log-prob of what was sampled is the entropy on average.
    entropy=-float(samples.behaviour_logp_RT[scored_R].sum()) / tokens if tokens else float("nan"),
  )


def name_nonfinite(answers: Answers, sound_R: np.ndarray, most: int = 4) -> str:
  """The rows that are not sound, the first `most` with problem and token."""
  spoilt = np.flatnonzero(~sound_R)
  named = [
    f"row {r} (problem {answers.problem_R[r]}, token {answers.samples.completion_len_R[r]})"
    for r in spoilt[:most]
  ]
  more = [f"{len(spoilt) - most} more"] if len(spoilt) > most else []
  return ", ".join(named + more)


def rollout_entries(fresh: Fresh, problems: ProblemSet, groups: int) -> list[RolloutEntry]:
  """The first `groups` groups as a person wants to read them."""
  answers = fresh.answers
  shown = np.flatnonzero(answers.group_R < groups)
  return [
    RolloutEntry(
      group=int(answers.group_R[r]),
      problem=problems[answers.problem_R[r]].question,
      gold=problems[answers.problem_R[r]].answer,
      completion=answers.texts[r],
      reward=float(fresh.reward_R[r]),
      advantage=float(fresh.advantage_R[r]),
      verdict=f"{answers.verdicts[r].outcome.value}: {answers.verdicts[r].reason}",
      length=int(answers.samples.completion_len_R[r]),
      finish_reason="stop" if answers.samples.finish_R[r] == Finish.EOS else "length",
    )
    for r in shown
  ]


def _describe(answers: Answers, reward_R, scored_R, advantage_R, keep_R) -> dict[str, float]:
  """What this step's rollouts looked like; shares are of all rollouts, or of all groups."""
  outcomes = [verdict.outcome for verdict in answers.verdicts]
  right_R = np.array([outcome is Outcome.RIGHT for outcome in outcomes])
  mark_R = np.nan_to_num([verdict.mark for verdict in answers.verdicts])
  members = [answers.group_R == g for g in np.unique(answers.group_R)]
  by_group = [right_R[rows] for rows in members]
  lengths = answers.samples.completion_len_R
  rewards = reward_R[scored_R]
  return {
    "reward/mean": _mean(rewards),
    "reward/std": float(rewards.std()) if len(rewards) else float("nan"),
    "reward/right": right_R.mean(),
    "reward/unparseable": np.mean([outcome is Outcome.UNPARSEABLE for outcome in outcomes]),
    "reward/unscored": np.mean([outcome is Outcome.UNSCORED for outcome in outcomes]),
    "reward/groups_all_right": np.mean([group.all() for group in by_group]),
    "reward/groups_all_wrong": np.mean([not group.any() for group in by_group]),
    "reward/groups_with_a_right": np.mean([group.any() for group in by_group]),
    "reward/zero_variance_share": 1 - np.mean([np.ptp(mark_R[rows]) > 0 for rows in members]),
    "rollout/length_mean": lengths.mean(),
    "rollout/length_max": lengths.max(),
    "rollout/length_right_mean": _mean(lengths[right_R]),
    "rollout/length_wrong_mean": _mean(lengths[~right_R]),
    "rollout/truncated": np.mean(answers.samples.finish_R == Finish.LENGTH),
    "rollout/kept": keep_R.mean(),
    "rollout/abs_advantage_mean": np.abs(advantage_R).mean(),
    "perf/sample_seconds": answers.sample_seconds,
    "perf/verify_exposed_seconds": answers.verify_seconds,
    "perf/tokens_per_second": lengths.sum() / answers.sample_seconds,
  }


def _mean(values: np.ndarray) -> float:
  """Mean, not a number (and no warning) of nothing."""
  return float(values.mean()) if len(values) else float("nan")
