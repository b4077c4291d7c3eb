"""A killed run goes on bit for bit, or refuses in words; it never goes on from a damaged state."""

import errno
import gc
import pathlib
import shutil
import subprocess
import sys
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from grpo_jax.errors import UserError
from grpo_jax.run.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collect_what_orbax_leaves():
  """A failed read leaves coroutines that complain when collected: here, not in a later test."""
  yield
  gc.collect()



def sharding_of(shape, *spec):
  mesh = jax.make_mesh(shape, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
  return NamedSharding(mesh, PartitionSpec(*spec))


def state(seed, sharding=None):
  """A small state with every kind of leaf a run has."""
  random = np.random.default_rng(seed)
  sharding = sharding or sharding_of((4, 2), "fsdp")
  weights = random.normal(size=(16, 24)).astype(np.float32)
  weights[0, :3] = [np.nan, -0.0, 1e-42]
  return {
    "params": {
      "w": jax.device_put(weights, sharding),
      "layers": [jax.device_put(jnp.asarray(weights[:8], jnp.bfloat16), sharding)],
    },
    "replay": {
      "tokens": jax.device_put(random.integers(0, 2**31, (8, 4), np.int32), sharding),
      "full": jax.device_put(random.integers(0, 2, 8).astype(bool), sharding),
      "none": jnp.zeros((0, 4)),
    },
    "step": jnp.int32(seed),
  }


def abstract(tree, sharding=None):
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding or leaf.sharding),
    tree,
  )


def assert_same_bits(found, wanted):
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    assert (left.shape, left.dtype) == (right.shape, right.dtype)
    assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


def save_all(folder, *steps, keep_last=3):
  with Checkpoints(folder, keep_last) as checkpoints:
    for step in steps:
      checkpoints.save(step, state(step), {"cursor": step})


def test_everything_comes_back_bit_for_bit(tmp_path):
  host = {"ledger": {"p1": [0.1, None, True]}, "cursor": 3, "text": "é", "nan": float("inf")}
  with Checkpoints(tmp_path, 2) as checkpoints:
    assert checkpoints.latest_step() is None
    checkpoints.save(3, state(3), host)
    assert checkpoints.latest_step() == 3
  with Checkpoints(tmp_path, 2) as checkpoints:
    step, arrays, restored_host = checkpoints.restore(abstract(state(0)))
  assert (step, restored_host) == (3, host)
  assert_same_bits(arrays, state(3))
  assert arrays["params"]["w"].sharding == state(0)["params"]["w"].sharding


@pytest.mark.parametrize("mesh", [(1, 8), (8, 1), (2, 2)])
def test_another_mesh_restores_the_same_bits(tmp_path, mesh):
  save_all(tmp_path, 1)
  sharding = sharding_of(mesh, "fsdp")
  wanted = {**abstract(state(0)), "params": abstract(state(0)["params"], sharding)}
  with Checkpoints(tmp_path, 3) as checkpoints:
    _, arrays, _ = checkpoints.restore(wanted)
  assert_same_bits(arrays, state(1))
  assert all(leaf.sharding == sharding for leaf in jax.tree.leaves(arrays["params"]))


def test_save_has_copied_what_the_next_update_overwrites(tmp_path):
  """The learner donates its buffers and the ledger is mutated while the save still writes."""
  update = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0 - 1, tree), donate_argnums=0)
  sharding = sharding_of((4, 2), "fsdp")
  weights = {f"w{i}": jax.device_put(np.full(2**20, i, np.float32), sharding) for i in range(4)}
  wanted = abstract(weights)
  host = {"ledger": [1, 2]}
  with Checkpoints(tmp_path, 1) as checkpoints:
    checkpoints.save(1, weights, host)
    host["ledger"].append("mutated")
    for _ in range(3):
      weights = update(weights)
    jax.block_until_ready(weights)
    checkpoints.wait()
    _, arrays, restored_host = checkpoints.restore(wanted)
  assert [float(leaf.min()) for leaf in arrays.values()] == [0, 1, 2, 3]
  assert [float(leaf.max()) for leaf in arrays.values()] == [0, 1, 2, 3]
  assert restored_host == {"ledger": [1, 2]}


def test_only_the_newest_are_kept(tmp_path):
  save_all(tmp_path, 1, 2, 3, 4, keep_last=2)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]


def test_a_step_saved_again_is_left_as_it_is_and_an_older_one_is_an_error(tmp_path):
  save_all(tmp_path, 5, 5)
  with Checkpoints(tmp_path, 3) as checkpoints:
    checkpoints.save(5, state(99), {})
    assert checkpoints.restore(abstract(state(0)))[2] == {"cursor": 5}
    with pytest.raises(ValueError, match="step 4 comes before the newest checkpoint, 5"):
      checkpoints.save(4, state(4), {})


