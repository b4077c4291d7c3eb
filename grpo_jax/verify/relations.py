"""What do an equation or an inequality answer with, and when are two of them the same?"""

import fractions
from collections.abc import Callable

from grpo_jax.verify.expression import (
  Apply,
  Bracket,
  Listing,
  Node,
  Number,
  Relation,
  Symbol,
  children,
  rebuild,
  replace_variables,
  variables,
)
from grpo_jax.verify.numeric import point
from grpo_jax.verify.values import exact, same_value

_PROBES = 3
_ZERO = Number(fractions.Fraction(0))
_FLIPPED = {">": "<", ">=": "<="}
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_NAMING = {"mul", "div", "abs", "sin", "cos", "tan", "log", "ln"}


def alternatives(node: Node) -> Node:
  """Writes out plus-minus: `1 ± x` is the list `1 + x, 1 - x`, also within a list or relation."""
  items = node.items if isinstance(node, Listing) else (node,)
  if not any(map(_has_sign_choice, items)):
    return node
  expanded: list[Node] = []
  for item in items:
    choices = (_choose(item, True), _choose(item, False)) if _has_sign_choice(item) else (item,)
    expanded += choices
  return Listing(tuple(expanded))


def solution(node: Node, same: Callable[[Node, Node], bool]) -> Node | None:
  """The value a relation answers with: `x = 5`, `\\cos x = 5`, `2 + 3 = 5`, `x \\in {5}`.

  Args:
    node: a relation, a list of them, or a value, which is its own solution.
    same: compares the sides of a chain with each other.

  Returns:
    None for an inequality, an equation that is not solved, or a chain that contradicts itself.
  """
  match node:
    case Listing(items, joiner):
      found = tuple(solution(item, same) for item in items)
      return None if None in found else Listing(found, joiner)
    case Relation(terms, signs):
      return _last_side(terms, signs, same)
  return node


def _last_side(
  terms: tuple[Node, ...], signs: tuple[str, ...], same: Callable[[Node, Node], bool]
) -> Node | None:
  if "≈" in signs:
    exact_sides = signs.index("≈")
    terms, signs = terms[: exact_sides + 1], signs[:exact_sides]
  if signs == ("in",):
    return terms[-1]
  if set(signs) - {"="}:
    return None
  if len(terms) == 2 and _is_name(terms[1]) and not variables(terms[0]):
    return terms[0]
  values = list(terms)
  while len(values) > 1 and _is_name(values[0]):
    values.pop(0)
  return values[-1] if all(same(value, values[-1]) for value in values[:-1]) else None


def _is_name(node: Node) -> bool:
  """What stands left of `=` in an answer: x, f(x), AB, dM/dt, (x, y), \\cos x, f^{-1}(x)."""
  match node:
    case Symbol():
      return bool(variables(node))
    case Apply("pow", (base, exponent)):
      return _is_name(base) and exact(exponent) == -1
    case Apply(name, args):
      return name in _NAMING and all(map(_is_name, args))
    case Bracket("(", ")", items):
      return all(map(_is_name, items))
  return False


def same_relation(gold: Relation, answer: Node) -> bool:
  """Whether two equations, or two inequalities, say the same of the same variables."""
  if not isinstance(answer, Relation):
    return False
  ours, theirs = _gap(gold), _gap(answer)
  if ours is None or theirs is None:
    return _same_terms(gold, answer)
  (sign, gap), (other_sign, other_gap) = ours, theirs
  if sign != other_sign or not _proportional(gap, other_gap):
    return False
  return sign in ("=", "!=") or _same_sign(gap, other_gap)


def _gap(relation: Relation) -> tuple[str, Node] | None:
  """The sign, never > or >=, and what it compares with zero."""
  if len(relation.signs) != 1 or relation.signs[0] not in {"=", "!=", "<", "<=", ">", ">="}:
    return None
  (left, right), (sign,) = relation.terms, relation.signs
  if sign in _FLIPPED:
    left, right, sign = right, left, _FLIPPED[sign]
  return sign, Apply("add", (left, Apply("neg", (right,))))


def _same_terms(gold: Relation, answer: Relation) -> bool:
  """Compares chains like `0 < f(x) < 1` side by side, read from either end."""
  turned = Relation(answer.terms[::-1], tuple(_TURNED.get(s, s) for s in answer.signs[::-1]))
  return any(
    gold.signs == chain.signs and all(map(same_value, gold.terms, chain.terms))
    for chain in (answer, turned)
  )


def _proportional(gap: Node, other: Node) -> bool:
  """Whether one is a constant multiple of the other: f(x) g(y) = f(y) g(x) for all x and y."""
  if same_value(gap, _ZERO) or same_value(other, _ZERO):
    return False
  return same_value(
    Apply("mul", (gap, _renamed(other))),
    Apply("mul", (_renamed(gap), other)),
  )


def _renamed(node: Node) -> Node:
  return replace_variables(node, lambda name: Symbol(name + " (elsewhere)"))


def _same_sign(gap: Node, other: Node) -> bool:
  """Whether the constant factor between two proportional expressions is positive."""
  for index in range(_PROBES):

    def probe(name: str, index: int = index) -> Number:
      return Number(fractions.Fraction(point(name, index), 2**60) - 1)

    ours, theirs = (exact(replace_variables(side, probe)) for side in (gap, other))
    if ours and theirs:
      return ours * theirs > 0
  return False


def _has_sign_choice(node: Node) -> bool:
  if isinstance(node, Apply) and node.name in ("pm", "mp"):
    return True
  return any(map(_has_sign_choice, children(node)))


def _choose(node: Node, upper: bool) -> Node:
  """The tree with the upper or the lower of all its signs: `a ∓ b` goes with `c ± d`."""
  match node:
    case Apply("pm" | "mp" as sign, (left, right)):
      left, right = _choose(left, upper), _choose(right, upper)
      return Apply("add", (left, right if (sign == "pm") == upper else Apply("neg", (right,))))
  return rebuild(node, lambda below: _choose(below, upper))
