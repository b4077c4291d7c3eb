"""What a row weighs: by hand, and the same however rows fall into microbatches."""

import numpy as np
import pytest

from grpo_jax.learner.aggregate import AGGREGATES
from tests.learner.choices import make_surrogate
from tests.learner.test_update import assert_close, make_model, random_rollouts, step

LENGTH = np.array([4, 1, 5, 3])
LEARNS = np.array([True, True, False, True])
BY_HAND = {
  "token_mean": [1 / 8, 1 / 8, 0, 1 / 8],
  "sequence_mean": [1 / 12, 1 / 3, 0, 1 / 9],
  "constant": [1 / 30, 1 / 30, 0, 1 / 30],
}


@pytest.mark.parametrize("name", AGGREGATES)
def test_by_hand(name):
  np.testing.assert_allclose(AGGREGATES[name](LENGTH, LEARNS, 10), BY_HAND[name], rtol=1e-6)


@pytest.mark.parametrize("name", AGGREGATES)
def test_nothing_to_learn_from_divides_by_nothing(name):
  assert (np.asarray(AGGREGATES[name](0 * LENGTH, LEARNS & False, 10)) == 0).all()


def test_the_split_into_microbatches_changes_nothing():
  """A mean of means of microbatches weighs rows by their neighbours."""
  model, params = make_model()
  surrogate = make_surrogate(aggregate="sequence_mean", entropy_coef=0.1)
  fresh = random_rollouts(model, params, 9, drift=0.3)
  replayed = random_rollouts(model, params, 3, seed=1, drift=0.3)
  fresh = fresh.replace(weight_R=np.array([1, 0, 1, 1, 0, 1, 1, 1, 1], np.float32))
  whole, metrics = step(model, params, fresh, replayed, surrogate=surrogate, micro=12)
  parts, in_parts = step(model, params, fresh, replayed, surrogate=surrogate, micro=3)
  assert_close(parts, whole)
  for metric, value in metrics.items():
    if metric not in ("train/microbatches", "train/padding"):
      np.testing.assert_allclose(in_parts[metric], value, rtol=1e-4, atol=1e-6, err_msg=metric)
