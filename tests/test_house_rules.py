"""The rules of the house: who may import whom, and that no config key is read in vain."""

import ast
import importlib.util
import itertools
import pathlib
import subprocess
import sys

import pytest

from configs import base

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "grpo_jax"
STAGES = (
  "data", "model", "sampling", "verify", "methods", "replay", "learner", "run", "evaluation",
)  # fmt: skip

# What each stage may know of the others. They meet in records; train, collect, answers, exam,
# evaluate, profile_prompts, sample, export, start and task compose them.
MAY_IMPORT = {
  "data": set(),
  "model": set(),
  "verify": set(),
  "methods": set(),
  "run": set(),
  "sampling": {"model"},
  "replay": {"model"},  # model.sharding: where its arrays live
  "learner": {"model"},
  "evaluation": {"data", "verify", "run"},
}
# The only files that see a config.
READERS = ("train.py", "profile_prompts.py", "build.py", "slots.py", "check.py")
MEETING_POINTS = {
  "records", "masked", "distribution", "randomness", "errors", "buckets", "hosts",
}  # fmt: skip


def sources(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(folder.rglob("*.py"))


def imports(path: pathlib.Path) -> set[str]:
  """Dotted names a file imports anywhere in it."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      names |= {f"{node.module}.{alias.name}" for alias in node.names}
  return names


def test_every_folder_is_a_known_stage():
  folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"}
  assert folders == set(STAGES) == set(MAY_IMPORT)


@pytest.mark.parametrize("stage", STAGES)
def test_stages_do_not_import_each_other(stage):
  allowed = {stage, *MAY_IMPORT[stage], *MEETING_POINTS}
  for path in sources(PACKAGE / stage):
    for name in imports(path):
      parts = name.split(".")
      if parts[0] == "grpo_jax" and len(parts) > 1:
        assert parts[1] in allowed, f"{path.relative_to(ROOT)} imports {name}"


def test_the_package_never_imports_configs_experiments_tests_or_torch():
  for path in sources(PACKAGE):
    roots = {name.split(".")[0] for name in imports(path)}
    forbidden = roots & {"configs", "experiments", "tests", "torch", "tensorflow", "pickle"}
    assert not forbidden, f"{path.relative_to(ROOT)} imports {forbidden}"


@pytest.mark.parametrize("stage", ["verify", "methods"])
def test_decisions_and_verdicts_know_no_jax(stage):
  modules = [
    ".".join(p.relative_to(ROOT).with_suffix("").parts) for p in sources(PACKAGE / stage)
  ]
  program = f"import sys, {', '.join(modules)}; print('jax' in sys.modules)"
  done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
  assert done.stdout.strip() == "False", done.stderr


def test_only_these_files_see_a_config():
  for path in sources(PACKAGE):
    if "ml_collections" in {name.split(".")[0] for name in imports(path)}:
      assert path.name in READERS, path


def keys_read() -> set[str]:
  """Dotted keys read from `config` (or from a section handed on) anywhere in those files."""
  read = set()
  trees = [ast.parse((PACKAGE / name).read_text()) for name in READERS]
  for node in itertools.chain.from_iterable(map(ast.walk, trees)):
    parts = []
    while isinstance(node, ast.Attribute):
      parts.append(node.attr)
      node = node.value
    if parts and isinstance(node, ast.Name) and node.id in ("config", "section"):
      sections = ("data", "more", "eval", "eval_more") if node.id == "section" else ("",)
      read |= {".".join(filter(None, (s, *reversed(parts)))) for s in sections}
  return read


# Sections whose fields are the fields of a data class or the arguments of a function.
WHOLE = {"mesh", "loss", "warm_start", "model.shape"}
METHODS_OF_CONFIG_DICT = {"to_dict"}


def test_every_config_key_is_read_and_every_read_key_exists():
  def leaves(config, prefix=""):
    for key, value in config.items():
      name = f"{prefix}{key}"
      if name in WHOLE or not hasattr(value, "items"):
        yield name
      else:
        yield from leaves(value, f"{name}.")

  existing = set(leaves(base.get_config()))
  read = keys_read() - METHODS_OF_CONFIG_DICT
  sections = {key.rsplit(".", 1)[0] for key in existing if "." in key}
  nowhere = {key for key in read if key not in existing | sections and not inside_whole(key)}
  assert not nowhere, f"read but not in configs/base.py: {nowhere}"
  assert not existing - read, f"in configs/base.py but never read: {existing - read}"


def inside_whole(key: str) -> bool:
  return any(key.startswith(f"{section}.") for section in WHOLE)


def test_whole_sections_are_exactly_what_takes_them():
  """These are passed as **section, so a key too many or too few must fail here, not in a run."""
  import dataclasses
  import inspect

  from grpo_jax.learner.surrogate import Surrogate
  from grpo_jax.model.sharding import make_layout
  from grpo_jax.start import WarmStart

  config = base.get_config()
  assert set(config.loss) == {f.name for f in dataclasses.fields(Surrogate)}
  assert set(config.warm_start) == {f.name for f in dataclasses.fields(WarmStart)}
  assert set(config.mesh) == set(inspect.signature(make_layout).parameters) - {"devices"}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.stem)
def test_config_docstrings_name_the_command(path):
  if path.stem in ("base", "methods"):
    return
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  assert f"--config=configs/{path.name}" in module.__doc__
  module.get_config()
