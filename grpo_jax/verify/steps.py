"""How near is a step to the expert's? The reward of SRL (arXiv 2510.25992).

Only the action counts, what stands after the last `</think>`: 2M / (|S1| + |S2|) for M matching
characters of two texts, `difflib.SequenceMatcher`'s ratio. Time is quadratic in the texts, so this
is for the workers of a pool; of a long action only the beginning is compared, all of it counted.
"""

import difflib

from grpo_jax.verify.verdict import Outcome, Verdict

MAX_COMPARED = 2000  # characters of each text


def verify_step(completion: str, expert: str) -> Verdict:
  """RIGHT if the step is the expert's to the letter; else its similarity is the score.

  UNPARSEABLE: there is no `</think>`, or nothing after it.
  """
  _, closed, action = completion.rpartition("</think>")
  action, expert = action.strip(), expert.strip()
  if not closed or not action:
    return Verdict(Outcome.UNPARSEABLE, None, "no step after </think>")
  if action == expert:
    return Verdict(Outcome.RIGHT, action, "the expert's step", 1.0)
  score = similarity(action, expert)
  return Verdict(Outcome.WRONG, action, f"similar by {score:.3f}", score)


def similarity(one: str, other: str) -> float:
  """2M / (|S1| + |S2|), from 0 to 1; two empty texts are alike."""
  total = len(one) + len(other)
  if not total:
    return 1.0
  # Without autojunk: it would leave out the commonest letters of texts over 200 characters.
  matcher = difflib.SequenceMatcher(None, one[:MAX_COMPARED], other[:MAX_COMPARED], autojunk=False)
  return 2 * sum(block.size for block in matcher.get_matching_blocks()) / total
