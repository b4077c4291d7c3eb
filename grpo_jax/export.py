"""A run's policy as a folder that transformers and vLLM load.

  python -m grpo_jax.export --workdir=runs/quickstart --out=/tmp/policy --step=80

Weights come from a checkpoint of the run, everything else (config, generation config, tokenizer,
chat template) is carried along from the folder the run started from.
"""

import json
import pathlib
import shutil

from absl import flags

from grpo_jax import cli
from grpo_jax.errors import UserError
from grpo_jax.model.config import read_config
from grpo_jax.model.qwen3 import Params, Qwen3, abstract_params
from grpo_jax.model.sharding import make_layout
from grpo_jax.model.weights import carry_files, save_params
from grpo_jax.run.checkpoint import Checkpoints
from grpo_jax.run.folder import RunFolder


def export_folder(out: pathlib.Path, params: Params, source: pathlib.Path, dtype: str = "") -> None:
  """Writes a model folder, replacing an older export in one move.

  Args:
    out: the folder to make.
    params: the policy.
    source: the model folder whose other files are carried along.
    dtype: of the stored weights; "": that of the source, so that a round trip is exact.
  """
  _, raw = read_config(source)
  stored = raw.get("dtype") or raw.get("torch_dtype") or "float32"
  partial = out.with_name(f"{out.name}.partial")
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir(parents=True)
  carry_files(source, partial)
  save_params(partial, params, dtype or stored)
  if dtype and dtype != stored:
    name = "dtype" if "dtype" in raw else "torch_dtype"
    (partial / "config.json").write_text(json.dumps(raw | {name: dtype}, indent=2) + "\n")
  shutil.rmtree(out, ignore_errors=True)
  partial.rename(out)
