"""Decisions and replay choices inside whole runs: they resume bit for bit and cost the same."""

import numpy as np
import pytest

from configs import methods
from grpo_jax import train as train_module
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
  assert rows[-1]["cost/rollouts"] == 16 * sum(row["rollout/rounds"] for row in rows)
  assert (max(row["rollout/rounds"] for row in rows) > 1) == method.startswith("dapo")
  assert (rows[-1]["cost/probe_tokens"] > 0) == method.endswith("prepo")
