"""Perplexities of prompts of many lengths are those of the plain formula, on one device and on
several, and new prompts of known lengths compile nothing."""

import numpy as np
import pytest

from grpo_jax.learner.perplexity import PromptPerplexity
from grpo_jax.sampling.sampler import Sampler
from tests.learner.test_logprobs import V, make

IDS = V - 4  # the model has four ids that the tokenizer does not know
LENGTHS = (1, 2, 5, 16, 17, 20, 3, 3, 9, 30, 24, 4, 7)


def prompts_of(seed):
  rng = np.random.default_rng(seed)
  return [tuple(rng.integers(0, IDS, length).tolist()) for length in LENGTHS]


def plainly(model, params, prompt):
  """All logits of all positions of one prompt, without padding."""
  tokens = np.array([prompt])
  hidden, _ = model.apply({"params": params}, tokens, np.arange(len(prompt))[None], None)
  logits = np.asarray(hidden[0] @ params["embedding"].T, np.float64)[:, :IDS]
  logp = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
  told = [logp[t, token] for t, token in enumerate(prompt[1:])]
  return np.exp(-np.mean(told)) if told else 1.0


@pytest.mark.parametrize("mesh", [None, (2, 2, 2)])
def test_perplexities_are_those_of_the_plain_formula(mesh):
  model, params = make()
  expected = [plainly(model, params, prompt) for prompt in prompts_of(0)]
  model, params = make(mesh)
  twin = model.clone(scan_layers=False)
  prepared = Sampler(model, slots=8).prepare(params)
  perplexity = PromptPerplexity(twin, num_ids=IDS, longest=30, microbatch_tokens=64)
  np.testing.assert_allclose(perplexity(prepared, prompts_of(0)), expected, rtol=1e-4)
  compiled = perplexity._of_rows._cache_size()
  assert compiled <= 4, "a program a bucket of lengths"
  perplexity(prepared, prompts_of(1)[::-1])
  assert perplexity._of_rows._cache_size() == compiled
