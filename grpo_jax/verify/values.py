"""Do two expressions have the same value, for all values of their variables?

Three ways, each bounded in time and memory whatever the expression is:
  exact     rational constants, as fractions of at most MAX_BITS bits;
  residue   rational functions and large integers, modulo a prime of 61 bits at one fixed
            pseudo-random point: unequal ones of degree n agree with a chance of n / 2^61
            (Schwartz-Zippel);
  numeric   roots, functions and real exponents: see there.
"""

import fractions
import functools
import math
from collections.abc import Callable

from grpo_jax.verify import numeric
from grpo_jax.verify.expression import Apply, Node, Number, Symbol
from grpo_jax.verify.numeric import UndecidedError, UndefinedError, point

MAX_BITS = 4000
_MAX_EXACT_FACTORIAL = 400
_MAX_FACTORIAL = 5000  # of residues
_PRIME = 2**61 - 1


def same_value(left: Node, right: Node) -> bool:
  """Whether both are defined and equal everywhere; False also where we cannot tell."""
  try:
    return _residue(left) == _residue(right)
  except UndecidedError:
    pass
  except UndefinedError:
    return False
  try:
    return numeric.same_numeric(left, right)
  except UndecidedError:
    return left == right
  except UndefinedError:
    return False


@functools.lru_cache(maxsize=256)
def exact(node: Node) -> fractions.Fraction | None:
  """The value of a rational constant; None if it is none, has no value or is too large."""
  try:
    return _exact(node)
  except (UndecidedError, UndefinedError):
    return None


def _exact(node: Node) -> fractions.Fraction:
  match node:
    case Number(value):
      return value
    case Apply("pow", (base, exponent)):
      return _exact_power(_exact(base), _exact(exponent))
    case Apply("root", (inside, index)):
      return _exact_root(_exact(inside), _exact(index))
    case Apply("factorial" | "binom", args):
      return fractions.Fraction(_exact_counting(node.name, [_exact(arg) for arg in args]))
    case Apply(name, args) if name in _ARITHMETIC:
      value = _ARITHMETIC[name](*[_exact(arg) for arg in args])
      if value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        raise UndecidedError
      return value
  raise UndecidedError


def _divide(top, bottom):
  if bottom == 0:
    raise UndefinedError
  return top / bottom


_ARITHMETIC: dict[str, Callable] = {
  "add": lambda *terms: sum(terms[1:], terms[0]),
  "mul": lambda *factors: math.prod(factors[1:], start=factors[0]),
  "neg": lambda value: -value,
  "div": _divide,
  "percent": lambda value: value / 100,
  "abs": abs,
}


def _exact_power(base: fractions.Fraction, exponent: fractions.Fraction) -> fractions.Fraction:
  if exponent.denominator != 1:
    power = _exact_power(base, fractions.Fraction(exponent.numerator))
    return _exact_root(power, fractions.Fraction(exponent.denominator))
  if base == 0 and exponent <= 0:
    raise UndefinedError
  bits = max(base.numerator.bit_length(), base.denominator.bit_length())
  if abs(base) != 1 and bits * abs(exponent) > MAX_BITS:
    raise UndecidedError
  return base ** (int(exponent) % 2 if abs(base) == 1 else int(exponent))


def _exact_root(inside: fractions.Fraction, index: fractions.Fraction) -> fractions.Fraction:
  """The real root if it is rational; odd roots of negative numbers are negative, as in school."""
  if index.denominator != 1 or not 1 <= index <= 64:
    raise UndecidedError
  degree = int(index)
  if inside < 0:
    if degree % 2 == 0:
      raise UndecidedError
    return -_exact_root(-inside, index)
  top, bottom = _integer_root(inside.numerator, degree), _integer_root(inside.denominator, degree)
  return fractions.Fraction(top, bottom)


def _integer_root(value: int, degree: int) -> int:
  root = math.isqrt(value) if degree == 2 else _floor_root(value, degree)
  if root**degree != value:
    raise UndecidedError
  return root


def _floor_root(value: int, degree: int) -> int:
  low, high = 0, 1 << (value.bit_length() // degree + 1)
  while low < high:
    middle = (low + high + 1) // 2
    low, high = (middle, high) if middle**degree <= value else (low, middle - 1)
  return low


def _exact_counting(name: str, args: list[fractions.Fraction]) -> int:
  """Factorials and binomials of integers small enough to write down."""
  if any(arg.denominator != 1 for arg in args):
    raise UndecidedError
  if min(args) < 0:
    raise UndefinedError
  if max(args) > _MAX_EXACT_FACTORIAL:
    raise UndecidedError
  return {"factorial": math.factorial, "binom": math.comb}[name](*map(int, args))


@functools.lru_cache(maxsize=256)
def _residue(node: Node) -> int:
  """The value modulo _PRIME, variables and transcendental constants at fixed points."""
  match node:
    case Number(value):
      return value.numerator * _inverse(value.denominator) % _PRIME
    case Symbol("i" | "infinity" | "emptyset" | "reals"):
      raise UndecidedError
    case Symbol(name):
      return point(name, 0) % _PRIME
    case Apply("add", args):
      return sum(map(_residue, args)) % _PRIME
    case Apply("mul", args):
      return functools.reduce(lambda x, y: x * y % _PRIME, map(_residue, args))
    case Apply("neg", (arg,)):
      return -_residue(arg) % _PRIME
    case Apply("percent", (arg,)):
      return _residue(arg) * _inverse(100) % _PRIME
    case Apply("div", (top, bottom)):
      return _residue(top) * _inverse(_residue(bottom)) % _PRIME
    case Apply("pow", (base, exponent)):
      return _residue_power(_residue(base), exact(exponent))
    case Apply("factorial" | "binom", args):
      return _residue_counting(node.name, [exact(arg) for arg in args])
    case Apply("root" | "abs"):
      return _residue(Number(_exact(node)))
  raise UndecidedError


def _inverse(value: int) -> int:
  if value % _PRIME == 0:
    raise UndefinedError
  return pow(value, -1, _PRIME)


def _residue_power(base: int, exponent: fractions.Fraction | None) -> int:
  if exponent is None or exponent.denominator != 1:
    raise UndecidedError
  if base == 0 and exponent <= 0:
    raise UndefinedError
  return pow(base, int(exponent), _PRIME)


def _residue_counting(name: str, args: list[fractions.Fraction | None]) -> int:
  if any(arg is None or arg.denominator != 1 or arg > _MAX_FACTORIAL for arg in args):
    raise UndecidedError
  if min(args) < 0:
    raise UndefinedError
  if name == "factorial":
    return _factorial_residue(int(args[0]))
  n, k = map(int, args)
  if k > n:
    return 0
  below = _factorial_residue(k) * _factorial_residue(n - k)
  return _factorial_residue(n) * _inverse(below) % _PRIME


def _factorial_residue(n: int) -> int:
  return functools.reduce(lambda x, y: x * y % _PRIME, range(2, n + 1), 1)
