"""Sums worked out in lines, to be learned whole, by next steps, or by next sentences.

  python -m experiments.worked_sums --config=configs/worked_sums.py --out=sums
  python -m grpo_jax.train --config=configs/worked_sums.py:method=srl \
      --config.tokenizer=sums/tokenizer --config.data.path=sums --config.eval.path=sums \
      --config.warm_start.demonstrations=sums/demonstrations.jsonl

method=rlpt reads texts: --config.data.path=sums/texts. The start policy knows all three forms and
makes mistakes in each; a third of whole sums come out right. Whatever is learned from, whole sums
are held out and judged by their answers. A run takes half a minute on one CPU core, its start two.
"""

from configs import base


def get_config(arg: str | None = None):
  config, _ = base.begin(arg, method="grpo", steps=80)
  config.model.shape = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rope_theta": 1e4,
  }
  config.warm_start.steps = 900
  config.warm_start.learning_rate = 3e-3

  if config.data.source != "text":  # which a row asked for
    config.data.source = "jsonl"
  config.eval.source = "jsonl"
  config.data.template = config.eval.template = "plain"
  config.data.max_prompt_tokens = 64  # a step's or a sentence's has 46 at most, a whole sum's 12
  config.eval.samples = 4
  config.eval.temperature, config.eval.top_p = 1.0, 1.0
  config.eval.every = 10

  config.rollout.problems = 16
  config.rollout.samples = 8
  config.rollout.slots = 128
  config.rollout.burst = 8
  config.rollout.max_new_tokens = 48  # a whole solution has 33 at most

  config.replay.capacity = 4096  # 32 steps of 128 fit
  config.replay.warmup_steps = 8  # a tenth of the run, as 20 of 200
  config.optimizer.learning_rate = 4e-4
  config.optimizer.weight_decay = 0.0
  config.optimizer.minibatches = 2  # so that ratios leave 1 and clips have something to do
  config.optimizer.microbatch_tokens = 1024
  config.verifier.workers = 1
  config.verifier.deadline_seconds = 600.0  # of wall time: a machine that slept is no wrong answer
  config.audit.rollouts = 0  # rewards are exact
  config.checkpoint.every = 80
  config.log.rollouts_every = 40
  config.log.tensorboard = False
  return config
