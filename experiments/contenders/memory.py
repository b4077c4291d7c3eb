"""How much memory does this process hold, and what was the most it ever held?

Linux keeps both, and forgets the most on request. Elsewhere only the most is known, from rusage,
which on Linux would count what the parent held too.
"""

import ctypes
import gc
import pathlib
import re
import resource

STATUS = pathlib.Path("/proc/self/status")
FORGET = pathlib.Path("/proc/self/clear_refs")


def peak_bytes() -> int:
  """The most memory this process held, since its start or since `forget_peak`."""
  if STATUS.exists():
    return _told("VmHWM")
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def held_bytes() -> int:
  """What it holds now; on another system than Linux, the most it held."""
  return _told("VmRSS") if STATUS.exists() else peak_bytes()


def settle() -> None:
  """From here on the peak is that of what follows, and what is held is what is in use.

  Without it, parameters of an earlier step that wait in a cycle for the garbage collector, or freed
  memory that the allocator keeps, would be taken for what a step begins with. Where the system
  cannot, the peak stays.
  """
  gc.collect()
  give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
  if give_back:
    give_back(0)
  if FORGET.exists():
    FORGET.write_text("5")


def _told(name: str) -> int:
  return 1024 * int(re.search(rf"{name}:\s*(\d+)", STATUS.read_text())[1])
