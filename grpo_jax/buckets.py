"""To which length is a row padded? A few lengths serve all, so that few programs are compiled."""

SMALLEST = 16


def bucket(length: int) -> int:
  """The next length up of 16, 24, 32, 48, 64, 96, ...: a third is wasted at most, a quarter or so
  on average, and what doubles in length compiles two programs."""
  size = SMALLEST
  while size < length:
    size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
  return size
