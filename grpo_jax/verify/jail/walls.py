"""What keeps a program in: namespaces of its own, a root with nothing of ours, and limits.

Plain system calls, no helper with special rights. Each function raises OSError, which names the
call, where the kernel refuses. A user namespace gives the rights for the rest; they are given up
before any program starts. As root we become another user as well, because the kernel exempts root
from the limit on processes.
"""

import ctypes
import os
import resource
from collections.abc import Callable

NOBODY = 65534  # the user and the group that a program sees itself as

_NEW_MOUNTS, _NEW_IPC, _NEW_USER = 0x00020000, 0x08000000, 0x10000000
_NEW_PIDS, _NEW_NET = 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 1 << 12, 1 << 14, 1 << 18
_READ_ONLY, _AT_FDCWD, _AT_RECURSIVE = 1 | _MS_NOSUID | _MS_NODEV, -100, 0x8000
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture
_DEATH_SIGNAL, _DUMPABLE, _SUBREAPER, _NO_NEW_PRIVILEGES = 1, 4, 36, 38  # for prctl
_CAPABILITY_VERSION_3 = 0x20080522
_SIGKILL = 9

_LIBC = ctypes.CDLL(None, use_errno=True)


def enter_namespaces() -> None:
  """Goes on as process 1 of new namespaces: no process, network, or IPC of the machine's.

  When process 1 ends, the kernel kills all others of its namespace. The calling process itself
  only waits for that, and leaves.
  """
  signal_mapper = _start_mapper()
  _call("unshare", _NEW_USER | _NEW_MOUNTS | _NEW_PIDS | _NEW_NET | _NEW_IPC)
  signal_mapper()
  first = os.fork()
  if first:
    os.waitpid(first, 0)
    os._exit(0)
  die_with_parent()


def empty_root(visible: list[str], renamed: dict[str, str], size_mb: int) -> None:
  """Leaves a root that holds `visible` (read-only), `renamed` ones, some devices and /tmp.

  /tmp is memory, of at most `size_mb`; it vanishes with the mount namespace, which leaves nothing
  to clean up. There is no /proc, so no other process can be looked at. Inside a chroot the kernel
  allows no further user namespaces, thus no way to new rights.

  Args:
    visible: files and folders, outer ones first; those that do not exist are left out.
    renamed: where a folder is to be seen, and which.
    size_mb: of all that programs may leave in files.
  """
  root = "/proc"  # mounted over: it always exists, and no interpreter lives in it
  _call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
  options = f"size={size_mb}m,nr_inodes=10000,mode=755".encode()
  _call("mount", b"tmpfs", root.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, options)
  root += "/root"
  for path in visible:
    if os.path.exists(path) and not os.path.exists(root + path):
      _show(path, root + path, read_only=True)
  for place, path in renamed.items():
    _show(path, root + place, read_only=True)
  for device in ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"):
    _show(device, root + device, read_only=False)
  for folder in ("/tmp", "/dev/shm"):
    os.makedirs(root + folder, exist_ok=True)
    os.chmod(root + folder, 0o777)
  os.chroot(root)
  os.chdir("/tmp")


def give_up_rights() -> None:
  """Becomes nobody, without capabilities, and closed to ptrace by what is started later."""
  if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
  header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
  _call("capset", header, (ctypes.c_uint32 * 6)())
  close_to_others()
  die_with_parent()  # a change of user resets this


def close_to_others() -> None:
  """No new rights by exec, and no memory or open files to be seen by processes of the same user."""
  _call("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
  _call("prctl", _DUMPABLE, 0, 0, 0, 0)


def adopt_orphans() -> None:
  """Makes descendants whose parents ended children of this process."""
  _call("prctl", _SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
  _call("prctl", _DEATH_SIGNAL, _SIGKILL, 0, 0, 0)


def limit(cpu_s: int, memory_mb: int, tasks: int, file_mb: int) -> None:
  """Limits this process and each that it starts; `tasks` bounds all of this user's together."""
  _limit(resource.RLIMIT_CPU, cpu_s, cpu_s + 1)  # SIGXCPU, which tells, before SIGKILL
  for kind, amount in (
    (resource.RLIMIT_AS, memory_mb << 20),
    (resource.RLIMIT_NPROC, tasks),
    (resource.RLIMIT_FSIZE, file_mb << 20),
    (resource.RLIMIT_NOFILE, 64),
    (resource.RLIMIT_CORE, 0),
  ):
    _limit(kind, amount, amount)


def tasks_of_user() -> int:
  """Threads that this user runs on the machine; without namespaces the limit counts them too."""
  total = 0
  for process in filter(str.isdigit, os.listdir("/proc")):
    try:
      if os.stat(f"/proc/{process}").st_uid == os.geteuid():
        total += len(os.listdir(f"/proc/{process}/task"))
    except OSError:
      continue  # it ended meanwhile
  return total


def _limit(kind: int, soft: int, hard: int) -> None:
  """Sets both limits, as far as those we are under ourselves allow."""
  _, ours = resource.getrlimit(kind)
  if ours != resource.RLIM_INFINITY:
    soft, hard = min(soft, ours), min(hard, ours)
  resource.setrlimit(kind, (soft, hard))


def _start_mapper() -> Callable[[], None]:
  """Starts a process that says, from outside, who we are in the user namespace we will be in.

  Returns a function to call once we are there; only from outside may root map another user.
  """
  start, started = os.pipe()
  mapper, ours = os.fork(), os.getpid()
  if not mapper:
    os.close(started)
    try:
      os._exit(0 if os.read(start, 1) and _map_users(os.getppid()) else 1)
    finally:
      os._exit(1)
  os.close(start)

  def signal_mapper() -> None:
    os.write(started, b"1")
    os.close(started)
    if os.waitpid(mapper, 0)[1]:
      raise OSError(f"cannot write /proc/{ours}/uid_map")

  return signal_mapper


def _map_users(process: int) -> bool:
  user, group = os.geteuid(), os.getegid()
  maps = {"setgroups": "deny", "gid_map": f"{NOBODY} {group} 1", "uid_map": f"{NOBODY} {user} 1"}
  if user == 0:
    both = f"0 0 1\n{NOBODY} {NOBODY} 1"
    maps = {"gid_map": both, "uid_map": both}
  for name, text in maps.items():
    with open(f"/proc/{process}/{name}", "w") as file:
      file.write(text)
  return True


def _show(path: str, place: str, read_only: bool) -> None:
  """Makes a file or folder of the machine's visible at `place`."""
  if os.path.isdir(path):
    os.makedirs(place)
  else:
    os.makedirs(os.path.dirname(place), exist_ok=True)
    os.close(os.open(place, os.O_CREAT))
  _call("mount", path.encode(), place.encode(), None, _MS_BIND | _MS_REC, None)
  if not read_only:
    return
  change = (ctypes.c_uint64 * 4)(_READ_ONLY, 0, 0, 0)
  arguments = (ctypes.c_long(_AT_FDCWD), place.encode(), ctypes.c_long(_AT_RECURSIVE), change)
  _call("syscall", ctypes.c_long(_SYS_MOUNT_SETATTR), *arguments, ctypes.c_long(32))


def _call(name: str, *arguments) -> None:
  if getattr(_LIBC, name)(*arguments) == -1:
    error = ctypes.get_errno()
    raise OSError(error, f"{name}: {os.strerror(error)}")
