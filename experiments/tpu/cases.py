"""Which models on which chips, and how is the work cut? What runs of these sizes would set."""

import dataclasses
import math

from ml_collections import ConfigDict

from configs import base, methods

GIB = 2**30

# What programs may take of a chip: its memory less what the runtime keeps for itself.
USABLE = {"v5e": 15.75 * GIB, "v6e": 31.25 * GIB, "v5p": 94.75 * GIB}


@dataclasses.dataclass(frozen=True)
class Case:
  """A run of the method `aper`: 512 fresh rollouts a step and half as many old ones."""

  model: str  # of grpo_jax.model.config.PUBLISHED
  chip: str  # of USABLE
  topology: tuple[int, ...]  # chips along each axis of the torus
  fsdp: int
  tensor: int
  slots: int  # rollouts decoded together
  microbatch_tokens: int  # on each chip
  gather_weights: bool = True
  prompt_tokens: int = 1024
  new_tokens: int = 7168

  @property
  def chips(self) -> int:
    return math.prod(self.topology)

  @property
  def topology_name(self) -> str:
    return f"{self.chip}:{'x'.join(map(str, self.topology))}"

  @property
  def row_tokens(self) -> int:
    return self.prompt_tokens + self.new_tokens

  @property
  def key(self) -> str:
    split = "" if self.gather_weights else "_split"
    return f"{self.model}_{self.chip}_{self.fsdp}x{self.tensor}{split}"

  def config(self) -> ConfigDict:
    """What a run would have in its config file, but for the mesh's devices and the problems."""
    config = base.get_config()
    methods.apply(config, "aper")
    config.model.dtype, config.model.remat = "bfloat16", "block"
    config.mesh = {"data": 1, "fsdp": self.fsdp, "tensor": self.tensor}
    config.data.max_prompt_tokens = self.prompt_tokens
    config.rollout.problems, config.rollout.samples = 64, 8
    config.rollout.slots = self.slots
    config.rollout.gather_weights = self.gather_weights
    config.rollout.max_new_tokens = self.new_tokens
    config.replay.capacity = 8192
    config.optimizer.microbatch_tokens = self.microbatch_tokens
    return config


CASES = (
  Case("qwen3_0p6b", "v5e", (2, 4), fsdp=8, tensor=1, slots=64, microbatch_tokens=16384),
  Case("qwen3_1p7b", "v5e", (4, 4), fsdp=16, tensor=1, slots=96, microbatch_tokens=16384),
  Case("qwen3_4b", "v5e", (8, 8), fsdp=16, tensor=4, slots=512, microbatch_tokens=16384),
  Case("qwen3_8b", "v5e", (8, 8), fsdp=16, tensor=4, slots=256, microbatch_tokens=16384),
  Case("qwen3_14b", "v5e", (8, 16), fsdp=16, tensor=8, slots=512, microbatch_tokens=16384),
  Case("qwen3_32b", "v5e", (16, 16), fsdp=32, tensor=8, slots=512, microbatch_tokens=16384),
  Case("qwen3_4b", "v6e", (4, 4), fsdp=16, tensor=1, slots=128, microbatch_tokens=16384),
  Case("qwen3_8b", "v5p", (2, 2, 4), fsdp=16, tensor=1, slots=512, microbatch_tokens=16384),
  Case("qwen3_32b", "v5p", (4, 4, 4), fsdp=16, tensor=4, slots=512, microbatch_tokens=16384),
)
