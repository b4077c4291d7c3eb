"""Columns."""

from configs import base


def get_config(arg: str | None = None):
  config, _ = base.begin(arg, steps=80)
  config.model.shape = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rope_theta": 1e4,
  }
  config.tokenizer = "characters"
  config.warm_start.steps = 450
  config.warm_start.learning_rate = 3e-3
  config.warm_start.mistakes = 0.1

  config.data.source = config.eval.source = "arithmetic"
  config.data.levels = config.eval.levels = (1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5)
  config.data.template = "plain"
  config.data.max_prompt_tokens = 12
  config.data.limit = 384
  config.eval.limit = 192
  config.eval.samples = 4
  config.eval.temperature, config.eval.top_p = 1.0, 1.0
  config.eval.every = 10

  config.rollout.problems = 16
  config.rollout.samples = 8
  config.rollout.slots = 64
  config.rollout.burst = 8
  config.rollout.max_new_tokens = 56

  config.replay.capacity = 2048
  config.replay.warmup_steps = 5
  config.optimizer.learning_rate = 2e-4
  config.optimizer.weight_decay = 0.0
  config.optimizer.microbatch_tokens = 512
  config.verifier.workers = 1
  config.checkpoint.every = 50
  config.log.tensorboard = False
  return config
