"""Worked solutions as problems whose answer is the next step (SRL, arXiv 2510.25992).

A solution of N steps gives N - 1 problems: problem k shows the question and the steps before step
k, and asks for step k. The last step, the final answer, is never asked for: so we read what is
public of the paper. Its steps are the numbered ones of a teacher; ours are lines, and sentences
where a line has several. The model thinks first; what is judged is what it writes after `</think>`.
"""

import dataclasses

from grpo_jax.data.problems import Problem, ProblemSet
from grpo_jax.data.sentences import sentences
from grpo_jax.errors import UserError

_ASK = (
  "Write the next step of the solution. Think about it first, between <think> and </think>; then "
  "write that step alone."
)


def step_problems(problems: ProblemSet) -> ProblemSet:
  """The next steps of all worked solutions, in order; problems without two steps give none.

  Raises:
    UserError: no problem has a solution of two steps.
  """
  asked = tuple(step for problem in problems for step in _steps(problem))
  if not asked:
    raise UserError(
      f"{problems.name}: no problem has a worked solution of two lines or sentences, so there is "
      "no next step to ask for"
    )
  return ProblemSet(f"{problems.name}_steps", asked)


def _steps(problem: Problem) -> list[Problem]:
  steps = sentences(problem.solution or "")
  return [
    dataclasses.replace(
      problem,
      question=_question(problem.question, steps[:k]),
      answer=step,
      solution=f"<think>\n\n</think>\n\n{step}",  # the form, after an empty thought
      judge="step",
    )
    for k, step in enumerate(steps[:-1])
  ]


def _question(question: str, before: list[str]) -> str:
  so_far = "\n".join(before) or "(nothing yet)"
  return f"Problem: {question}\n\nThe solution so far:\n{so_far}\n\n{_ASK}"
