"""The contender google-tunix: the trainer and the GRPO loss of its learner, fed with our batches.

Every microbatch is padded to the longest completion there might have been, as its learner does, and
is averaged by itself: where microbatches have unequal tokens its loss is not that of the others.
Its packing of sequences is not used: without TPU kernels its attention knows no borders between
them.
"""

import importlib.metadata

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from tunix.rl import common, function_registry
from tunix.rl.grpo.grpo_learner import GRPOConfig
from tunix.rl.trainer import Trainer
from tunix.sft.peft_trainer import TrainingConfig

from contenders.peer_tunix import random_model
from contenders.protocol import Setup, serve
from contenders.update_work import ADAMW, CLIP, MAX_GRAD_NORM, PAD, Batch, Step, UpdateWork
from contenders.xla import timed_with_scratch

NO_EOS = -1


class LossKeeping(Trainer):
  """The trainer, with the losses of its microbatches to be read."""

  losses: list

  def _post_process_train_step(self, aux):
    super()._post_process_train_step(aux)
    self.losses.append(aux["pg_loss"])


def load(setup: Setup) -> tuple[Step, dict]:
  """A model with random weights; its trainer is made for the microbatches of the first batch."""
  mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))
  with mesh:
    model = random_model(setup)
  jax.block_until_ready(nnx.state(model))
  jax.clear_caches()  # the programs that count are those of the update
  trainers: dict[int, LossKeeping] = {}

  def step(work: UpdateWork, batch: Batch) -> float:
    examples = microbatches(batch, work.microbatch_rows)
    with mesh:
      if len(examples) not in trainers:
        trainers[len(examples)] = make_trainer(model, len(examples))
      trainer = trainers[len(examples)]
      trainer.losses = []
      trainer.train(examples)
    jax.block_until_ready(nnx.state(model))
    return float(np.mean(jax.device_get(trainer.losses)))

  versions = {"tunix": importlib.metadata.version("google-tunix"), "jax": jax.__version__}
  return step, {"versions": versions}


def make_trainer(model: nnx.Module, microbatches: int) -> LossKeeping:
  """As its cluster and its learner set one up."""
  optimizer = optax.chain(
    optax.clip_by_global_norm(MAX_GRAD_NORM), optax.adamw(**ADAMW)
  )
  config = TrainingConfig(
    eval_every_n_steps=10**9,
    gradient_accumulation_steps=microbatches if microbatches > 1 else None,
  )
  trainer = LossKeeping(model, optimizer, config, custom_checkpoint_metadata_fn=dict)
  trainer.is_managed_externally = True
  algorithm = GRPOConfig(epsilon=CLIP, beta=0.0, loss_agg_mode="token-mean")
  algorithm.temperature = 1.0
  loss = function_registry.get_policy_loss_fn(algorithm.policy_loss_fn)
  trainer.with_loss_fn(
    lambda model, train_example: loss(
      model, train_example, algo_config=algorithm, pad_id=PAD, eos_id=NO_EOS
    ),
    has_aux=True,
  )
  trainer.with_gen_model_input_fn(lambda example: {"train_example": example})
  return trainer


def microbatches(batch: Batch, size: int) -> list[common.TrainExample]:
  """The batch in its words."""
  parts = [slice(i, i + size) for i in range(0, len(batch.advantage_R), size)]
  return [
    common.TrainExample(
      prompt_ids=jax.numpy.asarray(batch.prompt_RP[part]),
      prompt_mask=jax.numpy.asarray(batch.prompt_RP[part] != PAD),
      completion_ids=jax.numpy.asarray(batch.completion_RC[part]),
      completion_mask=jax.numpy.asarray(batch.mask_RC[part]),
      advantages=jax.numpy.asarray(batch.advantage_R[part]),
      ref_per_token_logps=None,
      old_per_token_logps=jax.numpy.asarray(batch.behaviour_RC[part]),
    )
    for part in parts
  ]


if __name__ == "__main__":
  serve(load, UpdateWork, timed_with_scratch)
