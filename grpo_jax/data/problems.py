"""What is a problem, and is this still the set the run began with?

A `ProblemSet` is an ordered, immutable list: everything downstream (ledger, prompts, replay) names
a problem by its index in it. The fingerprint pins both content and order, so that a resumed run can
be refused when the indices would mean something else.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Problem:
  """One question, and what its answers are judged by.

  Attributes:
    question: what is asked, without any prompt around it.
    answer: what the judge compares with. For "answer" the right final answer: a number or LaTeX,
      without `\\boxed` or `####`.
    solution: a worked solution that ends in the answer, where the set has one.
    level: difficulty as the set names it ("5" for the fifth level).
    source: name of the set it came from.
    judge: by name; the judges are `verify.judges`.
    weight: the advantages of its rollouts are multiplied by it.
  """

  question: str
  answer: str
  solution: str | None = None
  level: str | None = None
  source: str = ""
  judge: str = "answer"
  weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class ProblemSet:
  """Problems in a fixed order, under the name that metrics carry (such as "math500")."""

  name: str
  problems: tuple[Problem, ...]

  def __len__(self) -> int:
    return len(self.problems)

  def __getitem__(self, index: int) -> Problem:
    return self.problems[index]

  def __iter__(self) -> Iterator[Problem]:
    return iter(self.problems)

  @functools.cached_property
  def fingerprint(self) -> str:
    """sha256 (hex) over the problems in order; without names, so that a file may be moved."""
    digest = hashlib.sha256()
    for problem in self.problems:
      fields = [problem.question, problem.answer, problem.solution, problem.level]
      if (problem.judge, problem.weight) != (Problem.judge, Problem.weight):
        fields += [problem.judge, problem.weight]
      digest.update(json.dumps(fields).encode() + b"\n")
    return digest.hexdigest()
