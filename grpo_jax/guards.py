"""Is the reward earned? Signs that a policy learns the grader and not the task.

Whoever is paid by one grader finds its holes. Three looks at each step's rollouts, none of which
changes a reward: a second, independent grader audits a sample of them; texts that repeat themselves
or mix scripts are counted; and each group's answers are held against its rewards, since a group
that agrees is usually right, and right answers are usually the same.
"""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Sequence

import numpy as np

from grpo_jax.answers import Answers
from grpo_jax.data.problems import Problem, ProblemSet
from grpo_jax.randomness import Purpose, generator_for
from grpo_jax.records import Samples
from grpo_jax.verify import Outcome, Verdict, VerifierPool
from grpo_jax.verify.normalise import normalise
from grpo_jax.verify.scripts import mixes_scripts

# What an audit asks, as VerifierPool names it.
SECOND_GRADER = "grpo_jax.verify.second_opinion:verify"

NGRAM = 8  # tokens; a proof repeats shorter phrases for good reasons
REPETITIVE = 0.5  # share of repeated n-grams from which a text counts as repetitive
AGREED = 0.75  # share of a group that gives one answer, from which the group counts as agreed


@dataclasses.dataclass(frozen=True)
class Audit:
  """Rewards of a step that the second grader was asked about."""

  right_A: np.ndarray  # bool, what the first one said
  second_A: Sequence["concurrent.futures.Future[Verdict]"]

  def metrics(self) -> dict[str, float]:
    """Waits for the second grader; counts only rollouts on which it gave a verdict.

    `reward/audit_disagreement` is the share on which the two differ, either way: the first is
    stricter, since it wants an answer in the required form. `reward/audit_refused` is the share of
    what the first one paid for that the second refuses: what a hole in the first looks like.
    """
    outcomes = [second.result().outcome for second in self.second_A]
    said_A = np.array([outcome is not Outcome.UNSCORED for outcome in outcomes], bool)
    second_A = np.array([outcome is Outcome.RIGHT for outcome in outcomes], bool)[said_A]
    first_A = self.right_A[said_A]
    paid = int(first_A.sum())
    return {
      "reward/audited": len(first_A),
      "reward/audited_paid": paid,
      "reward/audit_disagreement": np.mean(first_A != second_A) if len(first_A) else np.nan,
      "reward/audit_refused": np.mean(~second_A[first_A]) if paid else np.nan,
    }


@dataclasses.dataclass(frozen=True)
class Auditor:
  """Asks a second grader about some rollouts of each step that give an answer (a program or a next
  step has no second grader), in the background.

  Attributes:
    pool: workers of SECOND_GRADER.
    rollouts: how many of a step.
    seed: of the run; which ones is a function of it and of the step.
  """

  pool: VerifierPool
  problems: ProblemSet
  rollouts: int
  seed: int

  def __call__(self, answers: Answers, step: int) -> Audit:
    audible_R = [
      verdict.outcome is not Outcome.UNSCORED and self.problems[problem].judge == Problem.judge
      for verdict, problem in zip(answers.verdicts, answers.problem_R, strict=True)
    ]
    stream = generator_for(self.seed, Purpose.AUDIT, step)
    chosen = stream.permutation(np.flatnonzero(audible_R))[: self.rollouts]
    asked = self.pool.submit_all(
      [answers.texts[r] for r in chosen],
      [self.problems[answers.problem_R[r]].answer for r in chosen],
    )
    return Audit(np.array([bool(answers.verdicts[r]) for r in chosen], bool), asked)


def signs(answers: Answers) -> dict[str, float]:
  """Metrics of all rollouts of a step: repetition, scripts, and answers against rewards."""
  repeated_R = repeated_share(answers.samples)
  return {
    "rollout/repetition": repeated_R.mean(),
    "rollout/repetitive": np.mean(repeated_R > REPETITIVE),
    "rollout/mixed_scripts": np.mean([mixes_scripts(text) for text in answers.texts]),
  } | agreement(answers.verdicts, answers.group_R)


def repeated_share(samples: Samples, n: int = NGRAM) -> np.ndarray:
  """float [R]: share of a completion's n-grams that stood in it before."""
  rows = zip(samples.tokens_RT, samples.prompt_len_R, samples.completion_len_R, strict=True)
  return np.array([_repeated(tokens[start : start + length], n) for tokens, start, length in rows])


def _repeated(tokens_T: np.ndarray, n: int) -> float:
  if len(tokens_T) < n:
    return 0.0
  grams = np.lib.stride_tricks.sliding_window_view(tokens_T, n)
  return 1 - len(np.unique(grams, axis=0)) / len(grams)


def agreement(verdicts: Sequence[Verdict], group_R: np.ndarray) -> dict[str, float]:
  """How each group's answers go with its rewards; shares are of the groups.

  `reward/agreement` is the mean share of a group that gives its most frequent answer.
  `reward/agreed_wrong` counts groups that agree on an answer that earns nothing: a hard problem, or
  a wrong gold answer, or a grader that cannot read the right one. `reward/right_in_many_ways`
  counts groups with different right answers, as written: different notations, or a grader that
  takes anything.
  """
  share, agreed_wrong, many_ways = [], [], []
  for group in np.unique(group_R):
    members = [verdicts[r] for r in np.flatnonzero(group_R == group)]
    given = collections.Counter(normalise(v.answer) for v in members if v.answer is not None)
    right = {normalise(v.answer) for v in members if v and v.answer is not None}
    top, count = given.most_common(1)[0] if given else ("", 0)
    share.append(count / len(members))
    agreed_wrong.append(len(members) > 1 and share[-1] >= AGREED and top not in right)
    many_ways.append(len(right) > 1)
  return {
    "reward/agreement": np.mean(share),
    "reward/agreed_wrong": np.mean(agreed_wrong),
    "reward/right_in_many_ways": np.mean(many_ways),
  }