def cut_in_half(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
  data = bytearray(path.read_bytes() or b"\0")
  data[len(data) // 2] ^= 4
  path.write_bytes(data)


def empty(path):
  path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_in_half, empty, pathlib.Path.unlink, flip_a_bit])
@pytest.mark.filterwarnings("ignore:checkpoint:UserWarning")
def test_whatever_is_damaged_the_older_state_comes_back(tmp_path, damage):
  """Each file of the newest checkpoint in turn: none may be other than it was written."""
  save_all(tmp_path / "sound", 1, 2)
  files = [path for path in (tmp_path / "sound" / "2").rglob("*") if path.is_file()]
  assert {"manifest.json", "state.json"} < {file.name for file in files}
  for number, file in enumerate(files):
    folder = tmp_path / str(number)
    shutil.copytree(tmp_path / "sound", folder)
    damaged = folder / file.relative_to(tmp_path / "sound")
    damage(damaged)
    unharmed = damaged.exists() and damaged.read_bytes() == file.read_bytes()
    with Checkpoints(folder, 3) as checkpoints:
      step, arrays, host = checkpoints.restore(abstract(state(0)))
    assert step == (2 if unharmed else 1), file
    assert host == {"cursor": step}
    assert_same_bits(arrays, state(step))


@pytest.mark.parametrize("moved", ["of another run", "of another step"])
def test_a_foreign_checkpoint_is_passed_over(tmp_path, moved):
  """Copied in by hand, whole and sound, and newer than ours."""
  with Checkpoints(tmp_path / "ours", 3, run="a") as ours:
    ours.save(1, state(1), {"cursor": 1})
  with Checkpoints(tmp_path / "other", 3, run="b" if moved == "of another run" else "a") as other:
    other.save(7, state(7), {"cursor": 7})
  shutil.copytree(tmp_path / "other" / "7", tmp_path / "ours" / "9")
  told = f"9 is passed over: it is {'of another run' if moved == 'of another run' else 'of step 7'}"
  with Checkpoints(tmp_path / "ours", 3, run="a") as ours, pytest.warns(UserWarning, match=told):
    assert ours.restore(abstract(state(0)))[0] == 1
  assert (tmp_path / "ours" / "unusable-9").is_dir()


def test_what_a_kill_left_half_done_is_not_a_checkpoint(tmp_path):
  save_all(tmp_path, 10, 20)
  (tmp_path / "20").rename(tmp_path / "saving-20")
  shutil.copytree(tmp_path / "10", tmp_path / "deleting-5")
  with Checkpoints(tmp_path, None) as beside:
    assert beside.latest_step() == 10
    assert (tmp_path / "saving-20").is_dir(), "a reader removes nothing"
  with Checkpoints(tmp_path, 3) as checkpoints:
    assert checkpoints.latest_step() == 10
    assert checkpoints.restore(abstract(state(0)))[0] == 10
    checkpoints.save(20, state(20), {"cursor": 20})
  assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "20"]


def test_the_best_and_every_so_many_stay(tmp_path):
  accuracy = {10: 0.9, 20: 0.4, 30: 0.9, 40: 0.2, 50: None, 60: 0.3}
  with Checkpoints(tmp_path, 1, keep_best=1, keep_every=20) as checkpoints:
    for step, value in accuracy.items():
      checkpoints.save(step, state(step), {}, value)
    checkpoints.wait()
    assert checkpoints.steps() == [20, 30, 40, 60]
    assert checkpoints.best_step() == 30


def test_the_old_one_goes_only_when_the_new_one_has_its_manifest(tmp_path, monkeypatch):
  """A save that fails in the background is an error of the next call, and costs nothing."""
  save_all(tmp_path, 1, keep_last=1)
  full = OSError(errno.ENOSPC, "No space left on device")
  monkeypatch.setattr("grpo_jax.run.checkpoint.write_manifest", mock.Mock(side_effect=full))
  checkpoints = Checkpoints(tmp_path, 1)
  checkpoints.save(2, state(2), {})
  with pytest.raises(UserError, match="the disk is full"):
    checkpoints.save(3, state(3), {})
  checkpoints.close()
  with Checkpoints(tmp_path, 1) as checkpoints:
    assert checkpoints.restore(abstract(state(0)))[0] == 1


