"""Reads the tokens of one answer into a tree (recursive descent, bounded in depth and length).

Loosest first: list, relation, set operation, ratio, sum, product (also implicit), power, postfix
(`!`, `%`, degrees), atom. Groups are read as TeX does, except that digits stay together where
people mean them to (`2^10`, `\\sqrt17`); they fall apart where TeX users rely on it (`\\frac12`).
"""

import fractions
from collections.abc import Callable

from grpo_jax.verify import units
from grpo_jax.verify.expression import (
  Apply,
  Bracket,
  Listing,
  Matrix,
  Node,
  Number,
  Quantity,
  Relation,
  Symbol,
)
from grpo_jax.verify.matrices import Rows, determinant
from grpo_jax.verify.tokens import ParseError, Token, number_value, tokenize

MAX_DEPTH = 30
_END = Token("end", "")
_CLOSING = {"(": (")", "]"), "[": ("]", ")"), "{": ("}",), "floor": ("floor",), "ceil": ("ceil",)}
_INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
_STARTS_FACTOR = {"number", "symbol", "function", "macro", "open"}


def parse(normal: str, thousands: bool = True) -> Node:
  """The tree of a normal form.

  Raises:
    ParseError: not mathematics that we read.
  """
  parser = _Parser(tokenize(normal, thousands))
  tree = parser.listing()
  parser.expect("end")
  return tree


