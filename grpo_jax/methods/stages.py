"""Which mixture of problems now? One set of them first, another one with it later.

SRPO (arXiv 2504.14286) learns from mathematics alone until long reasoning is there, and then from
mathematics and code; mixed from the start it found both mediocre. What ends the first stage is not
in what we could read of it: here a step, or that a number no longer grows.

In a new stage the selection begins anew among all problems that are now open.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from grpo_jax.methods.choice import State


class Stages(Protocol):
  """A choice of the problems that can be selected: always the first ones."""

  def start(self) -> State:
    """The state before the first step."""
    ...

  def open(self, state: State, size: int) -> int:
    """How many of the `size` problems can be selected."""
    ...

  def passed(self, state: State, step: int, metrics: Mapping[str, float]) -> State:
    """The state after a step with these metrics."""
    ...


class OneStage:
  """All problems, always."""

  def start(self) -> State:
    return {}

  def open(self, state: State, size: int) -> int:
    del state
    return size

  def passed(self, state: State, step: int, metrics: Mapping[str, float]) -> State:
    del step, metrics
    return state


@dataclasses.dataclass(frozen=True)
class AtStep:
  """The first stage ends with a step."""

  last: int

  def watched(self, step: int, metrics: Mapping[str, float]) -> float:
    del metrics
    return step

  def over(self, seen_S: np.ndarray) -> bool:
    return bool(seen_S[-1] >= self.last)


@dataclasses.dataclass(frozen=True)
class AtPlateau:
  """The first stage ends when the mean of a metric's last `window` values is less than `gain` above
  that of the `window` before them. A value counts every `every` steps, so that one from the end of
  a run that is prolonged later changes nothing."""

  metric: str
  window: int
  gain: float
  every: int = 1

  def watched(self, step: int, metrics: Mapping[str, float]) -> float:
    return math.nan if step % self.every else metrics.get(self.metric, math.nan)

  def over(self, seen_S: np.ndarray) -> bool:
    last_S, before_S = seen_S[-self.window :], seen_S[-2 * self.window : -self.window]
    return len(before_S) == self.window and bool(last_S.mean() - before_S.mean() < self.gain)


@dataclasses.dataclass(frozen=True)
class TwoStages:
  """The first `first` problems, then all."""

  first: int
  end: AtStep | AtPlateau

  def start(self) -> State:
    return {"stage": np.array(0), "seen_S": np.zeros(0)}

  def open(self, state: State, size: int) -> int:
    return size if state["stage"] else self.first

  def passed(self, state: State, step: int, metrics: Mapping[str, float]) -> State:
    value = self.end.watched(step, metrics)
    if state["stage"] or not math.isfinite(value):
      return state
    seen_S = np.append(state["seen_S"], value)
    return {"stage": np.array(int(self.end.over(seen_S))), "seen_S": seen_S}
