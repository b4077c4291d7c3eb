"""Addition of one to eight digits by a model of 63 million parameters: the methods on a GPU.

  python -m grpo_jax.train --config=configs/long_columns.py:method=grpo

The task of columns.py, longer, for a model a thousand times as large. The start policy has seen the
form, with three columns in ten wrong, for a short time: one digit is often right, eight are never.
"""

from configs import base


def get_config(arg: str | None = None):
  config, _ = base.begin(arg, steps=60)
  config.model.shape = {
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 10,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "rope_theta": 1e4,
  }
  config.model.dtype = "bfloat16"
  config.model.remat = "elementwise"
  config.tokenizer = "characters"
  config.warm_start.steps = 200
  config.warm_start.learning_rate = 3e-4
  config.warm_start.mistakes = 0.3

  config.data.source = config.eval.source = "arithmetic"
  config.data.levels = config.eval.levels = (1, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8)
  config.data.template = "plain"
  config.data.max_prompt_tokens = 18
  config.data.limit = 640  # 20 steps an epoch
  config.eval.limit = 256
  config.eval.samples = 2
  config.eval.temperature, config.eval.top_p = 1.0, 1.0
  config.eval.every = 10

  config.rollout.problems = 32
  config.rollout.samples = 8
  config.rollout.slots = 256
  config.rollout.max_new_tokens = 104  # a right answer has 86 at most

  config.replay.capacity = 8192  # 32 steps of 256 fit
  config.replay.warmup_steps = 6  # a tenth of the run, as 20 of 200
  config.optimizer.learning_rate = 3e-5
  config.optimizer.weight_decay = 0.0
  config.optimizer.minibatches = 2  # so that ratios leave 1 and clips have something to do
  config.verifier.workers = 1
  config.verifier.deadline_seconds = 600.0  # of wall time: a machine that slept is no wrong answer
  config.audit.rollouts = 0  # rewards are exact
  config.checkpoint.every = 60
  config.log.rollouts_every = 30
  config.log.tensorboard = False
  return config
