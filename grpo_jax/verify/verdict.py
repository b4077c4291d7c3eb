"""What a check can say about one answer."""

import dataclasses
import enum
import math


class Outcome(enum.Enum):
  """RIGHT earns all of the reward, UNSCORED says nothing about the answer, and the others earn what
  their score says: nothing, unless the check grades."""

  RIGHT = "right"
  WRONG = "wrong"
  UNPARSEABLE = "unparseable"  # no answer was given, or none that reads as mathematics or words
  UNSCORED = "unscored"  # the check itself hung, crashed, ran out of memory, or had no gold


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What a check says.

  Attributes:
    outcome: RIGHT means full marks; only that is a success to the ledger and to evaluations.
    answer: as it was extracted; None: no answer.
    reason: one line saying why.
    score: of a check that grades, how much of a WRONG answer is right, from 0 to 1.
  """

  outcome: Outcome
  answer: str | None
  reason: str
  score: float = 0.0

  def __bool__(self) -> bool:
    return self.outcome is Outcome.RIGHT

  @property
  def mark(self) -> float:
    """How right the answer is, from 0 to 1; NaN: unscored."""
    if self.outcome is Outcome.UNSCORED:
      return math.nan
    return 1.0 if self.outcome is Outcome.RIGHT else self.score
