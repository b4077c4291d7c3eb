"""One problem a step, the most uncertain one: our reading of DoPR (arXiv 2602.00815).

The paper states that one prompt a batch is rolled out, chosen by the volatility of its reward and
an exploration term that entropy modulates; its formula is not public. Here
  score = v + c (H / H0) sqrt(ln(1 + t) / (1 + n)),
with v the moving average of the spread within the problem's groups (0.5, the largest there is, when
unseen), n its visits, t the steps so far, and H the policy's entropy now, H0 at first.
"""

import dataclasses

import numpy as np

from grpo_jax.methods.choice import Budget, Choice, State
from grpo_jax.methods.ledger import Ledger
from grpo_jax.methods.select import Streams, shuffled_epochs

UNSEEN_SPREAD = 0.5


@dataclasses.dataclass(frozen=True)
class MostUncertain:
  """All rollouts of a step for one problem, the best score among the next few of the epoch.

  Attributes:
    candidates: problems compared.
    exploration: c above.
    warmup_steps: choices made at random first.
  """

  streams: Streams
  candidates: int = 128
  exploration: float = 0.5
  warmup_steps: int = 20

  def start(self, ledger: Ledger) -> State:
    del ledger
    return {"choices": np.array(0)}

  def __call__(self, state: State, ledger: Ledger, budget: Budget) -> tuple[Choice, State]:
    def permutation(epoch: int) -> np.ndarray:
      return self.streams(epoch).permutation(ledger.size)

    choices = int(state["choices"])
    place_M = shuffled_epochs(choices * self.candidates, self.candidates, ledger.size, permutation)
    # They come in random order, so the first one is as good as any.
    best = 0 if choices < self.warmup_steps else np.argmax(self._score(ledger, place_M, choices))
    choice = Choice(place_M[[best]], np.array([budget.rollouts]))
    return choice, {"choices": np.array(choices + 1)}

  def _score(self, ledger: Ledger, place_M: np.ndarray, choices: int) -> np.ndarray:
    visits_M = ledger.visits_P[place_M]
    spread_M = np.where(visits_M > 0, ledger.spread_P[place_M], UNSEEN_SPREAD)
    first, last = ledger.entropy_2
    ratio = last / first if first > 0 else 1.0
    return spread_M + self.exploration * ratio * np.sqrt(np.log1p(choices) / (1 + visits_M))
