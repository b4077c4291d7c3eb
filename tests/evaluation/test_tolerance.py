"""Rounding is forgiven where a set says so, and nothing else is."""

import pathlib
import subprocess
import sys

import pytest

from grpo_jax.evaluation.tolerance import verify_minerva, verify_within
from grpo_jax.verify import Outcome, VerifierPool

SEVERAL = r"['15000 \\text{ kcal m}^{-2}\n', '15000\n']"


@pytest.mark.parametrize(
  ("answer", "gold", "right"),
  [
    ("0.56131", "0.5613", True),
    ("0.5614", "0.5613", False),
    (r"8.7004 \times 10^{8}", r"['8.7 \\times 10^{8}']", True),
    (r"8.7 \times 10^{9}", r"['8.7 \\times 10^{8}']", False),
    ("1.7321", r"\sqrt{3}", True),
    ("-1.7321", r"\sqrt{3}", False),
    ("0.00001", "0", False),  # a share of nothing is nothing
    ("15000.5", SEVERAL, True),
    (r"15000.5 \text{ m}", r"15000 \text{ cm}", False),
    (r"0.5\%", "0.5", False),
    ("1,2", "1.00001", False),
    ("x", "3", False),
    ("3", "x", False),
    ("e^{-2t}", "e^{-2t}", True),
  ],
)
def test_minerva(answer, gold, right):
  assert bool(verify_minerva(rf"\boxed{{{answer}}}", gold)) == right


@pytest.mark.parametrize(
  ("answer", "right"),
  [("4.2", True), (r"4.25\%", True), ("4.3", True), ("4.31", False), ("0.042", False),
   ("42", False), (r"4.2 \text{ to } 4.3", False)],
)  # fmt: skip
def test_within(answer, right):
  assert bool(verify_within(rf"\boxed{{{answer}}}", "4.2 within 1e-1")) == right
  assert not verify_within(rf"\boxed{{{answer}}}", "7")


def test_no_answer_stays_unparseable():
  for verify in (verify_minerva, verify_within):
    assert verify("4.2", "4.2 within 1e-1").outcome is Outcome.UNPARSEABLE


def test_a_pool_runs_it_without_jax():
  with VerifierPool(1, check="grpo_jax.evaluation.tolerance:verify_within") as pool:
    assert pool.submit(r"\boxed{4.29}", "4.2 within 1e-1").result()
  program = "import sys, grpo_jax.evaluation.tolerance; print('jax' in sys.modules)"
  root = pathlib.Path(__file__).resolve().parents[2]
  done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
  assert done.stdout.strip() == "False", done.stderr
