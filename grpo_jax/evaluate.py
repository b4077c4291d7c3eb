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
  batch: int,
  seed: int,
  how: Decoding,
) -> dict[str, float]:
  """Accuracy over held-out prompts, each answered `samples` times.

  The noise is the same at every call, so a curve over training shows the policy's change alone.

  Args:
    batch: prompts asked at once; the last batch is filled up with prompts whose answers are not
      counted.

  Returns:
    `eval/accuracy` (mean over all answers), its standard error over problems, the share of
    problems right at least once, truncated share and mean length.
  """
  key = key_for(seed, Purpose.EVAL)
  right, truncated, lengths = [], [], []
  for start in range(0, len(prompts), batch):
    asked = prompts[start : start + batch]
    filled = asked + [prompts[0]] * (batch - len(asked))
    copies = np.full(batch, samples)
    answers = answerer(prepared, filled, copies, key, how)
    counted = slice(0, len(asked) * samples)
    right += [bool(verdict) for verdict in answers.verdicts[counted]]
    truncated += (answers.finish_R[counted] == Finish.LENGTH).tolist()
    lengths += answers.completion_len_R[counted].tolist()
  right_PS = np.reshape(right, (len(prompts), samples))
  by_problem = right_PS.mean(axis=1)
  return {
    "eval/accuracy": by_problem.mean(),
    "eval/accuracy_stderr": by_problem.std() / np.sqrt(len(prompts)),
    f"eval/pass_at_{samples}": right_PS.any(axis=1).mean(),
    "eval/truncated": np.mean(truncated),
    "eval/length_mean": np.mean(lengths),
  }
