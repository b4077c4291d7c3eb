"""What is the gradient of a step's loss? Summed over microbatches, the same however they are cut.

What a row's tokens weigh is set for the whole step before any gradient is taken. A device loop
gathers one microbatch after another out of the step's rows, as many as the data ask for, and adds
its gradient to the sum, in float32.
"""

import dataclasses
import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from grpo_jax.distribution import Decoding
from grpo_jax.learner import tally
from grpo_jax.learner.aggregate import AGGREGATES
from grpo_jax.learner.logprobs import sample_log_probs
from grpo_jax.learner.packing import Pack
from grpo_jax.learner.poison import drop_poisoned_rollouts, drop_poisoned_tokens
from grpo_jax.learner.surrogate import Surrogate, Tokens, token_losses
from grpo_jax.masked import masked_sum
from grpo_jax.model.lora import LoRA, policy_params
from grpo_jax.model.qwen3 import Params, Qwen3
from grpo_jax.model.sharding import Layout
from grpo_jax.records import Rollouts, completion_mask


@flax.struct.dataclass
class Batch:
  """The R rows of a step, whole on every device: they take some bytes a token, and a device finds
  the rows of its microbatches without asking the others."""

  rollouts: Rollouts
  is_replayed_R: jax.Array  # bool
  # Log-probs of the policy before the step, of rows whose anchor it is; None: those just computed.
  anchor_RT: jax.Array | None


def assemble(fresh: Rollouts, replayed: Rollouts | None) -> tuple[Batch, jax.Array]:
  """All rows, those with a number that is not finite at weight 0; and how many these are."""
  both = fresh
  if replayed is not None:
    both = jax.tree.map(lambda *parts: jnp.concatenate(parts), fresh, replayed)
  clean = drop_poisoned_rollouts(both)
  is_replayed_R = jnp.arange(both.size) >= fresh.size
  poisoned = jnp.sum(both.weight_R > 0) - jnp.sum(clean.weight_R > 0)
  return Batch(clean, is_replayed_R, None), poisoned


def rows_that_learn(rollouts: Rollouts) -> jax.Array:
  """bool [R]: rows that count and have a token."""
  return (rollouts.weight_R > 0) & (rollouts.samples.completion_len_R > 0)


@dataclasses.dataclass(frozen=True)
class Objective:
  """What is minimised, and by which model."""

  model: Qwen3
  surrogate: Surrogate
  max_completion_tokens: int  # what the "constant" aggregate divides by
  lora: LoRA | None = None


def add_gradients(
  objective: Objective,
  total: tuple[Params, tally.Sums],
  params: Params,
  reference: Params | None,
  batch: Batch,
  in_step_R: jax.Array,
  pack: Pack,
  how: Decoding,
) -> tuple[Params, tally.Sums]:
  """Adds to `total` the gradient of one bucket's microbatches, and their sums.

  `in_step_R` marks all rows of this optimizer step, of whatever bucket: they share a normaliser.
  """
  scale_R = _scales(objective, batch.rollouts, in_step_R)

  def add(i, total):
    grads, sums = total
    index_B = pack.rows_nSb[i].reshape(-1)
    part, scale_B = _take((batch, scale_R), index_B, pack.length, objective.model.layout)

    def loss(params, d_params=None):
      return _loss(objective, params, reference, part, scale_B, how, pack.line, d_params)

    if objective.lora:  # few numbers, and of a form that jax 0.10.2 cannot write into a sum
      new_grads, new_sums = jax.grad(loss, has_aux=True)(params)
      grads = jax.tree.map(jnp.add, grads, new_grads)
    else:
      grads, new_sums = _added_in_place(grads, loss, params)
    return grads, tally.merged(sums, new_sums)

  return jax.lax.fori_loop(0, pack.count, add, total)


def _added_in_place(total: Params, loss: Callable, params: Params) -> tuple[Params, tally.Sums]:
  """Adds a gradient to the sum in its own place, a layer or a block of the vocabulary at a time: an
  array for it alone would take as much again."""
  refs = jax.tree.map(jax.new_ref, total)
  _, pull_back, sums = jax.vjp(functools.partial(loss, d_params=refs), params, has_aux=True)
  pull_back.with_refs(refs)(jnp.float32(1))
  return jax.tree.map(jax.freeze, refs), sums


