"""Are two expressions equal at fixed pseudo-random points, to at least 40 digits?

For roots, functions and exponents that fractions and residues do not cover. Variables are complex
there, so that only identities hold (`sqrt(x^2)` is not `x`); beside |x|, floor and ceiling they
are real, of both signs and many sizes. Every intermediate result is bounded before it is computed.
"""

import fractions
import hashlib
import threading

from grpo_jax.verify.expression import (
  CONSTANTS,
  Apply,
  Node,
  Number,
  Symbol,
  children,
  variables,
)

_COMPLEX_POINTS = 3
_REAL_POINTS = 14
_DIGITS = 60
_SAFE_BITS = 50  # a result beyond 2^50, or below 2^-50, may hide a difference at _DIGITS digits
_MAX_WORK = 30_000  # of one check, in the units of _spend: about 0.3 s
_MAX_BITS = 4000  # of the exponent of any intermediate result
_MAX_ARGUMENT = 10**12  # of a function
_MAX_GAMMA = 500
_MAX_GAMMA_DIGITS = 150  # mpmath builds tables for more, which takes seconds
_REAL_ONLY = {"abs", "floor", "ceil"}
_MPMATH_NAMES = {
  "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc",
  "arcsin": "asin", "arccos": "acos", "arctan": "atan", "sinh": "sinh", "cosh": "cosh",
  "tanh": "tanh", "coth": "coth", "ln": "ln", "floor": "floor", "ceil": "ceil",
}  # fmt: skip
_COSTS = dict.fromkeys([*_MPMATH_NAMES, "pow", "root", "log", "lg", "exp"], "function") | {
  "factorial": "gamma",
  "binom": "gamma",
}

_LOCAL = threading.local()  # `work` so far; `context`, because mpmath keeps its precision there


class UndecidedError(ValueError):
  """This way of evaluating does not cover the expression, or it is too large for it."""


class UndefinedError(ValueError):
  """The expression has no value: a division by zero, the logarithm of zero ..."""


def point(name: str, index: int) -> int:
  """A fixed pseudo-random number of 61 bits for a variable: the same in every process."""
  digest = hashlib.blake2b(f"{index} {name}".encode("utf-8", "replace"), digest_size=8).digest()
  return int.from_bytes(digest, "big") >> 3


def new_budget() -> None:
  """Allows this thread the numeric work of one more check."""
  _LOCAL.work = 0


def same_numeric(left: Node, right: Node) -> bool:
  """Whether both agree at every point.

  Raises:
    UndecidedError: a part that has no number, or one too large or too precise to compare.
    UndefinedError: a division by zero or the like.
  """
  real = _uses_real_only(left) or _uses_real_only(right)
  count = _REAL_POINTS if real else _COMPLEX_POINTS
  if not variables(left) | variables(right):
    count = 1
  return all(_agree(left, right, index, real) for index in range(count))


def approximation(node: Node) -> fractions.Fraction:
  """A real constant to _DIGITS digits.

  Raises:
    UndecidedError, UndefinedError: as same_numeric; also for complex values and variables.
  """
  if variables(node):
    raise UndecidedError
  value = _Evaluation(0, True, _DIGITS).value(node)
  if value.imag != 0:
    raise UndecidedError
  return fractions.Fraction(str(value.real))


def _agree(left: Node, right: Node, index: int, real: bool) -> bool:
  """Compares at one point, again with more digits where large or tiny numbers ate the first."""
  evaluation = _Evaluation(index, real, _DIGITS)
  agree = evaluation.agree(left, right)
  if agree and evaluation.peak_bits > _SAFE_BITS:
    more_digits = _DIGITS + evaluation.peak_bits  # a bit is 0.3 digits: room for cancellation
    agree = _Evaluation(index, real, more_digits).agree(left, right)
  return agree


def _spend(operation: str, digits: int) -> None:
  """Counts work, in units of about 10 microseconds; a count is the same on every machine."""
  units = {"elementary": 1, "function": 5, "gamma": 30}[operation] * (digits / _DIGITS) ** 1.5
  _LOCAL.work = getattr(_LOCAL, "work", 0) + units
  if _LOCAL.work > _MAX_WORK:
    raise UndecidedError


class _Evaluation:
  """Values of trees at one point and one precision; `peak_bits` is the greatest exponent seen."""

  def __init__(self, index: int, real: bool, digits: int):
    self._index, self._real, self._digits = index, real, digits
    self._context = _context(digits)
    self.peak_bits = 0

  def agree(self, left: Node, right: Node) -> bool:
    """Whether both have the same first two thirds of the digits."""
    a, b = self.value(left), self.value(right)
    scale = max(abs(a), abs(b), self._context.mpf(10) ** -5)
    return abs(a - b) <= scale * self._context.mpf(10) ** (-2 * self._digits // 3)

  def value(self, node: Node):
    """The number a tree stands for, with the bounds on its size checked."""
    _spend(_COSTS.get(getattr(node, "name", ""), "elementary"), self._digits)
    try:
      value = self._value(node)
    except ZeroDivisionError as error:
      raise UndefinedError from error
    except OverflowError as error:
      raise UndecidedError from error
    if not self._context.isfinite(value):
      raise UndefinedError
    if value != 0:
      size = abs(int(self._context.mag(value)))
      self.peak_bits = max(self.peak_bits, size)
      if size > _MAX_BITS:
        raise UndecidedError
    return value

  def _value(self, node: Node):
    context = self._context
    match node:
      case Number(value):
        return context.mpf(value.numerator) / value.denominator
      case Symbol(name):
        return self._symbol(name)
      case Apply("pow", (base, exponent)):
        return self._power(self.value(base), self.value(exponent))
      case Apply("root", (inside, index)):
        return self._root(self.value(inside), self.value(index))
      case Apply("log", (argument, base)):
        return context.log(self.value(argument)) / context.log(self.value(base))
      case Apply(name, args):
        return self._apply(name, [self.value(arg) for arg in args])
    raise UndecidedError

  def _symbol(self, name: str):
    context = self._context
    if name in ("pi", "e"):
      return +getattr(context, name)
    if name == "i":
      return context.mpc(0, 1)
    if name in CONSTANTS:
      raise UndecidedError
    first = context.mpf(point(name, 2 * self._index)) / 2**61
    second = context.mpf(point(name, 2 * self._index + 1)) / 2**61
    if self._real:
      return (1 if second > 0.5 else -1) * (first + 0.1) * context.mpf(1.7) ** self._index
    return context.mpc(3 * first - 1.5, second + 0.2)

  def _power(self, base, exponent):
    context = self._context
    if base == 0:
      if context.re(exponent) <= 0:
        raise UndefinedError
      return base
    if abs(exponent) * abs(context.log(base)) > _MAX_BITS:
      raise UndecidedError
    return base**exponent

  def _root(self, inside, index):
    context = self._context
    if index != context.floor(context.re(index)) or not 1 <= context.re(index) <= 1000:
      raise UndecidedError
    degree = int(context.re(index))
    if degree % 2 == 1 and inside.imag == 0 and inside.real < 0:
      return -context.root(-inside, degree)
    return context.root(inside, degree)

  def _apply(self, name: str, args: list):
    context = self._context
    match name:
      case "add":
        return context.fsum(args)
      case "mul":
        return context.fprod(args)
      case "neg":
        return -args[0]
      case "div":
        return args[0] / args[1]
      case "abs":
        return abs(args[0])
      case "percent":
        return args[0] / 100
      case "degree":
        return args[0] * context.pi / 180
    if any(abs(arg) > _MAX_ARGUMENT for arg in args):
      raise UndecidedError
    return self._function(name, args)

  def _function(self, name: str, args: list):
    context = self._context
    match name:
      case "log":
        return context.ln(args[0])
      case "lg":
        return context.log(args[0]) / context.log(10)
      case "exp" | "sinh" | "cosh":
        if abs(args[0]) > _MAX_BITS:
          raise UndecidedError
        return getattr(context, name)(args[0])
      case "factorial" | "binom":
        return self._counting(name, args)
    if name not in _MPMATH_NAMES:
      raise UndecidedError
    return getattr(context, _MPMATH_NAMES[name])(args[0])

  def _counting(self, name: str, args: list):
    if self._digits > _MAX_GAMMA_DIGITS or any(abs(arg) > _MAX_GAMMA for arg in args):
      raise UndecidedError
    try:
      return {"factorial": self._context.factorial, "binom": self._context.binomial}[name](*args)
    except ValueError as error:  # a pole of the gamma function
      raise UndefinedError from error


def _uses_real_only(node: Node) -> bool:
  if isinstance(node, Apply) and node.name in _REAL_ONLY:
    return True
  return any(_uses_real_only(below) for below in children(node))


def _context(digits: int):
  if not hasattr(_LOCAL, "context"):
    import mpmath  # deferred: most answers need no such number

    _LOCAL.context = mpmath.MPContext()
  _LOCAL.context.dps = digits
  return _LOCAL.context
