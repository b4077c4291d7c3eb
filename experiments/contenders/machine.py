"""What is this machine, and how fast does it read memory?

Each thread streams over arrays of its own, much larger than the last cache. Read: the dot product
of an array with itself. Copy: an array into another, its bytes counted once read and once written.
The best of some rounds counts; the bandwidth is the better of the two.
"""

import concurrent.futures
import os
import platform
import time

import numpy as np

READ_AND_COPY_ROUNDS = 7


def threads() -> int:
  """Cores this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> str:
  """Cores and CPU model; no name of a host."""
  return f"{threads()} cores, {_cpu_model()}, {platform.system()}, Python " + (
    platform.python_version()
  )


def bandwidth(bytes_per_thread: int = 2**29) -> dict[str, float]:
  """Bytes per second of `read` and of `copy`."""
  count = threads()
  from_TN = np.ones((count, bytes_per_thread // 4), np.float32)
  into_TN = np.zeros_like(from_TN)
  read = lambda t: np.dot(from_TN[t], from_TN[t])
  copy = lambda t: np.copyto(into_TN[t], from_TN[t])
  with concurrent.futures.ThreadPoolExecutor(count) as pool:
    seconds = {name: _best(pool, count, work) for name, work in (("read", read), ("copy", copy))}
  return {
    "read": from_TN.nbytes / seconds["read"],
    "copy": 2 * from_TN.nbytes / seconds["copy"],
  }


def _best(pool, count: int, work) -> float:
  """Least seconds in which all threads did their share."""
  times = []
  for _ in range(READ_AND_COPY_ROUNDS):
    start = time.perf_counter()
    list(pool.map(work, range(count)))
    times.append(time.perf_counter() - start)
  return min(times)


def _cpu_model() -> str:
  try:
    with open("/proc/cpuinfo") as lines:
      names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
  except OSError:
    names = []
  return names[0] if names else platform.machine()
