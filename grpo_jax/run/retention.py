"""Which checkpoints stay on the disk? The newest, the best, and one every so many steps."""

from collections.abc import Mapping


def kept(accuracy_of: Mapping[int, float | None], *, last: int, best: int, every: int) -> set[int]:
  """The steps whose checkpoints stay.

  Args:
    accuracy_of: of each checkpoint there is, by step; None: not known, so never among the best.
    last: how many of the newest stay.
    best: how many of the highest accuracy stay; of equal ones the newer.
    every: checkpoints of steps it divides stay; 0: none for that.
  """
  steps = sorted(accuracy_of)
  known = [step for step in steps if accuracy_of[step] is not None]
  by_accuracy = sorted(known, key=lambda step: (accuracy_of[step], step))
  newest = steps[max(0, len(steps) - last) :]
  highest = by_accuracy[max(0, len(known) - best) :]
  return {*newest, *highest, *(step for step in steps if every and step % every == 0)}
