"""History resampling on four problems: which are asked again after each epoch."""

import numpy as np
import pytest

from grpo_jax.methods.choice import Budget
from grpo_jax.methods.history import WithoutSolved
from grpo_jax.methods.ledger import empty_ledger
from grpo_jax.methods.select import ShuffledEpochs
from tests.methods.evidence import groups, streams

MIXED, RIGHT, WRONG, UNKNOWN = "10", "11", "00", "??"


def epochs(verdicts, *, count, batch, return_every=0):
  """The problems of each batch when problem p always gets `verdicts[p]`."""
  select, size = WithoutSolved(streams, return_every), len(verdicts)
  state, ledger = select.start(empty_ledger(size, 1)), empty_ledger(size, window=1)
  batches = []
  for step in range(1, count + 1):
    choice, state = select(state, ledger, Budget(problems=batch, samples=2))
    batches.append(choice.place_N.tolist())
    ledger = ledger.recorded(choice.place_N, groups(*(verdicts[p] for p in choice.place_N)), step)
  return batches


def test_always_right_goes_and_mixed_and_always_wrong_stay():
  batches = epochs([MIXED, RIGHT, WRONG, UNKNOWN], count=10, batch=1)
  walk = [place for batch in batches for place in batch]
  assert sorted(walk[:4]) == [0, 1, 2, 3]
  assert 1 not in walk[4:]
  assert sorted(walk[4:7]) == sorted(walk[7:10]) == [0, 2, 3]


def test_dropped_stays_dropped_unless_all_return():
  verdicts = [MIXED, RIGHT, WRONG]
  stays = epochs(verdicts, count=6, batch=1)
  assert [1] not in stays[3:]
  returns = epochs(verdicts, count=3 + 2 + 3, batch=1, return_every=2)
  assert [1] not in returns[3:5]
  assert sorted(place for batch in returns[5:8] for place in batch) == [0, 1, 2]


@pytest.mark.parametrize("left", [0, 1, 2])
def test_when_too_few_are_left_for_a_step_all_come_back(left):
  """Else the few that are never right are asked many times in a step and little else is."""
  batches = epochs([WRONG] * left + [RIGHT] * (6 - left), count=6, batch=3)
  for first, second in zip(batches[::2], batches[1::2], strict=True):
    assert sorted(first + second) == list(range(6))


def test_as_many_as_a_step_asks_are_enough():
  batches = epochs([WRONG, MIXED, WRONG, RIGHT, RIGHT, RIGHT], count=5, batch=3)
  assert [sorted(batch) for batch in batches[2:]] == [[0, 1, 2]] * 3


def test_an_epoch_is_judged_by_its_own_verdicts():
  """Once wrong must not protect a problem for ever: only the last epoch counts."""
  select, budget = WithoutSolved(streams), Budget(problems=2, samples=2)
  state, ledger = select.start(empty_ledger(2, 1)), empty_ledger(2, window=1)
  for step, solved in enumerate((WRONG, RIGHT), start=1):
    choice, state = select(state, ledger, budget)
    verdicts = [solved if place == 0 else MIXED for place in choice.place_N]
    ledger = ledger.recorded(choice.place_N, groups(*verdicts), step)
  choice, _ = select(state, ledger, Budget(problems=1, samples=2))
  assert choice.place_N.tolist() == [1]


def test_a_batch_over_the_end_of_an_epoch_loses_nobody_who_was_not_judged():
  """Three problems in batches of two: the third is drawn with the next epoch and counts there."""
  batches = epochs([RIGHT, MIXED, RIGHT], count=4, batch=2)
  first = batches[0] + batches[1][:1]
  assert sorted(first) == [0, 1, 2]
  late = first[2]
  assert late in batches[1][1:] + batches[2]


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_while_nothing_is_solved_it_is_the_plain_walk(batch):
  plain, state = ShuffledEpochs(streams), {"taken": np.array(0)}
  for places in epochs([MIXED] * 5, count=6, batch=batch):
    choice, state = plain(state, empty_ledger(5, window=1), Budget(batch, 2))
    assert places == choice.place_N.tolist()