def test_a_damaged_checkpoint_is_told_renamed_and_its_step_saved_again(tmp_path):
  """Left in place it would be the newest for ever, and every later save be skipped in silence."""
  save_all(tmp_path, 10, 20, 30)
  shutil.rmtree(tmp_path / "30" / "arrays")
  with Checkpoints(tmp_path, 3) as checkpoints:
    with pytest.warns(UserWarning, match="checkpoint .*30 is passed over: arrays/.* is missing"):
      assert checkpoints.restore(abstract(state(0)))[0] == 20
    assert checkpoints.latest_step() == 20
    for step in (25, 30):
      checkpoints.save(step, state(step), {"cursor": step})
  assert (tmp_path / "unusable-30").is_dir()
  with Checkpoints(tmp_path, 3) as checkpoints:
    step, arrays, _ = checkpoints.restore(abstract(state(0)))
  assert step == 30
  assert_same_bits(arrays, state(30))


def test_no_sound_checkpoint_is_a_user_error_and_nothing_is_renamed(tmp_path):
  wanted = abstract(state(0))
  with Checkpoints(tmp_path, 3) as empty, pytest.raises(UserError, match="no sound checkpoint in"):
    empty.restore(wanted)
  save_all(tmp_path, 1, 2)
  for step in "12":
    (tmp_path / step / "state.json").unlink()
  told = r"none of 2 can be used \(step 2: state.json is missing\); choose another"
  with Checkpoints(tmp_path, 3) as damaged, pytest.raises(UserError, match=told) as caught:
    damaged.restore(wanted)
  assert "\n" not in str(caught.value)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def struct(*shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding_of((4, 2)))


@pytest.mark.parametrize(
  ("wanted", "told"),
  [
    ({"a": [struct(4, 8)]}, r"a\.0 is float32\[4,6\] there and float32\[4,8\] here"),
    ({"a": [struct(24)]}, r"a\.0 is float32\[4,6\] there and float32\[24\] here"),
    (
      {"a": [struct(4, 6, dtype=jnp.bfloat16)]},
      r"a\.0 is float32\[4,6\] there and bfloat16\[4,6\] here",
    ),
    ({"a": [struct(4, 6), struct(2)]}, r"a\.1 is absent there and float32\[2\] here"),
    ({"b": struct(4, 6)}, r"b is absent there and float32\[4,6\] here"),
    ({"a": []}, r"a\.0 is float32\[4,6\] there and absent here"),
  ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, wanted, told):
  """orbax would pad, cut or cast in silence, and a fallback to an older step would hide it."""
  with Checkpoints(tmp_path, 3) as checkpoints:
    for step in (1, 2):
      checkpoints.save(step, {"a": [jnp.ones((4, 6))]}, {})
    with pytest.raises(UserError, match=rf"2 does not fit this run: {told}; go on with the config"):
      checkpoints.restore(wanted)


def test_host_state_that_json_would_change_is_refused(tmp_path):
  """A ledger keyed by number would come back keyed by text, and look empty after a resume."""
  with Checkpoints(tmp_path, 3) as checkpoints:
    with pytest.raises(TypeError, match="the key 7"):
      checkpoints.save(1, {"a": jnp.ones(3)}, {"ledger": [{7: 0.5}]})
    with pytest.raises(TypeError):
      checkpoints.save(1, {"a": jnp.ones(3)}, {"count": np.int64(3)})
    assert checkpoints.latest_step() is None


def test_at_least_one_checkpoint_is_kept(tmp_path):
  with pytest.raises(UserError, match="cannot keep 0 checkpoints"):
    Checkpoints(tmp_path, 0)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
  with Checkpoints(tmp_path, 3) as checkpoints:

    def full(*args, **kwargs):
      raise ValueError("RESOURCE_EXHAUSTED: Failed writing: No space left on device")

    monkeypatch.setattr(checkpoints._arrays, "save", full)
    with pytest.raises(UserError, match="disk is full; free some space"):
      checkpoints.save(1, {"a": jnp.ones(3)}, {})


SAVER = """
import sys
import jax.numpy as jnp
from grpo_jax.run.checkpoint import Checkpoints
with Checkpoints(sys.argv[1], 2) as checkpoints:
  for step in range(1, 10_000):
    checkpoints.save(step, {f"w{i}": jnp.full(100_000, step) for i in range(8)}, {"cursor": step})
    print(step, flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.013, 0.05])
def test_kill_minus_nine_in_the_middle_of_saving(tmp_path, delay):
  process = subprocess.Popen(
    [sys.executable, "-c", SAVER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
  )
  while int(process.stdout.readline()) < 4:
    pass
  time.sleep(delay)
  process.kill()
  process.wait()
  process.stdout.close()
  wanted = {f"w{i}": struct(100_000, dtype=jnp.int32) for i in range(8)}
  with Checkpoints(tmp_path, 2) as checkpoints:
    step, arrays, host = checkpoints.restore(wanted)
  assert step >= 3, "the save before the last had finished when the last began"
  assert host == {"cursor": step}
  assert all((leaf == step).all() for leaf in arrays.values())
