"""Questions in, judged completions out: sampling and verification composed, for training and for
evaluation alike."""

import dataclasses
import time
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
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
  verify_seconds: float  # what verification took after the last completion was there


class Answerer:
  """Samples completions of a problem set's prompts and has them judged.

  Rollouts are decoded `rows_at_once` at a time, which bounds the KV cache; while one batch decodes,
  the one before it is verified.
  """

  def __init__(
    self,
    sampler: Sampler,
    tokenizer: Tokenizer,
    verifier: VerifierPool,
    problems: ProblemSet,
    *,
    rows_at_once: int,
    max_prompt_tokens: int,
    max_new_tokens: int,
  ):
    self._sampler, self._tokenizer, self._verifier = sampler, tokenizer, verifier
    self._problems, self._rows_at_once = problems, rows_at_once
    self._max_prompt_tokens, self._max_new_tokens = max_prompt_tokens, max_new_tokens
    self._eos_ids_E = np.array(tokenizer.eos_ids, np.int32)

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
    golds = [self._problems[p].answer for p in problem_R]
    batches, parts, texts, verdicts = [], [], [], []
    for rows, requests in self._requests(prompts, group_R, problem_R, key):
      batches.append(self._sampler.generate(prepared, requests, how, self._eos_ids_E))
      parts.append(_first_rows(jax.device_get(batches[-1]), len(rows)))
      texts += self._texts(parts[-1])
      verdicts += self._verifier.submit_all(texts[rows.start :], golds[rows.start : rows.stop])
    sampled = time.perf_counter()
    host = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    return Answers(
      samples=_join(batches, len(group_R)),
      problem_R=problem_R,
      group_R=group_R,
      texts=texts,
      verdicts=[verdict.result() for verdict in verdicts],
      prompt_len_R=host.prompt_len_R,
      completion_len_R=host.completion_len_R,
      finish_R=host.finish_R,
      sample_seconds=sampled - start,
      verify_seconds=time.perf_counter() - sampled,
    )

  def _requests(self, prompts, group_R, problem_R, key) -> Iterator[tuple[range, Requests]]:
    """Yields the rows of each batch and what to sample for them. All batches have one shape: the
    last is filled up with rows of no tokens, and each with copies of its first prompt."""
    B, R = self._rows_at_once, len(group_R)
    occurrence_R = occurrence(problem_R)
    batches = [range(start, min(start + B, R)) for start in range(0, R, B)]
    asked = [np.unique(group_R[rows.start : rows.stop]) for rows in batches]
    prompt_count = max(map(len, asked))
    for rows, groups in zip(batches, asked, strict=True):
      these = np.array([*rows, *[rows.start] * (B - len(rows))])
      chosen = np.concatenate([groups, np.repeat(groups[:1], prompt_count - len(groups))])
      tokens = [np.array(prompts[n].tokens, np.int32) for n in chosen]
      prompts_NP, prompt_len_N = pad_prompts(tokens, self._max_prompt_tokens)
      yield rows, Requests(
        prompts_NP=prompts_NP,
        prompt_len_N=prompt_len_N,
        prompt_of_R=np.searchsorted(groups, group_R[these]).astype(np.int32),
        limit_R=np.where(np.arange(B) < len(rows), self._max_new_tokens, 0).astype(np.int32),
        keys_R=rollout_keys(key, problem_R[these], occurrence_R[these]),
      )

  def _texts(self, host: Samples) -> list[str]:
    ends_R = host.prompt_len_R + host.completion_len_R
    rows = zip(host.tokens_RT, host.prompt_len_R, ends_R, strict=True)
    return [self._tokenizer.decode(tokens[start:end]) for tokens, start, end in rows]


def _join(batches: list[Samples], rows: int) -> Samples:
  """The first `rows` rows of all batches, on the device."""
  if len(batches) == 1 and batches[0].finish_R.shape[0] == rows:
    return batches[0]
  return _first_rows(jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *batches), rows)


def _first_rows(samples: Samples, rows: int) -> Samples:
  return jax.tree.map(lambda leaf: leaf[:rows], samples)


def occurrence(ids_R: np.ndarray) -> np.ndarray:
  """How many equal ids stand before each one: the sample index of a rollout of its problem, also
  where a step asks a problem twice. int32 [R]."""
  seen: dict[int, int] = {}
  counts = []
  for i in ids_R.tolist():
    counts.append(seen.get(i, 0))
    seen[i] = counts[-1] + 1
  return np.array(counts, np.int32)
