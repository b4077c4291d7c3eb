"""How does a run end when it is told to? SIGTERM (a preemption, a scheduler) or one Ctrl-C: it goes
back to the last finished step, saves it and leaves with exit code 0. A second signal ends it at
once, and so does the deadline: whoever sent the signal will not wait for ever.

A thread receives the signals, through a pipe that is written to when they arrive: the main thread
may be in a compiled program for minutes, and Python would call a handler only after it.
"""

import os
import select
import signal
import threading

import jax
import numpy as np
from jax.experimental import multihost_utils

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_CLOSED = 0  # no signal has this number
TOO_LATE = 1  # exit code


class StopRequested(Exception):
  """The step under way is to be given up: its end is too far away."""


class Stop:
  """A context manager: within it the two signals ask, instead of ending the process.

  With several hosts, a step begins on all of them or on none (`requested_anywhere`).
  """

  def __init__(self, deadline_seconds: float):
    """deadline_seconds: from the first signal to the end of the context."""
    self._deadline = deadline_seconds
    self._requested = threading.Event()

  def requested_anywhere(self) -> bool:
    """Whether some host was asked to stop. All hosts must call it, between steps."""
    requested = self._requested.is_set()
    if jax.process_count() == 1:
      return requested
    return bool(np.any(multihost_utils.process_allgather(np.asarray(requested))))

  def check(self) -> None:
    """Called while a step can still be given up.

    Raises:
      StopRequested: this process is the only one, and was asked to stop.
    """
    if self._requested.is_set() and jax.process_count() == 1:
      raise StopRequested

  def __enter__(self) -> "Stop":
    self._read_end, self._write_end = os.pipe()
    os.set_blocking(self._write_end, False)
    self._wakeup_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
    # Without a handler, however idle, the interpreter would not write to the pipe.
    self._handlers_before = {number: signal.signal(number, _idle) for number in _SIGNALS}
    self._thread = threading.Thread(target=self._watch, name="stop", daemon=True)
    self._thread.start()
    return self

  def __exit__(self, *exception: object) -> None:
    for number, handler in self._handlers_before.items():
      signal.signal(number, handler)
    signal.set_wakeup_fd(self._wakeup_before)
    os.write(self._write_end, bytes([_CLOSED]))
    self._thread.join()
    os.close(self._read_end)
    os.close(self._write_end)

  def _watch(self) -> None:
    first = self._next(None)
    if first == _CLOSED:
      return
    name = signal.Signals(first).name
    _say(
      f"{name}: saving, then leaving, within {self._deadline:g} s (checkpoint.deadline_seconds). "
      "A second signal ends at once."
    )
    self._requested.set()
    second = self._next(self._deadline)
    if second == _CLOSED:
      return
    if second is None:
      _say(f"Not saved {self._deadline:g} s after {name}: ended. {_WHERE}")
      os._exit(TOO_LATE)
    _say(f"{signal.Signals(second).name} again: ended at once. {_WHERE}")
    os._exit(128 + second)  # as a shell would report it

  def _next(self, timeout: float | None) -> int | None:
    """The next of our signals, or _CLOSED; None: there was none for `timeout` seconds."""
    while select.select([self._read_end], [], [], timeout)[0]:
      number = os.read(self._read_end, 1)[0]
      if number in (*_SIGNALS, _CLOSED):
        return number
    return None


_WHERE = "The same command goes on from the last checkpoint."


def _idle(number: int, frame: object) -> None:
  """What is to be done is done in the thread."""


def _say(text: str) -> None:
  """Straight to stderr: the main thread may hold the lock of Python's."""
  os.write(2, f"\n{text}\n".encode())
