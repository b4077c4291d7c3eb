"""How near a step is: 2M / (|S1| + |S2|), on the action alone."""

import difflib
import time

import pytest

from grpo_jax.verify import Outcome
from grpo_jax.verify.steps import MAX_COMPARED, similarity, verify_step

EXPERT = "So 3+4=7."


@pytest.mark.parametrize(
  ("completion", "outcome", "score"),
  [
    (f"<think>hm</think>{EXPERT}", Outcome.RIGHT, 1.0),
    (f"hm</think>\n\n {EXPERT} \n", Outcome.RIGHT, 1.0),  # the prompt may have opened the thought
    ("<think></think>So 3+4=8.", Outcome.WRONG, 2 * 8 / 18),
    ("<think></think>So 3", Outcome.WRONG, 2 * 4 / 13),
    ("<think></think>zzz", Outcome.WRONG, 0.0),
    (f"<think>{EXPERT}</think>zzz", Outcome.WRONG, 0.0),  # thoughts earn nothing
    (f"a</think>{EXPERT}</think>zzz", Outcome.WRONG, 0.0),  # the last end counts
    (EXPERT, Outcome.UNPARSEABLE, 0.0),
    (f"<think>{EXPERT}", Outcome.UNPARSEABLE, 0.0),
    ("<think>x</think>  \n", Outcome.UNPARSEABLE, 0.0),
  ],
)
def test_completions(completion, outcome, score):
  verdict = verify_step(completion, EXPERT)
  assert (verdict.outcome, verdict.score) == (outcome, pytest.approx(score))


@pytest.mark.parametrize(
  ("one", "other"), [("", "abc"), ("abcd", "bcde"), ("aab", "baa"), (EXPERT * 30, EXPERT * 29)]
)
def test_the_ratio_is_that_of_difflib_with_every_letter_counted(one, other):
  expected = difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()
  assert similarity(one, other) == expected


def test_two_empty_texts_are_alike():
  assert similarity("", "") == 1.0


def test_the_worst_texts_are_compared_within_the_deadline_and_length_still_costs():
  start = time.perf_counter()
  score = similarity("a" * 100_000, "a" * MAX_COMPARED + "b")
  assert time.perf_counter() - start < 4
  assert score == 2 * MAX_COMPARED / (100_000 + MAX_COMPARED + 1)
