"""What an answer is once it is read: a small tree of immutable nodes."""

import dataclasses
import fractions
from collections.abc import Callable
from typing import TypeAlias

CONSTANTS = frozenset({"pi", "e", "i", "infinity", "emptyset", "reals"})


@dataclasses.dataclass(frozen=True, slots=True)
class Number:
  """An exact rational. `digits` counts the significant digits of a decimal, 0 for an integer."""

  value: fractions.Fraction
  digits: int = dataclasses.field(default=0, compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Symbol:
  """A variable or a named constant (`pi`, `e`, `i`, `infinity`, `reals`), subscript included."""

  name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Apply:
  """An operation or function: add, mul, div, pow, neg, root, pm, percent, degree, sin, cup ..."""

  name: str
  args: tuple["Node", ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Bracket:
  """Items between brackets: a tuple, an interval (half-open ones too) or a set."""

  left: str
  right: str
  items: tuple["Node", ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
  """Bare items; `joiner` is "," or, where words join them, "and" or "or"."""

  items: tuple["Node", ...]
  joiner: str = ","


@dataclasses.dataclass(frozen=True, slots=True)
class Matrix:
  """Rows of equal length."""

  rows: tuple[tuple["Node", ...], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Relation:
  """A chain `terms[0] signs[0] terms[1] ...` of =, <, <=, >, >=, !=, in, ≈."""

  terms: tuple["Node", ...]
  signs: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Quantity:
  """A value followed by words that we take for its unit."""

  value: "Node"
  unit: str


Node: TypeAlias = Number | Symbol | Apply | Bracket | Listing | Matrix | Relation | Quantity


def children(node: Node) -> tuple[Node, ...]:
  """The nodes directly below this one."""
  match node:
    case Number() | Symbol():
      return ()
    case Apply(args=below) | Bracket(items=below) | Listing(items=below) | Relation(terms=below):
      return below
    case Matrix(rows):
      return tuple(entry for row in rows for entry in row)
    case Quantity(value):
      return (value,)


def rebuild(node: Node, change: Callable[[Node], Node]) -> Node:
  """The same node over changed children."""
  match node:
    case Number() | Symbol():
      return node
    case Apply(args=below):
      return dataclasses.replace(node, args=tuple(map(change, below)))
    case Bracket(items=below) | Listing(items=below):
      return dataclasses.replace(node, items=tuple(map(change, below)))
    case Relation(terms=below):
      return dataclasses.replace(node, terms=tuple(map(change, below)))
    case Matrix(rows):
      return Matrix(tuple(tuple(map(change, row)) for row in rows))
    case Quantity(value):
      return dataclasses.replace(node, value=change(value))


def replace_variables(node: Node, replacement: Callable[[str], Node]) -> Node:
  """The same tree with another node for each variable; constants like pi stay."""
  if isinstance(node, Symbol):
    return node if node.name in CONSTANTS else replacement(node.name)
  return rebuild(node, lambda below: replace_variables(below, replacement))


def variables(node: Node) -> frozenset[str]:
  """Names of the variables in a tree."""
  if isinstance(node, Symbol):
    return frozenset() if node.name in CONSTANTS else frozenset([node.name])
  return frozenset().union(*map(variables, children(node)))
