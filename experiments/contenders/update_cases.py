"""What is updated and stored, by whom, and how often?"""

import dataclasses
import math
import statistics
from collections.abc import Mapping

from contenders.cases import REAL, TOY, long_tailed
from contenders.replay_work import ReplayWork
from contenders.update_work import UpdateWork
from grpo_jax.model.config import Qwen3Config

OURS, TUNIX, TORCH, FLASHBAX = "grpo_jax", "tunix", "torch", "flashbax"


@dataclasses.dataclass(frozen=True)
class Contender:
  """A module to run, and the option that names its interpreter; None: the one that runs this."""

  module: str
  python: str | None = None


UPDATERS = {
  OURS: Contender("contenders.ours_update"),
  TUNIX: Contender("contenders.peer_tunix_update", "tunix"),
  TORCH: Contender("contenders.peer_torch_update"),
}
STORES = {
  OURS: Contender("contenders.ours_replay"),
  FLASHBAX: Contender("contenders.peer_flashbax", "flashbax"),
}


@dataclasses.dataclass(frozen=True)
class UpdateCase:
  """Optimizer steps on batches of the same lengths."""

  title: str
  shape: Qwen3Config
  completion_tokens: tuple[int, ...]
  longest: int
  microbatch_rows: int
  rounds: int
  prompt_tokens: int = 64
  contenders: Mapping[str, Contender] = dataclasses.field(default_factory=lambda: UPDATERS)
  together: bool = True  # False: there is no memory for more than one of them at a time

  def work(self, turn: int) -> UpdateWork:
    return UpdateWork(
      vocab_size=self.shape.vocab_size,
      prompt_tokens=self.prompt_tokens,
      completion_tokens=list(self.completion_tokens),
      longest=self.longest,
      microbatch_rows=self.microbatch_rows,
      seed=turn,
    )


@dataclasses.dataclass(frozen=True)
class ReplayCase:
  """Steps of a full store, and the update they are measured by."""

  title: str
  capacity: int
  length: int
  fresh: int
  drawn: int
  rounds: int
  update: str  # the case whose optimizer step this is to be a small share of
  shape: Qwen3Config | None = None
  contenders: Mapping[str, Contender] = dataclasses.field(default_factory=lambda: STORES)
  together: bool = True

  def work(self, turn: int) -> ReplayWork:
    return ReplayWork(self.capacity, self.length, self.fresh, self.drawn, step=turn)


def spread(count: int, longest: int) -> tuple[int, ...]:
  """Few lengths with the same long tail as `long_tailed`: of each of `count` equal shares of its
  log-normal the middle, so that they do not hang on the draw."""
  middles = [(i + 0.5) / count for i in range(count)]
  normal = [statistics.NormalDist().inv_cdf(middle) for middle in middles]
  return tuple(min(longest, round(0.235 * longest * math.exp(0.8 * z))) for z in normal)


# configs/quickstart.py: 256 fresh rollouts and 128 old ones a step, of 6 + 26 tokens.
QUICKSTART = Qwen3Config(
  vocab_size=18,
  hidden_size=128,
  intermediate_size=384,
  num_hidden_layers=4,
  num_attention_heads=4,
  num_key_value_heads=2,
  head_dim=32,
  rope_theta=1e4,
)

# The rounds are what lets the whole study end within an hour of two cores.
CASES = {
  "quickstart": UpdateCase(
    "The quickstart: 384 rows of 6 + 1 to 26 tokens", QUICKSTART,
    long_tailed(384, 26), 26, 64, rounds=5, prompt_tokens=6,
  ),
  "toy": UpdateCase(
    "4 layers, width 256, 4,096 ids: 64 rows of 64 + 1 to 512 tokens", TOY,
    long_tailed(64, 512), 512, 16, rounds=3,
  ),
  "vocabulary": UpdateCase(
    "The same, 151,936 ids: 16 rows of 64 + 1 to 512 tokens",
    dataclasses.replace(TOY, vocab_size=REAL.vocab_size),
    long_tailed(16, 512), 512, 4, rounds=2,
  ),
  "real": UpdateCase(
    "Qwen3-0.6B: 4 rows of 64 + 1 to 128 tokens", REAL,
    spread(4, 128), 128, 4, rounds=2, together=False,
  ),
  "real_32": UpdateCase(
    "Qwen3-0.6B: 32 rows of 64 + 1 to 128 tokens", REAL,
    long_tailed(32, 128), 128, 8, rounds=1, together=False,
  ),
  "replay_quickstart": ReplayCase(
    "4,096 rollouts of 32 tokens", 4096, 32, fresh=256, drawn=128, rounds=20,
    update="quickstart",
  ),
  "replay_large": ReplayCase(
    "30,000 rollouts of 2,048 tokens", 30_000, 2048, fresh=256, drawn=128, rounds=20,
    update="real",
  ),
}  # fmt: skip
