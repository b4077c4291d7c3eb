"""Sums, products, multiples, transposes and determinants of matrices of expressions."""

import fractions
import functools
from collections.abc import Sequence

from grpo_jax.verify.expression import Apply, Bracket, Matrix, Node, Number, Symbol

Rows = tuple[tuple[Node, ...], ...]

_MAX_ENTRIES = 100
_ONE = Number(fractions.Fraction(1))
_MINUS_ONE = Number(fractions.Fraction(-1))


def rows_of(node: Node) -> Rows | None:
  """Rows of a matrix or of a small computation with some; a tuple is a column; else None."""
  match node:
    case Matrix(rows):
      return rows
    case Bracket("[" | "(", _, items) if all(map(_is_row, items)):
      return tuple(item.items for item in items)
    case Bracket("(", ")", items):
      return tuple((item,) for item in items)
    case Apply("pow", (Matrix(rows), Symbol("T"))):
      return tuple(zip(*rows, strict=True))
    case Apply("neg", (inside,)):
      return _product([_MINUS_ONE, inside])
    case Apply("div", (inside, divisor)) if not _holds_matrix(divisor):
      return _product([inside, Apply("div", (_ONE, divisor))])
    case Apply("mul", factors):
      return _product(factors)
    case Apply("add", terms):
      return _sum(terms)
  return None


def determinant(rows: Rows) -> Node:
  """The determinant by its first row.

  Raises:
    ValueError: not square, or larger than any answer's.
  """
  if any(len(row) != len(rows) for row in rows) or len(rows) > 4:
    raise ValueError("a determinant that is not square or not small")
  if len(rows) == 1:
    return rows[0][0]
  terms = []
  for column, entry in enumerate(rows[0]):
    minor = determinant(tuple(row[:column] + row[column + 1 :] for row in rows[1:]))
    term = Apply("mul", (entry, minor))
    terms.append(Apply("neg", (term,)) if column % 2 else term)
  return Apply("add", tuple(terms))


def _is_row(node: Node) -> bool:
  return isinstance(node, Bracket) and node.left == "["


def _holds_matrix(node: Node) -> bool:
  return isinstance(node, Matrix) or (
    isinstance(node, Apply) and any(map(_holds_matrix, node.args))
  )


def _product(factors: Sequence[Node]) -> Rows | None:
  matrices = [rows_of(factor) for factor in factors if _holds_matrix(factor)]
  if not matrices or None in matrices:
    return None
  rows = functools.reduce(_row_by_column, matrices)
  for scalar in (factor for factor in factors if not _holds_matrix(factor)):
    rows = rows and tuple(tuple(Apply("mul", (scalar, entry)) for entry in row) for row in rows)
  return rows


def _row_by_column(left: Rows | None, right: Rows) -> Rows | None:
  if left is None or len(left[0]) != len(right) or len(left) * len(right[0]) > _MAX_ENTRIES:
    return None
  return tuple(
    tuple(Apply("add", tuple(map(_times, row, column))) for column in zip(*right, strict=True))
    for row in left
  )


def _times(left: Node, right: Node) -> Node:
  return Apply("mul", (left, right))


def _sum(terms: Sequence[Node]) -> Rows | None:
  matrices = [rows_of(term) for term in terms if _holds_matrix(term)]
  shapes = {(len(rows), len(rows[0])) if rows else None for rows in matrices}
  if len(matrices) != len(terms) or len(shapes) != 1 or None in shapes:
    return None
  return tuple(
    tuple(Apply("add", entries) for entries in zip(*rows, strict=True))
    for rows in zip(*matrices, strict=True)
  )
