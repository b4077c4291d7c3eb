"""Do all hosts run the same thing? A run whose processes differ in a file or a flag would hang, or
train what nobody asked for; so what it is made of is compared before anything expensive happens.
"""

import hashlib
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from grpo_jax import hosts
from grpo_jax.errors import UserError
from grpo_jax.run.config_record import flat
from grpo_jax.run.folder import RunFolder
from grpo_jax.task import Prompts, Task

_SHOWN = 5  # differences told


def require_agreement(config: Mapping[str, Any], task: Task, run: RunFolder) -> None:
  """
  Raises:
    UserError: on all hosts, if one of them differs; says which, and in what.
  """
  if jax.process_count() > 1:
    compare(hosts.exchange(facts(config, task, run)))


def facts(config: Mapping[str, Any], task: Task, run: RunFolder) -> dict[str, Any]:
  """What all hosts must have in common: JSON values by name."""
  folder, held_out = config["model"]["folder"], task.examined().values()
  profile = pathlib.Path(config["easy_to_hard"]["profile"]).expanduser()
  return {f"config.{key}": value for key, value in flat(config)} | {
    "the code of grpo_jax": code_fingerprint(),
    "the version of jax": jax.__version__,
    "the training problems": task.training.problems.fingerprint,
    "the held-out problems": [part.problems.fingerprint for part in held_out],
    "the prompts": _digest(map(_tokens, (task.training, *held_out))),
    "the files of model.folder": _sizes(folder) if folder else {},
    "the profile": _digest([profile.read_bytes()]) if profile.is_file() else "",
    # One folder that all see holds the line that the first host has just written.
    "what --workdir holds": run.commands.read_text()[-200:] if run.commands.is_file() else "",
    "the checkpoints": sorted(_sizes(run.checkpoints)) if run.checkpoints.is_dir() else [],
  }


def compare(facts_P: list[dict[str, Any]]) -> None:
  """
  Raises:
    UserError: names the first process that differs from process 0, and in what.
  """
  first = facts_P[0]
  for number, there in enumerate(facts_P):
    names = [name for name in first | there if first.get(name) != there.get(name)]
    if names:
      told = [
        f"{name} is {there.get(name)!r}, but in process 0 {first.get(name)!r}"
        for name in names[:_SHOWN]
      ]
      told += [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
      raise UserError(f"process {number} would run something else: {'; '.join(told)}")


def code_fingerprint() -> str:
  """Of all source files of this package."""
  root = pathlib.Path(__file__).parent
  paths = sorted(root.rglob("*.py"))
  return _digest(f"{path.relative_to(root)} ".encode() + path.read_bytes() for path in paths)


def _tokens(prompts: Prompts) -> bytes:
  return repr([tuple(map(int, prompt.tokens)) for prompt in prompts.prompts]).encode()


def _sizes(folder: str | pathlib.Path) -> dict[str, int]:
  paths = sorted(pathlib.Path(folder).expanduser().iterdir())
  return {path.name: path.stat().st_size for path in paths}


def _digest(parts: Iterable[bytes]) -> str:
  digest = hashlib.sha256()
  for part in parts:
    digest.update(part)
  return digest.hexdigest()[:16]
