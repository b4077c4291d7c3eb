"""Are two sets of real numbers equal, however they are written?

Intervals, unions, intersections, differences, finite sets and inequalities in one variable are
all a question "is x in it?" together with the points where the answer may change. Two sets are
equal if they agree at all those points of both, between them and beyond them.
"""

import dataclasses
import decimal
import fractions
import itertools
import operator
from collections.abc import Callable

from grpo_jax.verify.expression import (
  Apply,
  Bracket,
  Listing,
  Node,
  Number,
  Relation,
  Symbol,
  replace_variables,
  variables,
)
from grpo_jax.verify.numeric import UndecidedError, UndefinedError, approximation
from grpo_jax.verify.values import exact

_MAX_BREAKS = 60
_ENDPOINT_DIGITS = 30  # of 60 known ones: spellings of one irrational endpoint round to one number
_INFINITY = float("inf")
_PROBE = fractions.Fraction(17, 7)  # a line through the values at 0 and 1 must also hit this one
_ORDER: dict[str, Callable] = {
  "<": operator.lt,
  "<=": operator.le,
  ">": operator.gt,
  ">=": operator.ge,
  "=": operator.eq,
  "!=": operator.ne,
}

Real = fractions.Fraction | float  # a float is only ever an infinity


@dataclasses.dataclass(frozen=True)
class RealSet:
  """Membership, and the finite points where it may change."""

  contains: Callable[[Real], bool]
  breaks: tuple[fractions.Fraction, ...] = ()


def real_set(node: Node) -> RealSet | None:
  """The set that a tree describes, None if it describes none that we read."""
  try:
    found = _real_set(node)
  except (UndecidedError, UndefinedError):
    return None
  return found if len(found.breaks) <= _MAX_BREAKS else None


def same_real_set(left: RealSet, right: RealSet) -> bool:
  """Whether both hold the same numbers."""
  breaks = sorted({*left.breaks, *right.breaks}) or [fractions.Fraction(0)]
  between = [(low + high) / 2 for low, high in itertools.pairwise(breaks)]
  tests = [breaks[0] - 1, *breaks, *between, breaks[-1] + 1]
  return all(left.contains(test) == right.contains(test) for test in tests)


def _real_set(node: Node) -> RealSet:
  match node:
    case Symbol("reals"):
      return RealSet(lambda x: True)
    case Symbol("emptyset"):
      return RealSet(lambda x: False)
    case Bracket("{", _, items):
      points = tuple(map(_finite, items))
      return RealSet(lambda x: x in points, points)
    case Bracket(left, right, (low, high)):
      return _interval(_endpoint(low), _endpoint(high), left == "[", right == "]")
    case Apply("cup" | "cap" | "setminus" as name, args):
      return _combined(name, [_real_set(arg) for arg in args])
    case Apply("add", (left, Apply("neg", (right,)))):
      return _combined("setminus", [_real_set(left), _real_set(right)])
    case Relation((_, numbers), ("in",)):
      return _real_set(numbers)
    case Relation(terms, signs):
      pairs = zip(terms, signs, terms[1:], strict=False)
      return _combined("cap", [_half_line(*pair) for pair in pairs])
    case Listing(items, joiner) if joiner != "," or not isinstance(items[0], Relation):
      both = joiner == "and" and isinstance(items[0], Relation)
      return _combined("cap" if both else "cup", [_real_set(item) for item in items])
  raise UndecidedError


def _interval(low: Real, high: Real, low_closed: bool, high_closed: bool) -> RealSet:
  if not low < high:
    raise UndecidedError  # `(3, 2)` is a pair

  def contains(x: Real) -> bool:
    return low < x < high or (low_closed and x == low) or (high_closed and x == high)

  return RealSet(contains, tuple(end for end in (low, high) if abs(end) != _INFINITY))


def _combined(name: str, parts: list[RealSet]) -> RealSet:
  breaks = tuple(point for part in parts for point in part.breaks)
  match name:
    case "cup":
      return RealSet(lambda x: any(part.contains(x) for part in parts), breaks)
    case "cap":
      return RealSet(lambda x: all(part.contains(x) for part in parts), breaks)
  first, second = parts
  return RealSet(lambda x: first.contains(x) and not second.contains(x), breaks)


def _half_line(left: Node, sign: str, right: Node) -> RealSet:
  """Where an inequality that is linear in its one variable holds."""
  if len(variables(left) | variables(right)) != 1 or sign not in _ORDER:
    raise UndecidedError
  gap = Apply("add", (left, Apply("neg", (right,))))
  at_0, at_1, at_probe = (_finite(_at(gap, x)) for x in (0, 1, _PROBE))
  slope = at_1 - at_0
  if slope == 0 or abs(at_0 + _PROBE * slope - at_probe) > abs(slope) / 10**20:
    raise UndecidedError
  root = _rounded(-at_0 / slope)
  compare, direction = _ORDER[sign], 1 if slope > 0 else -1
  return RealSet(lambda x: compare(direction * x, direction * root), (root,))


def _endpoint(node: Node) -> Real:
  match node:
    case Symbol("infinity"):
      return _INFINITY
    case Apply("neg", (Symbol("infinity"),)):
      return -_INFINITY
  return _finite(node)


def _finite(node: Node) -> fractions.Fraction:
  value = exact(node)
  if value is None:
    value = _rounded(approximation(node))
  return value


def _rounded(value: fractions.Fraction) -> fractions.Fraction:
  """A value that came from rounded ones, to _ENDPOINT_DIGITS; a short fraction stays itself."""
  short = value.limit_denominator(10**9)
  if abs(short - value) <= abs(value) / 10**_ENDPOINT_DIGITS:
    return short
  parts = decimal.Decimal(value.numerator), decimal.Decimal(value.denominator)
  return fractions.Fraction(decimal.Context(prec=_ENDPOINT_DIGITS).divide(*parts))


def _at(node: Node, value: fractions.Fraction | int) -> Node:
  return replace_variables(node, lambda _: Number(fractions.Fraction(value)))
