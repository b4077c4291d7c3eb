"""A run's policy as a folder that transformers and vLLM load.

  python -m grpo_jax.export --workdir=runs/quickstart --out=/tmp/policy --step=80

Weights come from a checkpoint of the run, everything else (config, generation config, tokenizer,
chat template, and the weights that LoRA's adapters are merged into) from the folder the run started
from.
"""

import json
import pathlib

import numpy as np
from absl import flags

from grpo_jax import cli
from grpo_jax.errors import UserError
from grpo_jax.model.config import read_config
from grpo_jax.model.lora import abstract_frozen, abstract_trained, make_lora, merged_policy
from grpo_jax.model.qwen3 import Params, Qwen3, abstract_params
from grpo_jax.model.sharding import make_layout
from grpo_jax.model.weights import export_folder, load_params
from grpo_jax.run.checkpoint import Checkpoints
from grpo_jax.run.folder import RunFolder


def main() -> None:
  workdir = flags.DEFINE_string("workdir", "", "The run's folder.")
  out = flags.DEFINE_string("out", "", "The folder to make; default: WORKDIR/export.")
  step = flags.DEFINE_integer("step", None, "Which checkpoint; default: the newest.")
  dtype = flags.DEFINE_enum(
    "dtype", "", ["", "float32", "bfloat16"], "Of the weights; default: as the start policy's."
  )
  best = flags.DEFINE_bool("best", False, "The one of highest accuracy on held-out problems.")
  cli.parse()
  if not workdir.value:
    raise UserError("--workdir is missing; name the folder of a run")
  if best.value and step.value is not None:
    raise UserError("--best and --step name two checkpoints; give one of them")
  path = pathlib.Path(workdir.value).expanduser()
  export_run(path, out.value, step.value, dtype.value, best=best.value)


def export_run(
  workdir: pathlib.Path, out: str, step: int | None, dtype: str, best: bool = False
) -> None:
  """Exports one checkpoint of a run; the arguments are the command's flags."""
  run = RunFolder(workdir)
  if not run.config.is_file():
    raise UserError(f"{run.path}: not the folder of a run (it has no config.json)")
  source = start_of(run)
  target = pathlib.Path(out).expanduser() if out else run.export
  if target != run.export and target.exists() and any(target.iterdir()):
    raise UserError(f"--out {target}: exists and is not empty; choose another folder")
  step, params = policy_of(run, source, best_of(run) if best else step)
  export_folder(target, params, source, dtype)
  print(f"The policy after step {step}: {target}")


def best_of(run: RunFolder) -> int:
  """The step of the checkpoint with the highest accuracy.

  Raises:
    UserError: no checkpoint knows its accuracy.
  """
  with Checkpoints(run.checkpoints, keep_last=None) as checkpoints:
    step = checkpoints.best_step()
  if step is None:
    raise UserError(
      f"--best: no checkpoint in {run.checkpoints} was made at a step with an evaluation "
      "(checkpoint.every and eval.every)"
    )
  return step


def policy_of(run: RunFolder, source: pathlib.Path, step: int | None) -> tuple[int, Params]:
  """A checkpoint's step and parameters, adapters merged into those of the folder `source`."""
  settings = model_settings(run)
  shape, _ = read_config(source)
  params = abstract_params(Qwen3(shape, make_layout(data=1, fsdp=-1)))
  lora = make_lora(*(settings.get(f"lora_{name}") for name in ("rank", "alpha", "targets")))
  wanted = {"state": {"params": abstract_trained(params, lora)}}
  with Checkpoints(run.checkpoints, keep_last=None) as checkpoints:
    step, arrays = checkpoints.restore_part(wanted, step)
  dtype = np.dtype(settings["dtype"])
  base = load_params(source, abstract_frozen(params, dtype)) if lora else None
  return step, merged_policy(arrays["state"]["params"], base, lora)


def start_of(run: RunFolder) -> pathlib.Path:
  """The model folder a run started from."""
  named = model_settings(run)["folder"]
  return pathlib.Path(named).expanduser() if named else run.start


def model_settings(run: RunFolder) -> dict:
  """What the run's config says of the model."""
  return json.loads(run.config.read_text())["model"]


if __name__ == "__main__":
  cli.run(main)
