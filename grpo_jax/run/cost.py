"""What has this run cost so far? The honest x-axis of every plot.

A method that looks better per step may have sampled or trained more in each, so costs are counted
in units that do not depend on the method, and they go on counting across restarts: the meter is
part of the checkpoint. Evaluation is not counted; it measures a method, it is not part of one.
"""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class CostMeter:
  """Totals since the first step of the run, over all hosts.

  rollouts: completions sampled, whether or not they were trained on.
  prompt_tokens: prompt tokens run through the model for sampling; a prompt whose cache is shared by
    its group counts once.
  generated_tokens: tokens sampled.
  profiling_tokens: the part of prompt_tokens and generated_tokens spent before the first step, to
    measure problems.
  probe_tokens: tokens of forward passes that measure problems between steps.
  trained_tokens: completion and prompt tokens in forward and backward passes, padding excluded.
  replayed_tokens: the part of trained_tokens that came from the replay store.
  flops: 2 per parameter for each sampled, prefilled or probed token, 6 for each trained one.
  flops_by_generated: the accounting of arXiv 2606.08854, appendix G.4: 2 per parameter for each
    token generated before the first step, 12 for each one after, whatever is done with it.
  device_seconds: wall-clock seconds times devices.
  """

  rollouts: int = 0
  prompt_tokens: int = 0
  generated_tokens: int = 0
  profiling_tokens: int = 0
  probe_tokens: int = 0
  trained_tokens: int = 0
  replayed_tokens: int = 0
  flops: int = 0
  flops_by_generated: int = 0
  device_seconds: float = 0.0

  def sampled(
    self,
    *,
    parameters: int,
    rollouts: int,
    prompt_tokens: int,
    generated_tokens: int,
    probe_tokens: int = 0,
  ) -> "CostMeter":
    """The totals after one more round of sampling from a model of `parameters` parameters."""
    parameters, generated_tokens = int(parameters), int(generated_tokens)
    forward = int(prompt_tokens) + generated_tokens + int(probe_tokens)
    return dataclasses.replace(
      self,
      rollouts=self.rollouts + int(rollouts),
      prompt_tokens=self.prompt_tokens + int(prompt_tokens),
      generated_tokens=self.generated_tokens + generated_tokens,
      probe_tokens=self.probe_tokens + int(probe_tokens),
      flops=self.flops + 2 * parameters * forward,
      flops_by_generated=self.flops_by_generated + 12 * parameters * generated_tokens,
    )

  def profiled(
    self, *, parameters: int, rollouts: int, prompt_tokens: int, generated_tokens: int
  ) -> "CostMeter":
    """The totals after problems were measured by sampling, before the first step."""
    tokens = int(prompt_tokens) + int(generated_tokens)
    return dataclasses.replace(
      self,
      rollouts=self.rollouts + int(rollouts),
      prompt_tokens=self.prompt_tokens + int(prompt_tokens),
      generated_tokens=self.generated_tokens + int(generated_tokens),
      profiling_tokens=self.profiling_tokens + tokens,
      flops=self.flops + 2 * int(parameters) * tokens,
      flops_by_generated=self.flops_by_generated + 2 * int(parameters) * int(generated_tokens),
    )

  def trained(
    self, *, parameters: int, trained_tokens: int, replayed_tokens: int = 0
  ) -> "CostMeter":
    """The totals after one more update; `replayed_tokens` are a part of `trained_tokens`."""
    return dataclasses.replace(
      self,
      trained_tokens=self.trained_tokens + int(trained_tokens),
      replayed_tokens=self.replayed_tokens + int(replayed_tokens),
      flops=self.flops + 6 * int(parameters) * int(trained_tokens),
    )

  def elapsed(self, *, seconds: float, devices: int) -> "CostMeter":
    """The totals after `seconds` more of wall-clock time on `devices` devices."""
    return dataclasses.replace(self, device_seconds=self.device_seconds + float(seconds) * devices)

  def as_metrics(self) -> dict[str, float]:
    """The totals as a metrics row takes them: `cost/rollouts` and so on."""
    return {f"cost/{name}": value for name, value in self.to_dict().items()}

  def to_dict(self) -> dict[str, float]:
    """The totals as JSON values, for the checkpoint."""
    return dataclasses.asdict(self)

  @classmethod
  def from_dict(cls, totals: Mapping[str, float]) -> "CostMeter":
    """The meter that `to_dict` described; a name it does not know is an error."""
    return cls(**totals)