def add_log_probs(
  model: Qwen3, logp_RT: jax.Array, params: Params, batch: Batch, pack: Pack, how: Decoding
) -> jax.Array:
  """Writes the log-probs of one bucket's rows to their places."""

  def write(i, logp_RT):
    index_B = pack.rows_nSb[i].reshape(-1)
    samples = _take(batch.rollouts.samples, index_B, pack.length, model.layout)
    logp_BL, _ = sample_log_probs(model, params, samples, how, pack.line)
    return logp_RT.at[index_B, : pack.length].set(logp_BL, mode="drop")

  return jax.lax.fori_loop(0, pack.count, write, logp_RT)


def _scales(objective: Objective, rollouts: Rollouts, in_step_R: jax.Array) -> jax.Array:
  """What a token of each row weighs in the loss of the step."""
  learns_R = rows_that_learn(rollouts) & in_step_R
  aggregate = AGGREGATES[objective.surrogate.aggregate]
  length_R = rollouts.samples.completion_len_R
  return rollouts.weight_R * aggregate(length_R, learns_R, objective.max_completion_tokens)


def _take(rows, index_B: jax.Array, length: int, layout: Layout):
  """Of each array [R, ...] the rows at `index_B`, cut to `length` and split over devices; rows of
  zeros, which have no token and no weight, where the index is R."""

  def of(leaf_R):
    leaf_R = leaf_R[:, :length] if leaf_R.ndim > 1 else leaf_R
    taken_B = leaf_R.at[index_B].get(mode="fill", fill_value=0)
    return layout.constrain(taken_B, "batch", *(None for _ in leaf_R.shape[1:]))

  return jax.tree.map(of, rows)


def _loss(
  objective: Objective, params, reference, batch: Batch, scale_B, how, line: int, d_params
) -> tuple[jax.Array, tally.Sums]:
  """This microbatch's part of the loss, and sums for the metrics."""
  policy = policy_params(params, reference, objective.lora)
  tokens = _tokens(
    objective.model, objective.surrogate, policy, reference, batch, how, line, d_params
  )
  tokens, poisoned_B = drop_poisoned_tokens(tokens)
  loss_BT, facts_BT = token_losses(objective.surrogate, tokens)
  loss_B = scale_B * masked_sum(loss_BT, tokens.mask_BT, axis=1)
  sums = tally.sums_of(
    facts_BT, loss_B, tokens.mask_BT, poisoned_B, batch.rollouts, batch.is_replayed_R
  )
  return jnp.sum(loss_B), sums


def _tokens(
  model, surrogate: Surrogate, params, reference, batch: Batch, how, line: int, d_params
) -> Tokens:
  """What the loss sees of these rows; rows of weight 0 are off the mask."""
  rows = batch.rollouts
  logp_BT, entropy_BT = sample_log_probs(model, params, rows.samples, how, line, d_params)
  fixed_BT = jax.lax.stop_gradient(logp_BT)
  behaviour_BT = rows.samples.behaviour_logp_RT
  reference_BT = fixed_BT
  if surrogate.kl_coef:
    reference_BT, _ = sample_log_probs(model, reference, rows.samples, how, line)
  anchor_BT = behaviour_BT
  if surrogate.anchor != "behaviour":
    anchor_BT = fixed_BT if batch.anchor_RT is None else batch.anchor_RT
  if surrogate.anchor == "recomputed_replayed":
    anchor_BT = jnp.where(batch.is_replayed_R[:, None], anchor_BT, behaviour_BT)
  return Tokens(
    logp_BT=logp_BT,
    entropy_BT=entropy_BT,
    behaviour_BT=behaviour_BT,
    anchor_BT=anchor_BT,
    reference_BT=jax.lax.stop_gradient(reference_BT),
    advantage_BT=jnp.broadcast_to(rows.advantage_R[:, None], logp_BT.shape),
    mask_BT=completion_mask(rows.samples) & (rows.weight_R > 0)[:, None],
    replayed_B1=batch.is_replayed_R[:, None],
  )
