"""One step's fresh rollouts: select -> allocate -> sample -> verify -> advantage -> keep."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from grpo_jax.answers import Answerer, Answers
from grpo_jax.data.problems import ProblemSet
from grpo_jax.data.prompts import Prompt
from grpo_jax.distribution import Decoding
from grpo_jax.model.qwen3 import Params
from grpo_jax.model.sharding import Layout
from grpo_jax.records import Finish, Rollouts, Samples
from grpo_jax.run.rollout_log import RolloutEntry
from grpo_jax.verify import Outcome


@dataclasses.dataclass(frozen=True)
class Fresh:
  """The rollouts on the device, and what the host says of them."""

  rollouts: Rollouts
  survivors: int  # rollouts that were kept
  answers: Answers
  reward_R: np.ndarray
  advantage_R: np.ndarray
  metrics: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Collector:
  """The choices of a run's rollout phase.

  Attributes:
    answerer: samples and verifies.
    keep: which finished rollouts enter the batch (a choice of `methods.keep`), by verdicts alone.
    keep_truncated: False: rollouts cut at the token limit do not enter it either (DAPO's overlong
      filtering); their rewards stay in the baseline.
    reward_right, reward_wrong: what an answer is worth.
    penalties: numbers by name that each rollout's reward loses, whatever the answer.
    advantages: from rewards, groups and what is scored (`learner.advantages`, its choices bound).
    how: temperature and filters of training rollouts.
    layout: where the rollouts live.
  """

  answerer: Answerer
  keep: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
  keep_truncated: bool
  reward_right: float
  reward_wrong: float
  penalties: Mapping[str, Callable[[Samples], np.ndarray]]
  advantages: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
  how: Decoding
  layout: Layout

  def __call__(
    self,
    prepared: Params,
    prompts: Sequence[Prompt],
    copies_N: np.ndarray,
    key: jax.Array,
    step: int,
  ) -> Fresh:
    """Asks prompt n `copies_N[n]` times; `step` is the rollouts' birth."""
    answers = self.answerer(prepared, prompts, copies_N, key, self.how)
    verdict_R = self._worth(answers)
    penalty_R = {name: penalty(answers.samples) for name, penalty in self.penalties.items()}
    reward_R = verdict_R - sum(penalty_R.values(), np.zeros(len(verdict_R)))
    scored_R = np.isfinite(reward_R)
    advantage_R = self.advantages(reward_R, answers.group_R, scored_R)
    keep_R = self.keep(verdict_R, answers.group_R, scored_R)
    if not self.keep_truncated:
      keep_R &= answers.samples.finish_R != Finish.LENGTH
    rollouts = Rollouts(
      samples=answers.samples,
      reward_R=np.where(scored_R, reward_R, 0).astype(np.float32),
      advantage_R=advantage_R,
      weight_R=keep_R.astype(np.float32),
      group_R=answers.group_R,
      problem_R=answers.problem_R,
      birth_R=np.full(len(reward_R), step, np.int32),
    )
    return Fresh(
      rollouts=jax.device_put(rollouts, self.layout.sharding("batch")),
      survivors=int(keep_R.sum()),
      answers=answers,
      reward_R=reward_R,
      advantage_R=advantage_R,
      metrics=_describe(answers, reward_R, scored_R, advantage_R, keep_R)
      | {f"reward/{name}_penalty": values_R.mean() for name, values_R in penalty_R.items()},
    )

  def _worth(self, answers: Answers) -> np.ndarray:
    """What each answer is worth by its verdict; NaN where there is none."""
    worth = {
      Outcome.RIGHT: self.reward_right,
      Outcome.WRONG: self.reward_wrong,
      Outcome.UNPARSEABLE: self.reward_wrong,
      Outcome.UNSCORED: np.nan,
    }
    return np.array([worth[verdict.outcome] for verdict in answers.verdicts])


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
  by_group = [right_R[answers.group_R == g] for g in np.unique(answers.group_R)]
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
    "reward/zero_variance_share": 1 - np.mean([0 < group.mean() < 1 for group in by_group]),
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
