"""How likely does the policy find a prompt? exp(-1/T sum_t log pi(x_t | x_<t)), T the tokens that
have others before them: a first token is predicted by nothing.

One forward pass a microbatch of prompts of about the same length, whose logits never exist together
(learner/vocabulary.py). The whole prompt counts, template included: what all prompts share moves
their perplexities alike.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from grpo_jax.distribution import decoding
from grpo_jax.learner.logprobs import sample_log_probs
from grpo_jax.learner.packing import pack
from grpo_jax.model.qwen3 import Params, Qwen3
from grpo_jax.records import Samples


class PromptPerplexity:
  """Compiles the measurement for a model."""

  def __init__(self, model: Qwen3, *, num_ids: int, longest: int, microbatch_tokens: int):
    """
    Args:
      model: as the policy's parameters are laid out.
      num_ids: ids the tokenizer knows.
      longest: tokens a prompt can have.
      microbatch_tokens: of one forward pass on one device, padding included.
    """
    self._layout, self._longest, self._tokens = model.layout, longest, microbatch_tokens
    self._how = decoding(1.0, 0, 1.0, num_ids)

    def of_rows(params: Params, samples: Samples, how, line: int) -> jax.Array:
      logp_BT, _ = sample_log_probs(model, params, samples, how, line)
      return jnp.exp(-logp_BT.sum(axis=1) / jnp.maximum(samples.completion_len_R, 1))

    self._of_rows = jax.jit(
      of_rows, static_argnames="line", out_shardings=model.layout.replicated
    )

  def __call__(self, params: Params, prompts: Sequence[Sequence[int]]) -> np.ndarray:
    """float64 [N]."""
    length_N = np.array([len(prompt) for prompt in prompts])
    packs = pack(
      np.arange(len(prompts)),
      length_N,
      longest=self._longest,
      tokens=self._tokens,
      shards=self._layout.batch_shards,
    )
    perplexity_N = np.zeros(len(prompts))
    for part in packs:
      for row_B in part.rows_nSb[: part.count].reshape(part.count, -1):
        samples = self._layout.split_rows(_all_but_the_first(prompts, row_B, part.length))
        of_row_B = jax.block_until_ready(self._of_rows(params, samples, self._how, part.line))
        taken_B = row_B < len(prompts)
        perplexity_N[row_B[taken_B]] = np.asarray(of_row_B)[taken_B]
    return perplexity_N


def _all_but_the_first(prompts: Sequence[Sequence[int]], row_B: np.ndarray, length: int) -> Samples:
  """Prompts as if their first token were the prompt and the rest its completion; rows of no prompt
  are empty."""
  tokens_BT = np.zeros((len(row_B), length), np.int32)
  length_B = np.zeros(len(row_B), np.int32)
  for b, row in enumerate(row_B):
    if row < len(prompts):
      length_B[b] = len(prompts[row])
      tokens_BT[b, : length_B[b]] = prompts[row]
  return Samples(
    tokens_RT=tokens_BT,
    prompt_len_R=np.minimum(length_B, 1),
    completion_len_R=np.maximum(length_B - 1, 0),
    behaviour_logp_RT=np.zeros(tokens_BT.shape, np.float32),
    finish_R=np.zeros(len(row_B), np.int32),
  )
