"""The memory told before a run is what XLA takes."""

import jax
import numpy as np
import pytest

from grpo_jax.distribution import decoding
from grpo_jax.model.config import from_shape
from grpo_jax.model.qwen3 import Qwen3
from grpo_jax.model.sharding import make_layout
from grpo_jax.sampling.memory import sampling_memory
from grpo_jax.sampling.sampler import Sampler


def model_of(vocabulary, mesh):
  shape = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "rope_theta": 1e6,
  }  # fmt: skip
  layout = make_layout(*mesh) if mesh else make_layout(devices=jax.devices()[:1])
  return Qwen3(from_shape(shape, vocab_size=vocabulary), layout)


@pytest.mark.parametrize(
  ("vocabulary", "slots", "length", "mesh"),
  [
    (151_936, 16, 256, None),  # logits and weights
    (4096, 64, 1024, None),  # the cache
    (151_936, 64, 512, (2, 2, 2)),
    (4096, 64, 2048, (4, 1, 2)),
  ],
)
def test_the_estimate_is_within_a_tenth_of_xlas_own_analysis(vocabulary, slots, length, mesh):
  model = model_of(vocabulary, mesh)
  sampler = Sampler(model, slots=slots)
  empty = jax.eval_shape(lambda: sampler._empty(length))
  how, eos = decoding(1.0, 0, 1.0, vocabulary), np.array([-1], np.int32)
  seen = sampler._burst.lower(sampler.prepared, empty, how, eos).compile().memory_analysis()
  outputs = seen.output_size_in_bytes - seen.alias_size_in_bytes
  peak = seen.argument_size_in_bytes + seen.temp_size_in_bytes + outputs
  told = sum(sampling_memory(model, sampler, slots=slots, length=length).values())
  assert told == pytest.approx(peak, rel=0.1)
