"""Warm starts: on what, how often, from which weights, and what later counts as the start."""

import json

import numpy as np
import pytest
import safetensors.numpy

from configs import methods
from grpo_jax import start
from grpo_jax.check import check
from grpo_jax.errors import UserError
from grpo_jax.run.metrics import read_metrics
from grpo_jax.start import WarmStart
from grpo_jax.train import train
from tests.test_train import own_cache, tiny, weights  # noqa: F401  (a fixture)

SETTINGS = {"demonstrations": "", "parts": 1, "learning_rate": 1e-3, "mistakes": 0.0}


@pytest.mark.parametrize(
  ("steps", "epochs", "rows", "expected"),
  [(0, 0.0, 4, 0), (7, 0.0, 4, 7), (0, 1.0, 4, 3), (0, 2.0, 5, 4), (0, 0.5, 10, 1)],
)
def test_steps_of_ten_demonstrations(steps, epochs, rows, expected):
  assert WarmStart(steps=steps, epochs=epochs, rows=rows, **SETTINGS).steps_of(10) == expected


def demonstrations(tmp_path, **changes):
  """A config whose demonstrations are sums that are all wrong in one way: ten too much."""
  rows = [
    {"prompt": f"{a}+{b}=", "solution": f"{a}+{b}={a + b + 10:02d};\\boxed{{{a + b + 10}}}"}
    for a in range(3) for b in range(3)
  ]  # fmt: skip
  file = tmp_path / "demonstrations.jsonl"
  file.write_text("".join(json.dumps(row) + "\n" for row in rows))
  config = tiny(steps=2)
  config.warm_start.update(steps=0, epochs=2.0, rows=8, mistakes=0.0, demonstrations=str(file))
  config.update_from_flattened_dict(changes)
  return config


@pytest.mark.slow
def test_a_folder_is_warmed_up_and_is_then_the_start_of_kl_too(tmp_path, capsys):
  base, run = tmp_path / "base", tmp_path / "run"
  train(tiny(steps=1), str(base))
  config = demonstrations(tmp_path, **{"model.folder": str(base / "export")})
  config.update_from_flattened_dict({k: v for k, v in methods.METHODS["tailor"].items()
                                     if k != "warm_start.epochs"})  # fmt: skip
  config.warm_start.update(epochs=20.0, learning_rate=1e-2)
  config.keep = "everything"  # though all are wrong now
  capsys.readouterr()
  train(config, str(run))
  said = capsys.readouterr().out
  assert "Warm start: step 20/23" in said
  first = safetensors.numpy.load_file(run / "start" / "model.safetensors")
  assert any(np.abs(first[name] - value).max() > 1e-3 for name, value in weights(base).items())
  rows = read_metrics(run / "metrics.jsonl")
  assert rows[1]["train/kl_reference_fresh"] == pytest.approx(0, abs=1e-5)
  log = (run / "rollouts" / "step_000001.txt").read_text()
  assert "\\boxed{1" in log, "it adds ten, as was shown"

  config.steps = 3
  train(config, str(tmp_path / "again"))
  assert "Warm start: taken from" in capsys.readouterr().out


def test_every_demonstration_comes_once_an_epoch_in_another_order(tmp_path, monkeypatch):
  seen = []

  def recorded(model, optimizer, parts):
    def step(state, rows, how):
      seen.extend(tuple(row) for row in rows.tokens_RT.tolist())
      return state, np.float32(0)

    return step

  monkeypatch.setattr(start, "make_supervised_step", recorded)
  config = demonstrations(tmp_path, **{"warm_start.rows": 9 * 8, "warm_start.epochs": 1.0})
  train(config, str(tmp_path / "run"))
  assert len(seen) == 72
  epochs = [seen[n : n + 9] for n in range(0, 72, 9)]
  assert all(len(set(epoch)) == 9 for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 8


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    ({"warm_start.steps": 5}, "steps is 5 and epochs is 2.0: at most one"),
    ({"warm_start.epochs": -1.0}, "and none below"),
    ({"warm_start.epochs": 0.0}, "neither steps nor epochs"),
    ({"warm_start.parts": 3}, "rows is 8; it must divide over 3 parts"),
  ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, changes, named):
  with pytest.raises(UserError) as error:
    check(demonstrations(tmp_path, **changes))
  assert named in str(error.value)


def test_a_broken_demonstration_is_named(tmp_path):
  config = demonstrations(tmp_path)
  with open(config.warm_start.demonstrations, "a") as file:
    file.write('{"prompt": "1+1="}\n')
  with pytest.raises(UserError, match="line 10: no field 'solution' or 'completion'"):
    train(config, str(tmp_path / "run"))
