"""What do n answers to each of N problems say about a model, and how surely?

Plain formulas on numpy arrays; a name ends in `_NS` for problems x samples. A share is between 0
and 1, never a percentage.
"""

import collections
import dataclasses
import math
from collections.abc import Sequence

import numpy as np

_RESAMPLES_AT_ONCE = 1000


@dataclasses.dataclass(frozen=True)
class StandardErrors:
  """Of a mean accuracy. `total` is the error of the score as a statement about all problems of this
  kind; its square is the sum of the squares of the other two."""

  total: float
  of_problems: float  # which problems are in the set: more samples do not lower it
  of_samples: float  # which answers were drawn: the spread over other seeds on these problems


def standard_errors(right_NS: np.ndarray) -> StandardErrors:
  """Both sources of error of `right_NS.mean()`, by the variances between and within problems.

  With one sample a problem the two cannot be told apart, with one problem there is no total: NaN.
  """
  N, S = right_NS.shape
  by_problem = right_NS.mean(axis=1)
  total = by_problem.var(ddof=1) / N if N > 1 else math.nan
  within = np.mean(by_problem * (1 - by_problem)) / (S - 1) / N if S > 1 else math.nan
  between = max(0.0, total - within) if not math.isnan(total + within) else math.nan
  return StandardErrors(*map(math.sqrt, (total, between, within)))


def pass_at_k(right_NS: np.ndarray, k: int) -> float:
  """The probability that one of k answers is right: unbiased, from n >= k answers a problem.

  1 - C(n - c, k) / C(n, k) with c right answers of n (arXiv 2107.03374), over all problems.
  """
  S = right_NS.shape[1]
  if not 1 <= k <= S:
    raise ValueError(f"pass@{k} needs at least {k} samples a problem and k above 0; there are {S}")
  none_right = [math.comb(S - int(c), k) / math.comb(S, k) for c in right_NS.sum(axis=1)]
  return 1 - math.fsum(none_right) / len(none_right)


def majority_accuracy(right_NS: np.ndarray, votes_NS: Sequence[Sequence[str | None]]) -> float:
  """maj@n: how often the most frequent of n answers is right.

  Args:
    right_NS: which samples are right; all right answers are one, however they are written.
    votes_NS: the answers as text, equal for wrong answers that are the same; None does not vote.

  Returns:
    The mean over problems. Where answers share the lead, a winner is not drawn: the problem counts
    by the share of right answers among them.
  """
  shares = [_lead(right_S, votes_S) for right_S, votes_S in zip(right_NS, votes_NS, strict=True)]
  return math.fsum(shares) / len(shares)


def _lead(right_S: np.ndarray, votes_S: Sequence[str | None]) -> float:
  ballots = [
    (bool(right), None if right else vote)
    for right, vote in zip(right_S, votes_S, strict=True)
    if right or vote is not None
  ]
  if not ballots:
    return 0.0
  counts = collections.Counter(ballots)
  leaders = [answer for answer, count in counts.items() if count == max(counts.values())]
  return ((True, None) in leaders) / len(leaders)


@dataclasses.dataclass(frozen=True)
class AesConstants:
  """Weights of the accuracy-efficiency score. The defaults are the paper's; other papers use others
  (such as 1, 5, 10), so they belong next to every score."""

  alpha: float = 1.0  # of the share of length saved
  beta: float = 3.0  # of the share of accuracy gained
  gamma: float = 5.0  # of the share of accuracy lost


def accuracy_efficiency_score(
  *,
  accuracy: float,
  length: float,
  reference_accuracy: float,
  reference_length: float,
  constants: AesConstants,
) -> float:
  """AES (O1-Pruner, arXiv 2501.12570): shorter and more accurate than the reference is above 0.

  Lengths are mean tokens of all answers, cut ones at full length. NaN where the reference is never
  right, since both changes are relative to it.
  """
  if not reference_accuracy or not reference_length:
    return math.nan
  saved = (reference_length - length) / reference_length
  gained = (accuracy - reference_accuracy) / reference_accuracy
  return constants.alpha * saved + (constants.beta if gained >= 0 else constants.gamma) * gained


@dataclasses.dataclass(frozen=True)
class Difference:
  """How much better the second of two models is, on the same problems."""

  mean: float
  low: float  # of the 95 % interval
  high: float
  not_better: float  # share of resamples in which the second is not better


def paired_bootstrap(
  first_N: np.ndarray, second_N: np.ndarray, *, seed: int, resamples: int = 10_000
) -> Difference:
  """The difference of two mean scores over the same problems, resampled over problems.

  A problem that is hard is hard for both, which is why pairs are drawn: the interval is far
  narrower than the two standard errors suggest.
  """
  difference_N = np.asarray(second_N, float) - np.asarray(first_N, float)
  N = len(difference_N)
  generator = np.random.Generator(np.random.PCG64(seed))
  means = []
  for start in range(0, resamples, _RESAMPLES_AT_ONCE):
    size = min(_RESAMPLES_AT_ONCE, resamples - start)
    means.append(difference_N[generator.integers(N, size=(size, N))].mean(axis=1))
  all_means = np.concatenate(means)
  low, high = np.quantile(all_means, (0.025, 0.975))
  # The mean of equal numbers may miss zero by a rounding error.
  not_better = np.mean(all_means <= 1e-12)
  return Difference(*map(float, (difference_N.mean(), low, high, not_better)))
