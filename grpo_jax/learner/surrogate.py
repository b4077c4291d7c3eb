"""Which surrogate is minimised? Independent choices, each a row of a table of small functions.

With r_t the ratio to the anchor policy, d_t = pi_theta(y_t) / pi_behaviour(y_t), A the rollout's
advantage and sg the gradient's stop, a token's policy loss is w_t times one of `CLIPS`:

  ppo     max(-r A, -clip(r, 1 - low, 1 + high) A)                PPO-clip (arXiv 1707.06347),
          and at most -c A where A < 0                            dual clip (arXiv 1912.09729)
  cispo   -sg(clip(r, 1 - low, 1 + high)) A log pi_theta          CISPO (arXiv 2506.13585)
  minirl  -M sg(min(d, cap)) A log pi_theta                       MiniRL (arXiv 2512.01374)
          M = 0 where A > 0 and r > 1 + high, or A < 0 and r < 1 - low; else 1
  none    -r A
  shaped_replayed   ppo on fresh rows, -r / (r + 0.1) A on replayed ones    (arXiv 2510.02245)

r_t is of a token or of its whole sequence (`ratio.LEVELS`), w_t corrects for a sampler that is not
the anchor (`ratio.CORRECTIONS`), `aggregate.AGGREGATES` says how tokens add up. `high > low` is
clip-higher (DAPO, arXiv 2503.14476). KL to the reference and entropy are added token by token.

The default anchor is the log-probability stored when the rollout was sampled, for fresh and for
replayed rows alike (arXiv 2606.04560), so a replayed row's ratio measures its drift since birth: a
token that has drifted out of the clip's range on the side it is pushed to learns nothing more. With
anchor "recomputed_replayed" only fresh rows keep it. Replayed ones are clipped around the policy at
the start of the step, as if sampled by it, and w_t = min(pi_start / pi_behaviour, high) alone makes
up for their age: no token falls silent, none weighs more than `high`. On fresh rows that w_t is 1.
"""

import dataclasses
from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp

from grpo_jax.errors import UserError
from grpo_jax.learner.aggregate import AGGREGATES
from grpo_jax.learner.kl import ESTIMATORS, k3
from grpo_jax.learner.ratio import CORRECTIONS, LEVELS

# Which policy the clip is centred on: the one that sampled the row, or the trainer's own at the
# start of the update, whose log-probs are then taken again; or that for replayed rows alone.
ANCHORS = ("behaviour", "recomputed", "recomputed_replayed")
# What an entropy bonus is weighed by; "advantage" is IBRO's (arXiv 2507.18391).
ENTROPY_WEIGHTS: dict[str, Callable[[jax.Array], jax.Array]] = {
  "uniform": jnp.ones_like,
  "advantage": lambda advantage_BT: advantage_BT,
}


