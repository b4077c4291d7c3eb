"""Where can programs be run safely on this machine, and how is one run there?

`probe` asks the kernel once by running a program behind all walls. A `Jailer` runs jobs: it starts
one supervisor for each, reads a bounded amount of its report until a deadline, and leaves neither
a process nor a file.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import os
import pathlib
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import IO

from grpo_jax.errors import UserError

_FOLDER = pathlib.Path(__file__).resolve().parent / "jail"
_START_S = 20.0  # beyond the limits, for an interpreter to start on a busy machine


@dataclasses.dataclass(frozen=True)
class Limits:
  """What one run of a program may use."""

  cpu_s: int = 5  # of each of its processes
  wall_s: float = 15.0  # larger: a busy machine is not the program's fault
  memory_mb: int = 512  # address space of each process
  processes: int = 8  # threads count too
  file_mb: int = 16  # the largest file
  files_mb: int = 64  # all files together; only where isolation is possible
  output_kb: int = 1024  # stdout and stderr together, or one result of a function


@dataclasses.dataclass(frozen=True)
class Isolation:
  """What separates programs from the machine; `refusal` says why the kernel gives nothing more."""

  isolated: bool
  refusal: str = ""

  def __str__(self) -> str:
    if self.isolated:
      return (
        "programs run in namespaces of their own: no network, no files but the interpreter's, "
        "no process but theirs, limits on all they use"
      )
    return (
      f"programs run WITHOUT isolation ({self.refusal}): limits on time, memory and output, but "
      "files and network as this user"
    )


UNISOLATED = Isolation(False, "asked for")


@dataclasses.dataclass(frozen=True)
class Report:
  """What a supervisor said: how each run ended, and how many began."""

  ended: list[dict]
  started: int
  refusal: str  # why no program could be started, or empty
  closed: bool  # the jailer was closed meanwhile


@functools.cache
def probe() -> Isolation:
  """What the kernel allows here; asked once, and logged."""
  if not sys.platform.startswith("linux"):
    raise UserError(f"programs can only be judged on Linux, not on {sys.platform}")
  job = {"program": "print(6 * 7)", "stdins": [""]}
  report = Jailer(Isolation(True), Limits()).run(job, runs=1)
  works = [ended["stdout"] for ended in report.ended] == ["42\n"]
  isolation = Isolation(works, "" if works else report.refusal or f"a first program: {report}")
  logging.getLogger(__name__).info("%s", isolation)
  return isolation


class Jailer:
  """Runs jobs in supervisors; from any thread."""

  def __init__(self, isolation: Isolation, limits: Limits):
    self._isolation, self._limits = isolation, limits
    self._lock = threading.Lock()  # guards `_running` and `_closed`
    self._running: set[subprocess.Popen] = set()
    self._closed = False

  def run(self, job: dict, runs: int) -> Report:
    """Runs a job of jail/supervisor.py that starts its program `runs` times."""
    if self._isolation.isolated:
      return self._run(job, runs, folder="/")
    with tempfile.TemporaryDirectory(prefix="program-", ignore_cleanup_errors=True) as folder:
      return self._run(job, runs, folder)

  def close(self) -> None:
    """Ends whatever runs; what is run later ends at once."""
    with self._lock:
      self._closed = True
      for process in self._running:
        _kill_group(process.pid)

  def _run(self, job: dict, runs: int, folder: str) -> Report:
    nonce = secrets.token_hex(16)
    job = job | {
      "nonce": nonce,
      "parent": os.getpid(),
      "isolated": self._isolation.isolated,
      "limits": dataclasses.asdict(self._limits),
    }
    # An escaped character is six bytes of JSON.
    max_bytes = runs * ((self._limits.output_kb << 10) * 6 + 100_000)
    with self._supervisor(job, folder) as process:
      deadline = time.monotonic() + runs * self._limits.wall_s + _START_S
      data = _read(process.stdout.fileno(), max_bytes, deadline)
    return self._report(data, nonce)

  @contextlib.contextmanager
  def _supervisor(self, job: dict, folder: str) -> Iterator[subprocess.Popen]:
    """A started supervisor; afterwards nothing of it is left."""
    with tempfile.TemporaryFile() as stdin:
      stdin.write(json.dumps(job).encode())
      stdin.seek(0)
      process = self._start(stdin, folder)
    try:
      yield process
    finally:
      with self._lock:
        self._running.remove(process)
        _kill_group(process.pid)  # not yet waited for, so the number is still its
      process.wait()
      process.stdout.close()

  def _start(self, stdin: IO[bytes], folder: str) -> subprocess.Popen:
    bootstrap = (
      f"import sys; sys.path.insert(0, {str(_FOLDER.parent)!r}); "
      "from jail import supervisor; sys.path.pop(0); supervisor.main()"
    )
    with self._lock:
      process = subprocess.Popen(
        [os.path.realpath(sys.executable), "-P", "-s", "-S", "-c", bootstrap],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={"PYTHONHASHSEED": "0"},  # the same tests, the same order of sets
        start_new_session=True,
      )
      self._running.add(process)
      if self._closed:
        _kill_group(process.pid)
    return process

  def _report(self, data: bytes, nonce: str) -> Report:
    records = [record for record in map(_record, data.splitlines()) if record["nonce"] == nonce]
    ended = [record["ended"] for record in records if "ended" in record]
    groups = [record["started"] for record in records if "started" in record]
    if len(groups) > len(ended) and groups[-1]:  # it ended its supervisor, and may run on
      _kill_group(groups[-1])
    refusals = [record["refused"] for record in records if "refused" in record]
    return Report(ended, len(groups), "".join(refusals), self._closed)


def _kill_group(number: int) -> None:
  with contextlib.suppress(ProcessLookupError):
    os.killpg(number, signal.SIGKILL)


def _record(line: bytes) -> dict:
  """A line of a report; one that was cut off, or is none, has no nonce."""
  try:
    record = json.loads(line)
  except ValueError:
    return {"nonce": None}
  return record if isinstance(record, dict) and "nonce" in record else {"nonce": None}


def _read(fd: int, max_bytes: int, deadline: float) -> bytes:
  """What there is to read until the end of file, the deadline or too many bytes."""
  chunks, size = [], 0
  while size < max_bytes:
    left = deadline - time.monotonic()
    if left <= 0 or not select.select([fd], [], [], left)[0]:
      break
    chunk = os.read(fd, 1 << 20)
    if not chunk:
      break
    chunks.append(chunk)
    size += len(chunk)
  return b"".join(chunks)
