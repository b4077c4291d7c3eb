"""Problems in, judged samples out, one at a time: evaluation, in training and of a finished model.

What training keeps of a rollout (its tokens and log-probabilities) would fill the memory at 64
samples of 32,768 tokens, so it is not kept here, and a sample is handed on as soon as it is judged.
"""

import collections
from collections.abc import Iterator, Sequence

import numpy as np

from grpo_jax import hosts
from grpo_jax.data.problems import ProblemSet
from grpo_jax.data.prompts import Prompt
from grpo_jax.data.tokenizer import Tokenizer
from grpo_jax.distribution import Decoding
from grpo_jax.evaluation.samples import JudgedSample
from grpo_jax.evaluation.scores import describe, tally
from grpo_jax.model.qwen3 import Params
from grpo_jax.randomness import Purpose, key_for, rollout_keys
from grpo_jax.records import Finish
from grpo_jax.sampling.sampler import Finished, Requests, Sampler
from grpo_jax.verify import Judges


class Examiner:
  """Samples answers to a problem set's prompts and has each judged while others decode. With
  several hosts, the first one judges and the others yield nothing."""

  def __init__(
    self,
    sampler: Sampler,
    tokenizer: Tokenizer,
    judges: Judges,
    problems: ProblemSet,
    *,
    max_new_tokens: int,
  ):
    self._sampler, self._tokenizer, self._judges = sampler, tokenizer, judges
    self._problems, self._max_new_tokens = problems, max_new_tokens

  def __call__(
    self,
    prepared: Params,
    prompts: Sequence[Prompt],
    asked: Sequence[tuple[int, int]],
    *,
    seed: int,
    how: Decoding,
    purpose: Purpose = Purpose.EVAL,
  ) -> Iterator[JudgedSample]:
    """Yields a sample for each (index in `prompts`, number of the sample), as they are done.

    A sample's noise is a function of seed and purpose, its problem and its number, so it is the
    same whatever else is asked, in whatever order and on however many devices.

    Args:
      prepared: of `Sampler.prepare`.
      asked: pairs; those of one prompt stand next to each other.
    """
    if not asked:
      return
    prompt_R, sample_R = np.array(asked, np.int32).T
    problem_R = np.array([prompts[n].problem for n in prompt_R], np.int32)
    requests = Requests(
      prompts=[np.array(prompt.tokens, np.int32) for prompt in prompts],
      prompt_of_R=prompt_R,
      limit_R=np.full(len(asked), self._max_new_tokens, np.int32),
      keys_R=rollout_keys(key_for(seed, purpose), problem_R, sample_R),
    )
    eos_ids_E = np.array(self._tokenizer.eos_ids, np.int32)
    waiting: collections.deque = collections.deque()
    for finished in self._sampler.stream(prepared, requests, how, eos_ids_E):
      if not hosts.is_first():
        continue
      waiting.extend(self._submit(finished, problem_R, sample_R))
      while waiting and waiting[0][1].done():
        yield _judged(*waiting.popleft())
    for fields, verdict in waiting:
      yield _judged(fields, verdict)

  def _submit(self, finished: Finished, problem_R, sample_R) -> Iterator[tuple]:
    """Hands completions to the verifier; yields all else that is known of them, and its promise."""
    texts = [self._tokenizer.decode(tokens) for tokens in finished.tokens]
    problems = [self._problems[problem_R[r]] for r in finished.rollout_F]
    golds = [problem.answer for problem in problems]
    verdicts = self._judges.submit_all(texts, golds, [problem.judge for problem in problems])
    for f, r in enumerate(finished.rollout_F):
      fields = {
        "problem": int(problem_R[r]),
        "sample": int(sample_R[r]),
        "completion": texts[f],
        "length": len(finished.tokens[f]),
        "finish": _finish(finished.finish_F[f]),
        "gold": golds[f],
      }
      yield fields, verdicts[f]


def examine(
  examiner: Examiner,
  prepared: Params,
  *,
  name: str,
  prompts: Sequence[Prompt],
  samples: int,
  seed: int,
  how: Decoding,
) -> dict[str, float]:
  """The numbers of `evaluation.scores.describe` over held-out prompts, as `name/...`.

  The noise is the same at every call, so a curve over training shows the policy's change alone.
  """
  asked = [(n, s) for n in range(len(prompts)) for s in range(samples)]
  judged = list(examiner(prepared, prompts, asked, seed=seed, how=how))
  metrics = {}
  if hosts.is_first():
    scores = tally(judged, [prompt.problem for prompt in prompts], samples)
    metrics = {f"{name}/{score}": value for score, value in describe(scores).items()}
  return hosts.of_first(metrics)


def _finish(number: int) -> str:
  """`stop`, which is what everyone calls it, or the name of another end."""
  return "stop" if number == Finish.EOS else Finish(number).name.lower()


def _judged(fields: dict, promise) -> JudgedSample:
  verdict = promise.result()
  return JudgedSample(
    **fields, verdict=verdict.outcome.value, reason=verdict.reason, answer=verdict.answer
  )
