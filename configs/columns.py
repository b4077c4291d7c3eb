"""Addition of one to five digits with a spread of difficulty: what methods are compared on.

  python -m grpo_jax.train --config=configs/columns.py:method=grpo

The start policy knows the form and the columns of short sums: some problems are nearly always right
from the beginning, many are mixed, some long ones are never solved. Problems are few, so that a
run passes them three times and what was learned of a problem can be used; a run takes half a
minute on one CPU core. The quickstart is the friendlier introduction.
"""

from configs import base


def get_config(arg: str | None = None):
  config, _ = base.begin(arg, steps=60)
  config.model.shape = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rope_theta": 1e4,
  }
  config.tokenizer = "characters"
  config.warm_start.steps = 600
  config.warm_start.learning_rate = 3e-3
  config.warm_start.mistakes = 0.1

  config.data.source = config.eval.source = "arithmetic"
  config.data.levels = config.eval.levels = (1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5)
  config.data.template = "plain"
  config.data.max_prompt_tokens = 12
  config.data.limit = 320  # 20 steps an epoch
  config.eval.limit = 192
  config.eval.samples = 4
  config.eval.temperature, config.eval.top_p = 1.0, 1.0
  config.eval.every = 15

  config.rollout.problems = 16
  config.rollout.samples = 8
  config.rollout.slots = 128
  config.rollout.burst = 8
  config.rollout.max_new_tokens = 68  # a right answer has 53 at most: 0.2 of it may be punished

  config.replay.capacity = 4096  # 32 steps of 128 fit
  config.replay.warmup_steps = 6  # a tenth of the run, as 20 of 200
  config.optimizer.learning_rate = 2e-4
  config.optimizer.weight_decay = 0.0
  config.optimizer.minibatches = 2  # so that ratios leave 1 and clips have something to do
  config.optimizer.microbatch_tokens = 512  # on one core smaller is faster
  config.verifier.workers = 1
  config.verifier.deadline_seconds = 600.0  # of wall time: a machine that slept is no wrong answer
  config.audit.rollouts = 0  # rewards are exact
  config.checkpoint.every = 60
  config.log.rollouts_every = 30
  config.log.tensorboard = False
  return config
