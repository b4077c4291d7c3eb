"""The window over prompts sorted by perplexity, drawn by hand."""

import pytest

from grpo_jax.methods.choice import Budget
from grpo_jax.methods.ledger import empty_ledger
from grpo_jax.methods.perplexity import PerplexityWindow
from tests.methods.evidence import streams

BUDGET = Budget(problems=2, samples=4)


def asked(step, *, state=None, size=10, share=0.2, budget=BUDGET):
  """What is asked in `step` of ten, when problem p has perplexity 100 - p."""
  select = PerplexityWindow(streams, share, steps=10)
  state, ledger = state or select.start(empty_ledger(size, 1)), empty_ledger(size, window=1)
  place_B = select.candidates(state, ledger, budget)
  ledger = ledger.measured(place_B, 100.0 - place_B, step)
  choice, state = select(state, ledger, budget)
  assert choice.copies_N.tolist() == [budget.samples] * budget.problems
  return choice.place_N.tolist(), state


@pytest.mark.parametrize(
  ("step", "expected"),
  [
    (1, [9, 8]),  # nothing is done: the lowest
    (2, [9, 8]),  # floor(0.1 * 8) = 0
    (3, [8, 7]),  # floor(0.2 * 8) = 1
    (6, [5, 4]),  # floor(0.5 * 8) = 4
    (10, [2, 1]),  # floor(0.9 * 8) = 7
    (11, [1, 0]),  # all is done: the highest
    (30, [1, 0]),
  ],
)
def test_the_window_moves_from_low_perplexity_to_high(step, expected):
  assert asked(step)[0] == expected


def test_each_step_has_candidates_of_its_own_and_an_epoch_has_all():
  """Twelve problems, six candidates a step: two steps see every problem once."""
  select, ledger, state = PerplexityWindow(streams, 1 / 3, 10), empty_ledger(12, 1), None
  seen = []
  for step in (1, 2):
    seen += select.candidates(state or select.start(ledger), ledger, BUDGET).tolist()
    _, state = asked(step, state=state, size=12, share=1 / 3)
  assert sorted(seen) == list(range(12))


def test_there_are_no_more_candidates_than_problems_and_no_fewer_than_are_asked():
  select = PerplexityWindow(streams, 0.2, 10)
  ledgers = {size: empty_ledger(size, 1) for size in (1, 2, 7, 50)}
  sizes = {size: select.candidates(select.start(ledger), ledger, BUDGET)
           for size, ledger in ledgers.items()}  # fmt: skip
  assert {size: len(places) for size, places in sizes.items()} == {1: 2, 2: 2, 7: 7, 50: 10}
  assert sorted(sizes[7]) == list(range(7))
