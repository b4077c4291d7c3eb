"""The answer that earns the reward is the one the set's authors meant."""

import json

import pytest

from grpo_jax.data.formats import (
  gsm8k_problem,
  last_boxed,
  math_problem,
  minerva_problem,
  olympiadbench_problem,
  program_problem,
)
from grpo_jax.data.problems import Problem
from grpo_jax.data.rows import Row
from grpo_jax.errors import UserError


def row(**fields) -> Row:
  return Row(fields, "set.jsonl, line 3")


def math_row(**fields) -> Row:
  return row(problem="Why?", **fields)


@pytest.mark.parametrize(
  ("published", "answer"),
  [
    ("He has 2.\n#### 2", "2"),
    ("#### 109,200,000", "109200000"),
    ("#### -5 ", "-5"),
    ("#### 0.25", "0.25"),
    ("First #### 1, then\n#### 2", "2"),
  ],
)
def test_gsm8k_answers_stand_behind_the_last_mark(published, answer):
  assert gsm8k_problem(row(question="?", answer=published)).answer == answer


def test_gsm8k_solutions_lose_calculator_notes_only():
  published = "She sold 48/2 = <<48/2=24>>24 clips for $<<24*2=48>>48.\n#### 48"
  problem = gsm8k_problem(row(question="How much?", answer=published))
  assert problem == Problem("How much?", "48", "She sold 48/2 = 24 clips for $48.\n#### 48")


@pytest.mark.parametrize("published", ["18", "#### ", "#### eighteen", "#### 18 dollars"])
def test_gsm8k_rows_without_a_final_number_are_refused(published):
  with pytest.raises(UserError, match=r"set\.jsonl, line 3: 'answer' must end in '#### '"):
    gsm8k_problem(row(question="?", answer=published))


@pytest.mark.parametrize(
  ("fields", "answer"),
  [
    ({"answer": "\\frac{1}{2}"}, "\\frac{1}{2}"),
    ({"answer": "  96\n"}, "96"),
    ({"answer": 204}, "204"),
    ({"answer": 142.0}, "142"),  # AMC, after a detour through pandas
    ({"answer": 0.5}, "0.5"),
    ({"answer": "025"}, "025"),
    ({"answer": ""}, ""),  # two problems of MATH lost theirs
    ({"answer": "['15000\\n', '1.5e4']"}, "15000"),  # Minerva: a printed list of writings
    ({"answer": "['\\\\frac{a M^{1/3}}{b}\\n']"}, "\\frac{a M^{1/3}}{b}"),
    ({"answer": '["x\' + r = 0", "x\' - -r = 0\\n"]'}, "x' + r = 0"),
    ({"answer": "[1, 2]"}, "[1, 2]"),  # an interval is no printed list
    ({"answer": "7", "solution": "so \\boxed{8}"}, "7"),
    ({"solution": "first \\boxed{1}, so \\boxed{\\frac{1}{2}}."}, "\\frac{1}{2}"),
    ({"answer": None, "solution": "\\boxed{3}"}, "3"),
  ],
)
def test_math_answers(fields, answer):
  assert math_problem(math_row(**fields)).answer == answer


@pytest.mark.parametrize(
  ("text", "boxed"),
  [
    ("\\boxed{a{b}c} d}", "a{b}c"),
    ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
    ("\\boxed{\\left\\{x\\right.}", "\\left\\{x\\right."),
    ("\\boxed {5}", "5"),
    ("$\\boxed 5$ apples", "5"),
    ("\\fbox{5}", "5"),
    ("\\boxed{1} and \\fbox{2}", "2"),
    ("\\boxed{}", ""),
    ("\\boxed{1} \\boxed{2", None),
    ("no box", None),
    ("", None),
  ],
)
def test_last_boxed(text, boxed):
  assert last_boxed(text) == boxed


@pytest.mark.parametrize("field", ["problem", "question", "prompt"])
def test_questions_have_three_names(field):
  assert math_problem(row(**{field: "Why?", "answer": "1"})).question == "Why?"


@pytest.mark.parametrize(
  ("level", "read"),
  [("Level 5", "5"), (5, "5"), (5.0, "5"), ("Level ?", "?"), ("hard", "hard"), (None, None)],
)
def test_copies_of_one_set_agree_on_levels(level, read):
  assert math_problem(math_row(answer="1", level=level)).level == read


def test_named_fields_replace_the_usual_ones():
  published = row(problem="not this", task="Why?", answer="no", label=7)
  problem = math_problem(published, question_field="task", answer_field="label")
  assert (problem.question, problem.answer) == ("Why?", "7")


