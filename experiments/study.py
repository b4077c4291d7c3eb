"""What is a study? A question, and the runs that answer it: variants x seeds of one task.

A study is a small Python file that sets STUDY. `python -m experiments.sweep FILE` runs it,
`python -m experiments.report FILE` tells what came of it.
"""

import dataclasses
import importlib.util
import pathlib
import sys
from collections.abc import Mapping

from grpo_jax.errors import UserError

TRAINER = "grpo_jax.train"
ROOT = pathlib.Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class Variant:
  """One way to train.

  method: rows of configs/methods.py, joined by "+".
  overrides: dotted config keys that differ from the task's. "{folder}" stands for the run's folder.
  first: arguments of a command that runs before training, after `python -m`. "{folder}" as above;
    the run's --config and overrides are added.
  about: what is asked of it, in a few words, for the table.
  """

  method: str
  overrides: Mapping[str, object] = dataclasses.field(default_factory=dict)
  first: tuple[str, ...] = ()
  about: str = ""


@dataclasses.dataclass(frozen=True)
class Study:
  """question, rule: what is asked, and how numbers decide it; written before the runs.

  config: the task's config file. variants: by name, `baseline` among them. seeds: of every variant;
  runs of one seed share start weights, problems and held-out set, so they are compared in pairs.
  target: the held-out accuracy whose cost is told. families: heads of the table, in order, each
  with its variants' names.
  """

  question: str
  rule: str
  config: str
  families: Mapping[str, Mapping[str, Variant]]
  seeds: tuple[int, ...]
  target: float
  baseline: str = "grpo"

  @property
  def variants(self) -> dict[str, Variant]:
    """All by name, in the order of the file."""
    return {name: v for family in self.families.values() for name, v in family.items()}


@dataclasses.dataclass(frozen=True)
class Run:
  """One training run of a study: commands are lists of arguments after the interpreter."""

  name: str  # variant and seed
  folder: pathlib.Path
  commands: tuple[tuple[str, ...], ...]


def load_study(path: str) -> Study:
  """Reads a study file.

  Raises:
    UserError: it is missing, or is not a study.
  """
  file = pathlib.Path(path)
  if file.suffix != ".py" or not file.is_file():
    raise UserError(f"{path}: no such study; try experiments/which_trick.py")
  spec = importlib.util.spec_from_file_location(file.stem, file)
  module = importlib.util.module_from_spec(spec)
  sys.path.insert(0, str(ROOT))
  try:
    spec.loader.exec_module(module)
  finally:
    sys.path.remove(str(ROOT))
  study = getattr(module, "STUDY", None)
  if not isinstance(study, Study):
    raise UserError(f"{path}: sets no STUDY")
  if study.baseline not in study.variants:
    raise UserError(f"{path}: baseline {study.baseline!r} is none of its variants")
  return study


def runs_folder(path: str) -> pathlib.Path:
  """Where the runs of a study file are kept, unless said otherwise."""
  return ROOT / "runs" / pathlib.Path(path).stem


def make_run(study: Study, name: str, seed: int, runs: pathlib.Path) -> Run:
  """The commands of one run."""
  variant, folder = study.variants[name], runs / name / f"seed_{seed}"
  config = f"--config={study.config}:method={variant.method},seed={seed}"
  overrides = [f"--config.{key}={value}" for key, value in variant.overrides.items()]
  arguments = [config, *overrides]
  commands = [[TRAINER, *arguments, f"--workdir={folder}"]]
  if variant.first:
    commands.insert(0, [*variant.first, *arguments])
  return Run(
    f"{name}, seed {seed}",
    folder,
    tuple(
      ("-m", *(part.replace("{folder}", str(folder)) for part in command)) for command in commands
    ),
  )


def all_runs(study: Study, runs: pathlib.Path) -> list[Run]:
  """In the order of the file, except that a variant's first seed runs beside the rest of the
  variant before it: two runs that start together do not compile the same programs."""
  places = [(v, s) for v in range(len(study.variants)) for s in range(len(study.seeds))]
  places.sort(key=lambda place: (place[0] - 1, 0) if place[1] == 0 else place)
  names = list(study.variants)
  return [make_run(study, names[v], study.seeds[s], runs) for v, s in places]
