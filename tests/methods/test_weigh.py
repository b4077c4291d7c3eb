"""How much rollouts count: hand-drawn weights."""

import numpy as np
import pytest

from grpo_jax.methods.weigh import LEAST, WEIGH

SURPRISE = np.array([1.0, 3.0, np.nan, 2.0, 0.0])


@pytest.mark.parametrize(
  ("name", "keep", "expected"),
  [
    ("equal", [1, 1, 0, 0, 1], [1, 1, 0, 0, 1]),
    ("relative_entropy", [1, 1, 0, 0, 0], [0.5, 1.5, 0, 0, 0]),
    ("relative_entropy", [1, 1, 0, 1, 0], [0.5, 1.5, 0, 1, 0]),
    # certain of every token: next to nothing, but it learns
    ("relative_entropy", [0, 0, 0, 1, 1], [0, 0, 0, 2, LEAST]),
    ("relative_entropy", [0, 0, 0, 0, 1], [0, 0, 0, 0, LEAST]),
    ("relative_entropy", [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]),
  ],
)
def test_weigh(name, keep, expected):
  weights = WEIGH[name](SURPRISE, np.array(keep, bool))
  np.testing.assert_allclose(weights, expected)
