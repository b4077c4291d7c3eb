"""Next steps and next pieces of text inside whole runs, over made-up files."""

import json

import numpy as np
import pytest

from configs import methods, next_segment, quickstart
from grpo_jax.check import check
from grpo_jax.errors import UserError
from grpo_jax.run.metrics import read_metrics
from grpo_jax.train import train
from tests.test_train import own_cache, tiny, untimed, weights  # noqa: F401  (a fixture)

NUMBERS = ("one", "two", "three", "four", "five", "six")
TEXT = " ".join(f"We count to {number} today." for number in NUMBERS)


def written(path, *rows) -> str:
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


def of_steps(tmp_path, **changes):
  """Next steps of sums written in three lines, after a warm start on the form."""
  config = tiny(steps=4)
  methods.apply(config, "srl")
  solved = [
    {"question": f"{a}+{b}", "answer": str(a + b), "solution": f"{a}\n+{b}\n={a + b}"}
    for a in range(4) for b in range(4)
  ]  # fmt: skip
  config.tokenizer, config.data.template, config.eval.template = "ascii", "plain", "plain"
  config.warm_start.update(steps=60, mistakes=0.0)
  config.data.source = config.eval.source = "jsonl"
  config.data.path = config.eval.path = written(tmp_path / "solved.jsonl", *solved)
  config.data.limit, config.eval.limit, config.data.max_prompt_tokens = 0, 8, 200
  config.optimizer.microbatch_tokens = 512
  config.update_from_flattened_dict(changes)
  return config


@pytest.mark.slow
def test_next_steps_are_graded_and_a_run_cut_in_between_goes_on_bit_for_bit(tmp_path):
  straight, broken = tmp_path / "straight", tmp_path / "broken"
  train(of_steps(tmp_path), str(straight))
  train(of_steps(tmp_path, steps=3), str(broken))
  train(of_steps(tmp_path), str(broken))
  assert untimed(broken) == untimed(straight)
  for name, value in weights(straight).items():
    np.testing.assert_array_equal(weights(broken)[name], value, err_msg=name)
  rows = read_metrics(straight / "metrics.jsonl")[1:]
  assert all(row["reward/unscored"] == 0 for row in rows)
  assert all(-1 <= row["reward/mean"] <= 1 for row in rows)
  log = "".join(file.read_text() for file in sorted((straight / "rollouts").iterdir()))
  assert "similar by 0." in log, "some step is near the expert's and not it"
  assert "The solution so far:" in log


def of_text(tmp_path, **changes):
  config = next_segment.get_config("shrunk=true")
  config.data.path = config.eval.path = written(tmp_path / "texts.jsonl", {"text": TEXT})
  config.log.tensorboard = False
  config.warm_start.steps, config.warm_start.learning_rate = 80, 1e-2
  config.model.shape.update(hidden_size=32, intermediate_size=64, head_dim=16)
  config.rollout.max_new_tokens = 100
  config.data.template = "plain"
  config.update_from_flattened_dict(changes)
  return config


@pytest.mark.slow
def test_next_pieces_are_judged_and_the_middle_counts_half(tmp_path):
  train(of_text(tmp_path), str(tmp_path / "run"))
  rows = read_metrics(tmp_path / "run" / "metrics.jsonl")[1:]
  assert all(row["reward/unscored"] == 0 for row in rows)
  assert any(row["reward/unparseable"] < 1 for row in rows), "the form was demonstrated"


def test_a_judge_of_ones_own_is_asked_and_one_that_is_none_is_refused(tmp_path):
  own = of_text(tmp_path, **{"reward.segment_judge": "tests.verify.checks:long_enough"})
  own.steps, own.warm_start.steps = 1, 0
  train(own, str(tmp_path / "run"))
  log = "".join(file.read_text() for file in (tmp_path / "run" / "rollouts").iterdir())
  assert "by length" in log
  for name in ("tests.verify.checks:nobody", "no_such_module:judge"):
    config = of_text(tmp_path, **{"reward.segment_judge": name})
    with pytest.raises(UserError, match=f"segment_judge is '{name}', which gave no verdict"):
      train(config, str(tmp_path / "refused"))
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    ({"data.ask": "step"}, "config.data.ask is 'step'; known: answers, steps"),
    ({"eval_more.ask": "step"}, "config.eval_more.ask is 'step'; known: answers, steps"),
    ({"reward.segment_judge": "judge"}, "names a function as package.module:name"),
    ({"keep": "mixed_groups", "keep_spread": -1.0}, "config.keep_spread is -1.0"),
    ({"keep": "everything", "keep_spread": 0.1}, "and 0 for 'everything'"),
  ],
)
def test_what_cannot_be_meant_is_refused(changes, named):
  config = quickstart.get_config()
  config.update_from_flattened_dict(changes)
  with pytest.raises(UserError) as error:
    check(config)
  assert named in str(error.value)
