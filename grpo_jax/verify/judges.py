"""Which judge for which completion? A problem says by name how it is judged; one set may mix them.

A judge is a check: a function `module:name` from (completion, reference) to a Verdict, which runs
in worker processes that may hang, crash or be killed. Programs are judged by running them instead,
behind the walls of `jail`.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from grpo_jax.verify.pool import VerifierPool
from grpo_jax.verify.programs import ProgramJudge, ProgramTests
from grpo_jax.verify.verdict import Verdict

PROGRAM = "program"  # the reference is an object of the fields of ProgramTests
SEGMENT = "segment"  # the one judge that a config may name
CHECKS = {
  "answer": "grpo_jax.verify.verifier:verify",
  "step": "grpo_jax.verify.steps:verify_step",
  SEGMENT: "grpo_jax.verify.segments:same_words",
}


class Judges:
  """Judges completions, each as its problem asks; a context manager.

  Args:
    workers, deadline_s: of each pool; a pool starts with the first completion it has to judge.
    checks: `module:name` by the name of the judge.
    programs: judges programs, where there are any to judge; closed with the rest.
  """

  def __init__(
    self,
    workers: int = 2,
    deadline_s: float = 5.0,
    checks: Mapping[str, str] = CHECKS,
    programs: ProgramJudge | None = None,
  ):
    self._workers, self._deadline_s, self._checks = workers, deadline_s, checks
    self._programs = programs
    self._pools: dict[str, VerifierPool] = {}

  def __enter__(self) -> "Judges":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def submit_all(
    self, completions: Sequence[str], references: Sequence[str], judges: Sequence[str]
  ) -> "list[Future[Verdict]]":
    """Judges completions in the background; one future for each, in their order.

    Raises:
      ValueError: the sequences differ in length, or a judge is not known.
    """
    asked = list(zip(completions, references, judges, strict=True))
    futures: list[Future[Verdict] | None] = [None] * len(asked)
    for judge in dict.fromkeys(judges):
      rows = [row for row, (_, _, its) in enumerate(asked) if its == judge]
      submitted = self._submit(judge, *zip(*(asked[row][:2] for row in rows), strict=True))
      for row, future in zip(rows, submitted, strict=True):
        futures[row] = future
    return futures

  def close(self) -> None:
    """Ends all processes; what is not yet judged is UNSCORED."""
    for pool in self._pools.values():
      pool.close()
    if self._programs:
      self._programs.close()

  def _submit(self, judge: str, completions: Sequence[str], references: Sequence[str]) -> list:
    if judge == PROGRAM and self._programs:
      tests = map(ProgramTests.from_json, references)
      return list(map(self._programs.submit, completions, tests))
    if judge not in self._checks:
      raise ValueError(f"no judge {judge!r} here; known: {', '.join(self._checks)}")
    if judge not in self._pools:
      check = self._checks[judge]
      self._pools[judge] = VerifierPool(self._workers, self._deadline_s, check=check)
    return self._pools[judge].submit_all(completions, references)
