"""History resampling (SRPO, arXiv 2504.14286): problems solved in every try give no signal; what
was always right in an epoch is not asked in the next, what was mixed or always wrong is.

The paper does not say whether a problem ever comes back. Here an epoch's problems are judged by
that epoch alone, so that what was dropped stays dropped unless `return_every` says otherwise.
"""

import dataclasses

import numpy as np

from grpo_jax.methods.choice import Budget, Choice, State, same_of_each
from grpo_jax.methods.ledger import Ledger
from grpo_jax.methods.select import Streams


@dataclasses.dataclass(frozen=True)
class WithoutSolved:
  """Shuffled epochs over the problems that were not always right in the epoch before.

  An epoch ends when a problem is wanted and none is left, so its last whole batch is judged by
  then. Of a batch that runs into the next epoch, the problems of the old one are not: they stay,
  and their verdicts count for the next epoch.

  Attributes:
    return_every: epochs after which all problems take part again; 0: never. They also do when
      fewer are left than a step asks: else it would ask the same few many times over.
  """

  streams: Streams
  return_every: int = 0

  def start(self, ledger: Ledger) -> State:
    return {
      "epoch": np.array(0),
      "cursor": np.array(0),  # problems taken of this epoch
      "active_P": np.ones(ledger.size, bool),
      "tries_before_P": ledger.tries_P,  # what the ledger said when the epoch began
      "rights_before_P": ledger.rights_P,
    }

  def __call__(self, state: State, ledger: Ledger, budget: Budget) -> tuple[Choice, State]:
    place_N = np.zeros(0, int)
    while len(place_N) < budget.problems:
      if state["cursor"] == state["active_P"].sum():
        state = self._next_epoch(state, ledger, budget.problems)
      cursor, missing = int(state["cursor"]), budget.problems - len(place_N)
      taken = self._order(state)[cursor : cursor + missing]
      place_N = np.append(place_N, taken)
      state = state | {"cursor": np.array(cursor + len(taken))}
    return same_of_each(place_N, budget.samples), state

  def _order(self, state: State) -> np.ndarray:
    return self.streams(int(state["epoch"])).permutation(np.flatnonzero(state["active_P"]))

  def _next_epoch(self, state: State, ledger: Ledger, least: int) -> State:
    epoch = int(state["epoch"]) + 1
    tries_P = ledger.tries_P - state["tries_before_P"]
    rights_P = ledger.rights_P - state["rights_before_P"]
    active_P = state["active_P"] & ~((tries_P > 0) & (rights_P == tries_P))
    all_return = self.return_every and epoch % self.return_every == 0
    if all_return or active_P.sum() < least:
      active_P = np.ones(ledger.size, bool)
    return {
      "epoch": np.array(epoch),
      "cursor": np.array(0),
      "active_P": active_P,
      "tries_before_P": ledger.tries_P,
      "rights_before_P": ledger.rights_P,
    }
