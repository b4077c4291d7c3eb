"""Questions in, judged completions out: batches, order and noise."""

import jax
import numpy as np
import pytest

from grpo_jax.answers import Answerer, occurrence
from grpo_jax.data.arithmetic import ALPHABET, arithmetic_problems
from grpo_jax.data.prompts import tokenize_prompts
from grpo_jax.data.tokenizer import character_tokenizer
from grpo_jax.distribution import decoding
from grpo_jax.model.config import Qwen3Config
from grpo_jax.model.qwen3 import Qwen3, init_params
from grpo_jax.model.sharding import make_layout
from grpo_jax.sampling.sampler import Sampler
from grpo_jax.verify import Judges

PROBLEMS = arithmetic_problems(count=5, levels=(2,), seed=0, split="train")
TOKENIZER = character_tokenizer(ALPHABET)
PROMPTS, _ = tokenize_prompts(PROBLEMS, TOKENIZER, "plain", 6)
HOT = decoding(3.0, 0, 1.0, TOKENIZER.size)


@pytest.fixture(scope="module")
def ask():
  """ask(prompts, copies, slots) -> Answers of random weights."""
  config = Qwen3Config(
    vocab_size=TOKENIZER.size, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=1, head_dim=8, rope_theta=1e4,
  )  # fmt: skip
  model = Qwen3(config, make_layout(devices=jax.devices()[:1]))
  params = init_params(model, jax.random.key(0))
  with Judges(1) as judges:

    def ask(prompts, copies, slots):
      sampler = Sampler(model, slots=slots, burst=3)
      answerer = Answerer(
        sampler, TOKENIZER, judges, PROBLEMS, max_prompt_tokens=6, max_new_tokens=8
      )
      return answerer(sampler.prepare(params), prompts, np.array(copies), jax.random.key(1), HOT)

    yield ask


@pytest.mark.parametrize("slots", [2, 5, 16])
def test_slots_change_no_answer(ask, slots):
  """Uneven groups, an empty one, fewer slots than rollouts and more."""
  copies = [3, 1, 4, 0, 2]
  whole, parts = ask(PROMPTS, copies, 10), ask(PROMPTS, copies, slots)
  assert parts.texts == whole.texts
  assert len(set(whole.texts)) == 10, "equal answers would agree in any order"
  np.testing.assert_array_equal(parts.samples.tokens_RT, whole.samples.tokens_RT)
  np.testing.assert_array_equal(parts.group_R, [0, 0, 0, 1, 2, 2, 2, 2, 4, 4])
  assert parts.samples.finish_R.shape == (10,)
  assert len(parts.verdicts) == 10


def test_a_problem_asked_twice_in_a_step_is_answered_with_other_noise(ask):
  answers = ask([PROMPTS[0], PROMPTS[1], PROMPTS[0]], [2, 1, 2], 5)
  twice = [text for text, p in zip(answers.texts, answers.problem_R, strict=True) if p == 0]
  assert len(set(twice)) == 4


def test_occurrence_counts_equal_ids_before_each():
  np.testing.assert_array_equal(occurrence(np.array([7, 7, 3, 7, 3, 9])), [0, 1, 0, 2, 1, 0])
