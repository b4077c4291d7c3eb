"""Where does each array live? One table from logical axis names to mesh axes.

Parameters, activations, caches and batches name their axes ("embed", "heads", "batch", ...); this
table alone says over which mesh axes a name is split. Changing the strategy is one line here.

Mesh axes:
  data    copies of the parameters; batches are split
  fsdp    batches *and* parameters are split; parameters are gathered when used
  tensor  heads, feed-forward columns and vocabulary are split
"""

import dataclasses
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from grpo_jax.errors import UserError
from grpo_jax.model.config import Qwen3Config

MESH_AXES = ("data", "fsdp", "tensor")

RULES: dict[str, str | tuple[str, ...] | None] = {
  # parameters
  "vocab": "tensor",
  "embed": "fsdp",
  "heads": "tensor",
  "kv_heads": "tensor",
  "mlp": "tensor",
  "head_dim": None,
  "norm": None,
  "layers": None,
  # activations, caches, batches, the replay store
  "batch": ("data", "fsdp"),
  "length": None,
  "sequence": "tensor",  # the length of what is computed a token at a time
  "microbatch": None,
}


@dataclasses.dataclass(frozen=True)
class Layout:
  """A mesh together with the table above; hashable, so a module may carry it."""

  mesh: Mesh
  whole_weights: bool = False  # along fsdp: nothing is gathered when used

  def spec(self, *names: str | None) -> PartitionSpec:
    """Logical names, one an axis (None: not split), to mesh axes."""
    axes = tuple(RULES[name] if name is not None else None for name in names)
    if self.whole_weights:
      axes = tuple(None if axis == "fsdp" else axis for axis in axes)
    flat = [a for axis in axes if axis for a in ((axis,) if isinstance(axis, str) else axis)]
    if len(flat) != len(set(flat)):
      raise ValueError(f"axes {names} of one array map to the same mesh axis twice: {axes}")
    return PartitionSpec(*axes)

  def sharding(self, *names: str | None) -> NamedSharding:
    return NamedSharding(self.mesh, self.spec(*names))

  def constrain(self, x: jax.Array, *names: str | None) -> jax.Array:
    """Tells the compiler how an activation is split; changes no value. One device splits nothing,
    and a gradient finds its way to a parameter's sum more directly without."""
    if self.mesh.size == 1:
      return x
    return jax.lax.with_sharding_constraint(x, self.sharding(*names))

  @property
  def replicated(self) -> NamedSharding:
    return NamedSharding(self.mesh, PartitionSpec())

  def split_rows(self, tree):
    """Arrays of this host, the same on every host, to arrays split along their first axis."""
    sharding = self.sharding("batch")
    return jax.tree.map(
      lambda leaf: jax.make_array_from_callback(leaf.shape, sharding, leaf.__getitem__), tree
    )

  def settled(self, tree):
    """The same arrays, waited for where a CPU plays several devices: programs queued up on those
    may each hold some of the threads that they all share, and wait for each other until XLA
    aborts. Real devices take one program after the other."""
    if self.platform == "cpu" and self.mesh.size > 1:
      jax.block_until_ready(tree)
    return tree

  def arithmetic_dtype(self, dtype: jnp.dtype) -> jnp.dtype:
    """What products of matrices of `dtype` are formed in, and keys and values kept in. XLA's CPU
    backend multiplies bfloat16 into float32 ten times as fast as into bfloat16, and attends over a
    float32 cache faster; an accelerator rounds as it writes."""
    return jnp.promote_types(dtype, jnp.float32) if self.platform == "cpu" else dtype

  @property
  def platform(self) -> str:
    """Of the devices this is compiled for, which need not be those of the compiling process."""
    return self.mesh.devices.flat[0].platform

  @property
  def batch_shards(self) -> int:
    """Over how many devices a batch is split: batch sizes must be multiples of it."""
    return self.mesh.shape["data"] * self.mesh.shape["fsdp"]


def make_layout(
  data: int = -1, fsdp: int = 1, tensor: int = 1, *, devices: list[jax.Device] | None = None
) -> Layout:
  """A mesh of data x fsdp x tensor over all devices; one of the three may be -1: what is left.

  Raises:
    UserError: the product is not the number of devices, or slices of a TPU do not divide data x
      fsdp.
  """
  devices = jax.devices() if devices is None else devices
  sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
  free = [name for name, size in sizes.items() if size == -1]
  taken = math.prod(size for size in sizes.values() if size != -1)
  if len(free) == 1 and taken > 0:
    sizes[free[0]] = len(devices) // taken
  if len(free) > 1 or math.prod(sizes.values()) != len(devices):
    raise UserError(
      f"mesh: data={data} x fsdp={fsdp} x tensor={tensor} does not fit {len(devices)} device(s); "
      "the product must equal their number, and one size may be -1"
    )
  # Auto axes: the compiler propagates shardings from the constraints; the default (explicit) type
  # would ask for one on every gather.
  return Layout(
    Mesh(arranged(devices, *sizes.values()), MESH_AXES, axis_types=(AxisType.Auto,) * 3)
  )


def arranged(devices: list[jax.Device], data: int, fsdp: int, tensor: int) -> np.ndarray:
  """Devices [data, fsdp, tensor]: neighbours in the mesh are neighbours in the network, on the last
  axis, which talks most, first of all. Slices of TPUs reach each other through the network of the
  data center: data crosses it, fsdp where data is too small for all slices, tensor never."""
  on_tpu = devices[0].platform == "tpu"
  slices = len({getattr(device, "slice_index", 0) for device in devices}) if on_tpu else 1
  if slices == 1:
    return mesh_utils.create_device_mesh(
      (data, fsdp, tensor), devices, allow_split_physical_axes=True
    )
  data_slices = math.gcd(data, slices)
  fsdp_slices = slices // data_slices
  if fsdp % fsdp_slices:
    raise UserError(
      f"mesh: data={data} x fsdp={fsdp} does not divide over {slices} slices, and tensor={tensor} "
      f"cannot cross them: data={slices} would do"
    )
  return mesh_utils.create_hybrid_device_mesh(
    (data // data_slices, fsdp // fsdp_slices, tensor),
    (data_slices, fsdp_slices, 1),
    devices,
    allow_split_physical_axes=True,
  )


def check_divisible(config: Qwen3Config, layout: Layout) -> None:
  """Raises UserError where the model's dimensions do not split evenly over the mesh."""
  dimensions = {
    "vocab_size": "vocab",
    "hidden_size": "embed",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "intermediate_size": "mlp",
  }
  for field, name in dimensions.items():
    size, axis = getattr(config, field), RULES[name]
    if size % layout.mesh.shape[axis]:
      raise UserError(
        f"mesh.{axis}={layout.mesh.shape[axis]} does not divide the model's {field}={size}"
      )


def memory_of_device(layout: Layout) -> int:
  """Bytes one device has: its own memory, or its part of this host's where it has none."""
  device = layout.mesh.local_devices[0]
  own = (device.memory_stats() or {}).get("bytes_limit")
  host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  return own or host // len(jax.local_devices())


def most_held(layout: Layout) -> int | None:
  """Bytes that the fullest of this host's devices held at most since the process began; None where
  they do not say."""
  stats = [device.memory_stats() or {} for device in layout.mesh.local_devices]
  return max((of.get("peak_bytes_in_use", 0) for of in stats), default=0) or None


def bytes_per_device(tree) -> int:
  """What the fullest device holds of a tree of (possibly abstract) arrays with shardings."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )
