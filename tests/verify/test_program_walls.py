"""Programs that want more than their share, or out: none gets it, and nothing of them is left.

All of it behind the walls of this kernel, where it allows them; without walls, what limits alone
can do.
"""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from grpo_jax.verify import Outcome
from grpo_jax.verify.jailer import UNISOLATED, Limits
from grpo_jax.verify.programs import ProgramJudge, ProgramTests
from tests.verify.judging import ECHO, LIMITS, eventually, judge

ROOT = pathlib.Path(__file__).resolve().parents[2]
RIGHT, WRONG = Outcome.RIGHT, Outcome.WRONG

# ------------------------------------------------------------------------------ bombs

BOMBS = {
  "spin": ("while True: pass", "more than 1 s of CPU time"),
  "sleep": ("import time; time.sleep(99)", "3 s in all"),
  "print": ("while True: print('x' * 1000)", "more than 64 kB of output"),
  "stderr": ("import sys\nwhile True: sys.stderr.write('x' * 1000)", "more than 64 kB of output"),
  "memory": ("x = bytearray(100 << 30)", "crashed: MemoryError"),
  "slow memory": ("x = []\nwhile True: x.append(bytearray(1 << 20))", "crashed: MemoryError"),
  "recursion": ("def f(): f()\nf()", "crashed: RecursionError"),
  "deep recursion": (
    "import sys\nsys.setrecursionlimit(1 << 30)\nrepr((lambda f: f(f))(lambda f: f(f)))", ""),
  "file": ("f = open('x', 'wb')\nwhile True: f.write(bytes(1 << 20))", "File too large"),
  "open files": ("x = [open('/dev/null') for _ in range(9999)]", "Too many open files"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_go_off_behind_walls(name, isolated):
  program, reason = BOMBS[name]
  verdict = judge(program, ECHO, isolated)
  assert verdict.outcome is WRONG and reason in verdict.reason, verdict


@pytest.mark.parametrize("name", ["spin", "print", "memory", "file"])
def test_bombs_without_isolation(name):
  program, reason = BOMBS[name]
  verdict = judge(program, ECHO, UNISOLATED)
  assert verdict.outcome is WRONG and reason in verdict.reason, verdict


def test_a_program_that_met_the_deadline_is_not_run_again(isolated):
  start = time.monotonic()
  verdict = judge("while True: pass", ProgramTests(pairs=(("", "1"),) * 20), isolated)
  assert time.monotonic() - start < 10
  assert verdict.reason.startswith("0 of 20 tests passed, 19 not run; test 1: more than")


FORK_BOMB = """
import os
try:
  while True:
    os.fork()
except OSError:
  print("no more")
"""


def test_a_fork_bomb_gets_no_more_than_its_processes(isolated):
  """Processes x memory is the bound on what a program can take."""
  count = """
    import os, time
    made = 0
    try:
      for _ in range(100):
        if not os.fork(): time.sleep(60)
        made += 1
    except OSError:
      print("ok" if PROCESSES - 1 <= made <= PROCESSES else made)
  """
  verdict = judge(count.replace("PROCESSES", str(LIMITS.processes)), ECHO, isolated)
  assert verdict.outcome is RIGHT, verdict
  threads = "import threading, time\n" + (
    "for _ in range(99): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
  )
  assert "can't start new thread" in judge(threads, ECHO, isolated).reason
  before = processes()
  judge(FORK_BOMB, ECHO, isolated)
  assert eventually(lambda: processes() <= before + 5)


def test_many_tmpfs_files_are_bounded(isolated):
  program = """
    for n in range(10_000):
      with open(f"/tmp/{n}", "wb") as file: file.write(bytes(1 << 20))
  """
  verdict = judge(program, ECHO, isolated)
  assert "No space left on device" in verdict.reason


# ------------------------------------------------------------------------------ looking outside

INTRUSIONS = {
  "environment of the parent": "open(f'/proc/{os.getppid()}/environ').read()",
  "its own /proc": "os.listdir('/proc/self')",
  "this file": f"open({str(pathlib.Path(__file__))!r}).read()",
  "passwords": "open('/etc/passwd').read()",
  "write to /usr": "open('/usr/x', 'w')",
  "write to its interpreter": "open(os.path.dirname(os.__file__) + '/x', 'w')",
  "write to its judge": "open('/judge/jail/x', 'w')",
  "internet": "socket.create_connection(('1.1.1.1', 53), timeout=1)",
  "our own machine": "socket.create_connection(('127.0.0.1', PORT), timeout=1)",
  "names": "socket.getaddrinfo('example.com', 80)",
  "become root": "os.setuid(0)",
  "a new root": "os.chroot('/tmp')",
  "new rights": "check(libc.unshare(0x10000000))",
  "a mount": "check(libc.mount(b'x', b'/tmp', b'tmpfs', 0, None))",
  "trace its judge": "check(libc.ptrace(16, os.getppid(), 0, 0))",
  "raise a limit": "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
  "a device": "os.mknod('/tmp/x', 0o60666, os.makedev(8, 0))",
}
INTRUSION = """
import ctypes, os, resource, socket
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
  if result < 0: raise OSError(ctypes.get_errno(), "refused")
try:
  {act}
except (OSError, ValueError) as error:
  print("ok")
"""


@pytest.mark.parametrize("name", INTRUSIONS)
def test_the_machine_is_out_of_reach(name, isolated):
  with socket.create_server(("127.0.0.1", 0)) as server:
    act = INTRUSIONS[name].replace("PORT", str(server.getsockname()[1]))
    verdict = judge(INTRUSION.format(act=act), ECHO, isolated)
  assert verdict.outcome is RIGHT, verdict


def test_what_a_program_sees_of_the_machine_is_read_only(isolated):
  program = """
    import os
    seen = ["/usr", "/judge/jail", os.path.dirname(os.__file__)]
    print("ok" if all(os.statvfs(path).f_flag & os.ST_RDONLY for path in seen) else seen)
  """
  assert judge(program, ECHO, isolated).outcome is RIGHT


def test_what_a_program_writes_never_reaches_the_machine(isolated, tmp_path):
  folders = [str(tmp_path), os.path.expanduser("~"), "/dev/shm", "/tmp", "/var/tmp"]
  program = f"""
    import contextlib, os
    for folder in {folders}:
      with contextlib.suppress(OSError):
        os.makedirs(folder, exist_ok=True)
        open(folder + "/left-by-a-test", "w")
    print("ok")
  """
  assert judge(program, ECHO, isolated).outcome is RIGHT
  assert not [folder for folder in folders if os.path.exists(folder + "/left-by-a-test")]


def test_a_program_sees_no_environment_of_ours(isolation, monkeypatch):
  monkeypatch.setenv("SECRET_OF_THE_PARENT", "1")
  program = "import os; print(sorted(os.environ))"
  tests = ProgramTests(pairs=(("", "['LC_ALL', 'PYTHONHASHSEED']"),))
  assert judge(program, tests, isolation).outcome is RIGHT


def test_a_program_starts_in_an_empty_folder_and_leaves_none(isolation, monkeypatch, tmp_path):
  monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
  program = """
    import os
    print(os.listdir())
    os.makedirs("a/b"); open("a/b/c", "w").write("x"); os.symlink("/", "a/root")
    os.chmod("a", 0)
  """
  tests = ProgramTests(pairs=(("", "['program.py']"),))
  assert judge(program, tests, isolation).outcome is RIGHT
  assert list(tmp_path.iterdir()) == []
  assert not os.path.exists("/tmp/a")


# ------------------------------------------------------------------------------ what is left

MARK = f"1234567.{os.getpid()}"  # seconds, by which to know a process of these tests
GRANDCHILD = f"""
import os, sys
if not os.fork():
  SESSION
  if not os.fork(): os.execl("/bin/sleep", "sleep", "{MARK}") if os.path.exists("/bin/sleep") \
    else os.execl("/usr/bin/sleep", "sleep", "{MARK}")
  os._exit(0)
print("ok")
"""


@pytest.mark.parametrize("session", ["pass", "os.setsid()"])
def test_a_sleeping_grandchild_is_not_waited_for_and_not_left(session, isolation):
  start = time.monotonic()
  verdict = judge(GRANDCHILD.replace("SESSION", session), ECHO, isolation)
  assert verdict.outcome is RIGHT, verdict
  assert time.monotonic() - start < LIMITS.wall_s
  assert eventually(lambda: not running(MARK))


def test_without_isolation_a_program_that_kills_its_supervisor_is_wrong_and_ends():
  program = f"""
    import os, signal, time
    if not os.fork():
      os.execl("/usr/bin/sleep", "sleep", "{MARK}")
    time.sleep(0.2)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
  """
  verdict = judge(program, ECHO, UNISOLATED)
  assert verdict.outcome is WRONG and "its judge" in verdict.reason
  assert eventually(lambda: not running(MARK))


def test_programs_end_when_their_judge_is_killed(isolation, monkeypatch, tmp_path):
  monkeypatch.setenv("TMPDIR", str(tmp_path))  # nobody is left to remove a folder
  script = (
    "from grpo_jax.verify.jailer import *\n"
    "from grpo_jax.verify.programs import *\n"
    f"tests = ProgramTests(pairs=(('', ''),))\n"
    f"program = 'import os; os.execl(\"/usr/bin/sleep\", \"sleep\", \"{MARK}\")'\n"
    f"judge_program(program, tests, Limits(wall_s=100), {isolation!r})\n"
  )
  parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
  assert eventually(lambda: running(MARK))
  parent.kill()
  parent.wait()
  assert eventually(lambda: not running(MARK))


def test_close_ends_programs_at_once_and_unscores_the_rest(isolation):
  tests = ProgramTests(pairs=(("", ""),))
  completion = f"```python\nimport os\nos.execl('/usr/bin/sleep', 'sleep', '{MARK}')\n```"
  settings = {"allow_unisolated": True, "isolation": isolation}
  with ProgramJudge(2, Limits(wall_s=100), **settings) as judge_all:
    futures = [judge_all.submit(completion, tests) for _ in range(5)]
    assert eventually(lambda: len(running(MARK)) == 2)
    start = time.monotonic()
  assert time.monotonic() - start < 10
  assert {future.result().outcome for future in futures} == {Outcome.UNSCORED}
  assert eventually(lambda: not running(MARK))


FORBID_UNSHARE = """
import ctypes, platform, struct, sys
number = {"x86_64": 272, "aarch64": 97}[platform.machine()]
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
filter = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(code)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, filter, 0, 0) == 0
from grpo_jax.verify.jailer import Limits, probe
from grpo_jax.verify.programs import ProgramJudge
assert not probe().isolated
ProgramJudge(1, Limits())
"""


def test_a_kernel_that_forbids_namespaces_is_noticed_and_named():
  """As containers do by default: a seccomp filter answers unshare with EPERM."""
  if os.uname().machine not in ("x86_64", "aarch64"):
    pytest.skip("the filter of this test is for other processors")
  done = subprocess.run(
    [sys.executable, "-c", FORBID_UNSHARE], capture_output=True, text=True, cwd=ROOT
  )
  assert "UserError" in done.stderr and "unshare: Operation not permitted" in done.stderr, done


def running(mark: str) -> list[str]:
  listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
  return [line for line in listed.splitlines() if line.startswith("sleep") and mark in line]


def processes() -> int:
  return len(list(filter(str.isdigit, os.listdir("/proc"))))
