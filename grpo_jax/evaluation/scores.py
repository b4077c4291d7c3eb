"""From judged samples to numbers: one definition for training, for the command line and for
comparisons of finished results."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from grpo_jax.evaluation.samples import JudgedSample
from grpo_jax.evaluation.statistics import majority_accuracy, pass_at_k, standard_errors
from grpo_jax.verify import Outcome
from grpo_jax.verify.normalise import normalise, squeeze


@dataclasses.dataclass(frozen=True)
class Scores:
  """N problems x S samples, in the order of the problems and of the samples' numbers."""

  outcome_NS: np.ndarray  # of Outcome
  length_NS: np.ndarray  # tokens
  finish_NS: np.ndarray  # text: why each completion ended
  votes_NS: list[list[str | None]]  # answers in a normal form, None where there is none

  @property
  def right_NS(self) -> np.ndarray:
    return self.outcome_NS == Outcome.RIGHT


def tally(judged: Iterable[JudgedSample], problems: Sequence[int], samples: int) -> Scores:
  """Puts samples, in any order, into arrays.

  Args:
    judged: holds every sample of every problem; more than these are left out.
    problems: which problems, by index; they need not be neighbours.
    samples: how many of each.

  Raises:
    ValueError: a sample is missing.
  """
  row_of = {problem: row for row, problem in enumerate(problems)}
  shape = len(problems), samples
  outcome_NS, finish_NS = np.full(shape, None, object), np.full(shape, None, object)
  length_NS = np.zeros(shape, np.int64)
  votes_NS: list[list[str | None]] = [[None] * samples for _ in problems]
  for sample in judged:
    if sample.problem not in row_of or sample.sample >= samples:
      continue
    place = row_of[sample.problem], sample.sample
    outcome_NS[place], finish_NS[place] = Outcome(sample.verdict), sample.finish
    length_NS[place] = sample.length
    votes_NS[place[0]][place[1]] = _vote(sample.answer)
  missing = sum(outcome is None for outcome in outcome_NS.flat)
  if missing:
    raise ValueError(f"{missing} of {outcome_NS.size} samples are missing")
  return Scores(outcome_NS, length_NS, finish_NS, votes_NS)


def describe(scores: Scores) -> dict[str, float]:
  """Every number of an evaluation; NaN where there is nothing to take it from.

  `accuracy` is avg@S, the mean over all samples. A sample that could not be scored counts as wrong
  there and is counted in `unscored`, so that it cannot pass unseen; so is one whose logits were NaN
  in `nonfinite`.
  """
  right_NS, outcome_NS = scores.right_NS, scores.outcome_NS
  S = right_NS.shape[1]
  errors = standard_errors(right_NS)
  metrics = {
    "accuracy": right_NS.mean(),
    "accuracy_stderr": errors.total,
    "accuracy_stderr_problems": errors.of_problems,
    "accuracy_stderr_samples": errors.of_samples,
  }
  metrics |= {f"pass_at_{k}": pass_at_k(right_NS, k) for k in powers_of_two(S)}
  if S > 1:
    metrics[f"maj_at_{S}"] = majority_accuracy(right_NS, scores.votes_NS)
  metrics |= {
    "truncated": np.mean(scores.finish_NS == "length"),
    "nonfinite": np.mean(scores.finish_NS == "nonfinite"),
    "unparseable": np.mean(outcome_NS == Outcome.UNPARSEABLE),
    "unscored": np.mean(outcome_NS == Outcome.UNSCORED),
    "length_mean": scores.length_NS.mean(),
    "length_right": _mean(scores.length_NS[right_NS]),
    "length_wrong": _mean(scores.length_NS[~right_NS]),
  }
  return {name: float(value) for name, value in metrics.items()}


def powers_of_two(last: int) -> list[int]:
  """1, 2, 4, ... below `last`, and `last` itself."""
  return [2**i for i in range(last.bit_length()) if 2**i < last] + [last]


def _vote(answer: str | None) -> str | None:
  return None if answer is None else squeeze(normalise(answer)) or None


def _mean(values: np.ndarray) -> float:
  return values.mean() if len(values) else float("nan")
