"""Learning from demonstrations: the warm start before any reward is seen."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from grpo_jax.distribution import Decoding
from grpo_jax.learner.logprobs import sample_log_probs
from grpo_jax.learner.state import TrainState, state_shardings
from grpo_jax.masked import masked_sum
from grpo_jax.model.qwen3 import Qwen3, abstract_params
from grpo_jax.records import Samples, completion_mask


def pack_demonstrations(pairs: list[tuple[list[int], list[int]]], length: int) -> Samples:
  """Prompts and completions (token ids, end of sequence included) as rows of `length` tokens."""
  rows = len(pairs)
  tokens_RT = np.zeros((rows, length), np.int32)
  for row, (prompt, completion) in enumerate(pairs):
    tokens_RT[row, : len(prompt) + len(completion)] = prompt + completion
  return Samples(
    tokens_RT=tokens_RT,
    prompt_len_R=np.array([len(prompt) for prompt, _ in pairs], np.int32),
    completion_len_R=np.array([len(completion) for _, completion in pairs], np.int32),
    behaviour_logp_RT=np.zeros((rows, length), np.float32),
    finish_R=np.zeros(rows, np.int32),
  )


def make_supervised_step(
  model: Qwen3, optimizer: optax.GradientTransformation, parts: int = 1
) -> Callable[[TrainState, Samples, Decoding], tuple[TrainState, jax.Array]]:
  """Compiles one step of cross-entropy on completion tokens; returns the state and the mean loss.
  The state is donated.

  parts: forward and backward passes that share the rows, whose gradients add up: less memory.
  """

  layout = model.layout

  def loss_of(params, samples: Samples, how: Decoding, tokens: jax.Array):
    logp_BT, _ = sample_log_probs(model, params, samples, how)
    return -masked_sum(logp_BT, completion_mask(samples)) / tokens

  def gradient(params, samples: Samples, how: Decoding):
    tokens = completion_mask(samples).sum()
    loss_and_grads = jax.value_and_grad(loss_of)
    if parts == 1:
      return loss_and_grads(params, samples, how, tokens)

    def add(total, part: Samples):
      return jax.tree.map(jnp.add, total, loss_and_grads(params, part, how, tokens)), None

    # Every parts-th row, so that each part has rows on all devices.
    split = jax.tree.map(
      lambda leaf: jnp.moveaxis(leaf.reshape(-1, parts, *leaf.shape[1:]), 1, 0), samples
    )
    nothing = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
    return jax.lax.scan(add, nothing, split)[0]

  def step(state: TrainState, samples: Samples, how: Decoding):
    samples = jax.lax.with_sharding_constraint(samples, layout.sharding("batch"))
    loss, grads = gradient(state.params, samples, how)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, opt_state, state.updates + 1), loss

  shardings = state_shardings(abstract_params(model), optimizer, layout)
  return jax.jit(
    step,
    donate_argnums=0,
    in_shardings=(shardings, layout.replicated, layout.replicated),
    out_shardings=(shardings, layout.replicated),
  )
