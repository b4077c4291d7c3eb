"""The command that measures problems, and the run that is planned by its file."""

import json

import jax
import pytest

from configs import methods
from grpo_jax.errors import UserError
from grpo_jax.evaluation.samples import SampleLog, read_samples
from grpo_jax.profile_prompts import profile_prompts
from grpo_jax.run.metrics import read_metrics
from grpo_jax.train import train
from tests.test_train import own_cache, tiny  # noqa: F401


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
  some = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda: some)


def config_of(profile, **changes):
  config = tiny(steps=2)
  methods.apply(config, "sgpo+aper")
  config.easy_to_hard.profile = str(profile)
  config.update_from_flattened_dict(changes)
  return config


def test_a_run_is_planned_by_the_file_and_pays_for_it(tmp_path):
  path = tmp_path / "profile.json"
  profile_prompts(config_of(""), str(path), samples=4)
  profile = json.loads(path.read_text())
  assert len(profile["rights"]) == 48
  assert 0 < sum(profile["rights"]) < 4 * 48
  # "3+4=" is four characters; every sample has at least its end token.
  assert profile["prompt_tokens"] == 4 * 48
  assert profile["generated_tokens"] > 4 * 48

  run = tmp_path / "run"
  train(config_of(path), str(run))
  first, last = read_metrics(run / "metrics.jsonl")[::2]
  parameters = first["cost/flops"] / (2 * first["cost/profiling_tokens"])
  assert first["cost/profiling_tokens"] == 4 * 48 + profile["generated_tokens"]
  assert first["cost/flops_by_generated"] == 2 * parameters * profile["generated_tokens"]
  more = last["cost/flops_by_generated"] - first["cost/flops_by_generated"]
  assert first["cost/generated_tokens"] == profile["generated_tokens"]
  assert more == 12 * parameters * (last["cost/generated_tokens"] - first["cost/generated_tokens"])
  assert (first["cost/rollouts"], last["cost/rollouts"]) == (4 * 48, 4 * 48 + 2 * 16)

  profile["rights"][0] = (profile["rights"][0] + 1) % 5
  path.write_text(json.dumps(profile))
  with pytest.raises(UserError, match="not the file that the checkpoint of step 2 was planned by"):
    train(config_of(path, steps=3), str(run))


@pytest.mark.parametrize(
  ("change", "named"),
  [({"seed": 1}, "other problems"), ({"warm_start.steps": 2}, "other weights")],
)
def test_a_profile_of_another_policy_or_of_other_problems_stops_a_run(tmp_path, change, named):
  path = tmp_path / "profile.json"
  profile_prompts(config_of(""), str(path), samples=1)
  with pytest.raises(UserError, match=named):
    train(config_of(path, **change), str(tmp_path / "run"))


def test_a_killed_profile_goes_on_and_counts_nothing_twice(tmp_path, monkeypatch, capsys):
  whole, broken = tmp_path / "whole.json", tmp_path / "broken.json"
  profile_prompts(config_of(""), str(whole), samples=3)
  written = 0
  write = SampleLog.write

  def killed_after_thirty(self, sample):
    nonlocal written
    if written == 30:
      self._file.write('{"problem": 3, "samp')
      raise KeyboardInterrupt
    write(self, sample)
    written += 1

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(SampleLog, "write", killed_after_thirty)
    profile_prompts(config_of(""), str(broken), samples=3)
  assert not broken.exists()
  capsys.readouterr()
  profile_prompts(config_of(""), str(broken), samples=3)
  assert "114 samples to draw, 30 are there" in capsys.readouterr().out
  assert broken.read_text() == whole.read_text()
  places = [sample.place for sample in read_samples(tmp_path / "broken.samples" / "samples.jsonl")]
  assert len(places) == len(set(places)) == 3 * 48

  # What is there is not drawn again for more of each problem.
  profile_prompts(config_of(""), str(broken), samples=4)
  assert "48 samples to draw, 144 are there" in capsys.readouterr().out
  with pytest.raises(UserError, match=r"seed was 0, now 1.*choose another --out"):
    profile_prompts(config_of("", seed=1), str(broken), samples=3)


@pytest.mark.parametrize(("out", "samples"), [("", 8), ("profile", 8), ("profile.json", 0)])
def test_flags_that_cannot_be_meant_are_refused(out, samples):
  with pytest.raises(UserError, match=f"--out={out} --samples={samples}"):
    profile_prompts(config_of(""), out, samples)


def test_a_run_without_its_profile_says_how_to_make_one(tmp_path):
  with pytest.raises(UserError, match=r"`python -m grpo_jax\.profile_prompts"):
    train(config_of(""), str(tmp_path / "run"))
