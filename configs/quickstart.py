"""The embedded default: a Qwen3 of about a million parameters learns two-digit addition on a CPU.

  python -m grpo_jax.train --config=configs/quickstart.py

Minutes on 2 cores, no downloads. The model starts from random weights and a short supervised warm
start on solutions full of mistakes, which teaches the form of an answer but not how to be right;
GRPO with rollout replay then learns that from rewards alone.
"""

from configs import base


def get_config(arg: str | None = None):
  config, _ = base.begin(arg, steps=120)
  config.model.shape = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rope_theta": 1e4,
  }
  config.tokenizer = "characters"
  config.warm_start.steps = 400
  config.warm_start.learning_rate = 2e-3
  config.warm_start.mistakes = 0.3

  config.data.source = config.eval.source = "arithmetic"
  config.data.levels = config.eval.levels = (2,)
  config.data.template = "plain"
  config.data.max_prompt_tokens = 6
  config.data.limit = 2000
  config.eval.limit = 256
  config.eval.temperature, config.eval.top_p = 1.0, 1.0
  config.eval.every = 10

  config.rollout.problems = 32
  config.rollout.samples = 8
  config.rollout.slots = 256
  config.rollout.burst = 26
  config.rollout.max_new_tokens = 26

  config.replay.capacity = 4096  # ten steps of 256 fit, so that age is the limit that binds
  config.replay.warmup_steps = 5
  config.optimizer.learning_rate = 2e-4
  config.optimizer.weight_decay = 0.0
  config.optimizer.microbatch_tokens = 1024
  config.checkpoint.every = 40
  return config
