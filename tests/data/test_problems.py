"""The fingerprint refuses a resumed run when a problem's index would mean something else."""

import dataclasses

import pytest

from grpo_jax.data.problems import Problem, ProblemSet

FIRST = Problem("1+1?", "2", solution="one and one", level="1", source="here")
SECOND = Problem("2+2?", "4")


def fingerprint(*problems: Problem) -> str:
  return ProblemSet("set", problems).fingerprint


def test_fingerprint_does_not_change_between_versions():
  # Runs saved before a change of this value can no longer be resumed: change it only knowingly.
  expected = "5215bf18d7d5"
  assert fingerprint(FIRST, SECOND)[:12] == expected


def test_fingerprint_notices_order():
  assert fingerprint(FIRST, SECOND) != fingerprint(SECOND, FIRST)


@pytest.mark.parametrize("field", ["question", "answer", "solution", "level", "judge", "weight"])
def test_fingerprint_notices_every_field_of_content(field):
  changed = dataclasses.replace(FIRST, **{field: "other"})
  assert fingerprint(changed, SECOND) != fingerprint(FIRST, SECOND)


def test_fingerprint_ignores_where_the_set_came_from():
  moved = dataclasses.replace(FIRST, source="elsewhere")
  assert ProblemSet("other", (moved,)).fingerprint == fingerprint(FIRST)


def test_fields_cannot_run_into_each_other():
  assert fingerprint(Problem("a", "bc")) != fingerprint(Problem("ab", "c"))
  assert fingerprint(Problem("a", "b", None)) != fingerprint(Problem("a", "b", "None"))


def test_a_set_is_a_sequence():
  problems = ProblemSet("set", (FIRST, SECOND))
  assert len(problems) == 2
  assert problems[1] is SECOND
  assert list(problems) == [FIRST, SECOND]
