"""What does XLA say: how fast are large products, and how much scratch memory do programs take?"""

import time
from typing import Any

import jax
import jax.numpy as jnp

from contenders.update_work import Step, UpdateWork, timed

PRODUCTS = ((2048, 2048, 2048), (4096, 1024, 3072))  # rows, what is summed over, columns
ROUNDS = 7


def matmul_flops() -> dict[str, float]:
  """Floating-point operations a second of large float32 products; the best of some rounds each."""
  return {"x".join(map(str, shape)): product_flops(shape, "float32") for shape in PRODUCTS}


def product_flops(shape: tuple[int, int, int], dtype: str) -> float:
  """Of one product of random matrices: on some devices, others take less time."""
  rows, inner, columns = shape
  product = jax.jit(jnp.matmul)
  of_left, of_right = jax.random.split(jax.random.key(0))
  left = jax.random.normal(of_left, (rows, inner), dtype)
  right = jax.random.normal(of_right, (inner, columns), dtype)
  product(left, right).block_until_ready()
  times = []
  for _ in range(ROUNDS):
    start = time.perf_counter()
    product(left, right).block_until_ready()
    times.append(time.perf_counter() - start)
  return 2 * rows * inner * columns / min(times)


def timed_with_scratch(step: Step, work: UpdateWork) -> dict[str, Any]:
  """`timed`, and `scratch_bytes`: XLA's own count of what the hungriest program compiled since
  `jax.clear_caches` needs beside its arguments and results."""
  measured = timed(step, work)
  programs = jax.devices()[0].client.live_executables()
  scratch = [program.get_compiled_memory_stats().temp_size_in_bytes for program in programs]
  return measured | {"scratch_bytes": max(scratch)}


def with_products(step: Step, work: UpdateWork) -> dict[str, Any]:
  """`timed_with_scratch`, and how fast this machine forms large products right after such a step,
  when it runs as fast or as slowly as in it."""
  measured = timed_with_scratch(step, work)
  return measured | {"matmul_flops": matmul_flops()}
