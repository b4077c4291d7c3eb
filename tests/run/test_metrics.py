"""Each step stands once in the log, whatever was killed in between."""

import json
import math
import struct

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from grpo_jax.errors import UserError
from grpo_jax.run.metrics import MetricsLog, read_metrics


@pytest.fixture
def path(tmp_path):
  return tmp_path / "metrics.jsonl"


def write_steps(path, start, stop, value=0.5):
  with MetricsLog(path, None, start) as log:
    for step in range(start, stop):
      log.write(step, {"train/loss": value})


def test_a_row_is_step_first_then_sorted(path):
  with MetricsLog(path, None, 0) as log:
    log.write(0, {"train/loss": 0.25, "cost/rollouts": np.int64(8), "reward/mean": np.float32(0.5)})
  assert path.read_text() == (
    '{"step": 0, "cost/rollouts": 8, "reward/mean": 0.5, "train/loss": 0.25}\n'
  )


def test_a_row_is_readable_before_the_log_is_closed(path):
  with MetricsLog(path, None, 0) as log:
    log.write(0, {"train/loss": 1.0})
    assert read_metrics(path) == [{"step": 0, "train/loss": 1.0}]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_what_is_not_finite_is_null_in_strict_json(path, value):
  """NaN is not JSON: one of them makes the file unreadable for everything but Python."""
  with MetricsLog(path, None, 0) as log:
    log.write(0, {"train/loss": value})

  def refuse(constant):
    raise AssertionError(constant)

  assert json.loads(path.read_text(), parse_constant=refuse) == {"step": 0, "train/loss": None}


def test_resume_drops_the_rows_of_lost_steps(path):
  write_steps(path, 0, 7)
  write_steps(path, 4, 6, value=0.1)
  assert [row["step"] for row in read_metrics(path)] == [0, 1, 2, 3, 4, 5]
  assert [row["train/loss"] for row in read_metrics(path)][-2:] == [0.1, 0.1]


def test_resume_drops_a_torn_last_line_before_it_appends(path):
  """Appended to a torn line, the first row after a kill would be lost with it."""
  write_steps(path, 0, 3)
  path.write_text(path.read_text() + '{"step": 3, "train/lo')
  write_steps(path, 3, 5)
  assert [row["step"] for row in read_metrics(path)] == [0, 1, 2, 3, 4]


def test_a_complete_row_without_its_newline_is_torn_too(path):
  path.write_text('{"step": 0}\n{"step": 1}')
  assert read_metrics(path) == [{"step": 0}]
  write_steps(path, 1, 2)
  assert [row["step"] for row in read_metrics(path)] == [0, 1]


def test_a_character_torn_in_two_is_a_torn_line(path):
  path.write_bytes(b'{"step": 0}\n{"step": 1, "eval/\xc3')
  assert read_metrics(path) == [{"step": 0}]


@pytest.mark.parametrize("line", ["{broken}", "[]", '{"loss": 1}', '{"step": "1"}', ""])
def test_a_broken_line_in_the_middle_is_named(path, line):
  path.write_text(f'{{"step": 0}}\n{line}\n{{"step": 2}}\n')
  with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: not a row"):
    read_metrics(path)


def test_a_missing_file_is_a_user_error(path):
  with pytest.raises(UserError, match="cannot read metrics from"):
    read_metrics(path)


@pytest.mark.parametrize("step", [3, 2])
def test_a_step_cannot_be_written_twice_or_late(path, step):
  with MetricsLog(path, None, 2) as log:
    log.write(3, {})
    with pytest.raises(ValueError, match=f"metrics of step {step}, but step 4 is next"):
      log.write(step, {})


def test_a_metric_named_step_is_refused(path):
  with MetricsLog(path, None, 0) as log, pytest.raises(ValueError, match="called step"):
    log.write(0, {"step": 1})


def shown_by_tensorboard(folder):
  """(step, value) by tag as TensorBoard shows them: a start event purges its step and later."""
  shown = {}
  for path in sorted(folder.iterdir()):
    for event in events_in(path.read_bytes()):
      if event.HasField("session_log"):
        shown = {
          tag: [point for point in points if point[0] < event.step]
          for tag, points in shown.items()
        }
      for value in event.summary.value:
        shown.setdefault(value.tag, []).append((event.step, value.simple_value))
  return shown


def events_in(data):
  """The events of a file of records: length, checksum, event, checksum."""
  while data:
    (length,) = struct.unpack("<Q", data[:8])
    yield event_pb2.Event.FromString(data[12 : 12 + length])
    data = data[16 + length :]


def test_tensorboard_has_each_step_once_after_a_resume(path, tmp_path):
  """Both logs start within one second here, as they may after a crash: neither may be lost."""
  folder = tmp_path / "tensorboard"
  for start, value in ((0, 1.0), (2, 2.0)):
    with MetricsLog(path, folder, start) as log:
      for step in range(start, 4):
        log.write(step, {"train/loss": value, "train/clip": math.nan})
  assert shown_by_tensorboard(folder) == {"train/loss": [(0, 1.0), (1, 1.0), (2, 2.0), (3, 2.0)]}
