"""The contender grpo_jax: prompts read once a group, slots that refill, a limit a rollout."""

import functools
import importlib.metadata
import time

import jax
import jax.numpy as jnp
import numpy as np

from contenders.protocol import Sample, Setup, Work, serve
from grpo_jax.distribution import decoding
from grpo_jax.model.config import Qwen3Config
from grpo_jax.model.qwen3 import Qwen3, init_params
from grpo_jax.model.sharding import make_layout
from grpo_jax.randomness import Purpose, key_for, rollout_keys
from grpo_jax.sampling.sampler import Requests, Sampler

MOST_PROMPTS_READ_TOGETHER = 8
NO_EOS = np.array([-1], np.int32)


def load(setup: Setup) -> tuple[Sample, dict]:
  """A model with random weights, prepared as once a sampling phase."""
  layout = make_layout(devices=jax.devices()[:1])
  model = Qwen3(Qwen3Config(**setup.shape), layout, dtype=jnp.dtype(setup.dtype))

  @functools.cache
  def sampler(slots: int, prompts: int, burst: int | None) -> Sampler:
    options = {} if burst is None else {"burst": burst}
    return Sampler(model, slots=slots, prefill=prompts, **options)

  params = jax.block_until_ready(init_params(model, key_for(0, Purpose.INIT)))
  start = time.perf_counter()
  prepared = jax.block_until_ready(sampler(1, 1, None).prepare(params))
  prepare_seconds = time.perf_counter() - start

  def sample(work: Work) -> list[np.ndarray]:
    prompts = min(MOST_PROMPTS_READ_TOGETHER, len(work.prompts))
    how = decoding(1.0, 0, work.top_p, model.config.vocab_size)
    stream = sampler(work.slots, prompts, work.burst).stream
    completions: list[np.ndarray] = [NO_EOS] * len(work.new_tokens)
    for part in stream(prepared, requests(work), how, NO_EOS):
      for rollout, tokens in zip(part.rollout_F, part.tokens, strict=True):
        completions[rollout] = tokens
    return completions

  versions = {name: importlib.metadata.version(name) for name in ("jax", "flax")}
  return sample, {"versions": versions, "prepare_seconds": prepare_seconds}


def requests(work: Work) -> Requests:
  """The work in our words."""
  prompt_of_R = np.repeat(np.arange(len(work.prompts), dtype=np.int32), work.group)
  sample_R = np.tile(np.arange(work.group, dtype=np.int32), len(work.prompts))
  return Requests(
    prompts=[np.array(prompt, np.int32) for prompt in work.prompts],
    prompt_of_R=prompt_of_R,
    limit_R=np.array(work.new_tokens, np.int32),
    keys_R=rollout_keys(key_for(work.seed, Purpose.ROLLOUT), prompt_of_R, sample_R),
  )


if __name__ == "__main__":
  serve(load)
