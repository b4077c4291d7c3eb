"""How does a model learn whose parameters, gradients and moments do not fit? By low-rank adapters.

The start policy's matrices W stay as they are, in the dtype the model computes in; trained are A
and B of W + (alpha / rank) A B, with B zero at the start (LoRA, arXiv 2106.09685). Where a kernel
has a `lora_a` and a `lora_b` beside it, model/qwen3.py adds x A B to x W; sampling and export use
merged parameters, which nobody can tell from those of a model without adapters.
"""

import dataclasses
import difflib
import functools
import hashlib
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from grpo_jax.errors import UserError
from grpo_jax.model.qwen3 import Params
from grpo_jax.model.weights import BLOCK

# Name of a matrix -> (the part of a layer it is in, how many of its leading axes are inputs).
TARGETS = {
  path.split("/")[1]: (path.split("/")[0], inputs) for path, inputs in BLOCK.values() if inputs
}


@dataclasses.dataclass(frozen=True)
class LoRA:
  """Which matrices have adapters, of which rank, and by what A B is multiplied."""

  rank: int
  alpha: float
  targets: tuple[str, ...]  # names of TARGETS

  def __post_init__(self):
    """
    Raises:
      UserError: names the key, its value and what would be right.
    """
    if self.rank < 1:
      raise UserError(f"config.model.lora_rank is {self.rank}; it must be 0 (no LoRA) or above")
    if not self.alpha > 0:
      raise UserError(f"config.model.lora_alpha is {self.alpha}; it must be above 0")
    if not self.targets:
      raise UserError("config.model.lora_targets is empty: with lora_rank above 0 name a matrix")
    for name in self.targets:
      if name not in TARGETS:
        nearest = difflib.get_close_matches(name, TARGETS, n=1, cutoff=0.0)[0]
        raise UserError(
          f"config.model.lora_targets has {name!r}: unknown; did you mean {nearest!r}? "
          f"known: {', '.join(TARGETS)}"
        )

  @property
  def scale(self) -> float:
    return self.alpha / self.rank


def make_lora(rank: int, alpha: float, targets: tuple[str, ...]) -> LoRA | None:
  """The LoRA of these settings; None at rank 0, where the others are not looked at."""
  return LoRA(rank, alpha, tuple(targets)) if rank else None


def abstract_trained(params: Params, lora: LoRA | None) -> Params:
  """Of a model's abstract parameters, or beside them, those that are trained: shapes, dtypes and
  shardings. Adapters are float32 and split as their kernel's inputs (A) and outputs (B) are."""
  if lora is None:
    return params
  layers: Params = {}
  for name in lora.targets:
    part, inputs = TARGETS[name]
    kernel = params["layers"][part][name]["kernel"]
    layers.setdefault(part, {})[name] = _abstract_pair(kernel, inputs, lora.rank)
  return {"layers": layers}


def abstract_frozen(params: Params, dtype: np.dtype) -> Params:
  """A model's abstract parameters as they are held when only adapters are trained."""
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=leaf.sharding), params
  )


def init_adapters(abstract: Params, key: jax.Array) -> Params:
  """A normal with variance 1 / inputs, so that x A has the size of x; B zero. The same numbers on
  every mesh."""

  def make(key):
    leaves, tree = jax.tree_util.tree_flatten_with_path(abstract)
    keys = jax.random.split(key, len(leaves))
    made = [_init_adapter(path, leaf, k) for (path, leaf), k in zip(leaves, keys, strict=True)]
    return tree.unflatten(made)

  return jax.jit(make, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, abstract))(key)


def policy_params(trained: Params, base: Params | None, lora: LoRA | None) -> Params:
  """All that the model is applied with: with LoRA the base with B, scaled, and A beside its
  kernels, which copies nothing of the base; else what is trained."""
  if lora is None:
    return trained

  def scaled(path, leaf):
    return leaf * lora.scale if path[-1].key == "lora_b" else leaf

  return _beside(base, jax.tree_util.tree_map_with_path(scaled, trained))


def merged_policy(trained: Params, base: Params | None, lora: LoRA | None) -> Params:
  """`policy_params` without adapters: what a model folder holds. Merged a layer at a time."""
  if lora is None:
    return trained

  def merge(params):
    return params | {"layers": jax.lax.map(merge_adapters, params["layers"])}

  return jax.block_until_ready(jax.jit(merge)(policy_params(trained, base, lora)))


def merge_adapters(params: Params) -> Params:
  """W + A B, rounded once to the dtype of W, for every matrix of a tree whose layers are not
  stacked; one without adapters is left as it is."""
  if not isinstance(params, dict):
    return params
  if "lora_a" not in params:
    return {name: merge_adapters(value) for name, value in params.items()}
  kernel, a, b = params["kernel"], params["lora_a"], params["lora_b"]
  product = jnp.tensordot(a, b, 1, precision="highest")
  return {"kernel": (kernel.astype(product.dtype) + product).astype(kernel.dtype)}


def fingerprint(folder: pathlib.Path) -> str:
  """Names a model folder by the bytes of its weights: adapters mean nothing beside others."""
  digest = hashlib.sha256()
  for path in sorted(folder.glob("*.safetensors")):
    with path.open("rb") as file:
      digest.update(hashlib.file_digest(file, "sha256").digest())
  return digest.hexdigest()


def _abstract_pair(kernel: jax.ShapeDtypeStruct, inputs: int, rank: int) -> Params:
  """A [L, in..., r] and B [L, r, out...] of a kernel [L, in..., out...]."""
  cut, mesh = 1 + inputs, kernel.sharding.mesh
  axes = (*kernel.sharding.spec, *[None] * (len(kernel.shape) - len(kernel.sharding.spec)))
  of = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
  return {
    "lora_a": of(
      (*kernel.shape[:cut], rank), sharding=NamedSharding(mesh, PartitionSpec(*axes[:cut], None))
    ),
    "lora_b": of(
      (kernel.shape[0], rank, *kernel.shape[cut:]),
      sharding=NamedSharding(mesh, PartitionSpec(axes[0], None, *axes[cut:])),
    ),
  }


def _init_adapter(path, leaf: jax.ShapeDtypeStruct, key: jax.Array) -> jax.Array:
  if path[-1].key == "lora_b":
    return jnp.zeros(leaf.shape, leaf.dtype)
  return jax.random.normal(key, leaf.shape, leaf.dtype) / math.sqrt(math.prod(leaf.shape[1:-1]))


def _beside(left: Params, right: Params) -> Params:
  """Both trees in one."""
  shared = left.keys() & right.keys()
  return left | right | {name: _beside(left[name], right[name]) for name in shared}
