"""What is stored and drawn in a step, and how long does it take? Needs numpy alone."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from contenders.memory import peak_bytes
from contenders.protocol import WorkerError

ALPHA = 0.5  # P(i) ~ |A_i|^alpha
MAX_AGE = 10  # steps; only ours evicts by age


@dataclasses.dataclass(frozen=True)
class ReplayWork:
  """One step of a store that is full: rollouts of `length` tokens come in, others are drawn."""

  capacity: int
  length: int
  fresh: int
  drawn: int
  step: int


@dataclasses.dataclass(frozen=True)
class Fresh:
  """Rollouts of one step: what any store must keep of each."""

  tokens_RT: np.ndarray  # int32
  behaviour_RT: np.ndarray  # float32
  advantage_R: np.ndarray  # float32


# Puts the rollouts where the sampler leaves them, in memory of the device, and returns what is
# timed: it draws and adds, and says how many it drew once they are there.
Recall = Callable[[ReplayWork, Fresh], Callable[[], int]]


def draw(work: ReplayWork) -> Fresh:
  rng = np.random.default_rng(work.step)
  shape = (work.fresh, work.length)
  return Fresh(
    tokens_RT=rng.integers(0, 4096, shape, np.int32),
    behaviour_RT=rng.standard_normal(shape, np.float32),
    advantage_R=rng.standard_normal(work.fresh).astype(np.float32),
  )


def timed(recall: Recall, work: ReplayWork) -> dict[str, Any]:
  """One step's draw and add; the first call finds a store that is full.

  Raises:
    WorkerError: fewer rollouts came out than were asked for.
  """
  draw_and_add = recall(work, draw(work))
  start = time.perf_counter()
  drawn = draw_and_add()
  seconds = time.perf_counter() - start
  if drawn != work.drawn:
    raise WorkerError(f"{drawn} rollouts were drawn, wanted {work.drawn}")
  return {"seconds": seconds, "peak_bytes": peak_bytes()}
