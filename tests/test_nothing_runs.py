"""Nothing that comes from outside is run: no pickle is read, no code of a model folder, a data set
or a model is executed where we are, and no text of theirs gives orders to a terminal or a page.

Config files are the exception: they are Python by design, and run when they are named.
"""

import ast
import pathlib
import pickle
import subprocess
import sys

import jax.numpy as jnp
import pytest

from grpo_jax.data.tokenizer import character_tokenizer, load_tokenizer
from grpo_jax.run.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = [path for top in ("grpo_jax", "configs") for path in sorted((ROOT / top).rglob("*.py"))]

# Modules that build objects from bytes, or run text.
MODULES = {
  "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml",
  "code", "codeop", "runpy", "torch",
}  # fmt: skip
NAMES = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {"system", "popen", "loads_pickle", "sympify", "parse_expr", "add_text", "add_html"}
KEYWORDS = {"shell": True, "allow_pickle": True, "trust_remote_code": True}

# Each with its reason.
ALLOWED = {
  ("grpo_jax/verify/jail/asserts.py", "exec"): "runs behind the walls, in a process of its own",
  ("grpo_jax/verify/jail/asserts.py", "compile"): "the same",
  ("grpo_jax/verify/jail/inside.py", "exec"): "the same",
  ("grpo_jax/verify/jail/inside.py", "compile"): "the same",
}


def found_in(path: pathlib.Path):
  for node in ast.walk(ast.parse(path.read_text())):
    match node:
      case ast.Import(names=names):
        yield from (a.name for a in names if a.name.split(".")[0] in MODULES)
      case ast.ImportFrom(module=str(module)) if module.split(".")[0] in MODULES:
        yield module
      case ast.Call(func=ast.Name(id=name)) if name in NAMES:
        yield name
      case ast.Attribute(attr=name) if name in ATTRIBUTES:
        yield name
      case ast.keyword(arg=name, value=ast.Constant(value=value)) if name in KEYWORDS:
        if value == KEYWORDS[name]:
          yield name
      case ast.keyword(arg=name) if name in KEYWORDS:
        yield f"{name}, which is not a constant"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_is_unpickled_or_executed(path):
  name = path.relative_to(ROOT).as_posix()
  assert not [thing for thing in found_in(path) if (name, thing) not in ALLOWED]


def test_the_exceptions_are_still_needed():
  found = {(p.relative_to(ROOT).as_posix(), thing) for p in SOURCES for thing in found_in(p)}
  assert found == set(ALLOWED)


def test_the_search_finds_what_it_is_for(tmp_path):
  bad = tmp_path / "bad.py"
  bad.write_text(
    "import pickle\nfrom torch import load\neval('1')\nos.system('x')\nsympy.sympify('x')\n"
    "run('x', shell=True)\nfrom_pretrained(f, trust_remote_code=flag)\n"
    "np.load(f, allow_pickle=True)\n"
  )
  assert len(set(found_in(bad))) == 8


def test_tokenizers_are_read_from_the_disk_alone_and_without_their_code():
  calls = [
    node
    for path in SOURCES
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "from_pretrained"
  ]
  assert calls
  for call in calls:
    given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
    assert given["trust_remote_code"] is False
    assert given["local_files_only"] is True


def test_checkpoints_and_model_folders_are_read_without_pickle(tmp_path, monkeypatch):
  """Not by ours, and not by what orbax and transformers do for us."""
  character_tokenizer("0123456789").save(tmp_path / "model")
  arrays = {"w": jnp.arange(8.0), "full": jnp.ones(3, bool)}
  with Checkpoints(tmp_path / "checkpoints", 2) as checkpoints:
    checkpoints.save(1, arrays, {"ledger": [1]})

  def refuse(*_, **__):
    pytest.fail("something was unpickled")

  for owner, name in ((pickle, "load"), (pickle, "loads"), (pickle._Unpickler, "load")):
    monkeypatch.setattr(owner, name, refuse)
  monkeypatch.setattr(pickle, "Unpickler", type("Refuses", (pickle.Unpickler,), {"load": refuse}))
  with Checkpoints(tmp_path / "checkpoints", 2) as checkpoints:
    assert checkpoints.restore(arrays)[2] == {"ledger": [1]}
  load_tokenizer(tmp_path / "model")


def test_an_error_line_gives_no_orders_to_the_terminal():
  program = (
    "from grpo_jax import cli\nfrom grpo_jax.errors import UserError\n"
    "def main(): raise UserError('row 3: \\x1b]0;owned\\x07\\x9b2J\\u202e\\r<b>')\ncli.run(main)"
  )
  done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 2
  assert done.stderr == "error: row 3: \\x1b]0;owned\\x07\\x9b2J\\u202e <b>\n"
