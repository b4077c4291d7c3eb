"""Answers that need not be exact: checks for the sets whose own rules allow for rounding.

Both call the ordinary check first and look at numbers only where it says WRONG, so that a tolerance
can add right answers and never take one away. They run in the workers of a verifier pool, which
bounds their time and memory.
"""

import dataclasses
import fractions
import re

from grpo_jax.verify import Outcome, Verdict, verify
from grpo_jax.verify.expression import Quantity
from grpo_jax.verify.normalise import gold_alternatives, normalise
from grpo_jax.verify.numeric import UndecidedError, UndefinedError, approximation, new_budget
from grpo_jax.verify.parser import parse
from grpo_jax.verify.tokens import ParseError
from grpo_jax.verify.units import same_unit
from grpo_jax.verify.values import exact

_RELATIVE = fractions.Fraction(1, 10_000)
_WITHIN = re.compile(r"(?P<value>.+) within (?P<error>[0-9.eE+-]+)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class _Measure:
  """A real number and its unit, where one is written."""

  value: fractions.Fraction
  unit: str | None


def verify_minerva(completion: str, gold: str) -> Verdict:
  """A number may be off by one part in 10,000, the convention of the Qwen2.5-Math evaluation.

  gold: one answer, or a printed Python list of several ways to write it.
  """
  verdict = verify(completion, gold)
  if verdict.outcome is not Outcome.WRONG:
    return verdict
  answer = _measure(normalise(verdict.answer))
  golds = [_measure(normalise(alternative)) for alternative in gold_alternatives(gold)]
  near = any(gold and _near(answer, gold, abs(gold.value) * _RELATIVE) for gold in golds)
  return _accepted(verdict) if near else verdict


def verify_within(completion: str, gold: str) -> Verdict:
  """A gold answer `4.2 within 1e-1` accepts what is at most 0.1 away, also where a percent sign
  follows; other gold answers are exact."""
  stated = _WITHIN.fullmatch(gold)
  if stated is None:
    return verify(completion, gold)
  verdict = verify(completion, stated["value"])
  if verdict.outcome is not Outcome.WRONG:
    return verdict
  answer = _measure(normalise(verdict.answer).removesuffix("%"))
  value = _measure(normalise(stated["value"]))
  near = value and _near(answer, value, fractions.Fraction(stated["error"]))
  return _accepted(verdict) if near else verdict


def _accepted(verdict: Verdict) -> Verdict:
  return Verdict(Outcome.RIGHT, verdict.answer, "within the tolerance of the set")


def _near(answer: _Measure | None, gold: _Measure, error: fractions.Fraction) -> bool:
  if answer is None or abs(answer.value - gold.value) > error:
    return False
  return not (answer.unit and gold.unit) or same_unit(answer.unit, gold.unit)


def _measure(normal: str) -> _Measure | None:
  """What the normal form of an answer measures; None for anything but a real number."""
  new_budget()
  try:
    node = parse(normal)
    unit = node.unit if isinstance(node, Quantity) else None
    node = node.value if isinstance(node, Quantity) else node
    value = exact(node)
    return _Measure(approximation(node) if value is None else value, unit)
  except (ParseError, RecursionError, UndecidedError, UndefinedError):
    return None
