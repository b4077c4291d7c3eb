"""Small files arrive whole or not at all."""

import errno
import os

import pytest

from grpo_jax.errors import UserError
from grpo_jax.run.files import disk_errors, write_atomically


def test_text_and_bytes_replace_what_was_there(tmp_path):
  path = tmp_path / "note.txt"
  write_atomically(path, "first, longer")
  write_atomically(path, "größer")
  assert path.read_bytes() == "größer".encode()
  write_atomically(path, b"\x00\xff")
  assert path.read_bytes() == b"\x00\xff"
  assert os.listdir(tmp_path) == ["note.txt"]


def test_a_full_disk_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
  path = tmp_path / "config.json"
  write_atomically(path, "old")

  def full(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(UserError, match=r"config\.json: the disk is full; free some space"):
    write_atomically(path, "new")
  assert path.read_text() == "old"
  assert os.listdir(tmp_path) == ["config.json"]


def test_the_name_is_taken_only_after_the_content_is_on_the_disk(tmp_path, monkeypatch):
  """Renamed before the sync, a power cut leaves an empty file under the final name; without the
  folder's own sync, perhaps no file."""
  order = []
  sync, replace = os.fsync, os.replace
  monkeypatch.setattr(os, "fsync", lambda file: (order.append("sync"), sync(file)))
  monkeypatch.setattr(os, "replace", lambda a, b: (order.append("rename"), replace(a, b)))
  write_atomically(tmp_path / "note.txt", "text")
  assert order == ["sync", "rename", "sync"]


@pytest.mark.parametrize(
  ("number", "advice"),
  [
    (errno.EACCES, "permission denied"),
    (errno.EROFS, "read-only"),
    (errno.EDQUOT, "quota"),
    (errno.ENOTDIR, "is a file, not a folder"),
    (errno.EIO, "Input/output error"),
  ],
)
def test_disk_errors_are_one_line_that_names_the_path(number, advice):
  with pytest.raises(UserError, match=advice) as caught, disk_errors("/some/run"):
    raise OSError(number, os.strerror(number))
  assert "/some/run" in str(caught.value)
  assert "\n" not in str(caught.value)
