"""Real golds and graded answers: what other verifiers measured on them stands in their README."""

import importlib.util
import json
import os
import subprocess
import sys
import time

import pytest

from grpo_jax.verify import VerifierPool, verify
from grpo_jax.verify.normalise import gold_alternatives

BOXED_GOLDS = ["math/train", "math500/test", "aime24/test", "aime/train", "amc23/test",
               "minerva/test", "olympiadbench/test"]  # fmt: skip


def rows(path) -> list[dict]:
  return [json.loads(line) for line in path.open(encoding="utf-8")]


@pytest.mark.parametrize("name", BOXED_GOLDS)
def test_every_published_gold_answer_is_its_own_answer(shared, name):
  golds = [str(row["answer"]) for row in rows(shared / "data" / f"{name}.jsonl")]
  for gold in filter(str.strip, golds):
    assert verify(rf"\boxed{{{gold_alternatives(gold)[0]}}}", gold), gold


def test_every_gsm8k_solution_answers_itself(shared):
  for row in rows(shared / "data" / "gsm8k" / "test.jsonl"):
    assert verify(row["answer"], row["answer"].rpartition("####")[2]), row["answer"]


def test_graded_answers(shared):
  """At most 5 % of right answers refused, no wrong one accepted."""
  cases = [row for row in rows(shared / "verifier" / "cases_dev.jsonl") if not row["soft"]]
  verdicts = {row["id"]: bool(verify(row["completion"], row["gold"])) for row in cases}
  refused = [row["id"] for row in cases if row["expect"] and not verdicts[row["id"]]]
  accepted = [row["id"] for row in cases if not row["expect"] and verdicts[row["id"]]]
  assert not accepted
  assert len(refused) <= 0.05 * sum(row["expect"] for row in cases), refused


def test_attacks(shared, tmp_path):
  """None accepted, executed, or slower than two seconds."""
  grade = _load(shared / "verifier" / "grade.py")
  for attack in rows(shared / "verifier" / "adversarial_dev.jsonl"):
    canary = tmp_path / attack["id"]
    completion, gold = (grade.realize(attack[key], str(canary)) for key in ("completion", "gold"))
    start = time.perf_counter()
    verdict = verify(completion, gold)
    assert time.perf_counter() - start < 2, attack
    assert not canary.exists(), attack
    assert attack["expect"] != "false" or not verdict, attack


def _load(path):
  spec = importlib.util.spec_from_file_location("grade", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.mark.slow
@pytest.mark.parametrize("thread", [[], ["--thread"]])
def test_the_published_grader_agrees(shared, tmp_path, thread):
  """In its own killable processes, on the main and on another thread, with memory measured."""
  report = tmp_path / "report.json"
  command = [sys.executable, shared / "verifier" / "grade.py", "grpo_jax.verify:verify"]
  subprocess.run([*command, "--path", os.getcwd(), "--json", report, *thread], check=True)
  result = json.loads(report.read_text())
  hard = result["cases"]["tab"]["TOTAL"]
  assert hard["FN"] <= 0.05 * hard["T"]
  assert hard["FP"] == hard["bad"] == 0
  assert result["cases"]["p99"] < 0.05
  assert result["adversarial"]["fails"] == []


@pytest.mark.slow
def test_a_step_of_ordinary_completions_is_graded_in_two_seconds(shared):
  golds = [row["answer"] for row in rows(shared / "data" / "math" / "train.jsonl")][:4096]
  thought = "We have $x^2 + 1$ and so \\frac{1}{2} of it. " * 100
  completions = [rf"{thought}The answer is $\boxed{{{gold}}}$." for gold in golds]
  with VerifierPool(workers=2) as pool:
    pool.verify_all(completions[:64], golds[:64])
    start = time.perf_counter()
    verdicts = pool.verify_all(completions, golds)
    seconds = time.perf_counter() - start
  assert sum(map(bool, verdicts)) >= 4090  # a few golds are empty
  assert seconds < 2
