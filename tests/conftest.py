"""Fixtures shared by all tests; here because jax must see its flags before its first import."""

import gc
import os
import pathlib

# Eight CPU devices, so that every test of sharding runs on any machine.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# XLA reads this as the size of its thread pool. A simulated device holds a thread while it waits
# for the others: with only as many threads as devices, two programs in flight can stop each other.
os.environ.setdefault("NPROC", "32")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Many tests compile the same tiny programs; once a machine is enough.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/grpo_jax/tests"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import hypothesis
import jax
import pytest

# The same examples on every machine: what fails in one place fails in all.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same")

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
  """Folder of real problems, the Qwen3 tokenizer and graded answers, where it lies beside us."""
  path = pathlib.Path(os.environ.get("GRPO_JAX_SHARED", ROOT.parent / "shared"))
  if not path.is_dir():
    pytest.skip(f"no folder of real data at {path} (set GRPO_JAX_SHARED)")
  return path


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
  """Drops what a file compiled. Each program on the CPU maps some dozens of pieces of memory, of
  which Linux grants a process 65,530: a whole suite's programs are more, and XLA aborts."""
  yield
  jax.clear_caches()
  gc.collect()
