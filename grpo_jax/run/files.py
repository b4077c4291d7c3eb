"""How does a small file reach the disk whole or not at all?

A reader, or the same run after a kill, sees either the old file or the new one, never half of it.
Whatever the disk refuses becomes one `UserError` that names the path.
"""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator

from grpo_jax.errors import UserError

REASONS = {
  errno.ENOSPC: "the disk is full; free some space, then start the same command again",
  errno.EDQUOT: "the disk quota is used up; free some space, then start the same command again",
  errno.EACCES: "permission denied; choose a folder you may write to",
  errno.EPERM: "permission denied; choose a folder you may write to",
  errno.EROFS: "the file system is read-only; choose a folder you may write to",
  errno.ENOTDIR: "a part of this path is a file, not a folder; choose another path",
  errno.EEXIST: "it is a file, not a folder; choose another path",
  errno.EISDIR: "it is a folder, not a file; move it away",
}


@contextlib.contextmanager
def disk_errors(path: str | os.PathLike) -> Iterator[None]:
  """Turns an `OSError` of the block, which works on `path`, into a `UserError`."""
  try:
    yield
  except OSError as error:
    reason = REASONS.get(error.errno, error.strerror or str(error))
    raise UserError(f"cannot use {path}: {reason}") from error


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
  """Replaces the file at `path` by `content` (text as UTF-8) in one step.

  The content is on the disk before it takes the name, so that a power cut leaves no empty file, and
  the name is on the disk when this returns. Raises UserError if the disk refuses.
  """
  path = pathlib.Path(path)
  temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  with disk_errors(path):
    try:
      with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
      os.replace(temporary, path)
      sync(path.parent)
    finally:
      temporary.unlink(missing_ok=True)


def sync(path: str | os.PathLike) -> None:
  """Returns when what was written to a file, or the names in a folder, will outlive a power cut, as
  far as the file system can promise that: some mounts know no such call for folders."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  except OSError as error:
    if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
      raise
  finally:
    os.close(descriptor)
