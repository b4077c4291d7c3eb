"""Every row once, within the budget, in few shapes, with little padding."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from grpo_jax.buckets import bucket
from grpo_jax.learner.packing import largest_pack, most_in_line, pack, schedule

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=60)


@given(LENGTHS, st.integers(200, 2000), st.sampled_from([1, 2, 8]), st.integers(0, 5))
def test_every_row_is_in_one_line_that_holds_it(lengths, tokens, shards, left_out):
  length_R = np.array(lengths)
  rows = np.arange(len(lengths))[left_out:]
  packs = pack(rows, length_R, longest=300, tokens=tokens, shards=shards)
  assert len({part.length for part in packs}) == len(packs)
  seen = []
  for part in packs:
    n, S, b = part.rows_nSb.shape
    assert shards == S
    assert b * part.length <= max(2 * tokens, part.length)
    assert part.line <= b * part.length
    assert part.line <= max(tokens, part.length)
    assert n * S >= len(lengths), "the shape must not depend on how many microbatches there are"
    assert (part.rows_nSb[part.count :] == len(lengths)).all()
    used = part.rows_nSb[: part.count]
    assert all((microbatch < len(lengths)).any() for microbatch in used)
    of_nobody = np.append(length_R, 0)
    assert (of_nobody[used] <= part.length).all()
    assert (of_nobody[used].sum(axis=2) <= part.line).all()
    seen.extend(used[used < len(lengths)])
  assert sorted(seen) == rows.tolist()


@given(LENGTHS, st.integers(200, 2000))
def test_sizes_are_few(lengths, tokens):
  """Each combination is a program."""
  packs = pack(np.arange(len(lengths)), np.array(lengths), longest=300, tokens=tokens, shards=1)
  for part in packs:
    assert part.length in {bucket(part.length), 300}
    rows, most = part.rows_nSb.shape[2], most_in_line(tokens, part.length)
    assert rows in quarters_of(most)
    assert part.line in {*quarters_of(max(tokens, part.length)), rows * part.length}


def quarters_of(most: int) -> set[int]:
  return {most, *(-(-most // 4) * quarters for quarters in (1, 2, 3))}


@given(LENGTHS, st.integers(200, 2000), st.sampled_from([1, 2, 8]))
def test_no_shape_is_larger_than_the_largest(lengths, tokens, shards):
  sizes = {"longest": 300, "tokens": tokens, "shards": shards}
  largest = largest_pack(len(lengths), **sizes)
  for part in pack(np.arange(len(lengths)), np.array(lengths), **sizes):
    assert part.line <= largest.line
    places, most = (p.rows_nSb.shape[2] * p.length for p in (part, largest))
    assert places <= 2 * tokens
    assert places < most + largest.length


def test_long_tailed_lengths_pay_for_little_padding():
  """Padded to the longest row, three quarters of the work would be padding."""
  rng = np.random.default_rng(0)
  length_R = np.minimum(64 + rng.exponential(128, 512).astype(int), 576)
  packs = pack(np.arange(512), length_R, longest=576, tokens=4096, shards=1)
  assert length_R.sum() / sum(part.tokens for part in packs) > 0.9
  assert sum(part.count for part in packs) <= np.ceil(length_R.sum() / 4096) + 1


def test_what_fits_one_microbatch_is_one_and_no_longer_than_it_has_to_be():
  (part,) = pack(np.arange(4), np.array([103, 140, 76, 87]), longest=192, tokens=768, shards=1)
  assert part.count == 1
  assert sorted(part.rows_nSb[0, 0]) == [0, 1, 2, 3]
  assert (part.length, part.line) == (192, 576)


def test_microbatches_are_about_as_full():
  """Not two full ones and a rest, which would be padded to their size."""
  packs = pack(np.arange(25), np.full(25, 16), longest=16, tokens=160, shards=1)
  assert [(part.count, part.line) for part in packs] == [(3, 160)]
  packs = pack(np.arange(21), np.full(21, 16), longest=16, tokens=160, shards=1)
  assert [(part.count, part.line) for part in packs] == [(3, 120)]


def test_no_bucket_is_longer_than_a_row_can_be():
  (part,) = pack(np.arange(2), np.array([20, 19]), longest=20, tokens=64, shards=1)
  assert part.length == 20


def test_a_row_beyond_the_budget_has_a_line_of_its_own():
  (part,) = pack(np.arange(2), np.array([20, 19]), longest=20, tokens=10, shards=1)
  assert part.rows_nSb[: part.count].tolist() == [[[0]], [[1]]]
  assert part.line == 20


def test_rows_of_full_length_have_no_padding():
  (part,) = pack(np.arange(6), np.full(6, 8704), longest=8704, tokens=20_000, shards=1)
  assert part.rows_nSb.shape[2] == 2
  assert (part.count, part.line) == (3, 2 * 8704)


def test_devices_share_the_long_rows():
  (part,) = pack(np.arange(4), np.array([16, 15, 14, 13]), longest=16, tokens=32, shards=2)
  assert part.rows_nSb[0].tolist() == [[0, 2], [1, 3]]


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
