"""Completions of one batch, each judged as its problem asks."""

import json

import pytest

from grpo_jax.verify import Judges, Outcome
from grpo_jax.verify.jailer import Limits
from grpo_jax.verify.programs import ProgramJudge, ProgramTests

SQUARE = json.dumps({"pairs": [["3", "9"], ["-2", "4"]]})
PROGRAM = "```python\nprint(int(input()) ** 2)\n```"


@pytest.fixture(scope="module")
def judges():
  checks = {"answer": "grpo_jax.verify.verifier:verify", "odd": "tests.verify.checks:misbehave"}
  programs = ProgramJudge(2, Limits(), allow_unisolated=True)
  with Judges(1, deadline_s=1.0, checks=checks, programs=programs) as made:
    yield made


def test_every_completion_gets_its_own_judge_and_its_own_place(judges):
  asked = [
    (r"\boxed{1/2}", "0.5", "answer", Outcome.RIGHT),
    (PROGRAM, SQUARE, "program", Outcome.RIGHT),
    ("hang", "", "odd", Outcome.UNSCORED),
    (PROGRAM, "9", "answer", Outcome.UNPARSEABLE),
    ("as asked", "as asked", "odd", Outcome.RIGHT),
    (r"\boxed{9}", SQUARE, "program", Outcome.UNPARSEABLE),
    (PROGRAM.replace("2", "3"), SQUARE, "program", Outcome.WRONG),
    (r"\boxed{2}", "0.5", "answer", Outcome.WRONG),
  ]
  *columns, expected = zip(*asked, strict=True)
  assert [verdict.result().outcome for verdict in judges.submit_all(*columns)] == list(expected)


def test_a_grade_survives_the_way_back_from_a_worker(judges):
  verdict = judges.submit_all(["half"], [""], ["odd"])[0].result()
  assert (verdict.outcome, verdict.score, verdict.mark) == (Outcome.WRONG, 0.5, 0.5)


def test_nothing_to_judge_is_no_verdict(judges):
  assert judges.submit_all([], [], []) == []


def test_an_unknown_judge_and_programs_without_one_are_errors():
  with Judges(1) as plain:
    for judge in ("opinion", "program"):
      with pytest.raises(ValueError, match=f"no judge '{judge}' here; known: answer"):
        plain.submit_all(["x"], [SQUARE], [judge])


def test_tests_come_back_from_json():
  assert ProgramTests.from_json(SQUARE) == ProgramTests(pairs=(("3", "9"), ("-2", "4")))
  code = {"code": "assert f() == 1", "entry_point": None}
  assert ProgramTests.from_json(json.dumps(code)) == ProgramTests(code="assert f() == 1")
