"""Questions in, judged completions out: sampling and verification composed, for training and for
evaluation alike."""

import dataclasses
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from grpo_jax import hosts
from grpo_jax.data.problems import ProblemSet
from grpo_jax.data.prompts import Prompt
from grpo_jax.data.tokenizer import Tokenizer
from grpo_jax.distribution import Decoding
from grpo_jax.model.qwen3 import Params
from grpo_jax.randomness import rollout_keys
from grpo_jax.records import Samples
from grpo_jax.sampling.sampler import Requests, Sampler, collect_samples
from grpo_jax.verify import Judges, Outcome, Verdict


@dataclasses.dataclass(frozen=True)
class Answers:
  """R judged completions, on the host."""

  samples: Samples  # numpy
  problem_R: np.ndarray  # int32, index in the problem set
  group_R: np.ndarray  # int32, which of the prompts asked
  texts: list[str]
  verdicts: list[Verdict]
  sample_seconds: float
  verify_seconds: float  # what verification took after the last completion was there


class Answerer:
  """Samples completions of a problem set's prompts and has each judged while others decode. With
  several hosts, each judges its share of them."""

  def __init__(
    self,
    sampler: Sampler,
    tokenizer: Tokenizer,
    judges: Judges,
    problems: ProblemSet,
    *,
    max_prompt_tokens: int,
    max_new_tokens: int,
    check_stop: Callable[[], None] = lambda: None,
  ):
    """check_stop: called between bursts of decoding; what it raises ends the answering."""
    self._sampler, self._tokenizer, self._judges = sampler, tokenizer, judges
    self._problems, self._check_stop = problems, check_stop
    self._max_new_tokens, self._length = max_new_tokens, max_prompt_tokens + max_new_tokens
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
    requests = Requests(
      prompts=[np.array(prompt.tokens, np.int32) for prompt in prompts],
      prompt_of_R=group_R,
      limit_R=np.full(len(group_R), self._max_new_tokens, np.int32),
      keys_R=rollout_keys(key, problem_R, occurrence(problem_R)),
    )
    parts, texts, judged = [], {}, {}
    for finished in self._sampler.stream(prepared, requests, how, self._eos_ids_E):
      self._check_stop()
      parts.append(finished)
      decoded = [self._tokenizer.decode(tokens) for tokens in finished.tokens]
      texts |= zip(finished.rollout_F, decoded, strict=True)
      mine = [r for r in finished.rollout_F.tolist() if hosts.is_mine(r)]
      problems = [self._problems[problem_R[r]] for r in mine]
      promises = self._judges.submit_all(
        [texts[r] for r in mine],
        [problem.answer for problem in problems],
        [problem.judge for problem in problems],
      )
      judged |= zip(mine, promises, strict=True)
    sampled = time.perf_counter()
    verdicts = share_verdicts({r: promise.result() for r, promise in judged.items()})
    rows = range(len(group_R))
    return Answers(
      samples=collect_samples(requests, parts, self._length),
      problem_R=problem_R,
      group_R=group_R,
      texts=[texts[r] for r in rows],
      verdicts=[verdicts[r] for r in rows],
      sample_seconds=sampled - start,
      verify_seconds=time.perf_counter() - sampled,
    )


def share_verdicts(judged: dict[int, Verdict]) -> dict[int, Verdict]:
  """By rollout, those of all hosts."""
  told = [(r, dataclasses.asdict(v) | {"outcome": v.outcome.value}) for r, v in judged.items()]
  return {
    r: Verdict(**fields | {"outcome": Outcome(fields["outcome"])})
    for of_host in hosts.exchange(told)
    for r, fields in of_host
  }


def occurrence(ids_R: np.ndarray) -> np.ndarray:
  """How many equal ids stand before each one: the sample index of a rollout of its problem, also
  where a step asks a problem twice. int32 [R]."""
  seen: dict[int, int] = {}
  counts = []
  for i in ids_R.tolist():
    counts.append(seen.get(i, 0))
    seen[i] = counts[-1] + 1
  return np.array(counts, np.int32)
