"""What is known of each problem? The one record of evidence that all decisions read.

It is written once a round of sampling, from the verdicts on all rollouts, before anything is
filtered: what a filter drops (groups all right, groups all wrong) is what a decision must know.
Rollouts without a verdict are no evidence and do not count as tries.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

# Weight of the past in the moving averages: about the last ten visits count.
DECAY = 0.9


@dataclasses.dataclass(frozen=True)
class Evidence:
  """What R rollouts of one round showed."""

  group_R: np.ndarray  # int, which of the problems asked each one answers
  right_R: np.ndarray  # bool
  scored_R: np.ndarray  # bool; False: there is no verdict
  entropy: float  # of the policy that was asked, nats a token; NaN where it could not be measured


@dataclasses.dataclass(frozen=True)
class Ledger:
  """P problems: those whose prompts fit, in their order. W visits are remembered one by one."""

  tries_P: np.ndarray  # int, rollouts judged
  rights_P: np.ndarray  # int, those that were right
  visits_P: np.ndarray  # int, groups asked and judged
  last_step_P: np.ndarray  # int, of the last visit; 0: none
  recent_PW2: np.ndarray  # int, (rights, tries) of the last W visits, newest last; (0, 0): none
  spread_P: np.ndarray  # float, moving average of the standard deviation within a group; 0: none
  entropy_2: np.ndarray  # float, nats a token, of the first and of the last round; NaN: none yet
  perplexity_P: np.ndarray  # float, of the prompt, under the policy that was; NaN: not measured
  measured_P: np.ndarray  # int, the step before which that was; 0: none

  @property
  def size(self) -> int:
    return len(self.tries_P)

  def recorded(self, place_N: np.ndarray, evidence: Evidence, step: int) -> "Ledger":
    """The ledger after group n of the evidence answered problem `place_N[n]`. A problem may come
    twice; a group without a verdict is no visit."""
    new = Ledger(**{name: value.copy() for name, value in _fields(self).items()})
    group_S = evidence.group_R[evidence.scored_R]
    tried_N = np.bincount(group_S, minlength=len(place_N))
    right_N = np.bincount(group_S, evidence.right_R[evidence.scored_R], len(place_N)).astype(int)
    for place, right, tried in zip(place_N, right_N, tried_N, strict=True):
      if tried:
        new._visit(place, right, tried, step)
    if math.isfinite(evidence.entropy):
      first = self.entropy_2[0]
      new.entropy_2[:] = (evidence.entropy if math.isnan(first) else first), evidence.entropy
    return new

  def measured(self, place_N: np.ndarray, perplexity_N: np.ndarray, step: int) -> "Ledger":
    """The ledger after the prompts of `place_N` were measured, before `step` asks anything."""
    perplexity_P, measured_P = self.perplexity_P.copy(), self.measured_P.copy()
    perplexity_P[place_N], measured_P[place_N] = perplexity_N, step
    return dataclasses.replace(self, perplexity_P=perplexity_P, measured_P=measured_P)

  def _visit(self, place: int, right: int, tried: int, step: int) -> None:
    share = right / tried
    spread = np.sqrt(share * (1 - share))
    past = DECAY if self.visits_P[place] else 0.0
    self.spread_P[place] = past * self.spread_P[place] + (1 - past) * spread
    self.tries_P[place] += tried
    self.rights_P[place] += right
    self.visits_P[place] += 1
    self.last_step_P[place] = step
    self.recent_PW2[place, :-1] = self.recent_PW2[place, 1:]
    self.recent_PW2[place, -1] = right, tried

  def recent_share(self, place_N: np.ndarray) -> np.ndarray:
    """float [N]: share right of each problem's last W visits; NaN where there was none."""
    right_N, tried_N = self.recent_PW2[place_N].sum(axis=1).T
    return np.where(tried_N > 0, right_N / np.maximum(tried_N, 1), np.nan)

  def first(self, size: int) -> "Ledger":
    """What is known of the first `size` problems alone."""
    of_problems = {
      name: value[:size] for name, value in _fields(self).items() if "_P" in name
    }
    return dataclasses.replace(self, **of_problems)

  def to_dict(self) -> dict[str, list]:
    """JSON values."""
    return {name: value.tolist() for name, value in _fields(self).items()}

  @classmethod
  def from_dict(cls, values: Mapping[str, list]) -> "Ledger":
    return cls(**{name: np.array(value) for name, value in values.items()})


def empty_ledger(size: int, window: int) -> Ledger:
  """Nothing is known of `size` problems; the last `window` visits of each will be."""
  tries_P, rights_P, visits_P, last_step_P, measured_P = np.zeros((5, size), int)
  return Ledger(
    tries_P=tries_P,
    rights_P=rights_P,
    visits_P=visits_P,
    last_step_P=last_step_P,
    recent_PW2=np.zeros((size, window, 2), int),
    spread_P=np.zeros(size),
    entropy_2=np.full(2, math.nan),
    perplexity_P=np.full(size, math.nan),
    measured_P=measured_P,
  )


def _fields(ledger: Ledger) -> dict[str, np.ndarray]:
  return {field.name: getattr(ledger, field.name) for field in dataclasses.fields(ledger)}
