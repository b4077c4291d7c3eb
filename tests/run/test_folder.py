"""One folder, one live process, one configuration."""

import contextlib
import json
import pathlib
import signal
import subprocess
import sys

import pytest

from grpo_jax.errors import UserError
from grpo_jax.run.config_record import difference_sentence, differences, write_method
from grpo_jax.run.folder import RunFolder, open_run

ROOT = pathlib.Path(__file__).resolve().parents[2]

HOLDER = """
import sys, time
from grpo_jax.run.folder import open_run
run = open_run(sys.argv[1], {"lr": 0.1})
print("open", flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def live_holder(path):
  """Another process that has the run at `path` open."""
  process = subprocess.Popen(
    [sys.executable, "-c", HOLDER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
  )
  try:
    assert process.stdout.readline() == "open\n"
    yield process
  finally:
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_live_process_keeps_others_out_and_is_named(tmp_path):
  with live_holder(tmp_path) as holder:
    message = rf"in use by process {holder.pid} on \S+, started \d{{4}}-.*choose another --workdir"
    with pytest.raises(UserError, match=message):
      open_run(tmp_path, {"lr": 0.1})


def test_the_lock_of_a_killed_process_is_no_obstacle(tmp_path):
  with live_holder(tmp_path) as holder:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with open_run(tmp_path, {"lr": 0.1}) as run:
      assert run.config.exists()


def test_the_same_process_cannot_open_a_run_twice(tmp_path):
  with open_run(tmp_path, {}), pytest.raises(UserError, match="in use by process"):
    open_run(tmp_path, {})
  open_run(tmp_path, {}).close()


def test_a_refused_config_does_not_keep_the_lock(tmp_path):
  open_run(tmp_path, {"lr": 0.1}).close()
  with pytest.raises(UserError, match="lr was"):
    open_run(tmp_path, {"lr": 0.2})
  open_run(tmp_path, {"lr": 0.1}).close()


def test_folders_are_made_and_every_start_is_noted(tmp_path):
  path = tmp_path / "new" / "run"
  for command in ("train --steps=1", "train \\\n  --steps=2"):
    open_run(path, {"lr": 0.1}, command=command).close()
  first, second = RunFolder(path).commands.read_text().splitlines()
  assert first.endswith("train --steps=1")
  assert second.endswith("--steps=2")


def test_a_path_through_a_file_is_refused(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="file, not a folder"):
    open_run(tmp_path / "file", {})
  with pytest.raises(UserError, match="file, not a folder"):
    open_run(tmp_path / "file" / "run", {})


def test_a_bucket_is_not_mistaken_for_a_local_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match="gs://bucket/run: not a local path"):
    open_run("gs://bucket/run", {})
  assert list(tmp_path.iterdir()) == []


def test_config_is_one_sorted_json(tmp_path):
  config = {"b": {"z": 1, "a": (1, 2)}, "a": None}
  with open_run(tmp_path, config) as run:
    assert json.loads(run.config.read_text()) == {"a": None, "b": {"a": [1, 2], "z": 1}}
    assert run.config.read_text().index('"a"') < run.config.read_text().index('"b"')


@pytest.mark.parametrize(
  ("before", "now", "told"),
  [
    ({"optimizer": {"lr": 0.1}}, {"optimizer": {"lr": 0.2}}, "optimizer.lr was 0.1, now 0.2"),
    ({"clip": None}, {"clip": 0.2}, "clip was null, now 0.2"),
    ({"a": 1}, {"a": 1, "b": "x"}, 'b was (absent), now "x"'),
    ({"a": 1, "b": []}, {"a": 1}, "b was [], now (absent)"),
    ({"a": {}}, {"a": {"b": 1}}, "a was {}, now (absent); a.b was (absent), now 1"),
    ({"a": [1, 2]}, {"a": [1, 3]}, "a was [1, 2], now [1, 3]"),
    ({"a": "x" * 80 + "1"}, {"a": "x" * 80 + "2"}, "a was"),
  ],
)
def test_another_config_is_refused_by_key_and_values(tmp_path, before, now, told):
  open_run(tmp_path, before).close()
  with pytest.raises(UserError) as caught:
    open_run(tmp_path, now)
  assert told in str(caught.value)
  assert "choose another --workdir" in str(caught.value)
  assert "\n" not in str(caught.value)


def test_only_the_first_differences_are_told(tmp_path):
  open_run(tmp_path, {f"key{i}": 0 for i in range(8)}).close()
  with pytest.raises(UserError, match="key4 was 0, now 1; and 3 more keys;"):
    open_run(tmp_path, {f"key{i}": 1 for i in range(8)})


@pytest.mark.parametrize("same", [0.1, float("nan"), float("inf"), (1, 2), None, {"b": {}}])
def test_the_same_config_is_accepted(tmp_path, same):
  for _ in range(2):
    open_run(tmp_path, {"a": same}).close()


def test_what_may_change_is_rewritten_and_nothing_else_may(tmp_path):
  may_change = frozenset({"steps", "log"})
  config = {"steps": 10, "steps_warmup": 1, "log": {"every": 5}}
  open_run(tmp_path, config, may_change).close()
  longer = {**config, "steps": 20, "log": {"every": 1}}
  open_run(tmp_path, longer, may_change).close()
  assert json.loads(RunFolder(tmp_path).config.read_text()) == longer
  with pytest.raises(UserError, match=r"config: steps_warmup was 1, now 2; choose"):
    open_run(tmp_path, {**longer, "steps": 30, "steps_warmup": 2}, may_change)
  assert json.loads(RunFolder(tmp_path).config.read_text()) == longer


def test_differences_from_a_reference_are_told_and_written(tmp_path):
  """Only of the reference's keys; a tuple is the list that JSON makes of it."""
  config = {"keep": "mixed", "replay": {"ratio": 0.5, "age": 10}, "a": [1], "other": 3}
  reference = {"keep": "everything", "replay.ratio": 0.0, "replay.age": 10, "a": (1,)}
  changes = differences(config, reference)
  assert changes == {"keep": ("everything", "mixed"), "replay.ratio": (0.0, 0.5)}
  assert difference_sentence(changes) == "keep mixed (everything); replay.ratio 0.5 (0.0)"
  write_method(tmp_path / "method.json", "aper", changes)
  assert json.loads((tmp_path / "method.json").read_text()) == {
    "method": "aper",
    "differs_from_grpo": {
      "keep": {"grpo": "everything", "here": "mixed"},
      "replay.ratio": {"grpo": 0.0, "here": 0.5},
    },
  }


def test_a_value_that_json_cannot_hold_is_named(tmp_path):
  with pytest.raises(UserError, match=r"config key model\.dtype: <class 'int'> is not a number"):
    open_run(tmp_path, {"model": {"dtype": int}})


def test_a_broken_config_file_is_named(tmp_path):
  (tmp_path / "config.json").write_text('{"lr":')
  with pytest.raises(UserError, match=r"cannot read .*config\.json"):
    open_run(tmp_path, {})
