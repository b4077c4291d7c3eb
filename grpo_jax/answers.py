"""Questions in, judged completions out: sampling and verification composed, for training and for
evaluation alike."""

import dataclasses
import time
from collections.abc import Sequence

import jax
import numpy as np

from grpo_jax.data.problems import ProblemSet
from grpo_jax.data.prompts import Prompt
from grpo_jax.data.tokenizer import Tokenizer
from grpo_jax.distribution import Decoding
from grpo_jax.model.qwen3 import Params
from grpo_jax.randomness import rollout_keys
from grpo_jax.records import Samples
from grpo_jax.sampling.sampler import Requests, Sampler, pad_prompts
from grpo_jax.verify import Verdict, VerifierPool


@dataclasses.dataclass(frozen=True)
class Answers:
  """R judged completions: on the device for training, on the host for people."""

  samples: Samples  # on the device
  problem_R: np.ndarray  # int32, index in the problem set
  group_R: np.ndarray  # int32, which of the prompts asked
  texts: list[str]
  verdicts: list[Verdict]
  prompt_len_R: np.ndarray
  completion_len_R: np.ndarray
  finish_R: np.ndarray
  sample_seconds: float
  verify_seconds: float


class Answerer:
  """Samples completions of a problem set's prompts and has them judged."""

  def __init__(
    self,
    sampler: Sampler,
    tokenizer: Tokenizer,
    verifier: VerifierPool,
    problems: ProblemSet,
    *,
    max_prompt_tokens: int,
    max_new_tokens: int,
  ):
    self._sampler, self._tokenizer, self._verifier = sampler, tokenizer, verifier
    self._problems = problems
    self._max_prompt_tokens, self._max_new_tokens = max_prompt_tokens, max_new_tokens

  def __call__(
    self,
    prepared: Params,
    prompts: Sequence[Prompt],
    copies_N: np.ndarray,
    key: jax.Array,
    how: Decoding,
  ) -> Answers:
    """Answers prompt n `copies_N[n]` times.

    Args:
      prepared: of `Sampler.prepare`.
      key: randomness of this call; a rollout's noise depends on it, its problem and its place among
        the rollouts of that problem.
    """
    start = time.perf_counter()
    group_R = np.repeat(np.arange(len(prompts), dtype=np.int32), copies_N)
    problem_R = np.array([prompts[n].problem for n in group_R], np.int32)
    requests = self._requests(prompts, group_R, problem_R, key)
    eos_ids_E = np.array(self._tokenizer.eos_ids, np.int32)
    samples = self._sampler.generate(prepared, requests, how, eos_ids_E)
    host = jax.device_get(samples)
    sampled = time.perf_counter()
    texts = self._texts(host)
    golds = [self._problems[p].answer for p in problem_R]
    verdicts = self._verifier.verify_all(texts, golds)
    return Answers(
      samples=samples,
      problem_R=problem_R,
      group_R=group_R,
      texts=texts,
      verdicts=verdicts,
      prompt_len_R=host.prompt_len_R,
      completion_len_R=host.completion_len_R,
      finish_R=host.finish_R,
      sample_seconds=sampled - start,
      verify_seconds=time.perf_counter() - sampled,
    )

  def _requests(self, prompts, group_R, problem_R, key) -> Requests:
    tokens = [np.array(prompt.tokens, np.int32) for prompt in prompts]
    prompts_NP, prompt_len_N = pad_prompts(tokens, self._max_prompt_tokens)
    limit_R = np.full(len(group_R), self._max_new_tokens, np.int32)
    keys_R = rollout_keys(key, problem_R, occurrence(problem_R))
    return Requests(prompts_NP, prompt_len_N, group_R, limit_R, keys_R)

  def _texts(self, host: Samples) -> list[str]:
    ends_R = host.prompt_len_R + host.completion_len_R
    rows = zip(host.tokens_RT, host.prompt_len_R, ends_R, strict=True)
    return [self._tokenizer.decode(tokens[start:end]) for tokens, start, end in rows]


def occurrence(ids_R: np.ndarray) -> np.ndarray:
  """How many equal ids stand before each one: the sample index of a rollout of its problem, also
  where a step asks a problem twice. int32 [R]."""
  seen: dict[int, int] = {}
  counts = []
  for i in ids_R.tolist():
    counts.append(seen.get(i, 0))
    seen[i] = counts[-1] + 1
  return np.array(counts, np.int32)
