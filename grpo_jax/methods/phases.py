"""sGPO (arXiv 2606.08854): from easy to hard, each problem in the smallest group that shows a
success.

The start policy solves a problem with a known probability p; about 1 / p samples show one success,
so that problems with p above 1/4 get groups of 2, above 1/8 of 4, the others of 8. One phase a
size, one epoch a phase; solved problems are left out, and the same few of the unsolved ones take
part in every phase. After the last phase the first one comes again, with the profile of old: the
paper's results are after two such passes.
"""

import dataclasses

import numpy as np

from grpo_jax.errors import UserError
from grpo_jax.methods.choice import Budget, Choice, State
from grpo_jax.methods.ledger import Ledger
from grpo_jax.methods.select import Streams

SIZES = (2, 4, 8)
# A problem belongs to the first phase whose bound its success rate is above.
BOUNDS = (1 / 4, 1 / 8, 0.0)


@dataclasses.dataclass(frozen=True)
class EasyToHard:
  """Phases of growing difficulty and group size.

  A step is filled with as many problems as its rollouts allow at the phase's group size, running
  into the next phase if need be; its last problem takes what is left of the budget.

  Attributes:
    phases: problems of each, index among the prompts; none is empty.
    sizes: rollouts of a problem in each.
  """

  streams: Streams
  phases: tuple[np.ndarray, ...]
  sizes: tuple[int, ...]

  def start(self, ledger: Ledger) -> State:
    del ledger
    return {"epoch": np.array(0), "cursor": np.array(0)}

  def __call__(self, state: State, ledger: Ledger, budget: Budget) -> tuple[Choice, State]:
    del ledger
    epoch, cursor = int(state["epoch"]), int(state["cursor"])
    places, copies = [], []
    while (left := budget.rollouts - sum(copies)) > 0:
      size, order = self.sizes[epoch % len(self.sizes)], self._order(epoch)
      taken = order[cursor : cursor - (-left // size)]
      places += taken.tolist()
      copies += np.minimum(size, left - size * np.arange(len(taken))).tolist()
      cursor += len(taken)
      if cursor == len(order):
        epoch, cursor = epoch + 1, 0
    after = {"epoch": np.array(epoch), "cursor": np.array(cursor)}
    return Choice(np.array(places), np.array(copies)), after

  def _order(self, epoch: int) -> np.ndarray:
    # Stream 0 has drawn the unsolved ones.
    return self.streams(epoch + 1).permutation(self.phases[epoch % len(self.phases)])


def easy_to_hard(
  share_P: np.ndarray, streams: Streams, *, solved_above: float, unsolved_share: float
) -> EasyToHard:
  """The phases of a profile.

  Args:
    share_P: success rate of each prompt under the start policy.
    solved_above: success rates above it are left out.
    unsolved_share: part of the problems with success rate 0 that takes part in every phase.

  Raises:
    UserError: no problem is left.
  """
  unsolved = np.flatnonzero(share_P == 0)
  mixed_in = streams(0).choice(unsolved, round(unsolved_share * len(unsolved)), replace=False)
  learnable_P = (share_P > 0) & (share_P <= solved_above)
  phase_P = np.argmax(share_P[:, None] > np.array(BOUNDS), axis=1)
  phases = [
    np.append(np.flatnonzero(learnable_P & (phase_P == phase)), mixed_in)
    for phase in range(len(SIZES))
  ]
  kept = [(phase, size) for phase, size in zip(phases, SIZES, strict=True) if len(phase)]
  if not kept:
    raise UserError(
      f"of {len(share_P):,} problems, {len(unsolved):,} are never solved and the others are above "
      f"config.easy_to_hard.solved_above {solved_above}: nothing is left to learn from"
    )
  phases, sizes = zip(*kept, strict=True)
  return EasyToHard(streams, phases, sizes)
