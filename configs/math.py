"""Qwen3 on MATH: competition problems with LaTeX answers, evaluated on MATH500.

  python -m grpo_jax.train --config=configs/math.py:method=aper \
      --config.model.folder=Qwen3-4B-Base --config.data.path=math --config.eval.path=math500

`math` is a folder with train.jsonl (problem, answer or solution), `math500` one with test.jsonl;
the Hub's parquet files do as well. Lengths and constants are those of arXiv 2606.04560, table 7.
Not yet run at this size: what it costs and reaches will stand here once it was.

  :shrunk=true runs the same steps on a CPU in a minute, with a few thousand parameters of random
  weights under the real vocabulary: it checks the path, and learns nothing.
"""

from configs import base


def get_config(arg: str | None = None):
  config, given = base.begin(arg, shrunk=False)
  config.model.dtype = "bfloat16"
  config.model.remat = "block"

  config.data.source = config.eval.source = "math"
  return base.shrink(config) if given["shrunk"] else config
