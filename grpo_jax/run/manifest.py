"""Is a checkpoint whole, unchanged and this run's own?

`manifest.json` lists every file of a checkpoint's folder with its size and SHA-256, and names the
step and the run. It is written last, so that a folder without it is not a checkpoint, and before it
is written every file is forced to the disk. Its own hash covers the rest of it.
"""

import concurrent.futures
import hashlib
import json
import pathlib
from typing import Any

from grpo_jax.run.files import sync, write_atomically

NAME = "manifest.json"
_READERS = 4  # threads: one hashes about 1.2 GB/s, and a checkpoint has a few large files


def write_manifest(folder: pathlib.Path, step: int, run: str, accuracy: float | None) -> None:
  """Completes the checkpoint in `folder`, which has all its other files.

  run: what identifies the run. accuracy: on held-out problems after `step` steps, if known.
  """
  files = sorted(path for path in folder.rglob("*") if path.is_file())
  with concurrent.futures.ThreadPoolExecutor(_READERS) as readers:
    described = list(readers.map(_describe, files))
  for inner in {path.parent for path in files}:
    sync(inner)
  names = [path.relative_to(folder).as_posix() for path in files]
  content = {
    "step": step,
    "run": run,
    "accuracy": accuracy,
    "files": dict(zip(names, described, strict=True)),
  }
  text = json.dumps(content | {"sha256": _own_hash(content)}, indent=1, sort_keys=True)
  write_atomically(folder / NAME, text + "\n")


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
  """The manifest of a checkpoint.

  Raises:
    ValueError: it is absent, torn or changed; the message says which.
  """
  try:
    text = (folder / NAME).read_bytes()
  except FileNotFoundError:
    raise ValueError(f"it has no {NAME}: its save never ended") from None
  if not text:
    raise ValueError(f"{NAME} is empty")
  try:
    content = json.loads(text)
    own_hash = content.pop("sha256")
  except (ValueError, KeyError, AttributeError, TypeError):
    raise ValueError(f"{NAME} is torn") from None
  if own_hash != _own_hash(content):
    raise ValueError(f"{NAME} does not have its own hash")
  return content


def find_fault(folder: pathlib.Path, step: int, run: str | None) -> str:
  """What is wrong with the checkpoint in `folder`; "": it is as this run wrote it after `step`.

  run: None accepts the checkpoint of any run.
  """
  try:
    content = read_manifest(folder)
    if run is not None and content["run"] != run:
      return "it is of another run: another config or another seed"
    if content["step"] != step:
      return f"it is of step {content['step']}"
    return _find_changed(folder, content["files"])
  except (OSError, ValueError) as error:
    return str(error)


def _find_changed(folder: pathlib.Path, files: dict[str, dict]) -> str:
  """Sizes first: they cost nothing."""
  for name, written in files.items():
    if not (folder / name).is_file():
      return f"{name} is missing"
    size = (folder / name).stat().st_size
    if size != written["size"]:
      return f"{name} has {size:,} bytes, not {written['size']:,}"
  with concurrent.futures.ThreadPoolExecutor(_READERS) as readers:
    found = readers.map(_sha256, [folder / name for name in files])
  changed = [name for name, now in zip(files, found, strict=True) if now != files[name]["sha256"]]
  return f"{changed[0]} has changed: its SHA-256 is another" if changed else ""


def _describe(path: pathlib.Path) -> dict[str, int | str]:
  """Size and hash of a file, after it was forced to the disk."""
  sync(path)
  return {"size": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _own_hash(content: dict[str, Any]) -> str:
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