class _Parser:
  """A position in a list of tokens; each method reads one level of the grammar."""

  def __init__(self, tokens: list[Token]):
    self._tokens = tokens
    self._next = 0
    self._depth = 0
    self._bars = 0  # of |...| that are open here

  @property
  def token(self) -> Token:
    return self._tokens[self._next] if self._next < len(self._tokens) else _END

  @property
  def after(self) -> Token:
    return self._tokens[self._next + 1] if self._next + 1 < len(self._tokens) else _END

  def take(self) -> Token:
    token = self.token
    self._next += 1
    return token

  def at(self, kind: str, *texts: str) -> bool:
    return self.token.kind == kind and (not texts or self.token.text in texts)

  def accept(self, kind: str, *texts: str) -> Token | None:
    return self.take() if self.at(kind, *texts) else None

  def expect(self, kind: str, *texts: str) -> Token:
    if not self.at(kind, *texts):
      raise ParseError(f"{self.token.text or 'the end'!r} where {texts or kind} belongs")
    return self.take()

  def nested(self, read: Callable[[], Node]) -> Node:
    self._depth += 1
    if self._depth > MAX_DEPTH:
      raise ParseError(f"nested more than {MAX_DEPTH} deep")
    bars, self._bars = self._bars, 0
    tree = read()
    self._bars = bars
    self._depth -= 1
    return tree

  def listing(self) -> Node:
    items, joiners = [self.relation()], []
    while self.at("comma"):
      while separator := self.accept("comma"):
        joiners.append(separator.text)
      items.append(self.relation())
    if len(items) == 1:
      return items[0]
    words = [joiner for joiner in joiners if joiner in ("or", "and")]
    return Listing(tuple(items), words[0] if words else ",")

  def relation(self) -> Node:
    while self.accept("relation", "≈", "="):
      pass  # `= 5` and `≈ 5` answer with 5
    terms, signs = [self.set_operation()], []
    while sign := self.accept("relation"):
      signs.append(sign.text)
      terms.append(self.set_operation())
    return Relation(tuple(terms), tuple(signs)) if signs else terms[0]

  def set_operation(self) -> Node:
    left = self.ratio()
    while operator := self.accept("operator", "cup", "cap", "setminus"):
      left = Apply(operator.text, (left, self.ratio()))
    return left

  def ratio(self) -> Node:
    parts = [self.sum()]
    while self.accept("operator", ":"):
      parts.append(self.sum())
    return _lifted("ratio", parts)

  def sum(self) -> Node:
    terms = [self.signed(self.product)]
    while self.at("operator", "+", "-", "pm", "mp"):
      sign = self.token.text
      if sign in ("pm", "mp"):
        self.take()
        terms = [Apply(sign, (_lifted("add", terms), self.product()))]
      else:
        terms.append(self.signed(self.product))
    return _lifted("add", terms)

  def signed(self, read: Callable[[], Node]) -> Node:
    negative = False
    while sign := self.accept("operator", "+", "-"):
      negative ^= sign.text == "-"
    if sign := self.accept("operator", "pm", "mp"):
      return Apply(sign.text, (Number(fractions.Fraction(0)), read()))
    return _negated(read()) if negative else read()

  def product(self) -> Node:
    factors = [self.power()]
    while True:
      if self.accept("operator", "*"):
        factors.append(self.signed(self.power))
      elif self.accept("operator", "/"):
        factors = [Apply("div", (_lifted("mul", factors), self.signed(self.power)))]
      elif self.at("number") and isinstance(factors[-1], Number):
        raise ParseError("two numbers side by side")
      elif self.token.kind in _STARTS_FACTOR or (self.at("bar") and not self._bars):
        factors.append(self.power())
      else:
        break
    value = _lifted("mul", factors)
    return self._with_unit(value) if self.at("unit") else value

  def _with_unit(self, value: Node) -> Node:
    """Reads `m/s^2`, `square feet`, `million`, `percent` after a value."""
    words = []
    while unit := self.accept("unit"):
      if unit.text in units.MULTIPLIERS:
        value = Apply("mul", (value, Number(fractions.Fraction(units.MULTIPLIERS[unit.text]))))
      elif unit.text in ("percent", "degree", "degrees"):
        value = Apply(unit.text.removesuffix("s"), (value,))
      elif set(unit.text.split()) & units.NO_UNITS:
        raise ParseError(f"the word {unit.text!r} after a value")
      else:
        words.append(unit.text)
      if self.accept("operator", "^"):
        words.append("^" + _source(self._exponent()))
      if self.at("operator", "/", "*") and self.after.kind == "unit":
        words.append(self.take().text)
    return Quantity(value, " ".join(words)) if words else value

  def power(self) -> Node:
    base = self.postfix()
    if not self.accept("operator", "^"):
      return base
    if self.accept("operator", "*"):
      raise ParseError("'*' in an exponent")
    return self.postfix_of(Apply("pow", (base, self._exponent())))

  def _exponent(self) -> Node:
    return self.nested(lambda: self.signed(self.power))

  def postfix(self) -> Node:
    return self.postfix_of(self.atom())

  def postfix_of(self, value: Node) -> Node:
    while True:
      if self.accept("operator", "!"):
        if self.at("operator", "!"):
          raise ParseError("a double factorial")
        value = Apply("factorial", (value,))
      elif self.accept("operator", "%"):
        value = Apply("percent", (value,))
      elif self.accept("operator", "degree"):
        value = Apply("degree", (value,))
      elif self.at("operator", "_") and isinstance(value, Number):
        self.take()
        value = Apply("base", (value, self.nested(self._script)))
      elif self.at("operator", "_") and isinstance(value, Symbol):
        value = self._symbol(value.name)
      else:
        return value

  def atom(self) -> Node:
    token = self.take()
    match token.kind:
      case "number":
        return self._number(token.text)
      case "symbol":
        return self._symbol(token.text)
      case "function":
        return self.nested(lambda: self._function(token.text))
      case "macro":
        return self.nested(lambda: getattr(self, "_" + token.text)())
      case "open":
        return self.nested(lambda: self._bracket(token.text))
      case "bar":
        return self.nested(self._absolute)
    raise ParseError(f"{token.text or 'the end'!r} where a value belongs")

  def _number(self, text: str) -> Node:
    """A number; an integer beside a proper fraction is a mixed number."""
    value, digits = number_value(text)
    parts = self._fraction_ahead() if text.isdigit() else None
    if not parts or not 0 < parts[0] < parts[1]:
      return Number(value, digits)
    top, bottom, length = parts
    self._next += length
    return Number(value + fractions.Fraction(top, bottom))

  def _fraction_ahead(self) -> tuple[int, int, int] | None:
    """Numerator, denominator and count of tokens of `3/4`, `\\frac34` or `\\frac{3}{4}` from here.

    Only looks at tokens: to read and go back would take exponential time in nested input.
    """
    texts = [token.text for token in self._tokens[self._next : self._next + 7]]
    match texts:
      case ["frac", "group", top, "group", "group", bottom, "group"]:
        length = 7
      case ["frac", digits, *_] if len(digits) == 2:
        (top, bottom), length = digits, 2
      case [top, "/", bottom, *_]:
        length = 3
      case _:
        return None
    return (int(top), int(bottom), length) if top.isdigit() and bottom.isdigit() else None

  def _symbol(self, name: str) -> Node:
    if self.accept("operator", "_"):
      name += "_" + _source(self.nested(self._script))
    while self.accept("operator", "'"):
      name += "'"
    return Symbol(name)

  def _script(self) -> Node:
    """A subscript: a group, or one symbol or number; words (`_{\\text{two}}`) are a symbol."""
    if self.at("unit"):
      return Symbol(self.take().text)
    if self.accept("open", "group"):
      script = self.nested(self._script) if self.at("unit") else self.listing()
      self.expect("close", "group")
      return script
    return self.atom()

  def _function(self, name: str) -> Node:
    base = self.nested(self._script) if self.accept("operator", "_") else None
    exponent = self._exponent() if self.accept("operator", "^") else None
    argument = self._function_argument()
    if exponent == Number(fractions.Fraction(-1)) and name in _INVERSE:
      name, exponent = _INVERSE[name], None
    value = Apply(name, (argument,) if base is None else (argument, base))
    return value if exponent is None else Apply("pow", (value, exponent))

  def _function_argument(self) -> Node:
    """A bracket, or everything up to the next sign or function: `\\sin 2x \\cos x`."""
    if self.at("open", "(", "[", "group"):
      return self.postfix()
    factors = [self.signed(self.power)]
    while self.token.kind in {"number", "symbol", "macro"} and not self.at("number"):
      factors.append(self.power())
    return _lifted("mul", factors)

  def _frac(self) -> Node:
    return Apply("div", (self._macro_argument(), self._macro_argument()))

  def _binom(self) -> Node:
    if self.accept("open", "("):
      pair = self._bracket("(")
      if not isinstance(pair, Bracket) or len(pair.items) != 2:
        raise ParseError("binom of other than two numbers")
      return Apply("binom", pair.items)
    return Apply("binom", (self._macro_argument(), self._macro_argument()))

  def _sqrt(self) -> Node:
    index: Node = Number(fractions.Fraction(2))
    if self.accept("open", "["):
      index = self.listing()
      self.expect("close", "]")
    return Apply("root", (self.atom() if not self.at("function") else self.power(), index))

  def _macro_argument(self) -> Node:
    """One argument of a macro: a group or, as in TeX, one symbol or one digit."""
    token = self.token
    if token.kind == "number" and len(token.text) > 1 and token.text.isdigit():
      self._tokens[self._next : self._next + 1] = [
        Token("number", token.text[0]),
        Token("number", token.text[1:]),
      ]
    return self.atom()

  def _bracket(self, opening: str) -> Node:
    match opening:
      case "matrix":
        return Matrix(self._rows("matrix"))
      case "determinant":
        return self._determinant()
      case "group":
        inside = self.listing()
        self.expect("close", "group")
        return inside
    if opening in "([{" and self.accept("close", *_CLOSING[opening]):
      return Symbol("emptyset") if opening == "{" else Bracket(opening, opening, ())
    inside = self.listing()
    closing = self.expect("close", *_CLOSING[opening]).text
    if opening in ("floor", "ceil"):
      return Apply(opening, (inside,))
    if isinstance(inside, Listing):
      return Bracket(opening, closing, inside.items)
    if opening == "{" or (opening == "[" and not isinstance(inside, Apply | Matrix)):
      return Bracket(opening, closing, (inside,))  # `5[1 + x]` groups, `[5]` does not
    if (opening, closing) not in (("(", ")"), ("[", "]")):
      raise ParseError(f"one value between {opening!r} and {closing!r}")
    return inside

  def _absolute(self) -> Node:
    self._bars += 1
    inside = self.listing()
    self.expect("bar")
    return Apply("abs", (inside,))

  def _determinant(self) -> Node:
    try:
      return determinant(self._rows("determinant"))
    except ValueError as error:
      raise ParseError(str(error)) from error

  def _rows(self, environment: str) -> Rows:
    rows: list[list[Node]] = [[self.relation()]]
    while not self.accept("close", environment):
      if self.accept("cell"):
        rows[-1].append(self.relation())
        continue
      self.expect("row")
      if not self.at("close", environment):
        rows.append([self.relation()])
    if len({len(row) for row in rows}) > 1:
      raise ParseError("rows of different length")
    return tuple(map(tuple, rows))


def _lifted(name: str, parts: list[Node]) -> Node:
  """One part itself, or the operation on all; a unit after the last part belongs to the whole."""
  *others, last = parts
  if not others:
    return last
  if isinstance(last, Quantity):
    return Quantity(Apply(name, (*others, last.value)), last.unit)
  return Apply(name, tuple(parts))


def _negated(value: Node) -> Node:
  match value:
    case Number(size, digits):
      return Number(-size, digits)
    case Quantity(inside, unit):
      return Quantity(_negated(inside), unit)
  return Apply("neg", (value,))


def _source(node: Node) -> str:
  """A name for a subscript or an exponent; equal trees have equal names."""
  match node:
    case Number(value):
      return str(value)
    case Symbol(name):
      return name
  return repr(node)
