"""Which rows are trained on together? Planned on the host from the rows' lengths, in numpy.

An optimizer step's rows are sorted by length and cut into microbatches: as many rows as the token
budget holds at the length of the longest of them, rounded up to a bucket. So a microbatch costs
about the same whatever its rows' lengths are, almost none of it is padding, and each bucket has one
shape, to be compiled once.
"""

import flax.struct
import numpy as np

from grpo_jax.buckets import bucket


@flax.struct.dataclass
class Pack:
  """The microbatches of one bucket. R rows in all; index R stands where a place is free."""

  rows_nB: np.ndarray  # int32; n microbatches are as many as there could ever be
  count: int  # microbatches in use
  length: int = flax.struct.field(pytree_node=False)  # L, tokens a row is cut or padded to

  @property
  def tokens(self) -> int:
    """Trained on or not."""
    return self.count * self.rows_nB.shape[1] * self.length


def schedule(
  rows: np.ndarray, epochs: int, minibatches: int, shuffle: np.random.Generator
) -> list[np.ndarray]:
  """The rows of each optimizer step: every epoch deals all rows to `minibatches` steps.

  Args:
    rows: indices of the rows that learn. Where there are fewer than minibatches, there are fewer
      steps; one, without rows, where there are none.
    shuffle: this step's randomness.
  """
  dealt = [
    np.sort(part)
    for _ in range(epochs)
    for part in np.array_split(shuffle.permutation(rows), minibatches)
  ]
  return [part for part in dealt if len(part)] or [rows]


def pack(
  rows: np.ndarray, length_R: np.ndarray, *, longest: int, tokens: int, shards: int
) -> list[Pack]:
  """Cuts rows into microbatches, the longest rows first.

  A microbatch is filled up with rows of shorter buckets before one of a shorter bucket is begun:
  only the very last one has free places.

  Args:
    rows: indices into `length_R`, without repetition.
    length_R: tokens of each row, prompt and completion.
    longest: tokens a row can have; no bucket is longer.
    tokens: budget of one microbatch on one device.
    shards: devices that split a microbatch's rows; each gets as many long rows as the next.

  Returns:
    One Pack a bucket in use, the longest first.
  """
  left = rows[np.argsort(-length_R[rows], kind="stable")]
  of_length: dict[int, list[np.ndarray]] = {}
  while len(left):
    length = min(bucket(int(length_R[left[0]])), longest)
    size = shards * rows_within(tokens, length)
    of_length.setdefault(length, []).append(_deal(left[:size], size, shards, len(length_R)))
    left = left[size:]
  return [_stacked(length, parts, len(length_R)) for length, parts in of_length.items()]


def rows_within(tokens: int, length: int) -> int:
  """Rows of `length` tokens that a budget holds; at least one."""
  return max(1, tokens // length)


def _deal(rows: np.ndarray, size: int, shards: int, nobody: int) -> np.ndarray:
  """`size` places; neighbours by length go to different devices."""
  places = np.full(size, nobody, np.int32)
  places[: len(rows)] = rows
  return places.reshape(-1, shards).T.reshape(-1)


def _stacked(length: int, parts: list[np.ndarray], nobody: int) -> Pack:
  size = len(parts[0])
  rows_nB = np.full((-(-nobody // size), size), nobody, np.int32)
  rows_nB[: len(parts)] = parts
  return Pack(rows_nB, len(parts), length)
