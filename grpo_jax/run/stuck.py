"""Can this training learn at all? Steps that teach nothing are normal; many in a row are a run that
burns its budget: problems too hard or too easy, a verifier or template that fits nothing, answers
that never end.
"""

from collections.abc import Callable, Mapping

# What a step without a lesson looks like, and what to say of many in a row.
CAUSES: dict[str, tuple[Callable[[Mapping[str, float]], bool], str]] = {
  "no_advantage": (
    lambda metrics: metrics["rollout/abs_advantage_mean"] == 0,
    "no rollout was better or worse than its group: nothing new is learned; take problems that "
    "are solved sometimes, or more rollout.samples",
  ),
  "one_reward": (
    lambda metrics: metrics["reward/std"] == 0,
    "all rewards were equal: look at the rollouts; the template, the gold answers or the verifier "
    "may be to blame",
  ),
  "no_end": (
    lambda metrics: metrics["rollout/truncated"] == 1,
    "every completion was cut off: raise rollout.max_new_tokens, or look at the rollouts for an "
    "end that never comes",
  ),
}


class Stuck:
  """Counts such steps."""

  def __init__(self, steps: int):
    """steps: in a row, after which it is said, and again after as many more."""
    self._steps = steps
    self._in_a_row = dict.fromkeys(CAUSES, 0)

  def after(self, metrics: Mapping[str, float]) -> list[str]:
    """What is to be said after a step with these metrics."""
    texts = []
    for name, (applies, text) in CAUSES.items():
      self._in_a_row[name] = count = self._in_a_row[name] + 1 if applies(metrics) else 0
      if count and count % self._steps == 0:
        texts.append(f"this training may be unable to learn: for {count} steps in a row {text}")
    return texts
