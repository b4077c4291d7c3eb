"""Every fault a checkpoint's folder can have is found, and named."""

import json

import pytest

from grpo_jax.run.manifest import NAME, find_fault, read_manifest, write_manifest


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "arrays" / "d").mkdir(parents=True)
  (tmp_path / "arrays" / "d" / "big").write_bytes(bytes(range(256)) * 99)
  (tmp_path / "arrays" / "empty").write_bytes(b"")
  (tmp_path / "state.json").write_text("{}")
  write_manifest(tmp_path, 3, "run", 0.5)
  return tmp_path


def rewrite(name, change):
  return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def edit_manifest(folder):
  content = json.loads((folder / NAME).read_text())
  (folder / NAME).write_text(json.dumps(content | {"accuracy": 0.9}))


FAULTS = {
  "nothing": (lambda folder: None, ""),
  "a file more": (lambda folder: (folder / "note.txt").write_text("hi"), ""),
  "no manifest": (lambda folder: (folder / NAME).unlink(), "its save never ended"),
  "zero bytes of manifest": (rewrite(NAME, lambda _: b""), f"{NAME} is empty"),
  "half a manifest": (rewrite(NAME, lambda data: data[: len(data) // 2]), f"{NAME} is torn"),
  "another kind of JSON": (rewrite(NAME, lambda _: b"[1]"), f"{NAME} is torn"),
  "not text at all": (rewrite(NAME, lambda _: b"\xff\xfe\x00"), f"{NAME} is torn"),
  "an edited manifest": (edit_manifest, f"{NAME} does not have its own hash"),
  "a missing file": (lambda folder: (folder / "arrays/d/big").unlink(), "arrays/d/big is missing"),
  "a torn file": (rewrite("arrays/d/big", lambda data: data[:-1]), "25,343 bytes, not 25,344"),
  "zero bytes": (rewrite("arrays/d/big", lambda _: b""), "0 bytes, not 25,344"),
  "a flipped bit": (
    rewrite("arrays/d/big", lambda data: data[:9] + bytes([data[9] ^ 1]) + data[10:]),
    "arrays/d/big has changed",
  ),
}


@pytest.mark.parametrize(("damage", "told"), FAULTS.values(), ids=FAULTS)
def test_faults(folder, damage, told):
  damage(folder)
  fault = find_fault(folder, 3, "run")
  assert told in fault
  assert bool(fault) == bool(told)


def test_another_run_or_step(folder):
  assert "another run" in find_fault(folder, 3, "other")
  assert find_fault(folder, 3, None) == ""
  assert find_fault(folder, 4, "run") == "it is of step 3"


def test_what_it_says(folder):
  content = read_manifest(folder)
  assert (content["step"], content["run"], content["accuracy"]) == (3, "run", 0.5)
  assert sorted(content["files"]) == ["arrays/d/big", "arrays/empty", "state.json"]
