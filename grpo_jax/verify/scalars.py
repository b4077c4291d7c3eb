"""Are two single values equal in the way answers are: percent, degrees, ratios, long decimals?"""

import decimal
import fractions

from grpo_jax.verify.expression import Apply, Node, Number
from grpo_jax.verify.numeric import UndecidedError, UndefinedError, approximation
from grpo_jax.verify.values import exact, same_value

_MIN_DIGITS = 9  # from so many significant digits on, a decimal stands for an exact value


def same_scalar(gold: Node, answer: Node) -> bool:
  """Whether two values without units are one."""
  if _is(gold, "percent") or _is(answer, "percent"):
    return not (_is(gold, "degree") or _is(answer, "degree")) and _same_percent(gold, answer)
  gold, answer = _without_degree(gold), _without_degree(answer)
  if _is(gold, "ratio") or _is(answer, "ratio"):
    return _same_ratio(gold, answer)
  return same_value(gold, answer) or _stands_for(answer, gold) or _stands_for(gold, answer)


def _is(node: Node, name: str) -> bool:
  return isinstance(node, Apply) and node.name == name


def _without_degree(node: Node) -> Node:
  return node.args[0] if _is(node, "degree") else node


def _same_percent(gold: Node, answer: Node) -> bool:
  """`50%` is 0.5, and 50 where that is how the answer was asked for; `4200%` is not 42."""
  if _is(gold, "percent") and _is(answer, "percent"):
    return same_value(gold.args[0], answer.args[0])
  if _is(gold, "percent"):
    return same_value(gold, answer) or same_value(gold.args[0], answer)
  size = exact(gold)
  if size is not None and abs(size) < 1:
    return same_value(gold, answer)
  return same_value(gold, answer.args[0]) or (size == 1 and same_value(gold, answer))


def _same_ratio(gold: Node, answer: Node) -> bool:
  """`2:4` is `1:2` and, of two parts, one half; `12:00` has a zero and stays itself."""
  if not (_is(gold, "ratio") and _is(answer, "ratio")):
    return same_value(_as_quotient(gold), _as_quotient(answer))
  if len(gold.args) != len(answer.args):
    return False
  if all(map(same_value, gold.args, answer.args)):
    return True
  parts = [exact(part) for part in (*gold.args, *answer.args)]
  if not all(parts):
    return False
  half = len(gold.args)
  return len({ours / theirs for ours, theirs in zip(parts[:half], parts[half:], strict=True)}) == 1


def _as_quotient(node: Node) -> Node:
  return Apply("div", node.args) if _is(node, "ratio") and len(node.args) == 2 else node


def _stands_for(literal: Node, other: Node) -> bool:
  """Whether a long decimal is the rounded or cut form of a value that no decimal can write."""
  if not isinstance(literal, Number) or literal.digits < _MIN_DIGITS or literal.value == 0:
    return False
  value = exact(other)
  try:
    if value is None:
      value = approximation(other)
    elif _is_decimal(value):
      return False
  except (UndecidedError, UndefinedError):
    return False
  last_place = _first_place(literal.value) - literal.digits + 1
  return abs(value - literal.value) < fractions.Fraction(10) ** last_place


def _first_place(value: fractions.Fraction) -> int:
  """The power of ten of the first significant digit."""
  parts = decimal.Decimal(value.numerator), decimal.Decimal(value.denominator)
  return decimal.Context(prec=9).divide(*parts).adjusted()


def _is_decimal(value: fractions.Fraction) -> bool:
  """Whether finitely many decimals write the value."""
  rest = value.denominator
  for prime in (2, 5):
    while rest % prime == 0:
      rest //= prime
  return rest == 1
