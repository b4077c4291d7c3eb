"""Pages for people, held to the code: what they name exists, and nothing is left out."""

import ast
import pathlib
import re

import pytest

from configs import base
from configs.methods import METHODS

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "methods.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py):(\w+)`", PAGE)))


def definitions(path: pathlib.Path) -> set[str]:
  """Top-level functions, classes and assigned names of a file."""
  names = set()
  for node in ast.parse(path.read_text()).body:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
      names.add(node.name)
    elif isinstance(node, ast.Assign):
      names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    elif isinstance(node, ast.AnnAssign):
      names.add(node.target.id)
  return names


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[f"{file}:{name}" for file, name in NAMED])
def test_what_the_methods_page_names_exists(file, name):
  assert name in definitions(ROOT / "grpo_jax" / file)


@pytest.mark.parametrize("row", METHODS)
def test_every_row_stands_on_the_methods_page(row):
  assert f"`{row}`" in PAGE


def test_links_between_pages_lead_somewhere():
  for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
      if "://" not in target:
        assert (page.parent / target).exists(), f"{page.name}: {target}"


RUNNING = (ROOT / "docs" / "running.md").read_text()


def test_every_key_on_the_running_page_exists():
  config = base.get_config()
  sections = "|".join(name for name, value in config.items() if hasattr(value, "items"))
  keys = re.findall(rf"\b(?:config\.)?({sections})\.([a-z_]+)\b(?!\.py)", RUNNING)
  assert len(keys) > 10
  assert not [f"{section}.{key}" for section, key in keys if key not in config[section]]


def test_every_flag_and_metric_on_the_running_page_exists():
  code = "".join(path.read_text() for path in (ROOT / "grpo_jax").rglob("*.py"))
  for flag in ("distributed", "coordinator", "processes", "process_id", "peer_timeout"):
    assert f"--{flag}" in RUNNING
    assert f'"{flag}"' in code
  metrics = set(re.findall(r"`((?:perf|rollout|train)/\w+)`", RUNNING))
  assert len(metrics) > 5
  assert not {name for name in metrics if f'"{name}"' not in code}
