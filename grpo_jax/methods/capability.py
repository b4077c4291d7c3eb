"""CoBA-RL (arXiv 2602.03048): rollouts go where they are worth most at the policy's capability.

A rollout budget B on a problem solved with probability p is worth
  V(B, p) = (1 - exp(-B p (1 - p) / tau)) BetaPDF(p; alpha, beta):
more rollouts help less and less, and the Beta density says which difficulty pays now. While most
answers are wrong its mass lies on easy problems (exploit), later on hard ones (explore).

Constants are those of the paper's code. Over how many steps it averages failures is not known to
us; 10 here.
"""

import dataclasses
import heapq
import math

import numpy as np

from grpo_jax.methods.choice import Choice, State
from grpo_jax.methods.ledger import Ledger

HARD, EASY = 0.05, 0.99  # between them, success rates worth exploring
TAU_MIN, TAU_MAX, VARIANCE_MAX = 3.0, 12.0, 0.1667
UNSEEN = 0.5


@dataclasses.dataclass(frozen=True)
class ByCapability:
  """A split of the step's rollouts by marginal value.

  Attributes:
    concentration: kappa = alpha + beta of the Beta density.
    least, most: rollouts of a problem, where the budget allows it.
    steps: over which the failure rate is averaged.
  """

  concentration: float = 11.0
  least: int = 2
  most: int = 128
  steps: int = 10

  def start(self) -> State:
    alpha = self.concentration - 2
    return {"failure_S": np.zeros(0), "alpha": np.array(alpha)}

  def __call__(self, state: State, ledger: Ledger, choice: Choice) -> np.ndarray:
    share_N = ledger.recent_share(choice.place_N)
    if np.isnan(share_N).all():
      return choice.copies_N
    share_N = np.where(np.isnan(share_N), UNSEEN, share_N)
    alpha = float(state["alpha"])
    beta = self.concentration - alpha
    return split(share_N, int(choice.copies_N.sum()), alpha, beta, self.least, self.most)

  def judged(self, state: State, ledger: Ledger, place_N: np.ndarray) -> State:
    share_N = ledger.recent_share(place_N)
    seen = share_N[~np.isnan(share_N)]
    if not len(seen):
      return state
    failure_S = np.append(state["failure_S"], 1 - seen.mean())[-self.steps :]
    return {"failure_S": failure_S, "alpha": np.array(self.alpha(failure_S.mean()))}

  def alpha(self, failure: float) -> float:
    """Of the Beta density at a failure rate; beta is `concentration - alpha`."""
    weight = failure if failure > 0.5 else 1 / (1 + math.exp(-10 * (failure - 0.5)))
    return float(np.clip(1 + (self.concentration - 2) * weight, 1, self.concentration - 1))


def split(
  share_N: np.ndarray, total: int, alpha: float, beta: float, least: int, most: int
) -> np.ndarray:
  """Rollouts of each problem, int [N], `total` in all.

  Everyone gets `least`. Of the rest, problems worth exploring get a part by marginal value, one
  rollout after another. What is left goes in proportion to 1 - p to those almost never solved, then
  to those worth exploring, then to those almost always solved.

  Args:
    share_N: success rate of each problem.
    total: at least one each. `least` gives way where it is too small, `most` where it is too large.
  """
  least = min(least, total // len(share_N))
  most = max(most, -(-total // len(share_N)))
  copies_N = np.full(len(share_N), least)
  explored_N = (share_N >= HARD) & (share_N <= EASY)
  fraction = explored_N.mean()
  part = 0.8 if fraction > 0.5 else 0.6 + 0.4 * fraction
  rest = total - least * len(share_N)
  if explored_N.any():
    copies_N = _by_value(copies_N, explored_N, share_N, int(part * rest), alpha, beta, most)
  for members_N in (share_N < HARD, explored_N, share_N > EASY):
    copies_N = _in_proportion(copies_N, members_N, 1 - share_N, total - copies_N.sum(), most)
  return copies_N


def _by_value(
  copies_N: np.ndarray,
  members_N: np.ndarray,
  share_N: np.ndarray,
  count: int,
  alpha: float,
  beta: float,
  most: int,
) -> np.ndarray:
  """Deals `count` rollouts to members, each where it adds most; V is concave: this is optimal."""
  copies_N = copies_N.copy()
  rate_N, density_N = _worth(share_N, members_N, alpha, beta)

  def gain(n: int) -> float:
    return density_N[n] * math.exp(-copies_N[n] * rate_N[n]) * -math.expm1(-rate_N[n])

  heap = [(-gain(n), n) for n in np.flatnonzero(members_N).tolist() if copies_N[n] < most]
  heapq.heapify(heap)
  for _ in range(count):
    if not heap:
      break
    _, n = heapq.heappop(heap)
    copies_N[n] += 1
    if copies_N[n] < most:
      heapq.heappush(heap, (-gain(n), n))
  return copies_N


def _worth(
  share_N: np.ndarray, members_N: np.ndarray, alpha: float, beta: float
) -> tuple[np.ndarray, np.ndarray]:
  """p (1 - p) / tau, and the Beta density at p. The more the members differ, the slower the value
  of a rollout falls."""
  p_N = np.clip(share_N, 0.01, 0.99)
  variance = p_N[members_N].var()
  tau = TAU_MIN + (TAU_MAX - TAU_MIN) * np.clip(variance / VARIANCE_MAX, 0, 1)
  log_scale = math.lgamma(alpha + beta) - math.lgamma(alpha) - math.lgamma(beta)
  density_N = math.exp(log_scale) * p_N ** (alpha - 1) * (1 - p_N) ** (beta - 1)
  return p_N * (1 - p_N) / tau, density_N


def _in_proportion(
  copies_N: np.ndarray, members_N: np.ndarray, weight_N: np.ndarray, count: int, most: int
) -> np.ndarray:
  """Deals up to `count` rollouts to members by weight, none above `most`; equal where all weights
  are 0. Fractions are settled in favour of the largest."""
  copies_N = copies_N.copy()
  while count and (open_N := members_N & (copies_N < most)).any():
    weight = np.where(open_N, weight_N, 0.0)
    weight = weight if weight.any() else open_N.astype(float)
    due_N = np.minimum(weight / weight.sum() * count, most - copies_N)
    dealt_N = due_N.astype(int)
    spare = min(count, math.ceil(due_N.sum() - 1e-9)) - dealt_N.sum()
    dealt_N[np.argsort(dealt_N - due_N, kind="stable")[:spare]] += 1
    copies_N, count = copies_N + dealt_N, count - dealt_N.sum()
  return copies_N
