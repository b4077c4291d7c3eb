"""Is the answer of a completion right?

Reads from cheap to dear: the box, its normal form, equal words, a tree for each side and their
exact or numeric comparison. Only where the gold answer is mathematics that our parser does not
read (limits, sums, integrals) does a killable child process ask math-verify.
"""

import re

from grpo_jax.verify import numeric, symbolic
from grpo_jax.verify.equivalence import equivalent
from grpo_jax.verify.expression import Node
from grpo_jax.verify.extract import MAX_ANSWER_CHARS, AnswerTooLongError, extract_answer, last_box
from grpo_jax.verify.normalise import gold_alternatives, normalise, squeeze, words
from grpo_jax.verify.parser import parse
from grpo_jax.verify.tokens import ParseError
from grpo_jax.verify.verdict import Outcome, Verdict

_CHOICE = re.compile(r"(?:\\text\s*\{)?\s*\(?([A-J])\)\s*\}?[\s:.]*(.*)", re.DOTALL)
_BEYOND_OURS = re.compile(r"\\(?:sum|prod|i?int|lim)(?![A-Za-z])")


def verify(completion: str, gold: str) -> Verdict:
  """Checks the final answer of a completion against a gold answer; bounded in time and memory.

  Runs in any thread or process. Never raises for what a completion or a gold answer holds: a
  check that fails itself is UNSCORED.

  Args:
    completion: the whole text that the model wrote; the last `\\boxed{}` is its answer.
    gold: the answer, bare LaTeX or plain notation, also in `$` or `\\boxed{}`.
  """
  try:
    answer = extract_answer(completion)
  except AnswerTooLongError:
    return Verdict(Outcome.UNPARSEABLE, None, f"a box of more than {MAX_ANSWER_CHARS} characters")
  if answer is None:
    return Verdict(Outcome.UNPARSEABLE, None, "no box")
  numeric.new_budget()
  try:
    outcome, reason = _check(answer, gold)
  except Exception as error:
    outcome, reason = Outcome.UNSCORED, f"the check failed: {type(error).__name__}: {error}"
  return Verdict(outcome, answer, reason)


def _check(answer: str, gold: str) -> tuple[Outcome, str]:
  normal = normalise(answer)
  if not normal:
    return Outcome.UNPARSEABLE, "an empty box"
  golds = [_unboxed(alternative) for alternative in gold_alternatives(gold[: MAX_ANSWER_CHARS + 1])]
  golds = [normal_gold for normal_gold in map(normalise, golds) if normal_gold]
  if not golds or len(gold) > MAX_ANSWER_CHARS:
    return Outcome.UNSCORED, "the gold answer is empty or too long"
  results = [_compare(normal, normal_gold) for normal_gold in golds]
  return min(results, key=lambda result: _PREFERENCE.index(result[0]))


_PREFERENCE = [Outcome.RIGHT, Outcome.UNSCORED, Outcome.WRONG, Outcome.UNPARSEABLE]


def _unboxed(gold: str) -> str:
  return last_box(gold) or gold


def _compare(answer: str, gold: str) -> tuple[Outcome, str]:
  """Compares two normal forms."""
  answer_words, gold_words = words(answer), words(gold)
  if gold_words is not None and answer_words == gold_words:
    return Outcome.RIGHT, "the same words"
  golds = _readings(gold)
  if golds:
    answers = _readings(answer)
    if any(equivalent(ours, theirs) for ours in golds for theirs in answers):
      return Outcome.RIGHT, "the same value"
    if answers or answer_words:
      return Outcome.WRONG, "another value"
    return Outcome.UNPARSEABLE, "not mathematics that we read"
  if squeeze(answer) == squeeze(gold):
    return Outcome.RIGHT, "the same text"
  if _BEYOND_OURS.search(gold) and answer_words is None:
    return symbolic.compare(answer, gold)
  return Outcome.WRONG, "another text"


def _readings(normal: str) -> list[Node]:
  """The trees a text may mean: `1,234` is a number and a list, `(C) 29` is C and 29."""
  choice = _CHOICE.fullmatch(normal)
  if choice and choice[2]:
    return [tree for part in choice.groups() for tree in _readings(part)]
  readings = [_parse(normal, thousands=True)]
  if re.search(r"\d,\d{3}", normal):
    readings.append(_parse(normal, thousands=False))
  if readings == [None] and "=" in normal:
    readings = [_parse(normal.rpartition("=")[2], thousands=True)]
  return list(dict.fromkeys(tree for tree in readings if tree is not None))


def _parse(normal: str, thousands: bool) -> Node | None:
  try:
    return parse(normal, thousands)
  except (ParseError, RecursionError):
    return None
