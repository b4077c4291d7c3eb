"""Cuts a normal form into tokens: numbers, names, words, brackets, operators.

Every kind of thing that the parser knows is named here. A text that holds anything else (quotes,
`_` between digits, unknown commands) is a ParseError, before any of it is read as mathematics.
"""

import fractions
import re
from typing import NamedTuple

from grpo_jax.verify import units

MAX_TOKENS = 800
MAX_DIGITS = 1500  # of one literal
_MAX_POWER_OF_TEN = 400


class ParseError(ValueError):
  """This is not mathematics that we read; the message says where it stopped being so."""


class Token(NamedTuple):
  """`kind` is one of: number symbol function macro unit open close bar operator relation comma
  row cell."""

  kind: str
  text: str


_LETTERS = (
  "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi "
  "rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon "
  "Phi Psi Omega hbar ell odot"
)
_FUNCTION_NAMES = (
  "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth log ln lg exp abs"
)
_SYMBOL_COMMANDS = frozenset(_LETTERS.split())
_FUNCTIONS = {name: name for name in _FUNCTION_NAMES.split()} | {
  "asin": "arcsin", "acos": "arccos", "atan": "arctan",
}  # fmt: skip
_CONSTANTS = {
  "pi": "pi", "infty": "infinity", "infinity": "infinity", "inf": "infinity", "oo": "infinity",
  "emptyset": "emptyset",
}  # fmt: skip
_MACROS = {"frac", "binom", "sqrt"}
_OPERATORS = {
  "cdot": "*", "times": "*", "ast": "*", "div": "/", "pm": "pm", "mp": "mp", "cup": "cup",
  "cap": "cap", "setminus": "setminus", "backslash": "setminus", "degree": "degree",
  "prime": "'", "colon": ":",
}  # fmt: skip
_BRACKET_COMMANDS = {
  "{": ("open", "{"), "}": ("close", "}"), "langle": ("open", "("), "rangle": ("close", ")"),
  "lfloor": ("open", "floor"), "rfloor": ("close", "floor"),
  "lceil": ("open", "ceil"), "rceil": ("close", "ceil"),
}  # fmt: skip
_SINGLE = {
  "(": ("open", "("), "[": ("open", "["), ")": ("close", ")"), "]": ("close", "]"),
  "{": ("open", "group"), "}": ("close", "group"), ",": ("comma", ","), ";": ("comma", ";"),
  "=": ("relation", "="), "<": ("relation", "<"), ">": ("relation", ">"), "≈": ("relation", "≈"),
  "+": ("operator", "+"), "-": ("operator", "-"), "*": ("operator", "*"), "/": ("operator", "/"),
  "^": ("operator", "^"), "_": ("operator", "_"), "!": ("operator", "!"), "%": ("operator", "%"),
  "'": ("operator", "'"), ":": ("operator", ":"), "|": ("bar", "|"), "&": ("cell", "&"),
}  # fmt: skip

_LEXEME = re.compile(
  r"""
  (?P<words>\\text\s*\{[^{}]*\})
  | (?P<env>\\(?:begin|end)\s*\{(?:[pbBvV]?matrix|array)\}(?:\s*\{[lcr| ]*\})?)
  | (?P<blackboard>\\mathbb\s*(?:\{\s*[A-Z]\s*\}|[A-Z]))
  | (?P<row>\\\\)
  | (?P<command>\\(?:[A-Za-z]+|[{}]))
  | (?P<number>(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?)
  | (?P<word>[A-Za-z]+)
  | (?P<relation><=|>=|!=)
  | (?P<space>\s+)
  | (?P<single>.)
  """,
  re.VERBOSE | re.DOTALL,
)
_REPEATING = re.compile(r"(?P<number>\d*\.\d*\\(?:overline|bar)\s*\{?\s*\d+\s*\}?)")
_THOUSANDS = re.compile(r"(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?)(?![\d.])(?!,\d)")
_NAMES_IN_WORD = re.compile(
  "|".join(sorted([*_MACROS, *_FUNCTIONS, "pi", "infinity", "infty", "inf"], key=len, reverse=True))
  + "|[A-Za-z]"
)
# Mathematics set as text: `13`, `15%`; `5 apples`; choices such as `(A)`, `A, C`, `A and C`.
_INLINE_TEXT = re.compile(
  r"[\d\s.,;:/()+%-]+"
  r"|\s*-?[\d.,/]+(?:\s*[A-Za-z]+){1,3}\s*"
  r"|[\s(]*[A-Z](?:(?:[\s,]|and|or)+[A-Z])*[\s).:]*"
)
_LIST_BRACKETS = {"(", "[", "{"}