@pytest.mark.parametrize(
  ("fields", "complaint"),
  [
    ({"answer": "1"}, "no field 'problem' or 'question' or 'prompt'; the fields are 'answer'"),
    ({"problem": "?"}, "no field 'answer' or 'solution'; the fields are 'problem'"),
    ({"problem": "?", "solution": "so it is 5"}, "'solution' has no closed \\boxed"),
    ({"problem": "?", "solution": "\\boxed{5"}, "'solution' has no closed \\boxed"),
    ({"problem": "  ", "answer": "1"}, "'problem' must be text, not '  '"),
    ({"prompt": [{"role": "user"}], "answer": "1"}, "'prompt' must be text, not [{'role'"),
    ({"problem": "?", "answer": True}, "'answer' must be text or a number, not True"),
    ({"problem": "?", "answer": ["1"]}, "'answer' must be text or a number, not ['1']"),
    ({"problem": "?", "answer": float("inf")}, "'answer' is inf"),
    ({"problem": "?", "answer": "so\n#### 5"}, "read this set as source 'gsm8k'"),
    ({"problem": "?", "answer": "1", "solution": 5}, "'solution' must be text, not 5"),
    ({"problem": "?", "answer": "1", "level": []}, "'level' must be text or a number"),
    ({"problem": "\ud800", "answer": "1"}, "'problem' is not valid Unicode"),
  ],
)
def test_a_wrong_row_is_named_with_what_it_should_have(fields, complaint):
  with pytest.raises(UserError) as refused:
    math_problem(row(**fields))
  assert str(refused.value).startswith("set.jsonl, line 3: ")
  assert complaint in str(refused.value)


def test_a_named_field_that_is_missing_is_named():
  with pytest.raises(UserError, match="no field 'label'; the fields are 'problem', 'answer'"):
    math_problem(math_row(answer="1"), answer_field="label")


@pytest.mark.parametrize(
  ("published", "answer"),
  [
    ("['9.6\\n']", "9.6"),
    ("['8.7 \\\\times 10^{8}']", "8.7 \\times 10^{8}"),
    ("['0.01\\n', '0.02\\n']", "['0.01\\n', '0.02\\n']"),
    ("16", "16"),
  ],
)
def test_minerva_keeps_every_way_to_write_an_answer(published, answer):
  assert minerva_problem(math_row(answer=published)).answer == answer


@pytest.mark.parametrize(
  ("fields", "answer"),
  [
    ({"final_answer": ["$69$", "$84$"]}, "$69$, $84$"),
    ({"final_answer": ["2"], "answer": "not this"}, "2"),
    ({"answer": "1,3,5", "error": None}, "1,3,5"),
    ({"answer": "4.2", "error": "1e-1"}, "4.2 within 1e-1"),
    ({"answer": "4.2", "error": "", "solution": ["a list"]}, "4.2"),
  ],
)
def test_all_answers_of_olympiadbench_count(fields, answer):
  assert olympiadbench_problem(math_row(**fields)).answer == answer


@pytest.mark.parametrize("error", ["1e-1,1e-2", "small", "-1", "0x1"])
def test_an_unreadable_tolerance_is_named(error):
  with pytest.raises(UserError, match=r"line 3: 'error' must be one positive number"):
    olympiadbench_problem(math_row(answer="1", error=error))


def program_row(**fields):
  return row(question="Double n.", **fields)


def test_a_program_is_judged_by_outputs_or_by_code():
  tests = [{"input": "4\n", "output": "8"}, {"input": "", "output": ""}]
  printed = program_problem(program_row(tests=tests, tolerance=1e-6, solution="so", level=3))
  assert json.loads(printed.answer) == {"pairs": [["4\n", "8"], ["", ""]], "tolerance": 1e-6}
  assert (printed.judge, printed.solution, printed.level) == ("program", "so", "3")
  assert printed.question.startswith("Double n.\n\n")
  assert "standard output" in printed.question
  called = program_problem(program_row(test_code="assert f(1) == 2", entry_point="f"))
  assert json.loads(called.answer) == {"code": "assert f(1) == 2", "entry_point": "f"}
  assert "standard output" not in called.question


@pytest.mark.parametrize(
  ("fields", "complaint"),
  [
    ({}, "expected either 'tests' or 'test_code'"),
    ({"tests": [{"input": "", "output": ""}], "test_code": "assert f"}, "expected either"),
    ({"tests": []}, "'tests' must be a list of {\"input\": text, \"output\": text}, not []"),
    ({"tests": [{"input": ""}]}, "'tests' must be a list"),
    ({"tests": [["1", "2"]]}, "'tests' must be a list"),
    ({"tests": [{"input": 1, "output": "2"}]}, "test 1: 'input' must be text, not 1"),
    ({"tests": [{"input": "", "output": "\ud800"}]}, "test 1: 'output' is not valid Unicode"),
    ({"tests": [{"input": "", "output": ""}], "tolerance": "1"}, "'tolerance' must be a number"),
  ],
)
def test_wrong_tests_are_named(fields, complaint):
  with pytest.raises(UserError) as refused:
    program_problem(program_row(**fields))
  assert str(refused.value).startswith("set.jsonl, line 3")
  assert complaint in str(refused.value)
