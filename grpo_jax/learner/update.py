"""One optimizer step from fresh and replayed rollouts.

All rows that count are packed to the front of a static batch and walked in equal microbatches by a
device loop whose length is data: a step with few survivors costs little, and compiles nothing. What
a row's tokens weigh is set for the whole concatenated batch, so the result does not depend on how
rows fall into microbatches.
"""

import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax

from grpo_jax.distribution import Decoding
from grpo_jax.learner.aggregate import AGGREGATES
from grpo_jax.learner.logprobs import sample_log_probs
from grpo_jax.learner.poison import drop_poisoned_rollouts, drop_poisoned_tokens
from grpo_jax.learner.surrogate import Surrogate, Tokens, token_losses
from grpo_jax.masked import masked_max, masked_sum
from grpo_jax.model.qwen3 import Params, Qwen3, abstract_params
from grpo_jax.model.sharding import Layout
from grpo_jax.records import Rollouts, completion_mask

Metrics = dict[str, jax.Array]
SIDES = ("fresh", "replay")


@flax.struct.dataclass
class TrainState:
  """What learning changes."""

  params: Params
  opt_state: optax.OptState
  updates: jax.Array  # int32, optimizer steps taken


def create_state(params: Params, optimizer: optax.GradientTransformation, layout: Layout):
  """Optimizer moments are made on the devices that hold their parameters."""
  shardings = state_shardings(params, optimizer, layout)
  make = jax.jit(optimizer.init, out_shardings=shardings.opt_state)
  updates = jax.device_put(jnp.int32(0), layout.replicated)
  return TrainState(params, make(params), updates)


def abstract_state(params: Params, optimizer: optax.GradientTransformation, layout: Layout):
  """The state as shapes, dtypes and shardings, from (possibly abstract) parameters."""

  def shape(leaf, sharding):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  opt_state = jax.eval_shape(optimizer.init, params)
  shapes = TrainState(params, opt_state, jax.ShapeDtypeStruct((), jnp.int32))
  return jax.tree.map(shape, shapes, state_shardings(params, optimizer, layout))


def state_shardings(params: Params, optimizer, layout: Layout) -> TrainState:
  of_params = jax.tree.map(lambda leaf: leaf.sharding, params)
  of_opt_state = optax.tree_map_params(
    optimizer,
    lambda _, sharding: sharding,
    jax.eval_shape(optimizer.init, params),
    of_params,
    transform_non_params=lambda _: layout.replicated,
  )
  return TrainState(of_params, of_opt_state, layout.replicated)


def make_update(
  model: Qwen3,
  optimizer: optax.GradientTransformation,
  surrogate: Surrogate,
  *,
  microbatch_rows: int,
  max_completion_tokens: int,
) -> Callable[..., tuple[TrainState, Metrics]]:
  """Compiles `update(state, reference, fresh, replayed, how)`; the state is donated.

  `reference` is the parameters KL is measured to (None when surrogate.kl_coef is 0); `replayed` is
  None when the method has no replay; a completion has at most `max_completion_tokens`, what the
  "constant" aggregate divides by. Returns the new state and float32 scalar metrics. A row with a
  number that is not finite is left out and counted in `train/poisoned_rows`. A step with no token
  to learn from, or with a gradient that is not finite, changes nothing and is counted in
  `train/skipped`.
  """
  grads_of_microbatch = jax.grad(functools.partial(_loss, model, surrogate), has_aux=True)

  def update(state: TrainState, reference, fresh: Rollouts, replayed, how: Decoding):
    with jax.named_scope("assemble"):
      batch, replayed_R, count = assemble(fresh, replayed, microbatch_rows, model.layout)
      length_R = batch.samples.completion_len_R
      learns_R = (batch.weight_R > 0) & (length_R > 0)
      tokens = masked_sum(length_R, learns_R)
      scale_R = AGGREGATES[surrogate.aggregate](length_R, learns_R, max_completion_tokens)

    def accumulate(i, carry):
      grads, sums = carry
      rows = jax.tree.map(lambda leaf: leaf[i], (batch, scale_R * batch.weight_R, replayed_R))
      new_grads, new_sums = grads_of_microbatch(state.params, reference, *rows, how)
      return jax.tree.map(jnp.add, grads, new_grads), _merge(sums, new_sums)

    zeros = jax.tree.map(jnp.zeros_like, state.params)
    microbatches = -(-count // microbatch_rows)
    with jax.named_scope("gradients"):
      grads, sums = jax.lax.fori_loop(0, microbatches, accumulate, (zeros, _no_sums(surrogate)))
    with jax.named_scope("optimizer"):
      new_state, metrics = _apply(state, optimizer, grads, learnable=tokens > 0)
    sums["poisoned_rows"] += _weighted_rows(fresh) + _weighted_rows(replayed) - count
    return new_state, metrics | _summary(sums, tokens, count, microbatches)

  shardings = state_shardings(abstract_params(model), optimizer, model.layout)
  return jax.jit(
    update, donate_argnums=0, out_shardings=(shardings, model.layout.replicated)
  )


def assemble(
  fresh: Rollouts, replayed: Rollouts | None, microbatch_rows: int, layout: Layout
) -> tuple[Rollouts, jax.Array, jax.Array]:
  """Rows that count to the front, cut into microbatches.

  Returns:
    The rollouts with leading axes [microbatches, rows]; bool of the same axes, True on replayed
    rows; and how many rows count.
  """
  both = fresh
  is_replayed_R = jnp.zeros(fresh.size, bool)
  if replayed is not None:
    both = jax.tree.map(lambda *parts: jnp.concatenate(parts), fresh, replayed)
    is_replayed_R = jnp.arange(both.size) >= fresh.size
  both = drop_poisoned_rollouts(both)
  order_R = jnp.argsort(both.weight_R <= 0, stable=True)
  padding = -both.size % microbatch_rows

  def cut(leaf_R):
    leaf_R = jnp.pad(leaf_R[order_R], ((0, padding), *((0, 0) for _ in leaf_R.shape[1:])))
    cut = leaf_R.reshape(-1, microbatch_rows, *leaf_R.shape[1:])
    return layout.constrain(cut, "microbatch", "batch", *(None for _ in leaf_R.shape[1:]))

  batch, is_replayed = jax.tree.map(cut, (both, is_replayed_R))
  return batch, is_replayed, jnp.sum(both.weight_R > 0)


def _weighted_rows(rollouts: Rollouts | None) -> jax.Array | int:
  return 0 if rollouts is None else jnp.sum(rollouts.weight_R > 0)


def _loss(
  model, surrogate: Surrogate, params, reference, rows: Rollouts, scale_B, is_replayed_B, how
):
  """This microbatch's part of the loss, and sums for the metrics."""
  tokens = _tokens(model, surrogate, params, reference, rows, how)
  tokens, poisoned_B = drop_poisoned_tokens(tokens)
  loss_BT, facts = token_losses(surrogate, tokens)
  loss_B = scale_B * masked_sum(loss_BT, tokens.mask_BT, axis=1)
  row_tokens_B = rows.samples.prompt_len_R + rows.samples.completion_len_R
  of_rows = {
    "objective": loss_B,
    "row_tokens": jnp.where(rows.weight_R > 0, row_tokens_B, 0).astype(jnp.float32),
  }
  on_side_2B = jnp.stack([~is_replayed_B, is_replayed_B])
  mask_2BT = tokens.mask_BT & on_side_2B[:, :, None]
  sums = {name: masked_sum(x[None], mask_2BT, axis=(1, 2)) for name, x in facts.items()}
  sums |= {name: masked_sum(x[None], on_side_2B, axis=1) for name, x in of_rows.items()}
  sums["tokens"] = jnp.sum(mask_2BT, axis=(1, 2)).astype(jnp.float32)
  sums["ratio_max"] = masked_max(facts["ratio_mean"][None], mask_2BT, axis=(1, 2))
  sums["abs_dlogp_max"] = masked_max(facts["abs_dlogp_mean"][None], mask_2BT, axis=(1, 2))
  sums["poisoned_rows"] = jnp.sum(poisoned_B)
  return jnp.sum(loss_B), sums


def _tokens(model, surrogate: Surrogate, params, reference, rows: Rollouts, how) -> Tokens:
  """What the loss sees of these rows; rows of weight 0 are off the mask."""
  logp_BT, entropy_BT = sample_log_probs(model, params, rows.samples, how)
  fixed_BT = jax.lax.stop_gradient(logp_BT)
  reference_BT = fixed_BT
  if surrogate.kl_coef:
    reference_BT, _ = sample_log_probs(model, reference, rows.samples, how)
  behaviour_BT = rows.samples.behaviour_logp_RT
  return Tokens(
    logp_BT=logp_BT,
    entropy_BT=entropy_BT,
    behaviour_BT=behaviour_BT,
    # One step a batch: the policy at the start of the update is the policy of this step.
    anchor_BT=fixed_BT if surrogate.anchor == "recomputed" else behaviour_BT,
    reference_BT=jax.lax.stop_gradient(reference_BT),
    advantage_BT=jnp.broadcast_to(rows.advantage_R[:, None], logp_BT.shape),
    mask_BT=completion_mask(rows.samples) & (rows.weight_R > 0)[:, None],
  )


def _apply(
  state: TrainState, optimizer, grads: Params, learnable: jax.Array
) -> tuple[TrainState, Metrics]:
  """The optimizer step, or nothing at all where the gradient is unusable."""
  norm = optax.tree.norm(grads)
  usable = learnable & jnp.isfinite(norm)
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  stepped = TrainState(optax.apply_updates(state.params, updates), opt_state, state.updates + 1)
  new_state = jax.tree.map(lambda new, old: jnp.where(usable, new, old), stepped, state)
  metrics = {
    "train/grad_norm": norm,
    "train/update_norm": jnp.where(usable, optax.tree.norm(updates), 0.0),
    "train/param_norm": optax.tree.norm(new_state.params),
    "train/skipped": (~usable).astype(jnp.float32),
  }
  return new_state, metrics


AVERAGED = ("loss", "clip_fraction", "ratio_mean", "kl_behaviour", "abs_dlogp_mean", "entropy")
COUNTED = ("tokens", "row_tokens")  # completion tokens; prompt and completion tokens
LARGEST = ("ratio_max", "abs_dlogp_max")


def _no_sums(surrogate: Surrogate) -> Metrics:
  """What the metrics of no microbatch at all add up to, one number a side."""
  summed = (*AVERAGED, *COUNTED, "objective", "ratio_squared")
  summed += ("kl_reference",) if surrogate.kl_coef else ()
  sums = {name: jnp.zeros(len(SIDES), jnp.float32) for name in summed}
  sums["poisoned_rows"] = jnp.int32(0)
  return sums | {name: jnp.full(len(SIDES), -jnp.inf) for name in LARGEST}


def _merge(left: Metrics, right: Metrics) -> Metrics:
  return {
    name: jnp.maximum(left[name], right[name]) if name in LARGEST else left[name] + right[name]
    for name in left
  }


def _summary(sums: Metrics, tokens, rows, microbatches) -> Metrics:
  """The loss that was minimised, and means over each side's tokens; not a number on a side that has
  none. Ratios are to the policy that sampled, whatever the anchor."""
  sums = dict(sums)
  metrics = {
    "train/tokens": tokens,
    "train/rows": rows,
    "train/microbatches": microbatches,
    "train/poisoned_rows": sums.pop("poisoned_rows"),
    "train/loss": jnp.sum(sums.pop("objective")),
    "train/entropy": jnp.sum(sums["entropy"]) / jnp.sum(sums["tokens"]),
  }
  squared = sums.pop("ratio_squared")
  for side, name_of_side in enumerate(SIDES):
    tokens_of_side = sums["tokens"][side]
    for name, values in sums.items():
      value = values[side] if name in LARGEST + COUNTED else values[side] / tokens_of_side
      metrics[f"train/{name}_{name_of_side}"] = value
    ess = jnp.square(sums["ratio_mean"][side]) / squared[side]
    metrics[f"train/ess_{name_of_side}"] = ess / tokens_of_side
  return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), metrics)
