"""Is the run still alive? A step that does not end (a collective whose partner is gone, a file
system that hangs) would otherwise cost whole nights in silence.

Where no step has ended for too long, the stacks of all threads are written, to stderr and to a file
of the run, and the process ends with an error: a scheduler can start it again. Each host watches
itself.
"""

import contextlib
import faulthandler
import os
import pathlib
import sys
import threading

STALLED = 70  # exit code
_GRACE_SECONDS = 10.0


class Watchdog:
  """A context manager around the loop; call `beat` after each step."""

  def __init__(self, limit_seconds: float, stacks: pathlib.Path):
    """
    Args:
      limit_seconds: between two beats; 0: no limit.
      stacks: the file that is to hold the stacks.
    """
    self._limit, self._stacks = limit_seconds, stacks
    self._beat = threading.Event()
    self._closed = False

  def beat(self) -> None:
    """A step has ended."""
    if self._limit:
      self._beat.set()
      # For a thread that never lets go of the interpreter: ours could not run.
      limit = self._limit + _GRACE_SECONDS
      faulthandler.dump_traceback_later(limit, exit=True, file=sys.__stderr__)

  def __enter__(self) -> "Watchdog":
    if self._limit:
      self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
      self._thread.start()
      self.beat()
    return self

  def __exit__(self, *exception: object) -> None:
    if self._limit:
      faulthandler.cancel_dump_traceback_later()
      self._closed = True
      self._beat.set()
      self._thread.join()

  def _watch(self) -> None:
    while self._beat.wait(self._limit):
      self._beat.clear()
      if self._closed:
        return
    self._end()

  def _end(self) -> None:
    text = (
      f"\nerror: no step has ended for {self._limit:g} s (log.stall_seconds). The stacks of all "
      f"threads follow, and are in {self._stacks}. The same command goes on from the last "
      "checkpoint.\n"
    )
    os.write(2, text.encode())
    faulthandler.dump_traceback(sys.__stderr__)
    # The disk may be what hangs: stderr first.
    with contextlib.suppress(OSError), self._stacks.open("a", encoding="utf-8") as file:
      file.write(text)
      file.flush()
      faulthandler.dump_traceback(file)
    os._exit(STALLED)
