"""Weights on disk: a Hugging Face Qwen3 folder in, and a folder transformers loads out.

One table maps each tensor's name to our parameter. A matrix is stored there as [out, in]; ours is
[in..., out...] with heads apart, so `theirs.T.reshape(ours)` is the whole conversion, both ways
exact. Blocks are stacked here and numbered there. Tensors are read from the memory-mapped files one
parameter at a time, each device taking its own shard, so the host never holds a second model.
"""

import contextlib
import dataclasses
import json
import math
import pathlib
import re
import shutil
from collections.abc import Iterator

import jax
import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy, which safetensors then reads)
import numpy as np
import safetensors
import safetensors.numpy

from grpo_jax import hosts
from grpo_jax.errors import UserError
from grpo_jax.model.config import read_config
from grpo_jax.model.qwen3 import Params

# Name on the Hub -> (our path, how many leading axes of ours are inputs; 0: stored as it is).
OUTER = {
  "model.embed_tokens.weight": ("embedding", 0),
  "model.norm.weight": ("final_norm/scale", 0),
  "lm_head.weight": ("head", 0),
}
BLOCK = {
  "input_layernorm.weight": ("attention_norm/scale", 0),
  "self_attn.q_proj.weight": ("attention/query/kernel", 1),
  "self_attn.k_proj.weight": ("attention/key/kernel", 1),
  "self_attn.v_proj.weight": ("attention/value/kernel", 1),
  "self_attn.q_norm.weight": ("attention/query_norm/scale", 0),
  "self_attn.k_norm.weight": ("attention/key_norm/scale", 0),
  "self_attn.o_proj.weight": ("attention/out/kernel", 2),
  "post_attention_layernorm.weight": ("feed_forward_norm/scale", 0),
  "mlp.gate_proj.weight": ("feed_forward/gate/kernel", 1),
  "mlp.up_proj.weight": ("feed_forward/up/kernel", 1),
  "mlp.down_proj.weight": ("feed_forward/down/kernel", 1),
}
# Stored by some releases although nothing reads them: the tied head, and rotary tables.
IGNORED = re.compile(r"lm_head\.weight|.*\.rotary_emb\.inv_freq")

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_FILE_BYTES = 5 * 10**9


@dataclasses.dataclass(frozen=True)
class Tensor:
  """One tensor of the folder and the place of its values in our parameters."""

  name: str
  path: str
  layer: int | None  # index along the stacked axis
  inputs: int
  ours: tuple[int, ...]  # our shape, without the stacked axis

  @property
  def theirs(self) -> tuple[int, ...]:
    if not self.inputs:
      return self.ours
    return (math.prod(self.ours[self.inputs :]), math.prod(self.ours[: self.inputs]))

  def to_ours(self, value: np.ndarray) -> np.ndarray:
    return value.T.reshape(self.ours) if self.inputs else value

  def to_theirs(self, value: np.ndarray) -> np.ndarray:
    return value.reshape(self.theirs[::-1]).T if self.inputs else value


def tensor_table(params: Params) -> list[Tensor]:
  """All tensors of a model, from its (possibly abstract) parameters."""
  shapes = {path: leaf.shape for path, leaf in _flatten(params).items()}
  table = [
    Tensor(name, path, None, inputs, shapes[path])
    for name, (path, inputs) in OUTER.items()
    if path in shapes
  ]
  for suffix, (path, inputs) in BLOCK.items():
    count, *shape = shapes[f"layers/{path}"]
    table += [
      Tensor(f"model.layers.{i}.{suffix}", f"layers/{path}", i, inputs, tuple(shape))
      for i in range(count)
    ]
  return table


def check_folder(folder: str | pathlib.Path, abstract: Params) -> None:
  """Checks every tensor's name and shape, reading no value.

  Raises:
    UserError: a missing or unreadable file, a missing, unknown or wrongly shaped tensor.
  """
  with _open_folder(pathlib.Path(folder)) as stored:
    _check(tensor_table(abstract), stored, folder)


def load_params(folder: str | pathlib.Path, abstract: Params) -> Params:
  """Reads a folder's weights into arrays of the given shapes, dtypes and shardings.

  Args:
    folder: holds `model.safetensors`, or shards and `model.safetensors.index.json`.
    abstract: parameters as `jax.ShapeDtypeStruct` with shardings (`qwen3.abstract_params`).

  Raises:
    UserError: a missing or unreadable file, a missing, unknown or wrongly shaped tensor; all names
      and shapes are checked before any value is read.
  """
  table = tensor_table(abstract)
  with _open_folder(pathlib.Path(folder)) as stored:
    _check(table, stored, folder)
    by_path: dict[str, list[Tensor]] = {}
    for tensor in table:
      by_path.setdefault(tensor.path, []).append(tensor)
    leaves = {
      path: _read_parameter(by_path[path], stored, leaf)
      for path, leaf in _flatten(abstract).items()
    }
  return _unflatten(leaves)


def save_params(folder: str | pathlib.Path, params: Params, dtype: str) -> None:
  """Writes the weights as safetensors; files above 5 GB are split and indexed, as on the Hub. All
  hosts call it, and the first one writes."""
  folder = pathlib.Path(folder)
  leaves, table = _flatten(params), tensor_table(params)
  files = _assign_files(table, np.dtype(dtype).itemsize)
  for file, tensors in files.items():
    values = {t.name: _one_tensor(leaves[t.path], t, dtype) for t in tensors}
    if hosts.is_first():
      safetensors.numpy.save_file(values, folder / file, metadata={"format": "pt"})
  if len(files) > 1 and hosts.is_first():
    size = sum(math.prod(t.theirs) for t in table) * np.dtype(dtype).itemsize
    weight_map = {t.name: file for file, tensors in files.items() for t in tensors}
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")


