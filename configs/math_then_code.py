"""Two stages: mathematics first, then mathematics and programs (SRPO, arXiv 2504.14286).

  python -m grpo_jax.train --config=configs/math_then_code.py:method=srpo+two_stages \
      --config.model.folder=Qwen3-4B-Base --config.data.path=math --config.eval.path=math500 \
      --config.more.path=programs.jsonl --config.eval_more.path=held_out_programs.jsonl

`math` and `math500` are as in math.py. A line of `programs.jsonl` is one problem with tests, which
run behind the walls of verify/programs.py:

  {"question": "Read n. Print n squared.", "tests": [{"input": "3", "output": "9"}]}
  {"question": "Write square(n).", "test_code": "assert square(3) == 9"}

Held-out mathematics is told as eval/accuracy, held-out programs as eval_more/accuracy; reward/right
is over both. Not yet run at this size.

  :shrunk=true needs no files: sums, then one-line programs that print sums, by a model of a few
  thousand parameters with a warm start on both. Six steps, about a minute on a CPU.
"""

from configs import base


def get_config(arg: str | None = None):
  config, given = base.begin(arg, few=6, method="srpo+two_stages", shrunk=False)
  config.data.source = config.eval.source = "math"
  config.more.source = config.eval_more.source = "code"
  config.more.template = config.eval_more.template = "chatml"
  if not given["shrunk"]:
    config.model.dtype = "bfloat16"
    config.model.remat = "block"
    return config

  base.shrink(config)
  config.stages.switch = "share"
  config.model.shape.update(hidden_size=32, intermediate_size=64, head_dim=16)
  del config.model.shape["vocab_size"]  # the tokenizer's
  config.tokenizer = "ascii"
  config.warm_start.steps, config.warm_start.learning_rate = 150, 1e-2
  config.data.source = config.eval.source = "arithmetic"
  config.more.source = config.eval_more.source = "arithmetic_programs"
  config.data.template = config.more.template = config.eval_more.template = "plain"
  config.data.levels = config.eval.levels = config.more.levels = config.eval_more.levels = (1,)
  config.data.limit, config.more.limit, config.eval_more.limit = 48, 48, 8
  config.data.max_prompt_tokens = 10
  return config
