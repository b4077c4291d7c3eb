"""Is this answer the gold answer? Compares two trees by what they are.

Lists and sets are unordered; tuples, intervals and matrices are not. `x = 5` answers with 5; a
chain `a = b = c` answers with its last side if no two sides contradict each other. Units and
degree signs are dropped unless both sides name different ones. In doubt the answer is wrong.
"""

from collections.abc import Sequence

from grpo_jax.verify.expression import (
  Apply,
  Bracket,
  Listing,
  Matrix,
  Node,
  Quantity,
  Relation,
  Symbol,
  variables,
)
from grpo_jax.verify.matrices import Rows, rows_of
from grpo_jax.verify.realset import real_set, same_real_set
from grpo_jax.verify.relations import alternatives, same_relation, solution
from grpo_jax.verify.scalars import same_scalar
from grpo_jax.verify.units import same_unit

_MAX_ITEMS = 64  # of lists and sets: comparing them without order takes quadratic time


def equivalent(gold: Node, answer: Node) -> bool:
  """Whether `answer` is `gold`, both as the parser read them."""
  gold, answer = alternatives(gold), alternatives(answer)
  if isinstance(gold, Relation) and (gold == answer or same_relation(gold, answer)):
    return True
  if _same_reals(gold, answer):
    return True
  answer = _in_order_of_names(gold, answer)
  gold_value, answer_value = solution(gold, _same), solution(answer, _same)
  if gold_value is None or answer_value is None:
    both_lists = isinstance(gold, Listing) and isinstance(answer, Listing)
    return both_lists and _same_unordered(gold.items, answer.items)
  return _same(gold_value, answer_value)


def _same(gold: Node, answer: Node) -> bool:
  """Compares two values by their kinds."""
  match gold, answer:
    case (Quantity(value, unit), Quantity(other, other_unit)):
      return same_unit(unit, other_unit) and _same(value, other)
    case (Quantity(value), _):
      return not _has_sign(answer) and _same(value, answer)
    case (_, Quantity(value)):
      return not _has_sign(gold) and _same(gold, value)
    case (Relation(), _) | (_, Relation()):
      return equivalent(gold, answer)
    case (Symbol("emptyset"), _) | (_, Symbol("emptyset")):
      return _same_reals(gold, answer)
    case (Matrix(), _) | (_, Matrix()):
      return _same_rows(rows_of(gold), rows_of(answer))
    case (Listing() | Bracket(), Listing() | Bracket()):
      return _same_items(gold, answer) or _same_reals(gold, answer)
    case (Bracket("{", _, (only,)), _):
      return _same(only, answer)
    case (_, Bracket("{", _, (only,))):
      return _same(gold, only)
    case (Listing() | Bracket(), _) | (_, Listing() | Bracket()):
      return _same_reals(gold, answer)
  return (
    same_scalar(gold, answer)
    or _same_rows(rows_of(gold), rows_of(answer))
    or _same_reals(gold, answer)
  )


def _has_sign(node: Node) -> bool:
  """`40%` and `40°` have a unit already, another than words name."""
  return isinstance(node, Apply) and node.name in ("percent", "degree")


def _same_items(gold: Listing | Bracket, answer: Listing | Bracket) -> bool:
  """Lists and sets match in any order; a list matches a tuple that has its order."""
  kinds = {_kind(gold), _kind(answer)}
  if kinds == {"{}"}:
    return _same_unordered(_distinct(gold.items), _distinct(answer.items))
  if kinds <= {"{}", "list"}:
    return _same_unordered(gold.items, answer.items)
  if len(kinds) == 1 or kinds == {"()", "list"}:
    return _same_ordered(gold.items, answer.items)
  return False


def _kind(node: Listing | Bracket) -> str:
  return "list" if isinstance(node, Listing) else node.left + node.right


def _same_ordered(gold: Sequence[Node], answer: Sequence[Node]) -> bool:
  return len(gold) == len(answer) and all(map(_same, gold, answer))


def _same_unordered(gold: Sequence[Node], answer: Sequence[Node]) -> bool:
  if len(gold) != len(answer) or len(gold) > _MAX_ITEMS:
    return False
  left = list(answer)
  for item in gold:
    found = next((place for place, other in enumerate(left) if _same(item, other)), None)
    if found is None:
      return False
    left.pop(found)
  return True


def _distinct(items: Sequence[Node]) -> list[Node]:
  kept: list[Node] = []
  for item in items[: _MAX_ITEMS + 1]:
    if not any(_same(item, other) for other in kept):
      kept.append(item)
  return kept


def _same_reals(gold: Node, answer: Node) -> bool:
  gold_set = real_set(gold)
  answer_set = real_set(answer) if gold_set else None
  return answer_set is not None and same_real_set(gold_set, answer_set)


def _same_rows(gold: Rows | None, answer: Rows | None) -> bool:
  if gold is None or answer is None or len(gold) != len(answer):
    return False
  return all(map(_same_ordered, gold, answer))


def _in_order_of_names(gold: Node, answer: Node) -> Node:
  """Reorders `y = 4, x = 3` to the order of names in gold."""
  gold_names, answer_names = _names(gold), _names(answer)
  if not gold_names or set(gold_names) != set(answer_names or ()):
    return answer
  by_name = dict(zip(answer_names, answer.items, strict=True))
  return Bracket("(", ")", tuple(by_name[name] for name in gold_names))


def _names(node: Node) -> list[frozenset[str]] | None:
  """The names that a list of `name = value` assigns to, if they are all different."""
  if not isinstance(node, Listing):
    return None
  names = [
    variables(item.terms[0]) if isinstance(item, Relation) and item.signs[0] == "=" else None
    for item in node.items
  ]
  return names if all(names) and len(set(names)) == len(names) else None
