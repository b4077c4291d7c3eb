"""To which size is something padded? A few sizes serve all, so that few programs are compiled."""

SMALLEST = 16


def bucket(length: int) -> int:
  """The next length up of 16, 24, 32, 48, 64, 96, ...: a third is wasted at most, a quarter or so
  on average, and what doubles in length compiles two programs."""
  size = SMALLEST
  while size < length:
    size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
  return size


def fine_bucket(size: int) -> int:
  """The next size up of 1, 2, ..., 8, 10, 12, 14, 16, 20, ...: a fifth is wasted at most, and what
  doubles in size compiles four programs."""
  step = 1 << max(0, (size - 1).bit_length() - 3)
  return -(-size // step) * step
