"""A prompt keeps the index of its problem, also after longer ones were dropped."""

import pytest

from grpo_jax.data.arithmetic import ALPHABET, arithmetic_problems
from grpo_jax.data.prompts import Prompt, tokenize_prompts
from grpo_jax.data.tokenizer import character_tokenizer
from grpo_jax.errors import UserError


@pytest.fixture(scope="module")
def problems():
  return arithmetic_problems(count=40, levels=(1, 3), seed=0, split="train")


@pytest.fixture(scope="module")
def tokenizer():
  return character_tokenizer(ALPHABET)


def test_prompts_are_the_encoded_questions(problems, tokenizer):
  prompts, dropped = tokenize_prompts(problems, tokenizer, "plain", max_tokens=8)
  assert dropped == 0
  assert prompts == [Prompt(i, tuple(tokenizer.encode(p.question))) for i, p in enumerate(problems)]


@pytest.mark.parametrize(("limit", "dropped"), [(3, 40), (4, 20), (7, 20), (8, 0)])
def test_the_limit_is_inclusive_and_drops_are_counted(problems, tokenizer, limit, dropped):
  # "7+8=" has 4 tokens, "651+791=" has 8.
  if dropped == len(problems):
    with pytest.raises(UserError, match=rf"at most {limit} tokens; the shortest of 40 has 4"):
      tokenize_prompts(problems, tokenizer, "plain", limit)
    return
  prompts, count = tokenize_prompts(problems, tokenizer, "plain", limit)
  assert (len(prompts), count) == (len(problems) - dropped, dropped)
  assert all(
    tokenizer.decode(prompt.tokens) == problems[prompt.problem].question for prompt in prompts
  )


def test_chat_prompts_decode_to_their_question(qwen3, problems):
  prompts, _ = tokenize_prompts(problems, qwen3, "chatml_boxed", max_tokens=1024)
  for prompt in prompts:
    assert problems[prompt.problem].question in qwen3.decode(prompt.tokens)
