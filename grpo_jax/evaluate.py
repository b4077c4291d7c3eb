"""How often is the model right on problems it was never trained on?"""

import numpy as np

from grpo_jax.answers import Answerer
from grpo_jax.data.prompts import Prompt
from grpo_jax.distribution import Decoding
from grpo_jax.model.qwen3 import Params
from grpo_jax.randomness import Purpose, key_for
from grpo_jax.records import Finish


def evaluate(
  answerer: Answerer,
  prepared: Params,
  prompts: list[Prompt],
  *,
  samples: int,
  seed: int,
  how: Decoding,
) -> dict[str, float]:
  """Accuracy over held-out prompts, each answered `samples` times.

  The noise is the same at every call, so a curve over training shows the policy's change alone.

  Returns:
    `eval/accuracy` (mean over all answers), its standard error over problems, the share of
    problems right at least once, truncated share and mean length.
  """
  copies_N = np.full(len(prompts), samples)
  answers = answerer(prepared, prompts, copies_N, key_for(seed, Purpose.EVAL), how)
  right_NS = np.reshape([bool(verdict) for verdict in answers.verdicts], (len(prompts), samples))
  by_problem = right_NS.mean(axis=1)
  return {
    "eval/accuracy": by_problem.mean(),
    "eval/accuracy_stderr": by_problem.std() / np.sqrt(len(prompts)),
    f"eval/pass_at_{samples}": right_NS.any(axis=1).mean(),
    "eval/truncated": np.mean(answers.samples.finish_R == Finish.LENGTH),
    "eval/length_mean": answers.samples.completion_len_R.mean(),
  }
