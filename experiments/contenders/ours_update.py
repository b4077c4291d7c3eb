"""The contender grpo_jax: microbatches filled by tokens, logits of completions alone, in chunks."""

import functools
import importlib.metadata

import jax
import jax.numpy as jnp
import numpy as np

from contenders.protocol import Setup, serve
from contenders.update_work import ADAMW, CLIP, MAX_GRAD_NORM, Batch, Step, UpdateWork
from contenders.xla import with_products
from grpo_jax.distribution import decoding
from grpo_jax.learner.optimizer import make_optimizer
from grpo_jax.learner.state import TrainState, create_state
from grpo_jax.learner.surrogate import Surrogate
from grpo_jax.learner.update import Update
from grpo_jax.model.config import Qwen3Config
from grpo_jax.model.qwen3 import Qwen3, init_params
from grpo_jax.model.sharding import make_layout
from grpo_jax.randomness import Purpose, key_for
from grpo_jax.records import Finish, Rollouts, Samples

PPO_CLIP = Surrogate(
  ratio="token",
  clip="ppo",
  clip_low=CLIP,
  clip_high=CLIP,
  dual_clip=0.0,
  weight_cap=1.0,
  aggregate="token_mean",
  anchor="behaviour",
  correction="none",
  correction_low=0.0,
  correction_high=1.0,
  kl="k3",
  kl_coef=0.0,
  entropy="uniform",
  entropy_coef=0.0,
)


def load(setup: Setup) -> tuple[Step, dict]:
  """A model with random weights and its optimizer."""
  layout = make_layout(devices=jax.devices()[:1])
  config, dtype = Qwen3Config(**setup.shape), jnp.dtype(setup.dtype)
  model = Qwen3(config, layout, dtype=dtype, remat="elementwise")
  optimizer = make_optimizer(**ADAMW, warmup_steps=0, max_grad_norm=MAX_GRAD_NORM)
  params = init_params(model, key_for(0, Purpose.INIT))
  state = jax.block_until_ready(create_state(params, optimizer, layout))
  jax.clear_caches()  # the programs that count are those of the update
  update_of = functools.cache(functools.partial(make_update, model, optimizer))

  def step(work: UpdateWork, batch: Batch) -> float:
    nonlocal state
    state, loss = update_of(work.microbatch_rows, work.prompt_tokens, work.longest)(
      state, rollouts(batch)
    )
    return loss

  versions = {name: importlib.metadata.version(name) for name in ("jax", "flax")}
  return step, {"versions": versions}


def make_update(model: Qwen3, optimizer, rows: int, prompt_tokens: int, longest: int):
  """From a state and rollouts to the next state and the loss; all that knows how we update."""
  update = Update(
    model,
    optimizer,
    PPO_CLIP,
    microbatch_tokens=rows * (prompt_tokens + longest),
    max_completion_tokens=longest,
  )
  how = decoding(1.0, 0, 1.0, model.config.vocab_size)
  shuffle = np.random.default_rng(0)

  def next_state(state: TrainState, fresh: Rollouts) -> tuple[TrainState, float]:
    state, metrics = update(state, None, fresh, None, how, shuffle)
    return jax.block_until_ready(state), float(metrics["train/loss"])

  return next_state


def rollouts(batch: Batch) -> Rollouts:
  """The batch in our words: completions directly behind their prompts."""
  rows, prompt_tokens = batch.prompt_RP.shape
  int_R = np.zeros(rows, np.int32)
  samples = Samples(
    tokens_RT=np.concatenate([batch.prompt_RP, batch.completion_RC], axis=1),
    prompt_len_R=int_R + prompt_tokens,
    completion_len_R=batch.mask_RC.sum(axis=1, dtype=np.int32),
    behaviour_logp_RT=np.pad(batch.behaviour_RC, ((0, 0), (prompt_tokens, 0))),
    finish_R=int_R + np.int32(Finish.EOS),
  )
  return jax.device_put(
    Rollouts(
      samples=samples,
      reward_R=np.zeros(rows, np.float32),
      advantage_R=batch.advantage_R,
      weight_R=np.ones(rows, np.float32),
      group_R=int_R,
      problem_R=int_R,
      birth_R=int_R,
      group_size_R=int_R + 1,
    )
  )


if __name__ == "__main__":
  serve(load, UpdateWork, with_products)
