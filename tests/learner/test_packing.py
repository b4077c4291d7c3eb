"""Every row once, within the budget, in few shapes, with little padding."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from grpo_jax.learner.packing import pack, schedule

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=60)


@given(LENGTHS, st.integers(300, 2000), st.sampled_from([1, 2, 8]), st.integers(0, 5))
def test_every_row_is_in_one_microbatch_that_holds_it(lengths, tokens, shards, left_out):
  length_R = np.array(lengths)
  rows = np.arange(len(lengths))[left_out:]
  packs = pack(rows, length_R, longest=300, tokens=tokens, shards=shards)
  assert len({part.length for part in packs}) == len(packs)
  seen = []
  for part in packs:
    n, B = part.rows_nB.shape
    assert B % shards == 0
    assert B // shards * part.length <= tokens
    assert n * B >= len(lengths), "the shape must not depend on how many rows there are"
    assert (part.rows_nB[part.count :] == len(lengths)).all()
    used = part.rows_nB[: part.count]
    assert all((microbatch < len(lengths)).any() for microbatch in used)
    found = used[used < len(lengths)]
    assert (length_R[found] <= part.length).all()
    seen.extend(found)
  assert sorted(seen) == rows.tolist()


@given(LENGTHS, st.permutations(range(4)))
def test_only_the_last_microbatch_has_free_places(lengths, _):
  length_R = np.array(lengths)
  packs = pack(np.arange(len(lengths)), length_R, longest=300, tokens=600, shards=1)
  full = [microbatch for part in packs for microbatch in part.rows_nB[: part.count]]
  assert all((microbatch < len(lengths)).all() for microbatch in full[:-1])


def test_long_tailed_lengths_pay_for_little_padding():
  """Padded to the longest row, three quarters of the work would be padding."""
  rng = np.random.default_rng(0)
  length_R = np.minimum(64 + rng.exponential(128, 512).astype(int), 576)
  packs = pack(np.arange(512), length_R, longest=576, tokens=4096, shards=1)
  assert length_R.sum() / sum(part.tokens for part in packs) > 0.8


def test_no_bucket_is_longer_than_a_row_can_be():
  (part,) = pack(np.arange(2), np.array([20, 19]), longest=20, tokens=64, shards=1)
  assert part.length == 20


def test_devices_share_the_long_rows():
  (part,) = pack(np.arange(4), np.array([16, 15, 14, 13]), longest=16, tokens=32, shards=2)
  assert part.rows_nB[0].tolist() == [0, 2, 1, 3]


@pytest.mark.parametrize(
  ("learners", "minibatches", "sizes"),
  [(10, 1, [10]), (10, 3, [4, 3, 3]), (2, 4, [1, 1]), (0, 3, [0])],
)
def test_an_epoch_deals_every_row_once(learners, minibatches, sizes):
  rows = np.arange(learners) * 2
  parts = schedule(rows, 1, minibatches, np.random.default_rng(0))
  assert [len(part) for part in parts] == sizes
  assert sorted(np.concatenate(parts)) == rows.tolist()


def test_epochs_deal_differently():
  first, _, third, _ = schedule(np.arange(20), 2, 2, np.random.default_rng(0))
  assert set(first) != set(third)
