"""Which problems next? The slot, and the choice that looks at nothing."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np

from grpo_jax.methods.choice import Budget, Choice, State, same_of_each
from grpo_jax.methods.ledger import Ledger

# Epoch -> the stream of random numbers of that epoch; the same one whenever it is asked for.
Streams = Callable[[int], np.random.Generator]


class Select(Protocol):
  """A choice of problems. Sizes it gives are kept by the allocation that does nothing special."""

  def start(self, ledger: Ledger) -> State:
    """The state before the first choice among these problems."""
    ...

  def __call__(self, state: State, ledger: Ledger, budget: Budget) -> tuple[Choice, State]:
    """The next problems, with sizes that add up to the budget, and the state after them."""
    ...


@dataclasses.dataclass(frozen=True)
class ShuffledEpochs:
  """Every problem once an epoch, each epoch in an order of its own."""

  streams: Streams

  def start(self, ledger: Ledger) -> State:
    del ledger
    return {"taken": np.array(0)}

  def __call__(self, state: State, ledger: Ledger, budget: Budget) -> tuple[Choice, State]:
    def permutation(epoch: int) -> np.ndarray:
      return self.streams(epoch).permutation(ledger.size)

    place_N = shuffled_epochs(int(state["taken"]), budget.problems, ledger.size, permutation)
    return same_of_each(place_N, budget.samples), {"taken": state["taken"] + len(place_N)}


def shuffled_epochs(
  cursor: int, count: int, size: int, permutation: Callable[[int], np.ndarray]
) -> np.ndarray:
  """The next problems of an endless walk through shuffled epochs.

  The walk is a function of its position, so the cursor is all the state there is: every problem is
  visited once an epoch whatever the batch size, and a resumed run neither skips nor repeats one.

  Args:
    cursor: problems taken so far.
    count: problems wanted.
    size: problems in the data set.
    permutation: epoch -> the order of that epoch, a permutation of range(size).

  Returns:
    int32 [count] indices into the data set. A batch larger than what is left of an epoch runs into
    the next one, and may then hold a problem twice.
  """
  places = np.arange(cursor, cursor + count)
  orders = {epoch: permutation(int(epoch)) for epoch in np.unique(places // size)}
  return np.array([orders[p // size][p % size] for p in places], np.int32)
