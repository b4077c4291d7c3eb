"""Which problems next?"""

from collections.abc import Callable

import numpy as np


def shuffled_epochs(
  cursor: int, count: int, size: int, permutation: Callable[[int], np.ndarray]
) -> np.ndarray:
  """The next problems of an endless walk through shuffled epochs.

  The walk is a function of its position, so the cursor is all the state there is: every problem is
  visited once an epoch whatever the batch size, and a resumed run neither skips nor repeats one.

  Args:
    cursor: problems taken so far.
    count: problems wanted.
    size: problems in the data set.
    permutation: epoch -> the order of that epoch, a permutation of range(size).

  Returns:
    int32 [count] indices into the data set. A batch larger than what is left of an epoch runs into
    the next one, and may then hold a problem twice.
  """
  places = np.arange(cursor, cursor + count)
  orders = {epoch: permutation(int(epoch)) for epoch in np.unique(places // size)}
  return np.array([orders[p // size][p % size] for p in places], np.int32)
