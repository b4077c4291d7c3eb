"""PREPO (arXiv 2511.00794): from prompts the policy finds likely to prompts it does not.

The next B problems of the epoch are sorted by the perplexity of their prompts under the policy as
it is, exp(-1/T sum log pi(x_t | x_<t)). Asked are K of them, the window that begins at
  floor(rho (B - K)), rho = share of the run that is done,
so that training goes from low perplexity to high. K / B is 0.2 in the paper; what lies outside the
window is passed over and comes again in the next epoch.
"""

import dataclasses

import numpy as np

from grpo_jax.methods.choice import Budget, Choice, State, same_of_each
from grpo_jax.methods.ledger import Ledger
from grpo_jax.methods.select import Streams, shuffled_epochs


@dataclasses.dataclass(frozen=True)
class PerplexityWindow:
  """A window that moves over the sorted candidates.

  Attributes:
    share: of the candidates that is asked.
    steps: of the run. One that is prolonged goes on at the progress it then has.
  """

  streams: Streams
  share: float
  steps: int

  def start(self, ledger: Ledger) -> State:
    del ledger
    return {"taken": np.array(0)}

  def candidates(self, state: State, ledger: Ledger, budget: Budget) -> np.ndarray:
    """Whose perplexity must be in the ledger before a choice: as many as the share asks for, or all
    problems there are."""
    count = max(budget.problems, min(round(budget.problems / self.share), ledger.size))

    def permutation(epoch: int) -> np.ndarray:
      return self.streams(epoch).permutation(ledger.size)

    return shuffled_epochs(int(state["taken"]), count, ledger.size, permutation)

  def __call__(self, state: State, ledger: Ledger, budget: Budget) -> tuple[Choice, State]:
    place_B = self.candidates(state, ledger, budget)
    order_B = np.argsort(ledger.perplexity_P[place_B], kind="stable")
    done = min(1.0, (ledger.measured_P[place_B].max() - 1) / self.steps)
    first = int(done * (len(place_B) - budget.problems))
    place_N = place_B[order_B[first : first + budget.problems]]
    return same_of_each(place_N, budget.samples), {"taken": state["taken"] + len(place_B)}
