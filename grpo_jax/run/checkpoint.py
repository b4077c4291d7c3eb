"""How does a killed run continue as if nothing had happened?

Everything a run is made of is saved together: its arrays (parameters, optimizer, replay store) and
its host state (ledger, data cursor, cost meter) share one folder. Orbax writes the arrays, in the
background and each host its own part; what makes a folder a checkpoint is ours, for orbax leaves
three things open: it forces no name to the disk, it does not notice changed bytes, and it may
remove the old checkpoint before anybody has looked at the new one. So a save goes like this:

  saving-30/     arrays, host state, then the manifest with sizes and hashes of all files
  30/            the same folder, renamed: from here on it is a checkpoint
  deleting-10/   one that is no longer kept, renamed before its files go

Arrays come back bit for bit, on whatever mesh the new process has.
"""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import shutil
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from grpo_jax.errors import UserError
from grpo_jax.run.files import REASONS, disk_errors, sync, write_atomically
from grpo_jax.run.manifest import find_fault, read_manifest, write_manifest
from grpo_jax.run.retention import kept

PyTree = Any

# What a sound checkpoint may raise too: a request that does not fit it, or a lack of memory.
_NOT_DAMAGE = (UserError, MemoryError, jax.errors.JaxRuntimeError)
_STATE = "state.json"


