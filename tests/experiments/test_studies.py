"""Each variant of each study in this folder is a config that can run."""

import importlib.util

import pytest
from absl import flags
from ml_collections import config_flags

from experiments.study import ROOT, load_study, make_run
from grpo_jax.check import check

STUDIES = sorted(
  path for path in (ROOT / "experiments").glob("*.py") if "\nSTUDY = " in path.read_text()
)
VARIANTS = [(path, name) for path in STUDIES for name in load_study(str(path)).variants]


@pytest.mark.parametrize(
  ("path", "name"), VARIANTS, ids=[f"{path.stem}: {name}" for path, name in VARIANTS]
)
def test_every_variant_passes_the_check_of_a_run(path, name, tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  *before, training = make_run(load_study(str(path)), name, 0, tmp_path).commands
  given = ["train", *(part for part in training if part.startswith("--config"))]
  monkeypatch.setattr("sys.argv", given)  # where config_flags looks for keys that are overridden
  values = flags.FlagValues()
  config_flags.DEFINE_config_file("config", flag_values=values)
  values(given)
  check(values["config"].value)
  for command in before:
    assert importlib.util.find_spec(command[1]), "what runs before is a module"
