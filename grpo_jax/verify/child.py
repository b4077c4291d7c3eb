"""A process that checks what may hang, crash or eat memory, and that can be killed for it.

The child is a fresh interpreter (never a fork: the parent may run JAX's threads), so it can be
started from any thread and from daemonic processes, and it imports neither JAX nor the parent's
`__main__`. Both sides speak lines of JSON over pipes: one line of calls to the child, one line
back for each call as soon as it is done. The child leaves when its parent is gone.
"""

import contextlib
import dataclasses
import enum
import importlib
import json
import math
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

_START_DEADLINE_S = 30.0  # an import on a busy machine; not part of any call's time
_PARENT_POLL_S = 0.3
_DIED = "the check ended its process"


class ChildFailedError(RuntimeError):
  """The child hung, died or could not start; it has been killed. The message says which."""


class ChildDiedError(ChildFailedError):
  """The child was found dead. The call may be to blame, or whoever kills processes when memory is
  short: another child may succeed."""


@dataclasses.dataclass(frozen=True)
class Reply:
  """What one call returned, or the error it raised, and how many seconds it took."""

  value: Any
  error: str | None
  seconds: float


class Child:
  """A killable process for one function.

  Args:
    function: `module:name`; its arguments and its result are plain JSON (dataclasses as lists).
    memory_mb: limit of its address space; allocations beyond it raise MemoryError there.
  """

  def __init__(self, function: str, memory_mb: int):
    command = [sys.executable, "-c", f"import {__name__} as child; child.main()"]
    self._process = subprocess.Popen(
      [*command, function, str(memory_mb), str(os.getpid())],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      env={"PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path)},
    )
    self._received = b""
    self._ready = False

  def call_all(self, calls: list[list], deadline_s: float) -> Iterator[Reply]:
    """Yields one reply for each list of arguments, in order, each as soon as it is there.

    Raises:
      ChildFailedError: a call took more than `deadline_s` or (ChildDiedError) the process ended;
        replies to the calls before it have been yielded. The child is of no more use.
    """
    try:
      if not self._ready:
        self._line(_START_DEADLINE_S)
        self._ready = True
      header = {"calls": calls, "cpu_s": math.ceil(deadline_s) + 1}
      self._process.stdin.write(json.dumps(header).encode() + b"\n")
      self._process.stdin.flush()
      for _ in calls:
        yield Reply(**json.loads(self._line(deadline_s)))
    except OSError as error:
      self.close()
      raise ChildDiedError(_DIED) from error

  def kill(self) -> None:
    """Ends the process; safe while another thread waits for its replies, which then fails."""
    self._process.kill()

  def close(self) -> None:
    """Ends the process and waits until nothing of it is left."""
    self.kill()
    self._process.wait()
    self._process.stdout.close()
    with contextlib.suppress(OSError):  # unsent bytes have nowhere to go
      self._process.stdin.close()

  def _line(self, deadline_s: float) -> bytes:
    end = time.monotonic() + deadline_s
    while b"\n" not in self._received:
      readable, _, _ = select.select([self._process.stdout], [], [], max(0, end - time.monotonic()))
      if not readable:
        self.close()
        raise ChildFailedError(f"the check took more than {deadline_s:g} s")
      chunk = os.read(self._process.stdout.fileno(), 1 << 20)
      if not chunk:
        self.close()
        raise ChildDiedError(_DIED)
      self._received += chunk
    line, _, self._received = self._received.partition(b"\n")
    return line


def main() -> None:
  """Runs in the child: `main()` with the arguments FUNCTION MEMORY_MB PARENT_PID."""
  function, memory_mb, parent = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
  threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
  replies = os.fdopen(os.dup(1), "w", buffering=1)
  os.dup2(2, 1)  # what a check prints must not mix with the replies
  _limit(resource.RLIMIT_AS, memory_mb << 20)
  module, _, name = function.partition(":")
  check = getattr(importlib.import_module(module), name)
  replies.write("ready\n")
  for line in sys.stdin:
    request = json.loads(line)
    for arguments in request["calls"]:
      _limit_cpu(request["cpu_s"])
      replies.write(_reply(check, arguments) + "\n")


def _reply(check: Callable, arguments: list) -> str:
  start = time.perf_counter()
  value = error = None
  try:
    value = check(*arguments)
  except Exception as raised:
    error = f"{type(raised).__name__}: {raised}"[:200]
  reply = {"value": value, "error": error, "seconds": time.perf_counter() - start}
  return json.dumps(reply, default=_plain)


def _plain(value: Any) -> Any:
  return value.value if isinstance(value, enum.Enum) else dataclasses.astuple(value)


def _limit_cpu(seconds: int) -> None:
  """Lets the kernel end a call that no thread of ours can interrupt."""
  _limit(resource.RLIMIT_CPU, math.ceil(time.process_time()) + seconds)


def _limit(kind: int, amount: int) -> None:
  """Sets a soft limit; the hard one, perhaps a parent's, stays and is never exceeded."""
  _, hard = resource.getrlimit(kind)
  resource.setrlimit(kind, (amount if hard == resource.RLIM_INFINITY else min(amount, hard), hard))


def _leave_with(parent: int) -> None:
  while os.getppid() == parent:
    time.sleep(_PARENT_POLL_S)
  os._exit(1)
