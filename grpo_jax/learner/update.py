"""One step of learning from fresh and replayed rollouts: one optimizer step, or several.

The rows that learn are dealt to optimizer steps and cut into microbatches on the host, from their
lengths alone; their tokens stay on the devices. A program for each shape of microbatches, of which
there are few, adds up gradients, one applies them. Which rows learn is data.

Each program is waited for, all of its outputs on all devices, before the next one starts: that
costs nothing where each needs the last one's result, and programs queued up on simulated devices
may each hold some of their threads, and wait for ever.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from grpo_jax.distribution import Decoding
from grpo_jax.learner import tally
from grpo_jax.learner.apply import apply_gradient
from grpo_jax.learner.gradients import (
  Batch,
  Objective,
  add_gradients,
  add_log_probs,
  assemble,
  rows_that_learn,
)
from grpo_jax.learner.packing import Pack, largest_pack, pack, schedule
from grpo_jax.learner.state import TrainState, state_shardings
from grpo_jax.learner.surrogate import Surrogate
from grpo_jax.model.lora import LoRA, abstract_trained, policy_params
from grpo_jax.model.qwen3 import Params, Qwen3, abstract_params
from grpo_jax.records import Rollouts

Metrics = dict[str, float]


class Update:
  """Compiles the update of a model; holds no parameters and no random state."""

  def __init__(
    self,
    model: Qwen3,
    optimizer: optax.GradientTransformation,
    surrogate: Surrogate,
    *,
    microbatch_tokens: int,
    max_completion_tokens: int,
    epochs: int = 1,
    minibatches: int = 1,
    lora: LoRA | None = None,
  ):
    """
    Args:
      microbatch_tokens: of one forward and backward pass on one device, padding included; a longer
        row makes a microbatch of its own.
      max_completion_tokens: what a completion can have at most; the "constant" aggregate divides by
        it.
      epochs: how often a step learns from each of its rows.
      minibatches: optimizer steps into which an epoch deals its rows; each has its own normaliser.
      lora: what is trained; None: all parameters.
    """
    self._shards, self._tokens = model.layout.batch_shards, microbatch_tokens
    self._epochs, self._minibatches = epochs, minibatches
    # With one optimizer step, the policy before the update is the one whose gradient is taken.
    self._keeps_anchor = surrogate.anchor != "behaviour" and epochs * minibatches > 1
    self._anchors_fresh = surrogate.anchor == "recomputed"

    objective = Objective(model, surrogate, max_completion_tokens, lora)
    self._everywhere = everywhere = model.layout.replicated
    self._lora = lora
    trained = abstract_trained(abstract_params(model), lora)
    state = state_shardings(trained, optimizer, model.layout)
    self._assemble = jax.jit(_assemble, out_shardings=everywhere)
    self._nothing = jax.jit(
      functools.partial(_nothing, objective, trained), out_shardings=(state.params, everywhere)
    )
    self._add_gradients = jax.jit(
      functools.partial(add_gradients, objective),
      donate_argnums=0,
      out_shardings=(state.params, everywhere),
    )
    self._add_log_probs = jax.jit(
      functools.partial(add_log_probs, model), donate_argnums=0, out_shardings=everywhere
    )
    self._apply = jax.jit(
      functools.partial(apply_gradient, model.layout, optimizer),
      donate_argnums=0,
      out_shardings=(state, everywhere),
    )

  def __call__(
    self,
    state: TrainState,
    reference: Params | None,
    fresh: Rollouts,
    replayed: Rollouts | None,
    how: Decoding,
    shuffle: np.random.Generator,
  ) -> tuple[TrainState, Metrics]:
    """The new state, and metrics on the host; the old state is donated.

    A row with a number that is not finite is left out and counted in `train/poisoned_rows`. An
    optimizer step with no token to learn from, or with a gradient that is not finite, changes
    nothing and is counted in `train/skipped`.

    Args:
      reference: the start policy, which KL is measured to and adapters are added to; None when
        surrogate.kl_coef is 0 and all parameters are trained.
      fresh: rollouts of this step.
      replayed: older ones; None when the method has no replay.
      how: temperature and filters they were sampled with.
      shuffle: deals rows to minibatches.
    """
    batch, poisoned, *of_rows = jax.block_until_ready(self._assemble(fresh, replayed))
    learns_R, length_R = jax.device_get(of_rows)
    learners = np.flatnonzero(learns_R)
    cut = functools.partial(self._pack, length_R=length_R, batch=batch)
    if self._keeps_anchor:
      policy = policy_params(state.params, reference, self._lora)
      anchored = learners if self._anchors_fresh else learners[learners >= fresh.size]
      batch = batch.replace(anchor_RT=self._log_probs(policy, batch, cut(anchored), how))

    steps = []
    for rows in schedule(learners, self._epochs, self._minibatches, shuffle):
      packs = cut(rows)
      grads, sums = self._gradient(state.params, reference, batch, rows, packs, how)
      state, norms = jax.block_until_ready(self._apply(state, grads, sums["tokens"]))
      steps.append((*jax.device_get((sums, norms)), packs))
    metrics = _summary(steps)
    metrics["train/rows"] = float(len(learners))
    metrics["train/poisoned_rows"] += float(poisoned)
    return state, metrics

  def lower(
    self,
    state: TrainState,
    reference: Params | None,
    fresh: Rollouts,
    replayed: Rollouts | None,
    how: Decoding,
    length_R: np.ndarray | None = None,
  ) -> dict[str, jax.stages.Lowered]:
    """The programs of an update by name; without that of the anchor, which is a part of the
    gradient's. Takes what a call takes, as shapes with shardings: what the programs need can be
    asked without taking it, on devices that need not be here.

    Args:
      length_R: tokens of each row: the gradient's programs are those of these rows, one a bucket.
        None: one of them, in the largest shape there may be.
    """

    def everywhere(tree):
      as_shape = functools.partial(jax.ShapeDtypeStruct, sharding=self._everywhere)
      return jax.tree.map(lambda leaf: as_shape(leaf.shape, leaf.dtype), tree)

    assemble = self._assemble.lower(fresh, replayed)
    batch = everywhere(assemble.out_info[0])
    rows, longest = batch.rollouts.samples.tokens_RT.shape
    sizes = {"longest": longest, "tokens": self._tokens, "shards": self._shards}
    if length_R is None:
      parts = {"gradients": largest_pack(rows, **sizes)}
    else:
      packs = pack(np.arange(rows), length_R, **sizes)
      parts = {f"gradients, {part.length}": part for part in packs}
    if self._keeps_anchor:
      batch = batch.replace(anchor_RT=batch.rollouts.samples.behaviour_logp_RT)
    sums = everywhere(self._nothing.eval_shape()[1])
    in_step_R = np.ones(rows, bool)
    total = (state.params, sums)
    gradients = {
      name: self._add_gradients.lower(total, state.params, reference, batch, in_step_R, part, how)
      for name, part in parts.items()
    }
    apply = self._apply.lower(state, state.params, sums["tokens"])
    return {"assemble": assemble} | gradients | {"apply": apply}

  def compiled_programs(self) -> int:
    """How many programs updating has compiled so far; new survivors and lengths, once every shape
    of microbatches was met, must not raise it."""
    programs = (
      self._assemble, self._nothing, self._add_gradients, self._add_log_probs, self._apply
    )  # fmt: skip
    return sum(program._cache_size() for program in programs)

  def _pack(self, rows: np.ndarray, length_R: np.ndarray, batch: Batch) -> list[Pack]:
    longest = batch.rollouts.samples.tokens_RT.shape[1]
    return pack(rows, length_R, longest=longest, tokens=self._tokens, shards=self._shards)

  def _gradient(
    self, params, reference, batch: Batch, rows: np.ndarray, packs: list[Pack], how: Decoding
  ) -> tuple[Params, tally.Sums]:
    """Of one optimizer step, and sums over its rows."""
    in_step_R = np.isin(np.arange(batch.rollouts.size), rows)
    total = jax.block_until_ready(self._nothing())
    for part in packs:
      total = jax.block_until_ready(
        self._add_gradients(total, params, reference, batch, in_step_R, part, how)
      )
    return total

  def _log_probs(self, params, batch: Batch, packs: list[Pack], how: Decoding) -> jax.Array:
    """Of all rows under `params`, float32 [R, T]."""
    shape = batch.rollouts.samples.tokens_RT.shape
    logp_RT = jnp.zeros(shape, jnp.float32, device=self._everywhere)
    for part in packs:
      logp_RT = jax.block_until_ready(self._add_log_probs(logp_RT, params, batch, part, how))
    return logp_RT


def _assemble(fresh: Rollouts, replayed: Rollouts | None):
  """The batch, and what the host plans by: which rows learn, and their tokens."""
  batch, poisoned = assemble(fresh, replayed)
  samples = batch.rollouts.samples
  length_R = samples.prompt_len_R + samples.completion_len_R
  return batch, poisoned, rows_that_learn(batch.rollouts), length_R


def _nothing(objective: Objective, trained: Params) -> tuple[Params, tally.Sums]:
  """The gradient and the sums of no row."""
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), trained)
  return zeros, tally.no_sums(with_reference=bool(objective.surrogate.kl_coef))


def _summary(steps: list[tuple[tally.Sums, dict, list[Pack]]]) -> Metrics:
  """Of all optimizer steps together: tokens count once an epoch, means are over tokens, norms and
  the loss are means over steps; the parameters' norm is the last. `train/mismatch` alone is of the
  first: before it, the policy was the one that sampled the fresh rows."""
  sums, norms, packs = zip(*steps, strict=True)
  metrics = tally.described(functools.reduce(tally.merged, sums))
  metrics["train/loss"] /= len(steps)
  metrics |= {name: float(np.mean([n[name] for n in norms])) for name in norms[0]}
  metrics["train/param_norm"] = float(norms[-1]["train/param_norm"])
  metrics["train/skipped"] = float(sum(n["train/skipped"] for n in norms))
  metrics["train/updates"] = float(len(steps))
  metrics["train/mismatch"] = tally.described(sums[0])["train/abs_dlogp_mean_fresh"]
  used = [part for of_step in packs for part in of_step]
  trained = metrics["train/row_tokens_fresh"] + metrics["train/row_tokens_replay"]
  metrics["train/microbatches"] = float(sum(part.count for part in used))
  metrics["train/padding"] = 1 - trained / max(1, sum(part.tokens for part in used))
  return metrics