class Checkpoints:
  """The checkpoints of a run; a context manager that waits for the last save.

  With several hosts, each calls every method, with the same host state; the first one alone writes
  and removes whatever is not an array.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    keep_last: int | None,
    *,
    keep_best: int = 0,
    keep_every: int = 0,
    run: str | None = None,
  ):
    """Opens or makes `folder`.

    keep_last: how many of the newest checkpoints stay; None opens the folder for reading, beside a
    run that may be saving at this moment. keep_best, keep_every: which others stay (`kept`).
    run: what identifies the run; checkpoints of another one are not restored. None: any will do.
    """
    if keep_last is not None and keep_last < 1:
      raise UserError(f"cannot keep {keep_last} checkpoints: keep at least 1")
    self._folder = pathlib.Path(folder).absolute()
    self._keep = {"last": keep_last, "best": keep_best, "every": keep_every}
    self._run = run
    self._arrays = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())
    self._background = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
    self._saving: concurrent.futures.Future | None = None
    if keep_last is not None and _is_first_host():
      with disk_errors(self._folder):
        self._folder.mkdir(parents=True, exist_ok=True)
        for unfinished in (*self._folder.glob("saving-*"), *self._folder.glob("deleting-*")):
          shutil.rmtree(unfinished)
    self._newest = max(self.steps(), default=None)

  def steps(self) -> list[int]:
    """Those there are on the disk, sound or not, in order."""
    if not self._folder.is_dir():
      return []
    return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdecimal())

  def latest_step(self) -> int | None:
    """The newest step saved or being saved; None in a new run."""
    return self._newest

  def best_step(self) -> int | None:
    """The step of the highest accuracy there is; None if no checkpoint knows its own."""
    accuracy_of = self._accuracy_of()
    return next(iter(kept(accuracy_of, last=0, best=1, every=0)), None)

  def save(
    self, step: int, arrays: PyTree, host: Mapping[str, Any], accuracy: float | None = None
  ) -> None:
    """Saves the state after `step` steps, in the background; a saved step is left as it is.

    arrays: a tree of jax.Array, without typed PRNG keys. host: JSON values, keys of text. Both
    have been copied when this returns, so that the next update may overwrite them.
    accuracy: on held-out problems, if it is known; what `keep_best` goes by.
    Raises UserError if the disk is full, if need be of the save before.
    """
    if step == self._newest:
      return
    if self._newest is not None and step < self._newest:
      raise ValueError(f"step {step} comes before the newest checkpoint, {self._newest}")
    leaves = _by_path(arrays)
    shapes = {path: _shape(leaf) for path, leaf in leaves.items()}
    state = _json({"shapes": shapes, "sums": _bit_sums(leaves), "host": host})
    self.wait()
    partial = self._folder / f"saving-{step}"
    with _disk_trouble(self._folder):
      if _is_first_host():
        partial.mkdir()
      stored = {path: leaf for path, leaf in leaves.items() if leaf.size}
      self._arrays.save(partial / "arrays", args=ocp.args.PyTreeSave(stored))
    self._saving, self._newest = self._background.submit(self._finish, step, state, accuracy), step

  def restore(self, abstract_arrays: PyTree) -> tuple[int, PyTree, dict[str, Any]]:
    """The newest sound checkpoint of this run: its step, arrays and host state.

    abstract_arrays: the tree that was saved, of jax.ShapeDtypeStruct with the shardings wanted.
    Damaged and foreign checkpoints newer than it are passed over with a warning, and renamed, for
    their steps will be saved again. Raises UserError if there is no sound one, or if the arrays in
    it have other names, shapes or types.
    """
    self.wait()
    wanted = _by_path(abstract_arrays)
    faults: dict[int, str] = {}
    for step in reversed(self.steps()):
      restored = self._read(step, wanted, faults)
      if restored is not None:
        self._set_aside(faults)
        self._newest = step
        leaves, host = restored
        treedef = jax.tree.structure(abstract_arrays)
        return step, treedef.unflatten(leaves[path] for path in wanted), host
    raise UserError(f"no sound checkpoint in {self._folder}{_told(faults)}")

  def restore_part(self, abstract_arrays: PyTree, step: int | None = None) -> tuple[int, PyTree]:
    """Some arrays of one checkpoint: its step, and the arrays.

    abstract_arrays: a tree whose leaves all have the paths of saved ones; what else was saved is
    not read. step: which checkpoint; by default the newest.
    Raises UserError if there is no such checkpoint, or if it is damaged or does not fit.
    """
    self.wait()
    steps = self.steps()
    step = steps[-1] if step is None and steps else step
    if step not in steps:
      there = f"there are {', '.join(map(str, steps))}" if steps else "there is none"
      raise UserError(f"no checkpoint of step {step} in {self._folder}; {there}")
    wanted, faults = _by_path(abstract_arrays), {}
    restored = self._read(step, wanted, faults, in_part=True)
    if restored is None:
      raise UserError(f"checkpoint {self._folder / str(step)} cannot be used: {faults[step]}")
    leaves, _ = restored
    return step, jax.tree.structure(abstract_arrays).unflatten(leaves[path] for path in wanted)

  def wait(self) -> None:
    """Returns when all is on the disk, for all hosts. Raises UserError if the disk is full."""
    if self._saving is None:
      return
    failure = self._failure()
    if not _everywhere(failure is None):
      raise failure or UserError(f"another host could not save a checkpoint in {self._folder}")

  def close(self) -> None:
    """Waits for what this host has to do, then lets go of the folder."""
    failure = self._failure()
    self._background.shutdown()
    self._arrays.close()
    if failure:
      raise failure

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def _failure(self) -> Exception | None:
    """Waits for the save under way, on this host; what it died of."""
    if self._saving is None:
      return None
    saving, self._saving = self._saving, None
    try:
      with _disk_trouble(self._folder):
        saving.result()
    except Exception as error:
      return error
    return None

  def _finish(self, step: int, state: str, accuracy: float | None) -> None:
    """In the background: waits for the arrays of all hosts, then makes a checkpoint of them."""
    self._arrays.wait_until_finished()
    if not _is_first_host():
      return
    partial = self._folder / f"saving-{step}"
    write_atomically(partial / _STATE, state)
    write_manifest(partial, step, self._run or "", accuracy)
    partial.rename(self._folder / str(step))
    sync(self._folder)
    self._remove_old()

  def _remove_old(self) -> None:
    accuracy_of = self._accuracy_of()
    for step in accuracy_of.keys() - kept(accuracy_of, **self._keep):
      target = self._folder / f"deleting-{step}"
      (self._folder / str(step)).rename(target)
      shutil.rmtree(target)

  def _accuracy_of(self) -> dict[int, float | None]:
    """By step, as manifests say; None where one says nothing, or cannot be read."""
    found = {}
    for step in self.steps():
      try:
        found[step] = read_manifest(self._folder / str(step))["accuracy"]
      except (OSError, ValueError):
        found[step] = None
    return found

  def _read(
    self,
    step: int,
    wanted: Mapping[str, jax.ShapeDtypeStruct],
    faults: dict[int, str],
    in_part: bool = False,
  ) -> tuple[dict[str, jax.Array], dict[str, Any]] | None:
    """Arrays by path and host state of `step`; None, and a line in `faults`, if it is no good."""
    path, restored = self._folder / str(step), None
    fault = find_fault(path, step, self._run) if _is_first_host() else ""
    if _everywhere(not fault):
      try:
        restored = self._restore(path, wanted, in_part)
      except _NOT_DAMAGE:
        raise
      except Exception as error:  # orbax, tensorstore and json each have kinds of their own
        fault = f"{type(error).__name__}: {error}".splitlines()[0][:200]
      # Hosts that went on from different steps would train different models.
      if _everywhere(restored is not None):
        return restored
    faults[step] = fault or "another host could not read it"
    return None

  def _restore(
    self, path: pathlib.Path, wanted: Mapping[str, jax.ShapeDtypeStruct], in_part: bool
  ) -> tuple[dict[str, jax.Array], dict[str, Any]]:
    # Shapes are compared first because orbax would pad, cut and cast in silence.
    state = json.loads((path / _STATE).read_text(encoding="utf-8"))
    shapes = state["shapes"]
    if in_part:
      shapes = {name: shape for name, shape in shapes.items() if name in wanted}
    _require_same(path, shapes, wanted)
    stored = {name: leaf for name, leaf in wanted.items() if leaf.size}
    as_wanted = ocp.checkpoint_utils.construct_restore_args(stored)
    only_these = ocp.args.PyTreeRestore(stored, restore_args=as_wanted, partial_restore=True)
    arrays = self._arrays.restore(path / "arrays", args=only_these)
    arrays |= {name: _zeros(leaf) for name, leaf in wanted.items() if not leaf.size}
    _require_sums(state["sums"], _bit_sums(arrays))
    return arrays, state["host"]

  def _set_aside(self, faults: Mapping[int, str]) -> None:
    """Renames checkpoints that are no good, all newer than the one restored, out of the way."""
    if not faults:
      return
    for step, fault in faults.items():
      path = self._folder / str(step)
      warnings.warn(f"checkpoint {path} is passed over: {fault}", stacklevel=3)
      if _is_first_host():
        _rename_aside(path)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices("unusable checkpoints renamed")


def _by_path(tree: PyTree) -> dict[str, Any]:
  """The leaves of a tree by dotted path, in the order of the tree."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _shape(leaf: jax.Array | jax.ShapeDtypeStruct) -> str:
  """`bfloat16[4,8]`, for comparison and for people."""
  return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _zeros(leaf: jax.ShapeDtypeStruct) -> jax.Array:
  """An array without elements, which orbax cannot store and nobody needs to."""
  return jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding)


