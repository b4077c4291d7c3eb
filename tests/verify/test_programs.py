"""Programs judged by what they print, and many of them side by side."""

import time

import pytest

from grpo_jax.errors import UserError
from grpo_jax.verify import Outcome, jailer
from grpo_jax.verify.jailer import UNISOLATED, Isolation, probe
from grpo_jax.verify.programs import (
  ProgramJudge,
  ProgramTests,
  extract_program,
  judge_program,
  same_output,
)
from tests.verify.judging import ECHO, LIMITS, judge

RIGHT, WRONG = Outcome.RIGHT, Outcome.WRONG
DOUBLE = ProgramTests(pairs=(("4\n", "8\n"), ("-1\n", "-2\n"), ("0", "0")))


@pytest.mark.parametrize(
  "program, outcome, reason",
  [
    ("print(int(input()) * 2)", RIGHT, "3 of 3 tests passed"),
    ("import sys\nprint(2 * int(sys.stdin.read()), '  \\n\\n')\nexit()", RIGHT, "3 of 3"),
    ("if __name__ == '__main__': print(int(open(0).read()) * 2)", RIGHT, "3 of 3"),
    ("print(abs(int(input())) * 2)", WRONG, "2 of 3 tests passed; test 2: wrong output: line 1 is "
     "'2', not '-2'"),
    ("print(8)", WRONG, "1 of 3 tests passed; test 2"),
    ("print(int(input()) * 2, 'is the answer')", WRONG, "0 of 3"),
    ("pass", WRONG, "line 1 is '', not '8'"),
    ("print(int(input()) * 2); raise KeyError('lost')", WRONG, "crashed: KeyError: 'lost'"),
    ("print(int(input()) * 2); exit(3)", WRONG, "crashed: exit status 3"),
    ("import os; os.abort()", WRONG, "ended by SIGABRT"),
    ("print(1", WRONG, "SyntaxError"),
    ("import numpy", WRONG, "ModuleNotFoundError"),  # the standard library only
    ("import grpo_jax", WRONG, "ModuleNotFoundError"),
    ("a\0b", WRONG, "null bytes"),
    ("'\ud800'", WRONG, "SyntaxError"),
    ("x = " + "(" * 30_000, WRONG, "SyntaxError: too many nested"),
    ("#" * 200_000, WRONG, "more than 100000 characters"),
  ],
)  # fmt: skip
def test_what_a_program_prints(program, outcome, reason):
  verdict = judge(program, DOUBLE, probe() if probe().isolated else UNISOLATED)
  assert (verdict.outcome, reason in verdict.reason) == (outcome, True), verdict


def test_both_ways_of_running_give_the_same_verdict(isolation):
  assert judge("print(int(input()) * 2)", DOUBLE, isolation).outcome is RIGHT
  assert judge("print(int(input()) + 4)", DOUBLE, isolation).outcome is WRONG
  tests = ProgramTests(code="assert f(2) == 4")
  assert judge("def f(x): return 2 * x", tests, isolation).outcome is RIGHT
  assert judge("def f(x): return 3 * x", tests, isolation).outcome is WRONG


def test_no_program_is_unparseable():
  assert judge_program(None, ECHO, LIMITS, UNISOLATED).outcome is Outcome.UNPARSEABLE


@pytest.mark.parametrize(
  "printed, expected, tolerance, same",
  [
    ("1 2 \n3\n\n", "1 2\n3", None, True),
    ("1\r\n2\r\n", "1\n2\n", None, True),
    (" 1", "1", None, False),
    ("1  2", "1 2", None, False),
    ("1\n\n2", "1\n2", None, False),
    ("0.5000001", "0.5", None, False),
    ("0.5000001", "0.5", 1e-6, True),
    ("0.51", "0.5", 1e-6, False),
    ("x 1e9", "x 1000000000.1", 1e-6, True),
    ("nan", "1", 1e-6, False),
    ("inf", "1e308", 1e-6, False),
    ("1 2", "1", 1e-6, False),
    ("yes", "no", 1e-6, False),
  ],
)
def test_what_counts_as_the_same_output(printed, expected, tolerance, same):
  assert same_output(printed, expected, tolerance) is same


@pytest.mark.parametrize(
  "completion, program",
  [
    ("```python\na\n```\nand\n```py\nb\n```\n```\n8\n```", "b\n"),
    ("```\na\n```", "a\n"),
    ("```cpp\na\n```", "a\n"),
    ("<think>```python\na\n```</think> so\n```python\nb\n```", "b\n"),
    ("<think>\n```python\na\n```\n</think> so a", "a\n"),
    ("1. so\n   ```python\n   if a:\n     b\n   ```", "if a:\n  b\n"),
    ("```python\r\na\r\n```\r\n", "a\r\n"),
    ("````python\n```\na\n```\n````", "```\na\n```\n"),
    ("```python\na\n```\n```python\nnever closed", "a\n"),
    ("```python\nnever closed", None),
    ("`a` and ```b```", None),
    ("", None),
  ],
)
def test_the_last_closed_block_is_the_program(completion, program):
  assert extract_program(completion) == program


@pytest.mark.parametrize("fence", ["```python\n", "```\n", "`" * 50, "```python a ", "```x```\n"])
def test_many_fences_are_read_in_linear_time(fence):
  start = time.perf_counter()
  extract_program(fence * 100_000)
  assert time.perf_counter() - start < 3


@pytest.mark.parametrize("fields", [{}, {"pairs": (("", ""),), "code": "f()"}, {"code": " "}])
def test_tests_are_either_pairs_or_code(fields):
  with pytest.raises(UserError, match="either"):
    ProgramTests(**fields)


# ------------------------------------------------------------------------------ the judge of many

def test_programs_are_judged_side_by_side_and_each_gets_its_own_verdict(isolation):
  completions = [f"```python\nprint({n})\n```" for n in range(12)] + ["no program"]
  completions[5] = "```python\nimport os; os._exit(9)\n```"
  tests = [ProgramTests(pairs=(("", str(n)),)) for n in range(13)]
  with ProgramJudge(3, LIMITS, allow_unisolated=True, isolation=isolation) as judge_all:
    futures = list(map(judge_all.submit, completions, tests))
    outcomes = [future.result(timeout=60).outcome.value for future in futures]
  assert outcomes == ["right"] * 5 + ["wrong"] + ["right"] * 6 + ["unparseable"]


def test_where_nothing_isolates_programs_do_not_run_unless_allowed():
  nothing = Isolation(False, "unshare: Operation not permitted")
  with pytest.raises(UserError, match=r"unshare.*allow_unisolated=True"):
    ProgramJudge(1, LIMITS, isolation=nothing)
  ProgramJudge(1, LIMITS, allow_unisolated=True, isolation=nothing).close()


def test_a_judge_that_cannot_start_says_nothing_about_the_program(isolation, monkeypatch, tmp_path):
  monkeypatch.setattr(jailer, "_FOLDER", tmp_path / "jail")
  verdict = judge("print('ok')", ECHO, isolation)
  assert verdict.outcome is Outcome.UNSCORED and "could not start" in verdict.reason
