"""What is decided before a step samples: which problems, and how many rollouts of each.

A decision is a pure function of its own state, the ledger and the budget. A state is a dictionary
of numpy arrays and nothing else, so that a checkpoint holds all of it.
"""

import dataclasses

import numpy as np

State = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Budget:
  """What a step may ask: `problems` problems `samples` times each, unless decided otherwise; never
  more or fewer than `rollouts` rollouts in all, which is what keeps shapes and costs the same."""

  problems: int
  samples: int

  @property
  def rollouts(self) -> int:
    return self.problems * self.samples


@dataclasses.dataclass(frozen=True)
class Choice:
  """N problems of a step. A problem may stand in it twice: then it is two groups."""

  place_N: np.ndarray  # int, index among the prompts of the training set
  copies_N: np.ndarray  # int, rollouts of each, at least 1


def same_of_each(place_N: np.ndarray, samples: int) -> Choice:
  """`samples` rollouts of each place."""
  return Choice(place_N, np.full(len(place_N), samples))