def _bit_sums(leaves: Mapping[str, jax.Array]) -> dict[str, int]:
  """A checksum of each array: a changed bit on the disk would otherwise go unnoticed."""
  # One at a time: sums over devices that are in flight together can wait for each other for ever
  # where the devices are threads of a few cores.
  return {path: int(_bit_sum(leaf)) for path, leaf in leaves.items()}


@jax.jit
def _bit_sum(leaf: jax.Array) -> jax.Array:
  """The sum of the bits of an array read as unsigned integers, modulo 2^32: uint32[].

  Integers add up to the same sum in any order, hence on any mesh.
  """
  if leaf.dtype == jnp.bool_:
    leaf = leaf.astype(jnp.uint8)
  width = min(leaf.dtype.itemsize, 4)
  return jnp.sum(jax.lax.bitcast_convert_type(leaf, f"uint{8 * width}"), dtype=jnp.uint32)


def _require_sums(stored: Mapping[str, int], found: Mapping[str, int]) -> None:
  """Raises ValueError for the first array that came back other than it was saved."""
  for path, total in found.items():
    if total != stored[path]:
      raise ValueError(f"{path} does not have its checksum")


def _require_same(
  path: pathlib.Path, stored: Mapping[str, str], wanted: Mapping[str, jax.ShapeDtypeStruct]
) -> None:
  """Raises UserError for the first array that is not in both with one shape and type."""
  for name in [*wanted, *stored]:
    there = stored.get(name, "absent")
    here = _shape(wanted[name]) if name in wanted else "absent"
    if there != here:
      raise UserError(
        f"checkpoint {path} does not fit this run: {name} is {there} there and {here} here; "
        "go on with the config it was saved with, or choose another --workdir"
      )


def _json(state: Mapping[str, Any]) -> str:
  """`state` as text: safe from later changes."""
  _require_text_keys(state["host"])
  return json.dumps(state)


def _require_text_keys(value: Any) -> None:
  """Raises TypeError for a key that JSON would turn into text, and a resumed run never find."""
  if isinstance(value, Mapping):
    for key, inner in value.items():
      if not isinstance(key, str):
        raise TypeError(f"host state has the key {key!r}; JSON keeps only keys of text")
      _require_text_keys(inner)
  if isinstance(value, list | tuple):
    for inner in value:
      _require_text_keys(inner)


def _rename_aside(path: pathlib.Path) -> None:
  """Renames `path` to the first free name of `unusable-30`, `unusable-30-2`, ..."""
  target, number = path.with_name(f"unusable-{path.name}"), 2
  while target.exists():
    target, number = path.with_name(f"unusable-{path.name}-{number}"), number + 1
  with disk_errors(path):
    path.rename(target)


def _told(faults: Mapping[int, str]) -> str:
  """What is wrong with the checkpoints that are there."""
  if not faults:
    return ""
  step, fault = next(iter(faults.items()))
  return f": none of {len(faults)} can be used (step {step}: {fault}); choose another --workdir"


def _is_first_host() -> bool:
  return jax.process_index() == 0


def _everywhere(okay: bool) -> bool:
  """Whether `okay` holds on every host."""
  if jax.process_count() == 1:
    return okay
  return bool(np.all(multihost_utils.process_allgather(np.asarray(okay))))


@contextlib.contextmanager
def _disk_trouble(folder: pathlib.Path) -> Iterator[None]:
  """Turns the many kinds of error by which libraries tell of the disk into one UserError."""
  try:
    with disk_errors(folder):
      yield
  except UserError:
    raise
  except Exception as error:
    for code, reason in REASONS.items():
      if os.strerror(code) in str(error):
        raise UserError(f"cannot save a checkpoint in {folder}: {reason}") from error
    raise
