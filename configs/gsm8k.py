"""Qwen3 on GSM8K: grade-school word problems whose answers are numbers.

  python -m grpo_jax.train --config=configs/gsm8k.py:method=aper \
      --config.model.folder=Qwen3-1.7B-Base --config.data.path=gsm8k --config.eval.path=gsm8k

`gsm8k` is a folder with train.jsonl and test.jsonl (or the Hub's parquet files). Not yet run at
this size: what it costs and reaches will stand here once it was.

  :shrunk=true runs the same steps on a CPU in a minute, with a few thousand parameters of random
  weights under the real vocabulary: it checks the path, and learns nothing.
  :shape=qwen3_0p6b takes random weights of that published shape, and `--config.tokenizer` a
  folder: what a step costs on a machine, before weights are fetched. It learns nothing either.
"""

import dataclasses

from configs import base
from grpo_jax.errors import UserError
from grpo_jax.model.config import PUBLISHED


def get_config(arg: str | None = None):
  config, given = base.begin(arg, shrunk=False, shape="")
  if given["shape"]:
    if given["shape"] not in PUBLISHED:
      raise UserError(f"config argument shape={given['shape']}: known: {', '.join(PUBLISHED)}")
    config.model.shape = dataclasses.asdict(PUBLISHED[given["shape"]])
  config.model.dtype = "bfloat16"
  config.model.remat = "block"

  config.data.source = config.eval.source = "gsm8k"
  config.data.max_prompt_tokens = 256
  config.rollout.max_new_tokens = 1024
  return base.shrink(config) if given["shrunk"] else config
