"""Which rows are trained on together? Planned on the host from the rows' lengths, in numpy.

An optimizer step's rows are dealt to as few microbatches as the token budget allows, the longest
first. Those of one device lie end to end in a line (model/lines.py) that is, but for rounding, as
long as they are: almost nothing is padding. Attention alone pays for rows padded to a bucket, which
is why rows of about the same length stand together. All sizes are rounded to few, since each
combination is a program: a line's rows and its tokens to quarters of the most that it may have.
"""

import bisect

import flax.struct
import numpy as np

from grpo_jax.buckets import bucket


@flax.struct.dataclass
class Pack:
  """The microbatches of one bucket. R rows in all; index R stands where a place is free."""

  rows_nSb: np.ndarray  # int32, S devices; n microbatches are as many as there could ever be
  count: int  # microbatches in use
  length: int = flax.struct.field(pytree_node=False)  # L, tokens a row is cut or padded to
  line: int = flax.struct.field(pytree_node=False)  # N, tokens of a device's rows, end to end

  @property
  def tokens(self) -> int:
    """Trained on or not."""
    return self.count * self.rows_nSb.shape[1] * self.line


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
  """Deals rows to microbatches, the longest rows first.

  Args:
    rows: indices into `length_R`, without repetition.
    length_R: tokens of each row, prompt and completion; at least one.
    longest: tokens a row can have; no bucket is longer.
    tokens: budget of one microbatch on one device; a longer row has a line of its own.
    shards: devices that split a microbatch's rows; each gets as many long rows as the next.

  Returns:
    One Pack a bucket in use, the longest first.
  """
  left = rows[np.argsort(length_R[rows], kind="stable")].tolist()
  of_length: dict[int, list[list[list[int]]]] = {}
  while left:
    length = min(bucket(int(length_R[left[-1]])), longest)
    of_length.setdefault(length, []).append(_deal(left, length_R, length, tokens, shards))
  return [_stacked(parts, length_R, length, tokens) for length, parts in of_length.items()]


def largest_pack(rows: int, *, longest: int, tokens: int, shards: int) -> Pack:
  """The shape that takes the most memory of those that `pack` may give to so many rows."""
  most = most_in_line(tokens, longest)
  rows_nSb = np.full((-(-rows // shards), shards, most), rows, np.int32)
  return Pack(rows_nSb, 1, longest, min(max(tokens, longest), most * longest))


def rows_within(tokens: int, length: int) -> int:
  """Rows of `length` tokens that a budget holds; at least one."""
  return max(1, tokens // length)


def most_in_line(tokens: int, length: int) -> int:
  """Rows of a line: padded to `length`, as attention has them, they are twice the budget."""
  return rows_within(2 * tokens, length)


def _deal(
  left: list[int], length_R: np.ndarray, length: int, tokens: int, shards: int
) -> list[list[int]]:
  """Takes a microbatch out of `left`, rows sorted by length: those of each device.

  Lines take turns, and each time the longest row that fits, until they hold their share: as many
  tokens as makes all microbatches to come about as full.
  """
  total = int(length_R[left].sum())
  share = total / (shards * -(-total // (shards * tokens)))
  most = most_in_line(tokens, length)
  lines: list[list[int]] = [[] for _ in range(shards)]
  used_S = np.zeros(shards, int)
  growing = list(range(shards))
  while growing:
    for s in tuple(growing):
      fitting = bisect.bisect(left, max(tokens, length) - used_S[s], key=length_R.__getitem__)
      if fitting and used_S[s] < share and len(lines[s]) < most:
        lines[s].append(left.pop(fitting - 1))
        used_S[s] += length_R[lines[s][-1]]
      else:
        growing.remove(s)
  return lines


def _stacked(
  parts: list[list[list[int]]], length_R: np.ndarray, length: int, tokens: int
) -> Pack:
  """Microbatches in one shape, that of the fullest lines."""
  nobody, shards = len(length_R), len(parts[0])
  lines = [line for lines in parts for line in lines]
  rows = _quarters(max(map(len, lines)), most_in_line(tokens, length))
  fullest = max(int(length_R[line].sum()) for line in lines)
  rows_nSb = np.full((-(-nobody // shards), shards, rows), nobody, np.int32)
  for i, lines in enumerate(parts):
    for s, line in enumerate(lines):
      rows_nSb[i, s, : len(line)] = line
  line = _quarters(fullest, max(tokens, length))
  return Pack(rows_nSb, len(parts), length, min(line, rows * length))


def _quarters(size: int, most: int) -> int:
  """`size` rounded up to a quarter, a half, three quarters of `most`, or to it."""
  quarter = -(-most // 4)
  return min(-(-size // quarter) * quarter, most)
