"""Which old rollouts learn beside this step's? Evict -> refresh -> draw -> store.

In this order, so that a draw sees what the step found out about the problems it asked, but none of
the step's own rollouts: Algorithm 1 of arXiv 2606.04560, with eviction before the draw, so that
nothing older than `max_age` is ever learned from.
"""

import dataclasses

import jax
import jax.numpy as jnp

from grpo_jax.collect import Fresh
from grpo_jax.records import Rollouts
from grpo_jax.replay.asked import asked_of
from grpo_jax.replay.buffer import Buffer, Replay


@dataclasses.dataclass(frozen=True)
class Recall:
  """The choices of a run's replay.

  Attributes:
    replay: the store; None: there is none, and all batches are fresh.
    ratio: replayed rollouts for each surviving fresh one.
    alpha: how much the draw prefers what has priority.
    max_age: steps after which a rollout leaves the store.
    warmup_steps: in which the store fills and nothing is drawn.
    pool: fresh rollouts are drawn as well, out of one pool with the old ones.
    only_right: rollouts with another verdict are not stored.
    most_asked: problems a step asks at most.
  """

  replay: Replay | None
  ratio: float
  alpha: float
  max_age: int
  warmup_steps: int
  pool: bool
  only_right: bool
  most_asked: int

  def __call__(
    self, buffer: Buffer | None, fresh: Fresh, key: jax.Array, step: int
  ) -> tuple[Buffer | None, Rollouts, Rollouts | None, dict[str, float]]:
    """The store after this step, the fresh rollouts that learn, the old ones, and metrics."""
    replay, learned = self.replay, fresh.rollouts
    if replay is None:
      return None, learned, None, {}
    settled = replay.layout.settled
    buffer = settled(replay.evict(buffer, step, self.max_age))
    metrics, asked = {}, asked_of(fresh.answers.problem_R, fresh.reward_R, self.most_asked)
    if replay.how.advantage == "refreshed":
      buffer, metrics["replay/refreshed"] = settled(replay.refresh(buffer, asked))
    ratio = 0 if step <= self.warmup_steps else self.ratio
    if self.pool and ratio:
      size = round((1 + ratio) * fresh.survivors)
      buffer, replayed, learned = settled(
        replay.draw_batch(buffer, learned, key, size, self.alpha, asked)
      )
    else:
      size = round(ratio * fresh.survivors)
      buffer, replayed = settled(replay.draw(buffer, key, size, self.alpha, asked))
    buffer = settled(replay.add(buffer, self._to_store(fresh)))
    metrics |= replay.describe(buffer, replayed, step)
    return buffer, learned, replayed, on_host(metrics)

  def _to_store(self, fresh: Fresh) -> Rollouts:
    """The fresh rollouts, of weight 0 those that are not stored."""
    rollouts = fresh.rollouts
    if not self.only_right:
      return rollouts
    return rollouts.replace(weight_R=jnp.where(fresh.right_R, rollouts.weight_R, 0))


def on_host(metrics: dict[str, jax.Array]) -> dict[str, float]:
  return {name: float(value) for name, value in jax.device_get(metrics).items()}
