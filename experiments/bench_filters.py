"""Question: is finding the top-k/top-p threshold bit by bit faster than sorting the vocabulary?

  python experiments/bench_filters.py

Times both on random logits over Qwen3's 151,936 ids, in turn, and checks that they keep the same
set.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from grpo_jax.distribution import Decoding, decoding, log_probs

VOCAB = 151_936
ROUNDS = 7


def log_probs_by_sort(logits_BV: jax.Array, how: Decoding) -> jax.Array:
  """The definition: sort, cumulate, cut."""
  scaled_BV = logits_BV / how.temperature
  sorted_BV = -jnp.sort(-scaled_BV, axis=-1)
  probs_BV = jax.nn.softmax(sorted_BV, axis=-1)
  kept_B = jnp.sum(jnp.cumsum(probs_BV, axis=-1) - probs_BV < how.top_p, axis=-1)
  floor_B1 = jnp.take_along_axis(sorted_BV, kept_B[:, None] - 1, axis=-1)
  return jax.nn.log_softmax(jnp.where(scaled_BV >= floor_B1, scaled_BV, -jnp.inf), axis=-1)


def seconds(function, *arguments) -> float:
  start = time.perf_counter()
  jax.block_until_ready(function(*arguments))
  return time.perf_counter() - start


def main() -> None:
  how = decoding(1.0, 0, 0.95, VOCAB)
  functions = {"bit by bit": jax.jit(log_probs), "sort": jax.jit(log_probs_by_sort)}
  for rows in (1, 16, 64):
    logits = jnp.asarray(np.random.default_rng(0).normal(0, 3, (rows, VOCAB)), jnp.float32)
    results = [np.asarray(function(logits, how)) for function in functions.values()]
    np.testing.assert_array_equal(*map(np.isfinite, results))
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(ROUNDS):
      for name, function in functions.items():
        times[name].append(seconds(function, logits, how))
    bits, sort = (statistics.median(times[name]) for name in functions)
    print(f"{rows:3d} rows: bit by bit {1e3 * bits:7.1f} ms, sort {1e3 * sort:7.1f} ms, "
          f"ratio {sort / bits:.1f}")  # fmt: skip


if __name__ == "__main__":
  main()
