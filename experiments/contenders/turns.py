"""Who works when? The contenders of a case are alive together; one at a time works, in turn."""

import contextlib
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from contenders.protocol import Worker, WorkerError

SETTLE_SECONDS = 0.3  # before each turn: the threads of the one before spin on for a moment


@contextlib.contextmanager
def opened(
  names: Iterable[str],
  start: Callable[[str, pathlib.Path], Worker],
  left_out: dict[str, str],
) -> Iterator[dict[str, Worker]]:
  """Workers by name, ended on exit. One that cannot be had is put into `left_out` with its reason.

  Args:
    start: from a name and a file for its log to the worker.
  """
  with contextlib.ExitStack() as stack:
    logs = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
    workers: dict[str, Worker] = {}
    for name in names:
      try:
        workers[name] = start(name, logs / name)
      except WorkerError as error:
        left_out[name] = str(error)
        print(f"{name} is left out: {error}", flush=True)
      else:
        stack.callback(workers[name].close)
    yield workers


def take_turns(
  case: str, works: Iterable[Any], workers: dict[str, Worker], left_out: dict[str, str]
) -> dict[str, dict]:
  """What each contender measured: `first` and `rounds` in seconds, and the rest of its last answer.

  The first of `works` is the call that compiles. One that fails is left out from there on.
  """
  found: dict[str, dict] = {}
  for work in works:
    for name in [name for name in workers if name not in left_out]:
      time.sleep(SETTLE_SECONDS)
      try:
        answer = workers[name].ask(work)
      except WorkerError as error:
        left_out[name] = f"{case}: {error}"
        found.pop(name, None)
        print(f"{name} is left out from here: {error}", flush=True)
      else:
        _note(found, name, dict(answer))
  return found


def _note(found: dict[str, dict], name: str, answer: dict[str, Any]) -> None:
  seconds = answer.pop("seconds")
  if name not in found:
    found[name] = {"first": seconds, "rounds": []}
  else:
    found[name]["rounds"].append(seconds)
  found[name] |= answer
