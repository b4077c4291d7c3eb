"""What does not fit is refused before it is taken, with a setting that does."""

import re

import pytest

from grpo_jax.errors import UserError
from grpo_jax.run.memory import check_memory

GIB = 2**30
SIZES = {"parameters": 8 * GIB, "KV cache": 32 * GIB, "logits": 4 * GIB}


def check(limit, multiple=4):
  check_memory(SIZES, limit=limit, slots=64, length=9216, multiple=multiple, key="rollout.slots")


def test_what_fits_is_not_refused():
  check(44 * GIB)


@pytest.mark.parametrize(("limit", "fits"), [(43, 60), (26, 32), (12, 4)])
def test_the_largest_setting_that_fits_is_named_and_fits(limit, fits):
  with pytest.raises(UserError, match=r"rollout.slots=64: a KV cache of 64 slots x 9,216") as error:
    check(limit * GIB)
  assert int(re.search(r"rollout.slots=(\d+) fits", str(error.value))[1]) == fits
  assert 8 + fits / 64 * 36 <= limit < 8 + (fits + 4) / 64 * 36


def test_where_no_slot_fits_other_ways_are_named():
  with pytest.raises(UserError, match="not even 4 would fit: split the model"):
    check(9 * GIB)
