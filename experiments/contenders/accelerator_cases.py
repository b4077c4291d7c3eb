"""Which optimizer steps are timed on an accelerator?"""

import dataclasses

from contenders.cases import long_tailed
from contenders.update_work import Batch, UpdateWork, draw
from grpo_jax.model.config import PUBLISHED, Qwen3Config

PROMPT_TOKENS = 128
TINY = Qwen3Config(
  vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
  num_attention_heads=2, num_key_value_heads=1, head_dim=16, rope_theta=1e4,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
  """Steps on `rows` rollouts of at most `length` tokens: all as long as that, or of a long tail."""

  model: str
  length: int
  remat: str
  rows: int
  ragged: bool = False
  microbatch_tokens: int = 16_384
  momentum_dtype: str = "float32"
  rounds: int = 3

  @property
  def key(self) -> str:
    return f"{self.model}, {self.length} tokens{' at most' if self.ragged else ''}, {self.remat}"

  @property
  def shape(self) -> Qwen3Config:
    return PUBLISHED.get(self.model, TINY)

  @property
  def longest(self) -> int:
    """Tokens of a completion."""
    return self.length - self.prompt_tokens

  @property
  def prompt_tokens(self) -> int:
    return min(PROMPT_TOKENS, self.length // 4)

  @property
  def completion_tokens(self) -> list[int]:
    if self.ragged:
      return list(long_tailed(self.rows, self.longest))
    return [self.longest] * self.rows

  @property
  def row_tokens(self) -> list[int]:
    return [self.prompt_tokens + tokens for tokens in self.completion_tokens]


def batch_of(case: Case, turn: int) -> Batch:
  """Random rollouts, others each turn."""
  return draw(
    UpdateWork(
      vocab_size=case.shape.vocab_size,
      prompt_tokens=case.prompt_tokens,
      completion_tokens=case.completion_tokens,
      longest=case.longest,
      microbatch_rows=1,
      seed=turn,
    )
  )


def _of_model(model: str, remats: dict[str, int], **choices) -> list[Case]:
  """32,768 tokens a step; `remats` says how many of them are in a microbatch at most."""
  return [
    Case(model, length, remat, 32_768 // length, microbatch_tokens=max(tokens, length), **choices)
    for length in (2048, 8192)
    for remat, tokens in remats.items()
  ]


# Fewer tokens a microbatch where 16,384 do not fit on a card of 80 GB. There, the first moment of
# 4B in bfloat16 leaves room for activations.
CASES = [
  *_of_model("qwen3_0p6b", {"block": 16_384, "elementwise": 16_384, "none": 16_384}),
  Case("qwen3_0p6b", 2048, "elementwise", rows=48, ragged=True),
  *_of_model("qwen3_1p7b", {"block": 16_384, "elementwise": 16_384, "none": 8192}),
  *_of_model(
    "qwen3_4b", {"block": 16_384, "elementwise": 4096}, momentum_dtype="bfloat16", rounds=2
  ),
]
QUICK = [
  Case("tiny", 64, "block", rows=8, microbatch_tokens=128, rounds=2),
  Case("tiny", 64, "block", rows=8, ragged=True, microbatch_tokens=128, rounds=2),
]
