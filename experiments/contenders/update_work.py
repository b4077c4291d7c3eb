"""What does one optimizer step learn from, and what does it cost in seconds and in memory?

Needs numpy alone: each contender's environment has it.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from contenders.memory import held_bytes, peak_bytes, settle
from contenders.protocol import WorkerError

# The same loss and optimizer for everybody: PPO-clip to the behaviour log-probs, mean over tokens,
# no KL; AdamW behind a clip of the global norm.
CLIP = 0.2
MAX_GRAD_NORM = 1.0
ADAMW = {"learning_rate": 1e-6, "b1": 0.9, "b2": 0.999, "weight_decay": 0.01}

PAD = 0  # no row has this id: tunix takes it for padding


@dataclasses.dataclass(frozen=True)
class UpdateWork:
  """One GRPO batch."""

  vocab_size: int
  prompt_tokens: int  # of every prompt
  completion_tokens: list[int]  # of each row
  longest: int  # tokens a completion might have had
  microbatch_rows: int  # ours fills microbatches with as many tokens as so many longest rows have
  seed: int

  @property
  def trained_tokens(self) -> int:
    """Of real rows: prompts and completions, no padding."""
    return len(self.completion_tokens) * self.prompt_tokens + sum(self.completion_tokens)


@dataclasses.dataclass(frozen=True)
class Batch:
  """R rollouts: prompts of P tokens, completions padded to C, the longest there might have been."""

  prompt_RP: np.ndarray  # int32
  completion_RC: np.ndarray  # int32, PAD behind the end
  mask_RC: np.ndarray  # bool
  behaviour_RC: np.ndarray  # float32, log-probs of the policy that sampled
  advantage_R: np.ndarray  # float32


Step = Callable[[UpdateWork, Batch], float]  # returns the loss once the new parameters are there


def draw(work: UpdateWork) -> Batch:
  """Random ids; behaviour log-probs as a policy near random weights has them, so that some ratios
  are clipped and most are not."""
  rng = np.random.default_rng(work.seed)
  rows = len(work.completion_tokens)
  length_R1 = np.array(work.completion_tokens)[:, None]
  mask_RC = np.arange(work.longest) < length_R1
  ids_RC = rng.integers(1, work.vocab_size, mask_RC.shape, np.int32)
  noise_RC = rng.normal(0, 0.1, mask_RC.shape)
  return Batch(
    prompt_RP=rng.integers(1, work.vocab_size, (rows, work.prompt_tokens), np.int32),
    completion_RC=np.where(mask_RC, ids_RC, PAD),
    mask_RC=mask_RC,
    behaviour_RC=np.where(mask_RC, noise_RC - math.log(work.vocab_size), 0).astype(np.float32),
    advantage_R=rng.standard_normal(rows).astype(np.float32),
  )


def timed(step: Step, work: UpdateWork) -> dict[str, Any]:
  """Takes one step, from token ids on the host to parameters.

  Returns:
    `seconds`, trained `tokens`, `loss`, bytes held before (`before_bytes`) and at most during the
    step (`peak_bytes`).

  Raises:
    WorkerError: the loss is not finite.
  """
  batch = draw(work)
  settle()
  before = held_bytes()
  start = time.perf_counter()
  loss = step(work, batch)
  seconds = time.perf_counter() - start
  if not math.isfinite(loss):
    raise WorkerError(f"the loss is {loss}")
  return {
    "seconds": seconds,
    "tokens": work.trained_tokens,
    "loss": loss,
    "before_bytes": before,
    "peak_bytes": peak_bytes(),
  }
