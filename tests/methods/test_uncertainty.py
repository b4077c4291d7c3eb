"""One problem a step: scores worked out by hand."""

import numpy as np
import pytest

from grpo_jax.methods.choice import Budget
from grpo_jax.methods.ledger import empty_ledger
from grpo_jax.methods.uncertainty import MostUncertain
from tests.methods.evidence import groups, ledger_of, streams

BUDGET = Budget(problems=4, samples=8)


def chosen(ledger, *, choices=100, **values):
  select = MostUncertain(streams, candidates=ledger.size, warmup_steps=0, **values)
  choice, _ = select({"choices": np.array(choices)}, ledger, BUDGET)
  assert choice.copies_N.tolist() == [32], "the whole budget is for one problem"
  return int(choice.place_N[0])


@pytest.mark.parametrize(
  ("verdicts", "exploration", "expected"),
  [
    (("1111", "1100", "1110"), 0.0, 1),  # spreads 0, 0.5, 0.43
    (("1111", "1110", ""), 0.0, 2),  # the unseen one counts as 0.5
    (("1100", "1100", ""), 0.5, 2),  # equal spread: the unseen one is worth exploring
  ],
)
def test_the_best_score(verdicts, exploration, expected):
  assert chosen(ledger_of(*verdicts), exploration=exploration) == expected


def test_falling_entropy_turns_from_exploring_to_what_is_known_to_vary():
  """0 was seen nine times and varies, 1 once and does not."""
  ledger = ledger_of("10", "11")
  for step in range(8):
    ledger = ledger.recorded(np.array([0]), groups("10", entropy=1.0), step)
  flat = ledger.recorded(np.array([1]), groups("??", entropy=0.01), step=9)
  assert chosen(ledger, exploration=1.0) == 1
  assert chosen(flat, exploration=1.0) == 0


def test_at_first_problems_are_taken_at_random_and_candidates_move_on():
  select, ledger = MostUncertain(streams, candidates=4, warmup_steps=3), empty_ledger(12, 1)
  state, order = select.start(ledger_of(*[""] * 12)), streams(0).permutation(12)
  for step in range(3):
    choice, state = select(state, ledger, BUDGET)
    assert choice.place_N.tolist() == [order[4 * step]]
