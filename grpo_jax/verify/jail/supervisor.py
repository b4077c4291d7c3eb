"""The process beside a program: puts up the walls, starts the program, watches it, and reports.

Reads one job, as JSON, from stdin; writes lines of JSON to stdout, which no program ever holds.
Each line carries the job's nonce: what else arrives there is no report. The program is another
interpreter, started by exec, so that nothing of this one (tests, nonce, open files) is in it.
"""

import contextlib
import json
import os
import select
import signal
import sys
import time
import types
from collections.abc import Callable

from . import inside, serve, walls
from .asserts import Link, run_tests

_ENVIRONMENT = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}  # the same program, the same output
_FLAGS = ["-P", "-s", "-S", "-B", "-X", "utf8"]
# What an interpreter needs of the machine; its own folder may lie elsewhere.
_SYSTEM = ["/usr", "/lib", "/lib32", "/lib64", "/nix", "/etc/ld.so.cache"]
_OWN_TASKS = 2  # at most so many of our processes count towards the program's limit
_READ = 1 << 16

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_PACKAGE = "/judge/jail"  # where a program's process finds this folder


def main() -> None:
  job = json.load(sys.stdin)
  say = _reporter(job["nonce"], os.dup(1))
  os.dup2(2, 1)  # what tests print is no report
  try:
    _put_up_walls(job)
    with open("program.py", "wb") as file:
      file.write(job["program"].encode("utf-8", "surrogatepass"))
  except OSError as error:
    say(refused=str(error))
    return
  if "code" in job:
    _run_asserts(job, say)
    return
  for text in job["stdins"]:
    ended = _run_once(job, text, say)
    say(ended=ended)
    if ended["why"] == "time":
      return


def _reporter(nonce: str, fd: int) -> Callable[..., None]:
  reports = os.fdopen(fd, "w", buffering=1)

  def say(**record) -> None:
    reports.write(json.dumps({"nonce": nonce} | record) + "\n")

  return say


def _put_up_walls(job: dict) -> None:
  walls.die_with_parent()
  if os.getppid() != job["parent"]:
    os._exit(1)
  with open("/proc/self/oom_score_adj", "w") as file:
    file.write("1000")  # if memory runs out, let it be this
  if job["isolated"]:
    walls.enter_namespaces()
    visible = [*_SYSTEM, sys.base_prefix]
    walls.empty_root(visible, {_PACKAGE: _FOLDER}, job["limits"]["files_mb"])
    walls.give_up_rights()
    job["tasks"] = job["limits"]["processes"] + _OWN_TASKS
    return
  job["tasks"] = walls.tasks_of_user() + job["limits"]["processes"]
  walls.adopt_orphans()
  _children()  # fails now, not when they are to be killed
  walls.close_to_others()


# ------------------------------------------------------------------------------ stdin and stdout


def _run_once(job: dict, text: str, say: Callable[..., None]) -> dict:
  """Runs the program on one input; how it ended, what it printed, and the end of its stderr."""
  stdin = os.memfd_create("stdin")
  os.write(stdin, text.encode("utf-8", "surrogatepass"))
  os.lseek(stdin, 0, os.SEEK_SET)
  (out, out_program), (err, err_program) = os.pipe(), os.pipe()
  program = _start(job, inside, [], (stdin, out_program, err_program))
  for fd in (stdin, out_program, err_program):
    os.close(fd)
  say(started=0 if job["isolated"] else program)
  printed = {out: b"", err: b""}
  ended = os.pidfd_open(program)
  why = _watch(ended, printed, job["limits"])
  status = os.waitstatus_to_exitcode(_sweep(job["isolated"])[program])
  for fd in (ended, out, err):
    os.close(fd)
  return {
    "why": "time" if status == -signal.SIGXCPU else why,
    "status": status,
    "stdout": printed[out].decode("utf-8", "replace"),
    "stderr": printed[err][-2000:].decode("utf-8", "replace"),
  }


def _watch(ended: int, printed: dict[int, bytes], limits: dict) -> str | None:
  """Reads until the process ended; returns which limit it met first, if any.

  It ends for us when the program does: what its children may still print is not waited for.
  """
  deadline = time.monotonic() + limits["wall_s"]
  open_fds = set(printed)
  while True:
    left = deadline - time.monotonic()
    ready = select.select([*open_fds, ended], [], [], max(0, left))[0] if left > 0 else []
    readable = open_fds.intersection(ready)
    for fd in readable:
      chunk = os.read(fd, _READ)
      printed[fd] += chunk
      if not chunk:
        open_fds.remove(fd)
    if not ready:
      return "time"
    if sum(map(len, printed.values())) > limits["output_kb"] << 10:
      return "output"
    if not readable:
      return None


# ------------------------------------------------------------------------------ asserts


def _run_asserts(job: dict, say: Callable[..., None]) -> None:
  (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
  null = os.open("/dev/null", os.O_RDWR)
  program = _start(job, serve, [theirs_in, theirs_out], (null, null, null))
  for fd in (theirs_in, theirs_out):
    os.close(fd)
  say(started=0 if job["isolated"] else program)
  limits = job["limits"]
  deadline = time.monotonic() + limits["wall_s"]
  link = Link(ours_out, ours_in, deadline, max_bytes=limits["output_kb"] << 10)
  result = run_tests(job["code"], job["entry_point"], link)
  status = os.waitstatus_to_exitcode(_sweep(job["isolated"])[program])
  say(ended={"why": "time" if status == -signal.SIGXCPU else None, **result})


# ------------------------------------------------------------------------------ processes


def _start(
  job: dict, module: types.ModuleType, keep: list[int], streams: tuple[int, int, int]
) -> int:
  """Starts the process that `module` is for, with these streams and the files `keep`, no others."""
  package = _PACKAGE if job["isolated"] else _FOLDER
  bootstrap = (
    f"import sys; sys.path.insert(0, {os.path.dirname(package)!r}); "
    f"from {module.__name__} import main; main()"
  )
  command = [sys.executable, *_FLAGS, "-c", bootstrap, "program.py", *map(str, keep)]
  program = os.fork()
  if program:
    return program
  try:
    os.setpgid(0, 0)
    walls.die_with_parent()
    for number, fd in enumerate(streams):
      os.dup2(fd, number)
    for fd in keep:
      os.set_inheritable(fd, True)
    limits = job["limits"]
    walls.limit(limits["cpu_s"], limits["memory_mb"], job["tasks"], limits["file_mb"])
    os.execve(sys.executable, command, _ENVIRONMENT)
  finally:
    os._exit(127)


def _sweep(isolated: bool) -> dict[int, int]:
  """Kills whatever the program left running; the exit status of each process by its number."""
  statuses = {}
  while True:
    for target in [-1] if isolated else _children():
      with contextlib.suppress(ProcessLookupError):
        os.kill(target, signal.SIGKILL)
    try:
      process, status = os.waitpid(-1, 0)
    except ChildProcessError:
      return statuses
    statuses[process] = status


def _children() -> list[int]:
  """Also negated, for the process group of each, so that many end at one blow."""
  with open(f"/proc/self/task/{os.getpid()}/children") as file:
    children = [int(number) for number in file.read().split()]
  return [sign * child for child in children for sign in (-1, 1)]
