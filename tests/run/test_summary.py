"""The sentences a run begins with: "batch size" must not be left to guessing."""

import pytest

from grpo_jax.run.summary import batch_sentence, memory_sentence, short_memory_warning


@pytest.mark.parametrize(
  ("numbers", "sentence"),
  [
    (
      {"problems": 16, "samples": 8, "replayed": 64},
      "Each step: 16 problems x 8 samples = 128 rollouts, + up to 64 replayed, "
      "1 optimizer step, microbatches of 16,384 tokens.",
    ),
    (
      {"problems": 1, "samples": 1, "replayed": 0},
      "Each step: 1 problem x 1 sample = 1 rollout, "
      "1 optimizer step, microbatches of 16,384 tokens.",
    ),
    (
      {"problems": 512, "samples": 16, "replayed": 1, "optimizer_steps": 8},
      "Each step: 512 problems x 16 samples = 8,192 rollouts, + up to 1 replayed, "
      "8 optimizer steps, microbatches of 16,384 tokens.",
    ),
  ],
)
def test_batch_sentence(numbers, sentence):
  assert batch_sentence(**{"optimizer_steps": 1, "microbatch_tokens": 16_384} | numbers) == sentence


def test_memory_sentence_adds_up_and_keeps_its_order():
  sentence = memory_sentence(
    {"parameters": 3_200_000, "optimizer": 6_400_000, "replay store": 1_100_000},
    notes={"replay store": "512 rollouts"},
  )
  assert sentence == (
    "Memory on each device: parameters 3.20 MB, optimizer 6.40 MB, "
    "replay store 1.10 MB (512 rollouts); 10.7 MB in all."
  )


@pytest.mark.parametrize(
  ("capacity", "max_age", "told"),
  [
    (320, 20, ""),
    (319, 20, "comes again after 10 steps, when the store keeps the last 9 at most"),
    (4096, 4, "the last 4 at most"),
  ],
)
def test_a_store_that_forgets_before_a_problem_comes_again_is_told(capacity, max_age, told):
  warning = short_memory_warning(
    training_problems=79, problems=8, samples=4, capacity=capacity, max_age=max_age
  )
  assert told in warning and bool(warning) == bool(told)