def tokenize(normal: str, thousands: bool = True) -> list[Token]:
  """Tokens of a normal form; with `thousands`, `1,234` outside brackets is one number.

  Raises:
    ParseError: an unknown command or character, or more than MAX_TOKENS tokens.
  """
  tokens: list[Token] = []
  depth = 0  # of brackets in which a comma separates items
  position = 0
  while position < len(normal):
    match = _REPEATING.match(normal, position)
    if not match and thousands and depth == 0:
      match = _THOUSANDS.match(normal, position)
    match = match or _LEXEME.match(normal, position)
    position = match.end()
    for token in _tokens_of(match, tokens):
      depth += token.text in _LIST_BRACKETS and {"open": 1, "close": -1}.get(token.kind, 0)
      tokens.append(token)
    if len(tokens) > MAX_TOKENS:
      raise ParseError(f"more than {MAX_TOKENS} tokens")
  return tokens


def number_value(text: str) -> tuple[fractions.Fraction, int]:
  """Exact value of a number token and the count of its significant digits if it is a decimal.

  Raises:
    ParseError: more digits, or a greater power of ten, than any answer has.
  """
  text = text.replace(",", "")
  if len(text) > MAX_DIGITS:
    raise ParseError(f"a number of more than {MAX_DIGITS} digits")
  if "\\" in text:
    return _repeating_value(text), 0
  mantissa, _, power = text.lower().partition("e")
  if power and abs(int(power)) > _MAX_POWER_OF_TEN:
    raise ParseError(f"a power of ten over {_MAX_POWER_OF_TEN}")
  value = fractions.Fraction(mantissa) * fractions.Fraction(10) ** int(power or 0)
  digits = len(mantissa.replace(".", "").lstrip("0")) if "." in mantissa else 0
  return value, digits


def _repeating_value(text: str) -> fractions.Fraction:
  fixed, _, cycle = re.sub(r"[^\d.\\]", "", text).partition("\\")
  decimals = len(fixed.partition(".")[2])
  tail = fractions.Fraction(int(cycle), (10 ** len(cycle) - 1) * 10**decimals)
  return fractions.Fraction(fixed.rstrip(".") or 0) + tail


def _tokens_of(match: re.Match, before: list[Token]) -> list[Token]:
  kind, text = match.lastgroup, match.group()
  match kind:
    case "number" | "relation" | "row":
      return [Token(kind, text)]
    case "space":
      return []
    case "env":
      name = "determinant" if "vmatrix" in text else "matrix"
      return [Token("open" if "begin" in text else "close", name)]
    case "blackboard":
      letter = re.findall("[A-Z]", text)[0]
      return [Token("symbol", {"R": "reals"}.get(letter, f"{letter} numbers"))]
    case "command":
      return [_command(text[1:])]
    case "words":
      return _text(text[text.index("{") + 1 : -1], before)
    case "word":
      return _word(text, before)
  if text not in _SINGLE:
    raise ParseError(f"the character {text!r}")
  return [Token(*_SINGLE[text])]


def _command(name: str) -> Token:
  if name in _FUNCTIONS:
    return Token("function", _FUNCTIONS[name])
  if name in _CONSTANTS:
    return Token("symbol", _CONSTANTS[name])
  if name in _SYMBOL_COMMANDS:
    return Token("symbol", name)
  if name in _MACROS:
    return Token("macro", name)
  if name in _OPERATORS:
    return Token("operator", _OPERATORS[name])
  if name in _BRACKET_COMMANDS:
    return Token(*_BRACKET_COMMANDS[name])
  if name == "in":
    return Token("relation", "in")
  raise ParseError(f"the command \\{name}")


def _text(content: str, before: list[Token]) -> list[Token]:
  """Words in \\text: a joiner, mathematics after all, or what follows a value as its unit."""
  name = content.strip(" .,;").lower()
  if name in {"or", "and"}:
    return [Token("comma", name)]
  if content.strip() in {"e", "i", ":", ","}:
    return tokenize(content)
  if not _after_value(before) and _INLINE_TEXT.fullmatch(content):
    return tokenize(content)
  if re.search(r"(?<![a-z^-])\d|\b(?:or|and|not|if)\b", name) or not name:
    raise ParseError(f"the words {name!r}")
  return [Token("unit", name)]


def _after_value(before: list[Token]) -> bool:
  return bool(before) and before[-1].kind in {"number", "symbol", "close", "unit"}


def _word(word: str, before: list[Token]) -> list[Token]:
  """A run of bare letters: a joiner, a function, a constant, a unit, or variables side by side."""
  lower = word.lower()
  if lower in {"or", "and"}:
    return [Token("comma", lower)]
  if lower in _CONSTANTS:
    return [Token("symbol", _CONSTANTS[lower])]
  pieces = _NAMES_IN_WORD.findall(word)
  if sum(len(piece) == 1 for piece in pieces) <= 2 and lower not in units.BARE_UNITS:
    return [_name(piece) for piece in pieces]
  if _after_value(before) and (len(word) > 3 or lower in units.BARE_UNITS):
    return [Token("unit", lower)]
  if len(word) <= 3:
    return [_name(letter) for letter in word]
  raise ParseError(f"the word {word!r}")


def _name(name: str) -> Token:
  if name in _MACROS:
    return Token("macro", name)
  if name in _FUNCTIONS:
    return Token("function", _FUNCTIONS[name])
  return Token("symbol", _CONSTANTS.get(name.lower(), name))
