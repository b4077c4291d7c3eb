"""What of a step should a person hear of at once? Numbers that mean the run is not what it seems.

A metric nobody looks at has never stopped a run; each of these, unsaid, has cost somebody days.
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping

from grpo_jax.errors import UserError
from grpo_jax.run.stuck import Stuck

RECENT_STEPS = 20
ENOUGH_AUDITED = 40  # rewards: of fewer, a share means little


@dataclasses.dataclass(frozen=True)
class Audited:
  """Paid rewards of recent steps: how many a second grader was asked about, and refused."""

  paid: float = 0
  refused: float = 0


def alarms(
  metrics: Mapping[str, float], *, mismatch: float, audit: float, audited: Audited
) -> dict[str, str]:
  """The alarms a step raises: name -> what is wrong and what to do.

  Args:
    metrics: of one step.
    mismatch: largest mean |difference| of the sampler's and the trainer's log-probs of fresh
      tokens, in nats, that is still taken for rounding.
    audit: largest share of paid rewards refused by a second grader that is no hole in the first.
    audited: what audits of this and of recent steps found.
  """
  found = {}
  difference = metrics["train/mismatch"]
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
  if audited.paid >= ENOUGH_AUDITED and audited.refused > audit * audited.paid:
    found["audit"] = (
      f"a second grader refuses {audited.refused:.0f} of the last {audited.paid:.0f} rewards it "
      f"was asked about (alarm at {audit:.0%}, audit.alarm): the policy may have found a hole in "
      "the first one; look at the rollouts"
    )
  if metrics["reward/agreed_wrong"] > 0.5:
    found["agreed_wrong"] = (
      f"in {metrics['reward/agreed_wrong']:.0%} of the groups most rollouts agree on an answer "
      "that earns nothing: gold answers may be wrong, or written so that nothing matches them"
    )
  if metrics["rollout/repetitive"] > 0.5:
    found["repetitive"] = (
      f"{metrics['rollout/repetitive']:.0%} of completions mostly repeat themselves; look at the "
      "rollouts, or lower optimizer.learning_rate"
    )
  if metrics["rollout/nonfinite"]:
    found["nonfinite"] = (
      f"the model gave no finite logits in {metrics['rollout/nonfinite']:.1%} of completions: they "
      "were left out; the weights or model.dtype are to blame"
    )
  if metrics["train/poisoned_rows"]:
    found["poisoned"] = (
      f"{metrics['train/poisoned_rows']:.0f} rollouts hold a reward, log-probability or ratio that "
      "is not finite: they were left out"
    )
  if is_bad(metrics):
    found["skipped"] = (
      "the gradient is not finite, or no rollout's numbers are: an optimizer step changed nothing"
    )
  return found


def is_bad(metrics: Mapping[str, float]) -> bool:
  """Whether numbers spoilt an optimizer step; a filter that leaves nothing to learn did not."""
  spoilt = metrics["train/poisoned_rows"] or metrics["rollout/nonfinite"]
  something_to_learn = metrics["train/tokens"] or spoilt
  return bool(metrics["train/skipped"] and something_to_learn)


class Alarms:
  """Remembers which alarms sound, so that each is told when it begins and not at every step, and
  for how long the run has been going nowhere."""

  def __init__(self, *, mismatch: float, audit: float, stuck_steps: int, max_bad_steps: int):
    """
    Args:
      mismatch, audit: see `alarms`.
      stuck_steps: steps in a row without a lesson (`stuck`), after which it is told.
      max_bad_steps: steps in a row whose numbers were unusable, after which the run should stop.
    """
    self._mismatch, self._audit, self._max_bad_steps = mismatch, audit, max_bad_steps
    self._audits: collections.deque[Audited] = collections.deque(maxlen=RECENT_STEPS)
    self._sounding: set[str] = set()
    self._stuck = Stuck(stuck_steps)
    self._bad_steps = 0
    self._weights_lost = False

  def remember(self, rows: Iterable[Mapping[str, float | None]]) -> None:
    """Goes on from the steps whose rows of the record these are, and tells nothing of them again: a
    run that is cut off before a count is full would otherwise never hear the alarm."""
    for row in rows:
      self.begun({name: math.nan if value is None else value for name, value in row.items()})

  def begun(self, metrics: Mapping[str, float]) -> list[str]:
    """The texts of alarms that this step raises and the one before did not."""
    if paid := metrics.get("reward/audited_paid"):
      self._audits.append(Audited(paid, paid * metrics["reward/audit_refused"]))
    audited = Audited(
      sum(audit.paid for audit in self._audits), sum(audit.refused for audit in self._audits)
    )
    found = alarms(metrics, mismatch=self._mismatch, audit=self._audit, audited=audited)
    news = [text for name, text in found.items() if name not in self._sounding]
    self._sounding = set(found)
    self._bad_steps = self._bad_steps + 1 if is_bad(metrics) else 0
    self._weights_lost = not math.isfinite(metrics["train/param_norm"])
    return news + self._stuck.after(metrics)

  def stop_if_hopeless(self, step: int) -> None:
    """
    Raises:
      UserError: too many steps in a row changed nothing for want of finite numbers, or the weights
        themselves are not finite: a checkpoint of them would be worse than none.
    """
    if self._weights_lost:
      raise UserError(
        f"stopped at step {step}: the weights are no longer finite, and are not saved; the same "
        "command goes on from the last checkpoint: if it comes to this again, lower "
        "optimizer.learning_rate, else suspect the hardware"
      )
    if self._bad_steps >= self._max_bad_steps:
      raise UserError(
        f"stopped at step {step}: {self._bad_steps} steps in a row (log.max_bad_steps) had no "
        "finite gradient; the weights are unharmed and the last checkpoint is good; look at the "
        "rollouts, or lower optimizer.learning_rate"
      )
