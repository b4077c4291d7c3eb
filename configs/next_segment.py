"""Learning from plain text: what is the next sentence? (RLPT, arXiv 2509.19249)

  python -m grpo_jax.train --config=configs/next_segment.py \
      --config.model.folder=Qwen3-4B-Base --config.data.path=texts --config.eval.path=texts \
      --config.reward.segment_judge=my_judges:same_meaning

`texts` is a folder with train.jsonl and test.jsonl, a line a document: {"text": "..."}. The paper
warms up on demonstrations of the form (batch 1,024, learning rate 2e-5, three epochs) and has a
language model judge predictions; verify/segments.py says how to name such a judge. The embedded one
compares words and is for tests. Not yet run at this size.

  :shrunk=true runs the same steps on a CPU in a minute, with a few thousand parameters of random
  weights, over the characters of ASCII; it checks the path, and learns nothing.
"""

from configs import base


def get_config(arg: str | None = None):
  config, given = base.begin(arg, method="rlpt", shrunk=False)
  config.data.max_prompt_tokens = 2048
  config.rollout.problems = 64  # x 8 rollouts: the paper's batch of 512, if it counts rollouts
  if not given["shrunk"]:
    config.model.dtype = "bfloat16"
    config.model.remat = "block"
    return config

  base.shrink(config)
  del config.model.shape["vocab_size"]  # the tokenizer's
  config.tokenizer = "ascii"
  config.data.max_prompt_tokens = 512
  return config
