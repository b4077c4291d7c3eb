"""What a check can say about one answer."""

import dataclasses
import enum


class Outcome(enum.Enum):
  """RIGHT is the only outcome that earns a reward; UNSCORED says nothing about the answer."""

  RIGHT = "right"
  WRONG = "wrong"
  UNPARSEABLE = "unparseable"  # no answer was given, or none that reads as mathematics or words
  UNSCORED = "unscored"  # the check itself hung, crashed, ran out of memory, or had no gold


@dataclasses.dataclass(frozen=True)
class Verdict:
  """The outcome, the answer as it was extracted (None: no answer), and one line saying why."""

  outcome: Outcome
  answer: str | None
  reason: str

  def __bool__(self) -> bool:
    return self.outcome is Outcome.RIGHT
