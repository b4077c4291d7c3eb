"""The picture of a run, from whatever metrics it has."""

import json
import math
import struct

import pytest

from grpo_jax.errors import UserError
from grpo_jax.run.curves import PANELS, draw_curves


def write_metrics(path, steps, names, every=10):
  rows = []
  for step in range(steps):
    row = {"step": step, "cost/rollouts": 128 * (step + 1)}
    row |= {name: 0.5 + 0.3 * math.sin(step / 9 + len(name)) for name in names}
    if step % every:
      row = {name: value for name, value in row.items() if not name.startswith("eval/")}
    rows.append(json.dumps(row))
  path.write_text("\n".join(rows) + "\n")


def size(path):
  """Width and height of a PNG, in pixels."""
  data = path.read_bytes()
  assert data.startswith(b"\x89PNG\r\n\x1a\n")
  assert 20_000 < len(data) < 1_000_000
  return struct.unpack(">II", data[16:24])


ALL_PANELS = [name for panel in PANELS for name, _ in panel.lines]


@pytest.mark.parametrize(
  ("steps", "names", "height"),
  [
    (300, ["eval/accuracy", *ALL_PANELS], 1287),
    (40, ["eval/math500/accuracy", "eval/aime$24/accuracy", "reward/mean"], 975),
    (40, ["eval/accuracy"], 663),
    (300, ALL_PANELS, 715),
    (1, ["eval/accuracy", "reward/mean"], 975),
  ],
)
@pytest.mark.filterwarnings("error")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_only_what_is_there_is_drawn(tmp_path, steps, names, height):
  write_metrics(tmp_path / "metrics.jsonl", steps, names)
  draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png", "qwen3_0p6b, $method")
  assert size(tmp_path / "curves.png") == (1560, height)


def test_values_that_are_null_are_gaps_not_errors(tmp_path):
  rows = [
    {"step": 0, "cost/rollouts": 0, "eval/accuracy": None, "train/entropy": None},
    {"step": 1, "cost/rollouts": 8, "eval/accuracy": 0.0, "train/entropy": None},
    {"step": 2, "eval/accuracy": 0.5},
  ]
  (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png", "title")
  assert size(tmp_path / "curves.png") == (1560, 663)


def test_a_run_without_a_metric_to_draw_says_so(tmp_path):
  (tmp_path / "metrics.jsonl").write_text('{"step": 0, "cost/rollouts": 8}\n')
  with pytest.raises(UserError, match="nothing to draw yet"):
    draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png", "title")
  assert not (tmp_path / "curves.png").exists()
