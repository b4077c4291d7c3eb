"""What XLA and the devices' runtime are told before jax starts: all of it, in one place.

A variable that the user has set is left as it is. On a CPU and on TPUs only the cache of compiled
programs has an effect.
"""

import os
import pathlib

import jax

# One process has a GPU to itself: XLA would take 75 % of its memory and leave the rest unused. What
# cuDNN, NCCL and CUDA itself take lies outside of this share, some GB of 80.
GPU_MEMORY = "0.92"
# Several GPUs: the next layer's weights are gathered while this one computes, and gradients are
# reduced while the backward pass goes on. Off by default; one GPU has nothing to wait for.
GPU_FLAGS = ("--xla_gpu_enable_latency_hiding_scheduler=true",)


def configure() -> None:
  """Called by every command once its flags are read, before anything is asked of jax."""
  if "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:  # the older name of the same
    os.environ.setdefault("XLA_CLIENT_MEM_FRACTION", GPU_MEMORY)
  given = os.environ.get("XLA_FLAGS", "")
  ours = [flag for flag in GPU_FLAGS if flag.partition("=")[0] not in given]
  os.environ["XLA_FLAGS"] = " ".join([given, *ours]).strip()
  if not jax.config.jax_compilation_cache_dir:  # JAX_COMPILATION_CACHE_DIR
    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def cache_folder() -> pathlib.Path:
  """Where things that can be made again are kept: $XDG_CACHE_HOME/grpo_jax."""
  root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  return pathlib.Path(root) / "grpo_jax"
