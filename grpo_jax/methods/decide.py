"""What next, given all that is known? Stages, selection and allocation over one ledger.

A decision depends on its state alone, so a run that goes on from a checkpoint decides as if it had
never stopped.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from grpo_jax.methods.allocate import Allocate
from grpo_jax.methods.choice import Budget, Choice, State
from grpo_jax.methods.ledger import Evidence, Ledger, empty_ledger
from grpo_jax.methods.select import Select
from grpo_jax.methods.stages import Stages


@dataclasses.dataclass(frozen=True)
class DecisionState:
  """All that decisions remember."""

  ledger: Ledger
  select: State
  allocate: State
  stages: State

  def to_dict(self) -> dict[str, Any]:
    """JSON values, from which `from_dict` makes an equal state."""
    slots = {"select": self.select, "allocate": self.allocate, "stages": self.stages}
    lists = {
      slot: {key: value.tolist() for key, value in state.items()} for slot, state in slots.items()
    }
    return {"ledger": self.ledger.to_dict()} | lists

  @classmethod
  def from_dict(cls, values: Mapping[str, Any]) -> "DecisionState":
    slots = {
      slot: {key: np.array(value) for key, value in values[slot].items()}
      for slot in ("select", "allocate", "stages")
    }
    return cls(Ledger.from_dict(values["ledger"]), **slots)


@dataclasses.dataclass(frozen=True)
class Decisions:
  """The decisions of a run.

  Attributes:
    stages: which of them are open.
    select: which of these next.
    allocate: how many rollouts each.
    budget: of one step, or of each round of a step.
    window: visits of a problem that the ledger remembers one by one.
    candidates: problems whose prompts are measured before a choice; None: the selection looks at no
      prompt.
  """

  stages: Stages
  select: Select
  allocate: Allocate
  budget: Budget
  window: int
  candidates: Callable[[State, Ledger, Budget], np.ndarray] | None = None

  def start(self, size: int) -> DecisionState:
    """Before the first step, of `size` problems."""
    ledger, stages = empty_ledger(size, self.window), self.stages.start()
    select = self.select.start(self._open(ledger, stages))
    return DecisionState(ledger, select, self.allocate.start(), stages)

  def to_measure(self, state: DecisionState) -> np.ndarray:
    """Problems whose prompts the next choice looks at, each once."""
    if self.candidates is None:
      return np.zeros(0, int)
    open_now = self._open(state.ledger, state.stages)
    return np.unique(self.candidates(state.select, open_now, self.budget))

  def measured(
    self, state: DecisionState, place_N: np.ndarray, perplexity_N: np.ndarray, step: int
  ) -> DecisionState:
    """The state after these prompts were measured, before `step` asks anything."""
    return dataclasses.replace(state, ledger=state.ledger.measured(place_N, perplexity_N, step))

  def choose(self, state: DecisionState) -> tuple[Choice, DecisionState]:
    """What to ask next, `budget.rollouts` rollouts in all, and the state after asking it."""
    open_now = self._open(state.ledger, state.stages)
    choice, select = self.select(state.select, open_now, self.budget)
    copies_N = self.allocate(state.allocate, state.ledger, choice)
    choice = dataclasses.replace(choice, copies_N=copies_N)
    return choice, dataclasses.replace(state, select=select)

  def record(
    self, state: DecisionState, choice: Choice, evidence: Evidence, step: int
  ) -> DecisionState:
    """The state after all rollouts of `choice` were judged."""
    ledger = state.ledger.recorded(choice.place_N, evidence, step)
    allocate = self.allocate.judged(state.allocate, ledger, choice.place_N)
    return dataclasses.replace(state, ledger=ledger, allocate=allocate)

  def passed(
    self, state: DecisionState, step: int, metrics: Mapping[str, float]
  ) -> tuple[DecisionState, int]:
    """The state after a step, and how many problems are open from now on if that has changed; 0 if
    it has not."""
    stages = self.stages.passed(state.stages, step, metrics)
    after = dataclasses.replace(state, stages=stages)
    if self.open(after) == self.open(state):
      return after, 0
    select = self.select.start(self._open(state.ledger, stages))
    return dataclasses.replace(after, select=select), self.open(after)

  def open(self, state: DecisionState) -> int:
    """How many problems can be selected."""
    return self.stages.open(state.stages, state.ledger.size)

  def _open(self, ledger: Ledger, stages: State) -> Ledger:
    return ledger.first(self.stages.open(stages, ledger.size))
