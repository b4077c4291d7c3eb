"""Decisions and replay choices inside whole runs: they resume bit for bit and cost the same."""

import json

import numpy as np
import pytest

from configs import methods
from grpo_jax import train as train_module
from grpo_jax.profile_prompts import profile_prompts
from grpo_jax.run.metrics import read_metrics
from grpo_jax.train import train
from tests.test_train import tiny, untimed, weights

pytestmark = pytest.mark.slow


def stop_after_four(progress, alarms, step, *rest):
  """The last checkpoint is that of step 3."""
  if step == 4:
    raise KeyboardInterrupt


def config_of(method):
  config = tiny(steps=6)
  methods.apply(config, method)
  config.data.limit = 10  # epochs of two and a half steps
  config.replay.warmup_steps = 1
  return config


@pytest.mark.parametrize(
  "method",
  [
    "aper+history_resampling+coba",
    "aper+dopr",
    "aper+pool+by_query+by_spread",
    "dapo+aper+by_chance",
    "aper+prepo",
    "aper+history_resampling+refreshed+by_share+tis_replayed+age_decay",
    "repo",
    "rlep",
    "exgrpo",
    "dots_replay",
  ],
)
def test_a_run_cut_in_mid_epoch_goes_on_bit_for_bit(tmp_path, method, monkeypatch):
  straight, broken = tmp_path / "straight", tmp_path / "broken"
  train(config_of(method), str(straight))
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(train_module, "show", stop_after_four)
    train(config_of(method), str(broken))
  train(config_of(method), str(broken))
  assert untimed(broken) == untimed(straight)
  for name, value in weights(straight).items():
    np.testing.assert_array_equal(weights(broken)[name], value, err_msg=name)
  rows = read_metrics(straight / "metrics.jsonl")[1:]
  assert sum(row["replay/drawn"] for row in rows) > 0
  assert rows[-1]["cost/rollouts"] == 16 * sum(row["rollout/rounds"] for row in rows)
  assert (max(row["rollout/rounds"] for row in rows) > 1) == method.startswith("dapo")
  assert (rows[-1]["cost/probe_tokens"] > 0) == method.endswith("prepo")


def test_old_rollouts_are_drawn_beside_every_choice_of_problems(tmp_path):
  """Easy to hard, with groups of 2, 4 and 8, and what has priorities of its own for uneven ones."""
  config = config_of("aper+sgpo+by_share+refreshed+tis_replayed")
  path = tmp_path / "profile.json"
  profile_prompts(config, str(path), samples=1)
  of_every_size = {"samples": 8, "rights": [1, 2, 3, 4, 5, 6, 1, 2, 3, 4]}
  path.write_text(json.dumps(json.loads(path.read_text()) | of_every_size))
  train(config, str(tmp_path / "run"))
  rows = read_metrics(tmp_path / "run" / "metrics.jsonl")[1:]
  assert sum(row["replay/drawn"] for row in rows) > 0
  assert sum(row["replay/refreshed"] for row in rows) > 0
