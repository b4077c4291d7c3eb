"""What a person reads of one result and of two."""

import json

import pytest

from grpo_jax.errors import UserError
from grpo_jax.evaluation.report import comparison, open_result, summary_table
from grpo_jax.evaluation.samples import JudgedSample, SampleLog
from grpo_jax.evaluation.scores import describe, tally

SETTINGS = {
  "benchmark": "jsonl",
  "problems": {"count": 2, "fingerprint": "f" * 64},
  "template": "plain",
  "decoding": {
    "samples": 2, "temperature": 0.6, "top_p": 0.95, "top_k": 0, "max_new_tokens": 1000,
  },
  "seed": 0,
}  # fmt: skip


def result(folder, verdicts: str, length: int, **settings):
  """A finished result folder; `verdicts` is 1 for right, problem by problem."""
  folder.mkdir()
  samples = [
    JudgedSample(i // 2, i % 2, "", length, "stop", "right" if v == "1" else "wrong", "", "1", "1")
    for i, v in enumerate(verdicts)
  ]
  with SampleLog(folder / "samples.jsonl") as log:
    for sample in samples:
      log.write(sample)
  metrics = describe(tally(samples, range(2), 2)) if len(samples) == 4 else {}
  summary = {"metrics": metrics, "settings": SETTINGS | settings}
  (folder / "summary.json").write_text(json.dumps(summary))
  return open_result(folder)


def test_the_second_is_held_against_the_first(tmp_path):
  first, second = result(tmp_path / "a", "1000", 200), result(tmp_path / "b", "1110", 100)
  text = comparison(first, second)
  assert "B - A: +50.0 points, 95 % interval +50.0 to +50.0, not better in 0.0%" in text
  assert "AES of B against A: +6.500 (O1-Pruner; alpha 1, beta 3, gamma 5)" in text
  assert "NOT THE SAME" not in text
  backwards = comparison(second, first)
  assert "B - A: -50.0 points" in backwards
  assert f"AES of B against A: {-1 - 5 * 2 / 3:+.3f}" in backwards


def test_a_reference_that_is_never_right_is_said(tmp_path):
  first, second = result(tmp_path / "a", "0000", 200), result(tmp_path / "b", "1110", 100)
  assert "AES of B against A: +nan" in comparison(first, second)
  assert "the reference is never right" in comparison(first, second)


def test_another_way_to_ask_is_said(tmp_path):
  first = result(tmp_path / "a", "1000", 200)
  second = result(tmp_path / "b", "1110", 100, template="qwen_math")
  assert "NOT THE SAME: template is plain in A, qwen_math in B" in comparison(first, second)


def test_other_problems_and_unfinished_results_are_refused(tmp_path):
  first = result(tmp_path / "a", "1000", 200)
  other = result(tmp_path / "b", "1110", 100, problems={"count": 2, "fingerprint": "e" * 64})
  with pytest.raises(UserError, match="are on other problems"):
    comparison(first, other)
  short = result(tmp_path / "c", "111", 100)
  with pytest.raises(UserError, match="1 of 4 samples are missing; run the evaluation again"):
    comparison(first, short)
  (tmp_path / "d").mkdir()
  with pytest.raises(UserError, match=r"it has no summary\.json"):
    open_result(tmp_path / "d")
  for content in ("{}", "[]", "{", '"text"'):
    (tmp_path / "d" / "summary.json").write_text(content)
    with pytest.raises(UserError, match="not the summary of an evaluation"):
      open_result(tmp_path / "d")


def test_the_table_says_how_it_was_asked_and_every_number(tmp_path):
  done = result(tmp_path / "a", "1100", 1234)
  text = summary_table(done.metrics | {"length_wrong": None}, done.settings)
  assert "2 problems x 2 samples, template plain, temperature 0.6, top_p 0.95" in text
  for line in ("avg@2         50.0%", "pass@2        50.0%", "maj@2         50.0%", "1,234 tokens",
               "wrong ones -"):  # fmt: skip
    assert line in text
