"""The tables of the verifier study count what they say they count."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import bench_verifier
from grpo_jax.errors import UserError
from grpo_jax.verify import Outcome, Verdict

ROOT = Path(__file__).resolve().parents[2]
RIGHT, WRONG = (Verdict(outcome, None, "") for outcome in (Outcome.RIGHT, Outcome.WRONG))
CASES = [
  {"id": "a", "category": "lists", "gold": "1|2", "completion": r"\boxed{1|2}", "expect": True,
   "soft": False},
  {"id": "b", "category": "lists", "gold": "2", "completion": "no box", "expect": False,
   "soft": False},
  {"id": "c", "category": "units", "gold": "3", "completion": r"\boxed{3}", "expect": True,
   "soft": True},
]  # fmt: skip
GRADED = {
  "ours": bench_verifier.Graded([RIGHT, WRONG, WRONG], np.array([0.001, 0.002, 0.001])),
  "math-verify": bench_verifier.Graded([WRONG, RIGHT, RIGHT], np.array([0.1, 0.2, 0.1])),
}


def cells(line: str) -> list[str]:
  return [cell.strip() for cell in line.strip("| ").split(" | ")]


def test_false_verdicts_by_category_with_debatable_ones_apart():
  lines = [cells(line) for line in bench_verifier.category_table(CASES, GRADED).splitlines()]
  assert lines[2:] == [
    ["lists", "2", "0", "0", "1", "1"],
    ["**all**", "2", "0", "0", "1", "1"],
    ["debatable ones", "1", "1", "0", "0", "0"],
  ]


def test_agreement_is_of_the_unambiguous_cases_and_speed_of_all():
  lines = [cells(line) for line in bench_verifier.speed_table(CASES, GRADED).splitlines()]
  assert lines[2][:4] == ["ours", "100.0%", "750", "1.00 ms"]
  assert lines[3][1] == "0.0%"


def test_every_disagreement_is_listed_on_one_line_of_its_own():
  lines = bench_verifier.disagreement_table(CASES, GRADED).splitlines()[2:]
  assert [cells(line)[0] for line in lines] == ["a", "b", "c"]
  assert r"`1\|2`" in lines[0]
  assert "`no box`" in lines[1]
  assert cells(lines[2])[1:] == ["units, debatable", "`3`", "`3`", "right", "wrong", "right"]


def test_attacks_are_counted_by_what_they_did():
  attacks = [{"id": name, "expect": expect} for name, expect in
             [("x", "false"), ("y", "any-but-fast"), ("z", "false")]]  # fmt: skip
  hung = Verdict(Outcome.UNSCORED, None, "the check took more than 10 s")
  graded = bench_verifier.Graded([RIGHT, RIGHT, hung], np.array([0.1, 3.0, 10.0]))
  outcome = bench_verifier._attacked(attacks, graded, [False, True, False])
  assert outcome == bench_verifier.Attacked(["x"], ["y"], ["z"], ["y", "z"], 10.0)


def test_a_folder_without_cases_is_one_clear_line(tmp_path):
  with pytest.raises(UserError, match=r"cases_dev\.jsonl: no such file; --cases names"):
    bench_verifier.grade_cases(tmp_path)


@pytest.mark.slow
def test_the_command_writes_the_page(shared, tmp_path):
  """On a tenth of the cases and attacks, with both verifiers really asked."""
  for name in ("cases_dev.jsonl", "adversarial_dev.jsonl"):
    lines = (shared / "verifier" / name).read_text().splitlines()[::10]
    (tmp_path / name).write_text("\n".join(lines))
    assert all(json.loads(line) for line in lines)
  (tmp_path / "grade.py").write_text((shared / "verifier" / "grade.py").read_text())
  out = tmp_path / "page.md"
  command = [sys.executable, "experiments/bench_verifier.py", f"--cases={tmp_path}", f"--out={out}"]
  subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env={"PYTHONPATH": str(ROOT)})
  page = out.read_text()
  assert "| math-verify |" in page
  assert "4,096 completions" in page
