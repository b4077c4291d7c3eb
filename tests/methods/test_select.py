"""Walking through a data set: nothing skipped, nothing repeated, wherever a run was cut."""

import numpy as np
import pytest

from grpo_jax.methods.choice import Budget
from grpo_jax.methods.ledger import empty_ledger
from grpo_jax.methods.select import ShuffledEpochs, shuffled_epochs
from tests.methods.evidence import streams


def permutation(epoch):
  return np.random.Generator(np.random.PCG64(epoch)).permutation(10)


@pytest.mark.parametrize("batch", [1, 3, 4, 10, 25])
def test_every_problem_once_an_epoch_whatever_the_batch_size(batch):
  walk = np.concatenate([shuffled_epochs(c, batch, 10, permutation) for c in range(0, 100, batch)])
  for epoch in range(len(walk) // 10):
    assert sorted(walk[epoch * 10 : epoch * 10 + 10]) == list(range(10))


def test_epochs_are_shuffled_differently():
  first, second = (shuffled_epochs(c, 10, 10, permutation) for c in (0, 10))
  assert list(first) != list(second)


def test_a_cut_changes_nothing():
  whole = shuffled_epochs(0, 37, 10, permutation)
  parts = [shuffled_epochs(0, 13, 10, permutation), shuffled_epochs(13, 24, 10, permutation)]
  np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_the_choice_is_that_walk_with_the_same_size_for_each():
  select, ledger = ShuffledEpochs(streams), empty_ledger(10, window=1)
  state, walk = select.start(empty_ledger(10, 1)), []
  for _ in range(5):
    choice, state = select(state, ledger, Budget(problems=4, samples=3))
    assert choice.copies_N.tolist() == [3, 3, 3, 3]
    walk += choice.place_N.tolist()
  assert walk == shuffled_epochs(0, 20, 10, lambda epoch: streams(epoch).permutation(10)).tolist()