def carry_files(source: str | pathlib.Path, target: str | pathlib.Path) -> None:
  """Copies everything of a model folder but its weights: configs, tokenizer, licence, template."""
  for path in sorted(pathlib.Path(source).iterdir()):
    carried = path.suffix in {".json", ".txt", ".jinja", ".md"} or path.name == "LICENSE"
    if path.is_file() and carried and path.name != INDEX_FILE:
      shutil.copyfile(path, pathlib.Path(target) / path.name)


def export_folder(out: pathlib.Path, params: Params, source: pathlib.Path, dtype: str = "") -> None:
  """Writes a model folder, replacing an older export in one move. All hosts call it.

  Args:
    out: the folder to make.
    params: the policy.
    source: the model folder whose other files are carried along.
    dtype: of the stored weights; "": that of the source, so that a round trip is exact.
  """
  _, raw = read_config(source)
  stored = raw.get("dtype") or raw.get("torch_dtype") or "float32"
  partial = out.with_name(f"{out.name}.partial")
  if hosts.is_first():
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    carry_files(source, partial)
  save_params(partial, params, dtype or stored)
  if not hosts.is_first():
    return
  if dtype and dtype != stored:
    name = "dtype" if "dtype" in raw else "torch_dtype"
    (partial / "config.json").write_text(json.dumps(raw | {name: dtype}, indent=2) + "\n")
  shutil.rmtree(out, ignore_errors=True)
  partial.rename(out)


class _Stored:
  """The open files of a folder: tensor name -> lazily read slice."""

  def __init__(self, files: dict[str, safetensors.safe_open]):
    self._file_of = {name: file for file in files.values() for name in file.keys()}  # noqa: SIM118

  def __iter__(self) -> Iterator[str]:
    return iter(self._file_of)

  def shape(self, name: str) -> tuple[int, ...]:
    return tuple(self._file_of[name].get_slice(name).get_shape())

  def read(self, name: str) -> np.ndarray:
    return self._file_of[name].get_tensor(name)


@contextlib.contextmanager
def _open_folder(folder: pathlib.Path) -> Iterator[_Stored]:
  with contextlib.ExitStack() as stack:
    files = {}
    for name in _file_names(folder):
      try:
        files[name] = stack.enter_context(safetensors.safe_open(folder / name, framework="np"))
      except FileNotFoundError:
        raise UserError(f"{folder / name}: named by {INDEX_FILE} but not there") from None
      except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{folder / name}: not a readable safetensors file ({error})") from None
    yield _Stored(files)


def _file_names(folder: pathlib.Path) -> list[str]:
  if (folder / SINGLE_FILE).is_file():
    return [SINGLE_FILE]
  index = folder / INDEX_FILE
  if not index.is_file():
    raise UserError(f"{folder}: no weights; expected {SINGLE_FILE} or {INDEX_FILE}")
  try:
    return sorted(set(json.loads(index.read_text())["weight_map"].values()))
  except (ValueError, KeyError, AttributeError) as error:
    raise UserError(f"{index}: not a weight index ({error!r})") from None


def _check(table: list[Tensor], stored: _Stored, folder) -> None:
  expected = {t.name: t.theirs for t in table}
  missing = sorted(expected.keys() - set(stored))
  if missing:
    raise UserError(f"{folder}: tensor {missing[0]} is missing ({len(missing)} missing in all)")
  unknown = sorted(n for n in stored if n not in expected and not IGNORED.fullmatch(n))
  if unknown:
    raise UserError(f"{folder}: tensor {unknown[0]} belongs to no Qwen3 of this config.json")
  for name, shape in expected.items():
    if stored.shape(name) != shape:
      raise UserError(
        f"{folder}: tensor {name} has shape {list(stored.shape(name))}, config.json implies "
        f"{list(shape)}"
      )


def _read_parameter(tensors: list[Tensor], stored: _Stored, leaf) -> jax.Array:
  """One parameter from its tensor, or from one tensor a layer."""

  def shard(index: tuple[slice, ...]) -> np.ndarray:
    if tensors[0].layer is None:
      return tensors[0].to_ours(stored.read(tensors[0].name))[index].astype(leaf.dtype)
    layers, within = tensors[index[0]], index[1:]
    read = (t.to_ours(stored.read(t.name))[within].astype(leaf.dtype) for t in layers)
    return np.stack(list(read))

  return jax.make_array_from_callback(leaf.shape, leaf.sharding, shard)


def _one_tensor(leaf: jax.Array, tensor: Tensor, dtype: str) -> np.ndarray:
  value = leaf if tensor.layer is None else leaf[tensor.layer]
  return np.ascontiguousarray(tensor.to_theirs(hosts.whole(value))).astype(np.dtype(dtype))


def _assign_files(table: list[Tensor], itemsize: int) -> dict[str, list[Tensor]]:
  files: list[list[Tensor]] = [[]]
  size = 0
  for tensor in table:
    size += math.prod(tensor.ours) * itemsize
    if size > MAX_FILE_BYTES and files[-1]:
      files.append([])
      size = math.prod(tensor.ours) * itemsize
    files[-1].append(tensor)
  if len(files) == 1:
    return {SINGLE_FILE: files[0]}
  count = len(files)
  return {f"model-{i:05d}-of-{count:05d}.safetensors": f for i, f in enumerate(files, 1)}


def _flatten(tree: Params) -> dict[str, jax.Array | jax.ShapeDtypeStruct]:
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


def _unflatten(leaves: dict[str, jax.Array]) -> Params:
  tree: Params = {}
  for path, leaf in leaves.items():
    *parents, last = path.split("/")
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = leaf
  return tree