@dataclasses.dataclass(frozen=True)
class Surrogate:
  """The choices of a loss; names are rows of the tables, checked when it is made.

  Raises:
    UserError: an unknown name, a number out of its range, or choices that contradict each other.
  """

  ratio: str
  clip: str
  clip_low: float
  clip_high: float
  dual_clip: float  # ppo: c > 1; 0: off
  weight_cap: float  # minirl: largest importance weight
  aggregate: str
  anchor: str
  correction: str
  correction_low: float  # mask: smallest weight that is learned from
  correction_high: float  # truncate: largest weight; mask: largest that is learned from
  kl: str
  kl_coef: float  # 0: no KL in the loss
  entropy: str
  entropy_coef: float  # 0: no bonus

  def __post_init__(self):
    self._check_names()
    self._check_numbers()
    self._check_pairs()

  def _check_names(self):
    tables = {
      "ratio": LEVELS,
      "clip": CLIPS,
      "aggregate": AGGREGATES,
      "anchor": ANCHORS,
      "correction": CORRECTIONS,
      "kl": ESTIMATORS,
      "entropy": ENTROPY_WEIGHTS,
    }
    for key, table in tables.items():
      if getattr(self, key) not in table:
        value = getattr(self, key)
        raise UserError(f"config.loss.{key} is {value!r}; known: {', '.join(table)}")

  def _check_numbers(self):
    for key in ("clip_low", "clip_high", "kl_coef", "correction_low"):
      if not getattr(self, key) >= 0:
        raise UserError(f"config.loss.{key} is {getattr(self, key)}; it must be 0 or above")
    if self.dual_clip and not self.dual_clip > 1:
      raise UserError(f"config.loss.dual_clip is {self.dual_clip}; it is 0, off, or above 1")
    if not self.weight_cap > 0:
      raise UserError(f"config.loss.weight_cap is {self.weight_cap}; it must be above 0")
    if not self.correction_high > self.correction_low:
      raise UserError(
        f"config.loss.correction_high is {self.correction_high}; it must be above "
        f"correction_low, {self.correction_low}"
      )

  def _check_pairs(self):
    if self.correction != "none" and self.anchor == "behaviour":
      raise UserError(
        f"config.loss.correction is {self.correction!r}, the weight anchor / behaviour, but "
        "config.loss.anchor is 'behaviour', so that it would always be 1: set 'recomputed'"
      )
    if self.correction != "none" and self.clip == "minirl":
      raise UserError(
        f"config.loss.correction is {self.correction!r}, but config.loss.clip 'minirl' is weighed "
        "by the ratio to the sampler already: set 'none'"
      )
    if self.kl == "k1" and self.kl_coef:
      raise UserError(
        "config.loss.kl is 'k1', whose gradient is zero on average: set 'k2' or 'k3', or put k1 "
        "into the reward with config.reward.kl_coef"
      )


@flax.struct.dataclass
class Tokens:
  """What a loss sees of B rollouts: float arrays, 0 where `mask_BT` is not set."""

  logp_BT: jax.Array  # of the policy that learns; gradients flow here and to the entropy
  entropy_BT: jax.Array
  behaviour_BT: jax.Array  # log-probs of the policy that sampled
  anchor_BT: jax.Array  # log-probs of the policy the clip is centred on
  reference_BT: jax.Array  # log-probs of the policy KL is measured to
  advantage_BT: jax.Array
  mask_BT: jax.Array  # bool, completion tokens of rows that learn
  replayed_B1: jax.Array  # bool, rows that an older policy sampled


def token_losses(surrogate: Surrogate, tokens: Tokens) -> tuple[jax.Array, dict[str, jax.Array]]:
  """What is minimised at each token [B, T], and float [B, T] facts about it, by metric name."""
  log_drift_BT = tokens.logp_BT - tokens.behaviour_BT
  ratio_BT = jnp.exp(
    LEVELS[surrogate.ratio](tokens.logp_BT - tokens.anchor_BT, tokens.mask_BT)
  )
  loss_BT, stopped_BT = CLIPS[surrogate.clip](surrogate, tokens, ratio_BT)
  raw_weight_BT = jax.lax.stop_gradient(jnp.exp(tokens.anchor_BT - tokens.behaviour_BT))
  weight_BT = CORRECTIONS[surrogate.correction](
    raw_weight_BT, surrogate.correction_low, surrogate.correction_high
  )
  policy_BT = weight_BT * loss_BT
  drift_BT = jnp.exp(log_drift_BT)
  facts = {
    "loss": policy_BT,
    "clip_fraction": stopped_BT,
    "ratio_mean": drift_BT,
    "ratio_squared": jnp.square(drift_BT),
    "kl_behaviour": k3(-log_drift_BT),
    "abs_dlogp_mean": jnp.abs(log_drift_BT),
    "entropy": tokens.entropy_BT,
  }
  total_BT = policy_BT
  if surrogate.kl_coef:
    kl_BT = ESTIMATORS[surrogate.kl](tokens.reference_BT - tokens.logp_BT)
    facts["kl_reference"] = kl_BT
    total_BT += surrogate.kl_coef * kl_BT
  if surrogate.entropy_coef:
    bonus_BT = ENTROPY_WEIGHTS[surrogate.entropy](tokens.advantage_BT) * tokens.entropy_BT
    total_BT -= surrogate.entropy_coef * bonus_BT
  return total_BT, facts


