"""How does a killed run continue as if nothing had happened?

Everything a run is made of is saved together: its arrays (parameters, optimizer, replay store) and
its host state (ledger, data cursor, cost meter) share one folder, which takes its final name only
when all of it is on the disk. Arrays come back bit for bit, on whatever mesh the new process has.
"""

import contextlib
import json
import os
import pathlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from grpo_jax.errors import UserError
from grpo_jax.run.files import disk_errors

PyTree = Any

# What a sound checkpoint may raise too: a request that does not fit it, or a lack of memory.
_NOT_DAMAGE = (UserError, MemoryError, jax.errors.JaxRuntimeError)


class Checkpoints:
  """The checkpoints of a run; a context manager that waits for the last save.

  With several hosts, each calls every method, with the same host state.
  """

  def __init__(self, folder: str | os.PathLike, keep_last: int | None):
    """Opens or makes `folder`, which keeps the newest `keep_last` checkpoints.

    keep_last: None opens it for reading, beside a run that may be saving at this moment.
    """
    if keep_last is not None and keep_last < 1:
      raise UserError(f"cannot keep {keep_last} checkpoints: keep at least 1")
    self._folder = pathlib.Path(folder).absolute()
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep_last, cleanup_tmp_directories=keep_last is not None
    )
    with disk_errors(self._folder):
      self._manager = ocp.CheckpointManager(self._folder, options=options)

  def latest_step(self) -> int | None:
    """The newest step saved or being saved; None in a new run."""
    return self._manager.latest_step()

  def save(self, step: int, arrays: PyTree, host: Mapping[str, Any]) -> None:
    """Saves the state after `step` steps, in the background; a saved step is left as it is.

    arrays: a tree of jax.Array, without typed PRNG keys. host: JSON values, keys of text. Both
    have been copied when this returns, so that the next update may overwrite them.
    Raises UserError if the disk is full, if need be of the save before.
    """
    if step == self.latest_step():
      return
    leaves = _by_path(arrays)
    shapes = {path: _shape(leaf) for path, leaf in leaves.items()}
    state = {"shapes": shapes, "sums": _bit_sums(leaves), "host": _json_copy(host)}
    args = ocp.args.Composite(
      arrays=ocp.args.PyTreeSave({path: leaf for path, leaf in leaves.items() if leaf.size}),
      state=ocp.args.JsonSave(state),
    )
    with _full_disk(self._folder):
      saved = self._manager.save(step, args=args)
    if not saved:
      raise ValueError(f"step {step} comes before the newest checkpoint, {self.latest_step()}")

  def restore(self, abstract_arrays: PyTree) -> tuple[int, PyTree, dict[str, Any]]:
    """The newest sound checkpoint: its step, arrays and host state.

    abstract_arrays: the tree that was saved, of jax.ShapeDtypeStruct with the shardings wanted.
    Damaged checkpoints newer than it are passed over with a warning, and renamed, for their steps
    will be saved again. Raises UserError if there is no sound one, or if the arrays in it have
    other names, shapes or types.
    """
    wanted = _by_path(abstract_arrays)
    damaged: dict[int, str] = {}
    for step in sorted(self._manager.all_steps(), reverse=True):
      restored = self._read(step, wanted, damaged)
      if restored is not None:
        self._set_aside(damaged)
        leaves, host = restored
        treedef = jax.tree.structure(abstract_arrays)
        return step, treedef.unflatten(leaves[path] for path in wanted), host
    raise UserError(f"no sound checkpoint in {self._folder}{_told(damaged)}")

  def restore_part(self, abstract_arrays: PyTree, step: int | None = None) -> tuple[int, PyTree]:
    """Some arrays of one checkpoint: its step, and the arrays.

    abstract_arrays: a tree whose leaves all have the paths of saved ones; what else was saved is
    not read. step: which checkpoint; by default the newest.
    Raises UserError if there is no such checkpoint, or if it is damaged or does not fit.
    """
    steps = sorted(self._manager.all_steps())
    step = steps[-1] if step is None and steps else step
    if step not in steps:
      there = f"there are {', '.join(map(str, steps))}" if steps else "there is none"
      raise UserError(f"no checkpoint of step {step} in {self._folder}; {there}")
    wanted, damaged = _by_path(abstract_arrays), {}
    restored = self._read(step, wanted, damaged, in_part=True)
    if restored is None:
      raise UserError(f"checkpoint {self._folder / str(step)} is damaged ({damaged[step]})")
    leaves, _ = restored
    return step, jax.tree.structure(abstract_arrays).unflatten(leaves[path] for path in wanted)

  def wait(self) -> None:
    """Returns when all is on the disk. Raises UserError if the disk is full."""
    with _full_disk(self._folder):
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits, then lets go of the folder."""
    with contextlib.closing(self._manager):
      self.wait()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def _read(
    self,
    step: int,
    wanted: Mapping[str, jax.ShapeDtypeStruct],
    damaged: dict[int, str],
    in_part: bool = False,
  ) -> tuple[dict[str, jax.Array], dict[str, Any]] | None:
    """Arrays by path and host state of `step`; None, and a line in `damaged`, if it is damaged."""
    try:
      restored = self._restore(step, wanted, in_part)
    except _NOT_DAMAGE:
      raise
    except Exception as error:  # orbax, tensorstore and json each have kinds of their own
      damaged[step] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
      restored = None
    # Hosts that went on from different steps would train different models.
    if _everywhere(restored is not None):
      return restored
    damaged.setdefault(step, "another host could not read it")
    return None

  def _restore(
    self, step: int, wanted: Mapping[str, jax.ShapeDtypeStruct], in_part: bool
  ) -> tuple[dict[str, jax.Array], dict[str, Any]]:
    # Shapes are compared first because orbax would pad, cut and cast in silence.
    state = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.JsonRestore()))
    state = state["state"]
    shapes = state["shapes"]
    if in_part:
      shapes = {path: shape for path, shape in shapes.items() if path in wanted}
    _require_same(self._folder / str(step), shapes, wanted)
    stored = {path: leaf for path, leaf in wanted.items() if leaf.size}
    as_wanted = ocp.checkpoint_utils.construct_restore_args(stored)
    only_these = ocp.args.PyTreeRestore(stored, restore_args=as_wanted, partial_restore=True)
    args = ocp.args.Composite(arrays=only_these)
    arrays = self._manager.restore(step, args=args)["arrays"]
    arrays |= {path: _zeros(leaf) for path, leaf in wanted.items() if not leaf.size}
    _require_sums(state["sums"], _bit_sums(arrays))
    return arrays, state["host"]

  def _set_aside(self, damaged: Mapping[int, str]) -> None:
    """Renames damaged checkpoints, all newer than the one restored, out of the way."""
    if not damaged:
      return
    for step, reason in damaged.items():
      warnings.warn(
        f"checkpoint {self._folder / str(step)} is damaged ({reason}); going on from an older one",
        stacklevel=3,
      )
      if jax.process_index() == 0:
        _rename_aside(self._folder / str(step))
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices("damaged checkpoints renamed")
    self._manager.reload()


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


def _json_copy(host: Mapping[str, Any]) -> dict[str, Any]:
  """`host` through JSON and back: what a restore will give, safe from later changes."""
  _require_text_keys(host)
  return json.loads(json.dumps(host))


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
  """Renames `path` to the first free name of `damaged-30`, `damaged-30-2`, ..."""
  target, number = path.with_name(f"damaged-{path.name}"), 2
  while target.exists():
    target, number = path.with_name(f"damaged-{path.name}-{number}"), number + 1
  with disk_errors(path):
    path.rename(target)


def _told(damaged: Mapping[int, str]) -> str:
  """What is wrong with the checkpoints that are there."""
  if not damaged:
    return ""
  step, reason = next(iter(damaged.items()))
  return f": all {len(damaged)} are damaged (step {step}: {reason}); choose another --workdir"


def _everywhere(okay: bool) -> bool:
  """Whether `okay` holds on every host."""
  if jax.process_count() == 1:
    return okay
  return bool(np.all(multihost_utils.process_allgather(np.asarray(okay))))


@contextlib.contextmanager
def _full_disk(folder: pathlib.Path) -> Iterator[None]:
  """Turns the many kinds of error that a full disk causes into one UserError."""
  try:
    yield
  except Exception as error:
    if "No space left" not in str(error) and "quota" not in str(error):
      raise
    raise UserError(
      f"cannot save a checkpoint in {folder}: the disk is full; free some space, then start the "
      "same command again"
    ) from error
