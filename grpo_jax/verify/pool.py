"""Checks many completions at once, in processes that may hang, crash or run out of memory.

One thread for each worker process hands it a chunk of calls at a time. If a call does not come
back, only that call is UNSCORED: its process is killed and the rest of the chunk goes to a new
one. A call whose process was found dead is tried once more, for it may not be to blame: a machine
short of memory kills what it likes, and no answer should lose its reward for that. Results never
stall, never shift and are never fewer than the questions.
"""

import collections
import concurrent.futures
import dataclasses
import queue
import threading
from collections.abc import Sequence

from grpo_jax.verify.child import Child, ChildDiedError, ChildFailedError, Reply
from grpo_jax.verify.verdict import Outcome, Verdict

_CHUNK = 32  # calls to a worker at a time: enough to hide the pipe, few enough to share the work
_KEPT_SECONDS = 10_000

Future = concurrent.futures.Future


@dataclasses.dataclass
class Counters:
  """What a pool has done so far; `seconds` holds the times of its latest checks."""

  graded: int = 0  # verdicts given, the unscored ones among them
  unscored: int = 0
  restarts: int = 0  # of worker processes
  seconds: collections.deque[float] = dataclasses.field(
    default_factory=lambda: collections.deque(maxlen=_KEPT_SECONDS)
  )


@dataclasses.dataclass(frozen=True)
class _Task:
  completion: str
  gold: str
  verdict: Future = dataclasses.field(default_factory=Future)
  again: bool = False  # its first process died


class VerifierPool:
  """Worker processes for `verify`; a context manager.

  Args:
    workers: processes that check at the same time.
    deadline_s: seconds after which one check is given up.
    memory_mb: address space of each worker.
    check: `module:name` of the function from (completion, gold) to Verdict that workers run.
  """

  def __init__(
    self,
    workers: int = 2,
    deadline_s: float = 5.0,
    memory_mb: int = 900,
    check: str = "grpo_jax.verify.verifier:verify",
  ):
    self.counters = Counters()
    self._check, self._deadline_s, self._memory_mb = check, deadline_s, memory_mb
    self._lock = threading.Lock()  # guards the counters, the children and `_closed`
    self._closed = False
    self._chunks: queue.SimpleQueue[list[_Task] | None] = queue.SimpleQueue()
    self._children: dict[int, Child] = {}  # by number of the worker
    self._threads = [
      threading.Thread(target=self._work, args=(worker,), name=f"verifier-{worker}", daemon=True)
      for worker in range(workers)
    ]
    for thread in self._threads:
      thread.start()

  def __enter__(self) -> "VerifierPool":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def submit(self, completion: str, gold: str) -> "Future[Verdict]":
    """Checks one completion in the background."""
    return self._submit([_Task(completion, gold)])[0]

  def submit_all(
    self, completions: Sequence[str], golds: Sequence[str]
  ) -> "list[Future[Verdict]]":
    """Checks completions in the background; one future for each, in their order.

    Raises:
      ValueError: not as many golds as completions.
    """
    return self._submit([_Task(*pair) for pair in zip(completions, golds, strict=True)])

  def verify_all(self, completions: Sequence[str], golds: Sequence[str]) -> list[Verdict]:
    """Verdicts in the order of the completions, one for each.

    Raises:
      ValueError: not as many golds as completions.
    """
    return [verdict.result() for verdict in self.submit_all(completions, golds)]

  def close(self) -> None:
    """Ends all worker processes; what is not yet checked is UNSCORED."""
    with self._lock:
      self._closed = True
      for child in self._children.values():
        child.kill()
    for _ in self._threads:
      self._chunks.put(None)
    for thread in self._threads:
      thread.join()

  def _submit(self, tasks: list[_Task]) -> list[Future]:
    if self._closed:
      raise RuntimeError("this VerifierPool is closed")
    for start in range(0, len(tasks), _CHUNK):
      self._chunks.put(tasks[start : start + _CHUNK])
    return [task.verdict for task in tasks]

  def _work(self, worker: int) -> None:
    """The thread of one worker: checks chunks until the pool closes."""
    while (tasks := self._chunks.get()) is not None:
      while tasks:
        tasks = self._check_some(worker, tasks)
    with self._lock:
      child = self._children.pop(worker, None)
    if child:
      child.close()

  def _check_some(self, worker: int, tasks: list[_Task]) -> list[_Task]:
    """Checks tasks up to one that the child does not survive; returns those after it."""
    done = 0
    try:
      calls = [[task.completion, task.gold] for task in tasks]
      for reply in self._child(worker).call_all(calls, self._deadline_s):
        self._finish(tasks[done], _verdict(reply), reply.seconds)
        done += 1
      return []
    except ChildFailedError as error:
      with self._lock:
        self._children.pop(worker, None)
        self.counters.restarts += not self._closed
      if isinstance(error, ChildDiedError) and not tasks[done].again:
        return [dataclasses.replace(tasks[done], again=True), *tasks[done + 1 :]]
      self._finish(tasks[done], Verdict(Outcome.UNSCORED, None, str(error)), self._deadline_s)
      return tasks[done + 1 :]

  def _child(self, worker: int) -> Child:
    with self._lock:
      if self._closed:
        raise ChildFailedError("the pool was closed")
      if worker not in self._children:
        self._children[worker] = Child(self._check, self._memory_mb)
      return self._children[worker]

  def _finish(self, task: _Task, verdict: Verdict, seconds: float) -> None:
    with self._lock:
      self.counters.graded += 1
      self.counters.unscored += verdict.outcome is Outcome.UNSCORED
      self.counters.seconds.append(seconds)
    task.verdict.set_result(verdict)


def _verdict(reply: Reply) -> Verdict:
  if reply.error:
    return Verdict(Outcome.UNSCORED, None, f"the check failed: {reply.error}")
  outcome, *rest = reply.value
  return Verdict(Outcome(outcome), *rest)
