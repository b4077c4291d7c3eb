"""Which device stands where in the mesh, with devices that are none."""

import dataclasses

import jax
import numpy as np
import pytest

from grpo_jax.errors import UserError
from grpo_jax.model.sharding import arranged


@dataclasses.dataclass(frozen=True)
class FakeTPU:
  """What the arrangement asks of a device: one of a 4 x 4 slice of v5e, four on each host."""

  id: int
  slice_index: int
  coords: tuple[int, int, int]
  process_index: int
  platform: str = "tpu"
  device_kind: str = "TPU v5 lite"
  core_on_chip: int = 0


def two_slices() -> list[FakeTPU]:
  return [
    FakeTPU(16 * s + 4 * y + x, s, (x, y, 0), 4 * s + 2 * (y // 2) + x // 2)
    for s in range(2)
    for y in range(4)
    for x in range(4)
  ]


@pytest.mark.parametrize(
  ("shape", "across"),
  [((2, 16, 1), "data"), ((2, 4, 4), "data"), ((4, 2, 4), "data"), ((1, 8, 4), "fsdp")],
)
def test_slices_meet_on_the_first_axis_that_can_hold_them(shape, across):
  devices = arranged(two_slices(), *shape)
  assert devices.shape == shape
  slices = np.vectorize(lambda device: device.slice_index)(devices)
  assert all(len(set(group)) == 1 for group in slices.reshape(-1, shape[2])), "never on tensor"
  of_copy = [set(copy.flat) for copy in slices]
  assert all(len(of) == (1 if across == "data" else 2) for of in of_copy)
  assert len({device.id for device in devices.flat}) == 32


def test_tensor_parts_are_neighbours_in_a_slice():
  for group in arranged(two_slices(), 2, 8, 2).reshape(-1, 2):
    steps = np.abs(np.subtract(*(device.coords for device in group)))
    assert steps.sum() == 1


def test_a_mesh_that_slices_do_not_divide_is_refused():
  with pytest.raises(UserError, match=r"data=1 x fsdp=1 .* over 2 slices.*data=2 would do"):
    arranged(two_slices(), 1, 1, 32)


def test_without_a_network_devices_stand_in_their_order():
  devices = jax.devices()
  assert arranged(devices, 2, 2, 2).reshape(-1).tolist() == devices
