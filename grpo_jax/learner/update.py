"""One optimizer step from fresh and replayed rollouts.

All rows that count are packed to the front of a static batch and walked in equal microbatches by a
device loop whose length is data: a step with few survivors costs little, and compiles nothing. The
loss is the mean over all completion tokens of the concatenated batch, so the result does not depend
on how rows fall into microbatches.
"""

import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax

from grpo_jax.distribution import Decoding
from grpo_jax.learner.logprobs import sample_log_probs
from grpo_jax.learner.surrogate import Surrogate, clipped_loss, k3
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
) -> Callable[..., tuple[TrainState, Metrics]]:
  """Compiles `update(state, reference, fresh, replayed, how)`; the state is donated.

  `reference` is the parameters KL is measured to (None when surrogate.kl_coef is 0); `replayed` is
  None when the method has no replay. Returns the new state and float32 scalar metrics. A step with
  no token to learn from, or with a gradient that is not finite, changes nothing and is counted in
  `train/skipped`.
  """
  grads_of_microbatch = jax.grad(functools.partial(_loss, model, surrogate), has_aux=True)

  def update(state: TrainState, reference, fresh: Rollouts, replayed, how: Decoding):
    with jax.named_scope("assemble"):
      batch, replayed_R, count = assemble(fresh, replayed, microbatch_rows, model.layout)
      tokens = masked_sum(batch.samples.completion_len_R, batch.weight_R > 0)

    def accumulate(i, carry):
      grads, sums = carry
      rows = jax.tree.map(lambda leaf: leaf[i], (batch, replayed_R))
      new_grads, new_sums = grads_of_microbatch(state.params, reference, *rows, how, tokens)
      return jax.tree.map(jnp.add, grads, new_grads), _merge(sums, new_sums)

    zeros = jax.tree.map(jnp.zeros_like, state.params)
    microbatches = -(-count // microbatch_rows)
    with jax.named_scope("gradients"):
      grads, sums = jax.lax.fori_loop(0, microbatches, accumulate, (zeros, _no_sums(surrogate)))
    with jax.named_scope("optimizer"):
      new_state, metrics = _apply(state, optimizer, grads, learnable=tokens > 0)
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
  order_R = jnp.argsort(both.weight_R <= 0, stable=True)
  padding = -both.size % microbatch_rows

  def cut(leaf_R):
    leaf_R = jnp.pad(leaf_R[order_R], ((0, padding), *((0, 0) for _ in leaf_R.shape[1:])))
    cut = leaf_R.reshape(-1, microbatch_rows, *leaf_R.shape[1:])
    return layout.constrain(cut, "microbatch", "batch", *(None for _ in leaf_R.shape[1:]))

  batch, is_replayed = jax.tree.map(cut, (both, is_replayed_R))
  return batch, is_replayed, jnp.sum(both.weight_R > 0)


def _loss(
  model, surrogate: Surrogate, params, reference, rows: Rollouts, is_replayed_B, how, tokens
):
  """This microbatch's part of the token-mean loss, and sums for the metrics."""
  counts_B = rows.weight_R > 0
  mask_BT = completion_mask(rows.samples) & counts_B[:, None]
  logp_BT, entropy_BT = sample_log_probs(model, params, rows.samples, how)
  # Off the mask the two log-probs have nothing to do with each other; exp of that could overflow.
  log_ratio_BT = jnp.where(mask_BT, logp_BT - rows.samples.behaviour_logp_RT, 0.0)
  ratio_BT = jnp.exp(log_ratio_BT)
  loss_BT, stopped_BT = clipped_loss(ratio_BT, rows.advantage_R[:, None], surrogate)
  per_token = {
    "tokens": jnp.ones_like(loss_BT),
    "loss": loss_BT,
    "clip_fraction": stopped_BT,
    "ratio_mean": ratio_BT,
    "kl_behaviour": k3(-log_ratio_BT),
    "abs_dlogp_mean": jnp.abs(log_ratio_BT),
    "entropy": entropy_BT,
  }
  loss_BT *= rows.weight_R[:, None]
  if surrogate.kl_coef:
    reference_BT, _ = sample_log_probs(model, reference, rows.samples, how)
    to_reference_BT = k3(jnp.where(mask_BT, jax.lax.stop_gradient(reference_BT) - logp_BT, 0.0))
    loss_BT += surrogate.kl_coef * to_reference_BT
    per_token["kl_reference"] = to_reference_BT

  on_side_2B = jnp.stack([~is_replayed_B, is_replayed_B])
  mask_2BT = mask_BT & on_side_2B[:, :, None]
  sums = {name: masked_sum(x[None], mask_2BT, axis=(1, 2)) for name, x in per_token.items()}
  row_tokens_B = (rows.samples.prompt_len_R + rows.samples.completion_len_R) * counts_B
  sums["row_tokens"] = jnp.sum(row_tokens_B * on_side_2B, axis=1).astype(jnp.float32)
  sums["ratio_max"] = masked_max(ratio_BT[None], mask_2BT, axis=(1, 2))
  sums["abs_dlogp_max"] = masked_max(jnp.abs(log_ratio_BT)[None], mask_2BT, axis=(1, 2))
  return masked_sum(loss_BT, mask_BT) / tokens, sums


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
  summed = AVERAGED + COUNTED + (("kl_reference",) if surrogate.kl_coef else ())
  sums = {name: jnp.zeros(len(SIDES), jnp.float32) for name in summed}
  return sums | {name: jnp.full(len(SIDES), -jnp.inf) for name in LARGEST}


def _merge(left: Metrics, right: Metrics) -> Metrics:
  return {
    name: jnp.maximum(left[name], right[name]) if name in LARGEST else left[name] + right[name]
    for name in left
  }


def _summary(sums: Metrics, tokens, rows, microbatches) -> Metrics:
  """Means over each side's tokens; not a number on a side that has none."""
  metrics = {
    "train/tokens": tokens,
    "train/rows": rows,
    "train/microbatches": microbatches,
    "train/loss": jnp.sum(sums["loss"]) / tokens,
    "train/entropy": jnp.sum(sums["entropy"]) / tokens,
  }
  for side, name_of_side in enumerate(SIDES):
    tokens_of_side = sums["tokens"][side]
    for name, values in sums.items():
      value = values[side] if name in LARGEST + COUNTED else values[side] / tokens_of_side
      metrics[f"train/{name}_{name_of_side}"] = value
  return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), metrics)
