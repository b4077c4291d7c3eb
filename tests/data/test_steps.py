"""Worked solutions as next steps: which are asked for, and what is shown."""

import pytest

from grpo_jax.data.problems import Problem, ProblemSet
from grpo_jax.data.sources import load_problems
from grpo_jax.data.steps import step_problems
from grpo_jax.errors import UserError

SOLVED = Problem("How many?", "7", "There are 3.\nThen 4 come. That is $3+4=7$.\n#### 7", level="2")


def test_a_solution_of_four_steps_asks_for_the_first_three():
  steps = step_problems(ProblemSet("set", (SOLVED, Problem("Unsolved?", "1"))))
  assert steps.name == "set_steps"
  assert [step.answer for step in steps] == ["There are 3.", "Then 4 come.", "That is $3+4=7$."]
  assert {(step.judge, step.level) for step in steps} == {("step", "2")}
  shown = [step.question.split("The solution so far:\n")[1] for step in steps]
  assert shown[0].startswith("(nothing yet)\n\n")
  assert shown[2].startswith("There are 3.\nThen 4 come.\n\n")
  assert all(step.question.startswith("Problem: How many?\n") for step in steps)
  assert not any("#### 7" in step.question for step in steps)


def test_a_demonstration_has_the_form_that_is_judged():
  from grpo_jax.verify.steps import verify_step

  for step in step_problems(ProblemSet("set", (SOLVED,))):
    assert verify_step(step.solution, step.answer)


def test_sets_without_steps_are_named():
  with pytest.raises(UserError, match="set: no problem has a worked solution of two"):
    step_problems(ProblemSet("set", (Problem("?", "1"), Problem("?", "2", "only one"))))


def test_gsm8k_gives_three_to_four_steps_a_problem(shared, tmp_path):
  folder = shared / "data" / "gsm8k"
  problems = load_problems("gsm8k", path=folder, split="test", cache_dir=tmp_path)
  steps = step_problems(problems)
  assert 3 < len(steps) / len(problems) < 4
  assert not any(step.answer.startswith("####") for step in steps)
