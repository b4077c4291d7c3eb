"""What of a step should a person hear of at once? Numbers that mean the run is not what it seems.

A metric nobody looks at has never stopped a run; each of these, unsaid, has cost somebody days.
"""

from collections.abc import Mapping


def alarms(metrics: Mapping[str, float], *, mismatch: float) -> dict[str, str]:
  """The alarms a step raises: name -> what is wrong and what to do.

  Args:
    metrics: of one step.
    mismatch: largest mean |difference| of the sampler's and the trainer's log-probs of fresh
      tokens, in nats, that is still taken for rounding.
  """
  found = {}
  difference = metrics["train/abs_dlogp_mean_fresh"]
  if difference > mismatch:
    found["mismatch"] = (
      f"sampler and trainer disagree by {difference:.3g} nats a token (alarm at {mismatch:g}): "
      "ratios are wrong before the first update; compare their dtypes and decoding settings"
    )
  if metrics["rollout/truncated"] > 0.5 and metrics["reward/std"] == 0:
    found["truncated"] = (
      f"{metrics['rollout/truncated']:.0%} of completions are cut off and all rewards are equal: "
      "nothing can be learned; raise rollout.max_new_tokens or look at the rollouts"
    )
  if metrics["reward/unscored"] > 0.1:
    found["unscored"] = (
      f"{metrics['reward/unscored']:.0%} of completions got no verdict; look at the rollouts, "
      "or raise verifier.deadline_seconds"
    )
  if metrics["train/skipped"] and metrics["train/tokens"]:
    found["skipped"] = "the gradient is not finite: this step changed nothing"
  return found


class Alarms:
  """Remembers which alarms sound, so that each is told when it begins and not at every step."""

  def __init__(self, *, mismatch: float):
    self._mismatch = mismatch
    self._sounding: set[str] = set()

  def begun(self, metrics: Mapping[str, float]) -> list[str]:
    """The texts of alarms that this step raises and the one before did not."""
    found = alarms(metrics, mismatch=self._mismatch)
    news = [text for name, text in found.items() if name not in self._sounding]
    self._sounding = set(found)
    return news
