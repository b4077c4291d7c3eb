"""What is sampled, by whom, and how often?"""

import dataclasses

import numpy as np

from contenders.protocol import Work
from grpo_jax.model.config import PUBLISHED, Qwen3Config

TOY = Qwen3Config(
  vocab_size=4096,
  hidden_size=256,
  intermediate_size=768,
  num_hidden_layers=4,
  num_attention_heads=8,
  num_key_value_heads=4,
  head_dim=32,
  rope_theta=1e6,
)
REAL = PUBLISHED["qwen3_0p6b"]

OURS, TUNIX, TRANSFORMERS = "grpo_jax fp32", "tunix fp32", "transformers fp32"
OURS_BF16, TUNIX_BF16, TRANSFORMERS_BF16 = "grpo_jax bf16", "tunix bf16", "transformers bf16"
# Name -> module and dtype.
CONTENDERS = {
  OURS: ("contenders.ours", "float32"),
  OURS_BF16: ("contenders.ours", "bfloat16"),
  TUNIX: ("contenders.peer_tunix", "float32"),
  TUNIX_BF16: ("contenders.peer_tunix", "bfloat16"),
  TRANSFORMERS: ("contenders.peer_transformers", "float32"),
  TRANSFORMERS_BF16: ("contenders.peer_transformers", "bfloat16"),
}
ALL = tuple(CONTENDERS)
# tunix in bfloat16 is shown once, and ours where memory traffic is what counts.
MAIN = (OURS, TUNIX, TRANSFORMERS, TRANSFORMERS_BF16)
ALL_BUT_TUNIX_BF16 = tuple(name for name in ALL if name != TUNIX_BF16)

# Two lengths of the same decoding of Qwen3-0.6B: their difference is of steps alone.
SHORT, LONG = "B=1, 16 new", "B=1"


@dataclasses.dataclass(frozen=True)
class Case:
  """One row of the table."""

  name: str
  prompts: int
  new_tokens: tuple[int, ...]  # of each completion
  longest: int
  rounds: int
  prompt_tokens: int = 64
  group: int = 1
  top_p: float = 1.0
  slots: int | None = None  # None: as many as completions
  burst: int | None = None  # None: our default

  def work(self, vocab_size: int, seed: int) -> Work:
    """Random prompts, the same for every contender."""
    rng = np.random.default_rng(seed)
    return Work(
      prompts=rng.integers(1, vocab_size, (self.prompts, self.prompt_tokens)).tolist(),
      group=self.group,
      new_tokens=list(self.new_tokens),
      longest=self.longest,
      top_p=self.top_p,
      slots=self.slots or len(self.new_tokens),
      seed=seed,
      burst=self.burst,
    )


# How many times as fast as they ours is to be, at least.
GOALS = {TUNIX: 1.5, TRANSFORMERS: 2.0, TRANSFORMERS_BF16: 1.0}
GOALS_OF_GROUPS = {TUNIX: 4.0, TRANSFORMERS: 4.0, TRANSFORMERS_BF16: 1.0}


@dataclasses.dataclass(frozen=True)
class Section:
  """Cases that share their workers."""

  title: str
  shape: Qwen3Config
  contenders: tuple[str, ...]
  cases: tuple[Case, ...]
  goals: dict[str, float] = dataclasses.field(default_factory=lambda: GOALS)


def even(name: str, rows: int, tokens: int, rounds: int, **settings) -> Case:
  """`rows` completions of equal length, each of a prompt of its own unless `group` is set."""
  prompts = rows // settings.get("group", 1)
  return Case(name, prompts, (tokens,) * rows, tokens, rounds, **settings)


def long_tailed(count: int, longest: int) -> tuple[int, ...]:
  """Lengths as a policy writes them: log-normal, cut at `longest`, their mean about a quarter of
  it. The same at every call."""
  normal = np.random.default_rng(7).standard_normal(count)
  lengths = np.exp(np.log(0.235 * longest) + 0.8 * normal)
  return tuple(np.clip(np.rint(lengths), 1, longest).astype(int).tolist())


LONG_TAIL = long_tailed(64, 512)

# The rounds are what lets the whole study end within half an hour of two cores.
SECTIONS = {
  "toy": Section(
    "4 layers, width 256, 4,096 ids", TOY, ALL,
    (even("B=1", 1, 128, 9), even("B=16", 16, 128, 7), even("B=64", 64, 128, 5)),
  ),
  "top_p": Section(
    "the same, top-p 0.95", TOY, MAIN,
    (
      even("B=1", 1, 128, 5, top_p=0.95),
      even("B=16", 16, 128, 5, top_p=0.95),
      even("B=64", 64, 128, 3, top_p=0.95),
    ),
  ),
  "vocabulary": Section(
    "the same, 151,936 ids, 32 new tokens",
    dataclasses.replace(TOY, vocab_size=REAL.vocab_size), MAIN,
    (even("B=1", 1, 32, 5), even("B=16", 16, 32, 3), even("B=64", 64, 32, 2)),
  ),
  "grpo": Section(
    "4 layers, 8 prompts x 8 completions of 1 to 512 tokens", TOY, MAIN,
    (Case("long tail", 8, LONG_TAIL, 512, 3, group=8, slots=16),),
    GOALS_OF_GROUPS,
  ),
  "real": Section(
    "Qwen3-0.6B", REAL, ALL_BUT_TUNIX_BF16,
    (
      even(SHORT, 1, 16, 3), even(LONG, 1, 64, 3), even("B=8", 8, 64, 2), even("B=32", 32, 64, 1),
    ),
  ),
  "growth": Section(
    "4 layers: what tokens/s depends on", TOY, (OURS,),
    (
      *(even(f"completions together={n}", n, 128, 3) for n in (1, 4, 16, 64, 128)),
      *(even(f"prompt tokens={n}", 16, 64, 3, prompt_tokens=n) for n in (16, 64, 256, 1024)),
      *(even(f"completion tokens={n}", 16, n, 3) for n in (16, 64, 256, 1024)),
      *(
        even(f"group size={n}", 64, 32, 3, group=n, prompt_tokens=256) for n in (1, 2, 4, 8, 16)
      ),
      *(
        Case(f"tokens between refills={n}", 8, LONG_TAIL, 512, 3, group=8, slots=16, burst=n)
        for n in (4, 16, 64)
      ),
    ),
  ),
}  # fmt: skip
