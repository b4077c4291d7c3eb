"""DAPO's soft punishment by its numbers, 16,384 + 4,096 tokens."""

import numpy as np
import pytest

from grpo_jax.learner.overlong import overlong_penalty
from grpo_jax.records import Samples


@pytest.mark.parametrize(
  ("length", "penalty"), [(1, 0.0), (16384, 0.0), (18432, 0.5), (20479, 1 - 1 / 4096), (20480, 1.0)]
)
def test_by_the_papers_numbers(length, penalty):
  samples = Samples(None, None, np.array([length], np.int32), None, None)
  ours = overlong_penalty(samples, limit=20480, share=0.2)
  np.testing.assert_allclose(ours, [penalty], atol=1e-12)
