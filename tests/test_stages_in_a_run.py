"""Two stages inside whole runs: sums, then programs judged by running them."""

import numpy as np
import pytest

from configs import math_then_code
from grpo_jax.errors import UserError
from grpo_jax.run.metrics import read_metrics
from grpo_jax.task import ProblemSpec, join, load_prompts, open_tokenizer
from grpo_jax.train import train
from grpo_jax.verify import jailer
from tests.test_train import own_cache, tiny, untimed, weights  # noqa: F401  (a fixture)


def config_of(steps: int = 4, **changes):
  config = math_then_code.get_config(f"steps={steps},shrunk=true")
  config.stages.switch, config.stages.step = "step", 2
  config.eval.every = 2
  config.log.tensorboard = False
  config.update_from_flattened_dict(changes)
  return config


def test_programs_join_and_are_rewarded_and_a_run_cut_before_goes_on_bit_for_bit(tmp_path):
  """Cut at the step that opens the second stage."""
  straight, broken = tmp_path / "straight", tmp_path / "broken"
  train(config_of(), str(straight))
  train(config_of(steps=2), str(broken))
  train(config_of(), str(broken))
  assert untimed(broken) == untimed(straight)
  for name, value in weights(straight).items():
    np.testing.assert_array_equal(weights(broken)[name], value, err_msg=name)
  rows = read_metrics(straight / "metrics.jsonl")[1:]
  assert [row["rollout/stage_problems"] for row in rows] == [48, 48, 96, 96]
  assert all(row["reward/unscored"] == 0 for row in rows)
  exams = [row for row in rows if "eval/accuracy" in row]
  assert [row["step"] for row in exams] == [2, 4]
  assert all(row["eval_more/unscored"] == 0 for row in exams), "held-out programs are run too"
  assert all(0 <= row["eval_more/accuracy"] <= 1 for row in exams)
  second = "".join((straight / "rollouts" / f"step_{n:06d}.txt").read_text() for n in (3, 4))
  assert "1 of 1 tests passed" in second
  first = (straight / "rollouts" / "step_000002.txt").read_text()
  assert "tests passed" not in first


def test_programs_are_refused_where_nothing_keeps_them_apart(tmp_path, monkeypatch):
  monkeypatch.setattr("grpo_jax.verify.programs.probe", lambda: jailer.Isolation(False, "no walls"))
  with pytest.raises(UserError, match=r"no walls.*config.verifier.unisolated_programs=True"):
    train(config_of(), str(tmp_path / "run"))


def test_joined_sets_keep_their_order_and_their_templates():
  tokenizer = open_tokenizer("ascii", "")
  one, two = (
    load_prompts(
      ProblemSpec(source, limit=5, levels=(1,)), tokenizer, template="plain", max_tokens=10, seed=0
    )
    for source in ("arithmetic", "arithmetic_programs")
  )
  both = join([one, two])
  assert (both.sizes, both.problems.name) == ((5, 5), "arithmetic+arithmetic_programs")
  for prompt in both.prompts:
    assert tokenizer.decode(prompt.tokens) == both.problems[prompt.problem].question


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    ({"reward.format": -0.1}, "config.reward.format is -0.1; it is taken off: 0 or above"),
    ({"reward.language_mix": -1.0}, "config.reward.language_mix is -1.0"),
    ({"advantage.zero_truncated": True, "keep_truncated": False}, "set one of them"),
    ({"advantage.scale": "beta", "reward.format": 0.1}, "set reward.format to 0"),
    ({"stages.switch": "step"}, "needs config.more.source"),
  ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, changes, named):
  with pytest.raises(UserError, match=named):
    train(tiny(**changes), str(tmp_path / "run"))
