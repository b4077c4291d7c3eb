"""What is said of a step's rows? Sums on the device, one a side; metrics of them on the host."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from grpo_jax.masked import masked_max, masked_sum
from grpo_jax.records import Rollouts

Sums = dict[str, jax.Array]
SIDES = ("fresh", "replay")
AVERAGED = ("loss", "clip_fraction", "ratio_mean", "kl_behaviour", "abs_dlogp_mean", "entropy")
COUNTED = ("tokens", "row_tokens")  # completion tokens; prompt and completion tokens
LARGEST = ("ratio_max", "abs_dlogp_max")


def no_sums(*, with_reference: bool) -> Sums:
  """What no rows at all add up to."""
  summed = (*AVERAGED, *COUNTED, "objective", "ratio_squared")
  summed += ("kl_reference",) if with_reference else ()
  sums = {name: np.zeros(len(SIDES), np.float32) for name in summed}
  sums["poisoned_rows"] = np.int32(0)
  return sums | {name: np.full(len(SIDES), -np.inf, np.float32) for name in LARGEST}


def sums_of(
  facts_BT: Mapping[str, jax.Array],
  loss_B: jax.Array,
  mask_BT: jax.Array,
  poisoned_B: jax.Array,
  rows: Rollouts,
  is_replayed_B: jax.Array,
) -> Sums:
  """Of one microbatch.

  Args:
    facts_BT: of each token, from `token_losses`.
    loss_B: each row's part of what is minimised.
    mask_BT: tokens that count.
    poisoned_B: rows left out for a number that is not finite.
    rows: B rollouts.
    is_replayed_B: on which side each is counted.
  """
  row_tokens_B = rows.samples.prompt_len_R + rows.samples.completion_len_R
  of_rows = {
    "objective": loss_B,
    "row_tokens": jnp.where(rows.weight_R > 0, row_tokens_B, 0).astype(jnp.float32),
  }
  on_side_2B = jnp.stack([~is_replayed_B, is_replayed_B])
  mask_2BT = mask_BT & on_side_2B[:, :, None]
  sums = {name: masked_sum(x[None], mask_2BT, axis=(1, 2)) for name, x in facts_BT.items()}
  sums |= {name: masked_sum(x[None], on_side_2B, axis=1) for name, x in of_rows.items()}
  sums["tokens"] = jnp.sum(mask_2BT, axis=(1, 2)).astype(jnp.float32)
  sums["ratio_max"] = masked_max(facts_BT["ratio_mean"][None], mask_2BT, axis=(1, 2))
  sums["abs_dlogp_max"] = masked_max(facts_BT["abs_dlogp_mean"][None], mask_2BT, axis=(1, 2))
  sums["poisoned_rows"] = jnp.sum(poisoned_B)
  return sums


def merged(left: Sums, right: Sums) -> Sums:
  """Of both together; on the device or on the host."""
  return {
    name: jnp.maximum(left[name], right[name]) if name in LARGEST else left[name] + right[name]
    for name in left
  }


def described(sums: Sums) -> dict[str, float]:
  """Means over each side's tokens, not a number on a side that has none; sums and largest values.
  Ratios are to the policy that sampled, whatever the anchor."""
  sums = {name: np.asarray(value, np.float64) for name, value in sums.items()}
  tokens, squared = sums["tokens"], sums.pop("ratio_squared")
  metrics = {
    "train/tokens": tokens.sum(),
    "train/poisoned_rows": sums.pop("poisoned_rows"),
    "train/loss": sums.pop("objective").sum(),
  }
  with np.errstate(divide="ignore", invalid="ignore"):
    metrics["train/entropy"] = sums["entropy"].sum() / tokens.sum()
    sums["ess"] = np.square(sums["ratio_mean"]) / squared
    for name, values in sums.items():
      values = values if name in LARGEST + COUNTED else values / tokens
      metrics |= {f"train/{name}_{side}": v for side, v in zip(SIDES, values, strict=True)}
  return {name: float(value) for name, value in metrics.items()}
