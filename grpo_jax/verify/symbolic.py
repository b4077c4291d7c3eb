"""Asks math-verify, in a child process, about mathematics that our own parser does not read.

The child lives as long as this process and is replaced after a check that it did not survive.
math-verify reads LaTeX by a grammar; no text is evaluated as code even there.
"""

import atexit
import os
import threading

from grpo_jax.verify.child import Child, ChildFailedError
from grpo_jax.verify.verdict import Outcome

MAX_CHARS = 300
DEADLINE_S = 1.0
MEMORY_MB = 1000

_lock = threading.Lock()
_child: Child | None = None


def compare(answer: str, gold: str) -> tuple[Outcome, str]:
  """Whether math-verify takes `answer` for `gold`; UNSCORED if the check does not survive."""
  if max(len(answer), len(gold)) > MAX_CHARS:
    return Outcome.WRONG, "another text, too long for the symbolic check"
  with _lock:
    try:
      (reply,) = _running().call_all([[answer, gold]], DEADLINE_S)
    except ChildFailedError as error:
      _stop()
      return Outcome.UNSCORED, f"symbolic check: {error}"
  if reply.error:
    return Outcome.UNSCORED, f"symbolic check: {reply.error}"
  return (Outcome.RIGHT if reply.value else Outcome.WRONG), "symbolic check"


def _running() -> Child:
  global _child
  if _child is None:
    _child = Child("grpo_jax.verify.symbolic_child:agrees", MEMORY_MB)
  return _child


def _stop() -> None:
  global _child
  if _child is not None:
    _child.close()
    _child = None


def _forget() -> None:
  """A forked process must not share its parent's child, nor a lock held in another thread."""
  global _child, _lock
  _child, _lock = None, threading.Lock()


atexit.register(_stop)
os.register_at_fork(after_in_child=_forget)