# ------------------------------------------------------------------------------ clips


def ppo(surrogate: Surrogate, tokens: Tokens, ratio_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The loss of each token, and whether clipping stopped its gradient."""
  advantage_BT = tokens.advantage_BT
  plain_BT = -ratio_BT * advantage_BT
  low, high = 1 - surrogate.clip_low, 1 + surrogate.clip_high
  clipped_BT = -jnp.clip(ratio_BT, low, high) * advantage_BT
  loss_BT = jnp.maximum(plain_BT, clipped_BT)
  stopped_BT = clipped_BT > plain_BT
  if surrogate.dual_clip:
    ceiling_BT = -surrogate.dual_clip * advantage_BT
    over_BT = (advantage_BT < 0) & (loss_BT > ceiling_BT)
    loss_BT = jnp.where(over_BT, ceiling_BT, loss_BT)
    stopped_BT |= over_BT
  return loss_BT, stopped_BT


def cispo(surrogate: Surrogate, tokens: Tokens, ratio_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Every token keeps a gradient; counted are those whose weight was clipped."""
  low, high = 1 - surrogate.clip_low, 1 + surrogate.clip_high
  weight_BT = jax.lax.stop_gradient(jnp.clip(ratio_BT, low, high))
  return -weight_BT * tokens.advantage_BT * tokens.logp_BT, (ratio_BT < low) | (ratio_BT > high)


def minirl(
  surrogate: Surrogate, tokens: Tokens, ratio_BT: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The mask follows the ratio to the anchor, the weight the ratio to the sampler."""
  too_high_BT = (tokens.advantage_BT > 0) & (ratio_BT > 1 + surrogate.clip_high)
  too_low_BT = (tokens.advantage_BT < 0) & (ratio_BT < 1 - surrogate.clip_low)
  stopped_BT = too_high_BT | too_low_BT
  drift_BT = jnp.exp(tokens.logp_BT - tokens.behaviour_BT)
  weight_BT = jax.lax.stop_gradient(jnp.minimum(drift_BT, surrogate.weight_cap))
  return -jnp.where(stopped_BT, 0.0, weight_BT) * tokens.advantage_BT * tokens.logp_BT, stopped_BT


def unclipped(
  surrogate: Surrogate, tokens: Tokens, ratio_BT: jax.Array
) -> tuple[jax.Array, jax.Array]:
  del surrogate
  return -ratio_BT * tokens.advantage_BT, jnp.zeros_like(tokens.mask_BT)


SHAPE = 0.1


def shaped_replayed(
  surrogate: Surrogate, tokens: Tokens, ratio_BT: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The policy shaping of ExGRPO (arXiv 2510.02245) in place of a clip: of r / (r + 0.1) the slope
  by log pi is 0.08 at r = 1 and largest, 0.25, where a token has become ten times rarer since."""
  loss_BT, stopped_BT = ppo(surrogate, tokens, ratio_BT)
  shaped_BT = -ratio_BT / (ratio_BT + SHAPE) * tokens.advantage_BT
  return jnp.where(tokens.replayed_B1, shaped_BT, loss_BT), stopped_BT & ~tokens.replayed_B1


CLIPS: Mapping[str, Callable[[Surrogate, Tokens, jax.Array], tuple[jax.Array, jax.Array]]] = {
  "ppo": ppo,
  "cispo": cispo,
  "minirl": minirl,
  "none": unclipped,
  "shaped_replayed": shaped_replayed,
}
