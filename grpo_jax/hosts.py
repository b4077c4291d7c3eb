"""One run on several hosts: how do processes find each other, and what do they tell each other?

JAX's multi-controller runtime: one process a host, all running the same program. Nobody commands:
each process makes every decision by itself, from the same numbers. What could differ between hosts
must decide nothing: verdicts, whose deadline is a matter of clocks, are exchanged, and what a run
is made of is compared at its start (agreement.py). The first process alone speaks and writes;
checkpoints are written by all.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

from grpo_jax.errors import UserError


def define_flags() -> Callable[[], None]:
  """Defines how processes find each other. What it returns joins them: to be called when the
  command line has been read, and before anything else that JAX does."""
  distributed = flags.DEFINE_bool(
    "distributed", False, "One of several processes; TPU, SLURM, Open MPI or GKE say which."
  )
  coordinator = flags.DEFINE_string(
    "coordinator", "", "Where nothing says so: HOST:PORT at which the others find process 0."
  )
  processes = flags.DEFINE_integer("processes", None, "With --coordinator: how many there are.")
  process_id = flags.DEFINE_integer("process_id", None, "With --coordinator: which one this is.")
  timeout = flags.DEFINE_integer(
    "peer_timeout", 60, "Seconds of silence after which a process counts as dead."
  )

  def join() -> None:
    given = (coordinator.value, processes.value, process_id.value)
    if any(value not in ("", None) for value in given):
      _join(timeout.value, *_explicit(*given))
    elif distributed.value:
      _join(timeout.value)
    else:
      _refuse_one_of_several()

  return join


def is_first() -> bool:
  """Whether this process speaks and writes."""
  return jax.process_index() == 0


def is_mine(number: int) -> bool:
  """Deals work that needs no devices: each number belongs to one process."""
  return number % jax.process_count() == jax.process_index()


def exchange(value: Any) -> list[Any]:
  """What each process has given, in their order: JSON values. All must call it."""
  if jax.process_count() == 1:
    return [value]
  bytes_n = np.frombuffer(json.dumps(value).encode(), np.uint8)
  size_P = multihost_utils.process_allgather(np.array(len(bytes_n)))
  # A power of two: each new size is a program to be compiled.
  room = 1 << int(size_P.max() - 1).bit_length()
  padded = np.pad(bytes_n, (0, room - len(bytes_n)))
  rows_Pn = multihost_utils.process_allgather(padded)
  return [json.loads(bytes(row_n[:size])) for row_n, size in zip(rows_Pn, size_P, strict=True)]


def of_first(value: Any) -> Any:
  """What the first process has given, everywhere."""
  return exchange(value)[0]


def wait_for_all() -> None:
  """Returns when every process has called it."""
  exchange(None)


def whole(leaf: jax.Array) -> np.ndarray:
  """An array's values on every host, wherever its parts lie. All must call it."""
  if leaf.is_fully_addressable:
    return np.asarray(leaf)
  return multihost_utils.process_allgather(leaf, tiled=True)


def leave(code: int) -> None:
  """Ends a process that has failed, without the wait for the others at the end of a sound run: they
  are to notice. Returns if there are no others."""
  if not jax.distributed.is_initialized():
    return
  which = f"process {jax.process_index()} of {jax.process_count()}"
  sys.stderr.write(f"{which} ends here, and with it the others; the first to fail says why\n")
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


def _explicit(coordinator: str, processes: int | None, process_id: int | None) -> tuple:
  """
  Raises:
    UserError: one of the three is missing or cannot be.
  """
  if not coordinator or processes is None or process_id is None:
    raise UserError("--coordinator, --processes and --process_id go together: give all three")
  if ":" not in coordinator:
    raise UserError(f"--coordinator={coordinator}: write HOST:PORT of process 0")
  if not 0 <= process_id < processes:
    raise UserError(f"--process_id={process_id}: it must be 0 to {processes - 1}")
  return coordinator, processes, process_id


def _join(
  timeout: int,
  coordinator: str | None = None,
  processes: int | None = None,
  process_id: int | None = None,
) -> None:
  if timeout < 1:
    raise UserError(f"--peer_timeout={timeout}: at least 1 second")
  # SLURM with one task a node: JAX would show each only the first of the node's GPUs.
  node_each = "SLURM_NTASKS" in os.environ and (
    os.environ["SLURM_NTASKS"] == os.environ.get("SLURM_STEP_NUM_NODES")
  )
  try:
    jax.distributed.initialize(
      coordinator,
      processes,
      process_id,
      local_device_ids=[] if node_each else None,
      cluster_detection_method="deactivate" if coordinator else None,
      heartbeat_timeout_seconds=timeout,
    )
  except (ValueError, RuntimeError) as error:
    how = f"--coordinator={coordinator}" if coordinator else "--distributed"
    raise UserError(f"{how}: the processes did not find each other ({error})") from error
  if jax.default_backend() == "cpu":
    # The first process alone would find programs there, and wait for the others, who compile them,
    # no longer than the 30 s that gloo has for them.
    jax.config.update("jax_enable_compilation_cache", False)
  if not is_first():
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (for the rest of the process)


def _refuse_one_of_several() -> None:
  """
  Raises:
    UserError: srun has started several of us, and each would train alone.
  """
  tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
  if tasks > 1:
    raise UserError(f"srun started {tasks} processes: add --distributed, or start one")
