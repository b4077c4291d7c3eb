"""How many rollouts of each chosen problem? The slot, and the choice that changes nothing."""

from typing import Protocol

import numpy as np

from grpo_jax.methods.choice import Choice, State
from grpo_jax.methods.ledger import Ledger


class Allocate(Protocol):
  """A split of the step's rollouts over its problems."""

  def start(self) -> State:
    """The state before the first step."""
    ...

  def __call__(self, state: State, ledger: Ledger, choice: Choice) -> np.ndarray:
    """int [N], rollouts of each problem: at least 1, as many in all as `choice` has."""
    ...

  def judged(self, state: State, ledger: Ledger, place_N: np.ndarray) -> State:
    """The state after these problems were judged; the ledger holds their verdicts."""
    ...


class AsSelected:
  """The sizes the selection gave: the same of each, unless it said otherwise."""

  def start(self) -> State:
    return {}

  def __call__(self, state: State, ledger: Ledger, choice: Choice) -> np.ndarray:
    del state, ledger
    return choice.copies_N

  def judged(self, state: State, ledger: Ledger, place_N: np.ndarray) -> State:
    del ledger, place_N
    return state
