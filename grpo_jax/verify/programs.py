"""Does a program pass its tests? The reward for code.

Programs that a model wrote run behind the walls of `jail`; what they print, or what their functions
return, is all that comes back. What this makes sure of, where the machine allows isolation:

* A verdict RIGHT needs the tests to pass in a process in which the program never ran. Leaving
  early, patching `builtins`, printing that all is well or answering with objects that are equal to
  everything gains nothing.
* A program reaches no network, no file and no process of the machine, and nothing of it is left.
* A program that breaks its judge is WRONG, not UNSCORED: there is nothing to be won by it.

What it cannot: memory is bounded for each process only (x `Limits.processes`); and a flaw in the
kernel is a way out. Without isolation, only the first and third hold, and not against a program
that seeks out its judge as the same user; and root may start any number of processes.
"""

import concurrent.futures
import dataclasses
import itertools
import json
import logging
import math
import re
import signal
import textwrap

from grpo_jax.errors import UserError
from grpo_jax.verify.jailer import Isolation, Jailer, Limits, Report, probe
from grpo_jax.verify.verdict import Outcome, Verdict

MAX_PROGRAM_CHARS = 100_000

_FENCE = re.compile(r"([ \t]*)(`{3,})[ \t]*(\w*)[^`]*")
_PYTHON = frozenset({"python", "py", "python3"})
_SHOWN_CHARS = 80  # of an output, in a reason


@dataclasses.dataclass(frozen=True)
class ProgramTests:
  """What a program has to do: either print the right output for inputs, or pass asserts.

  Attributes:
    pairs: (stdin, expected stdout) of each run. Space at the end of lines and empty lines at the
      end of all do not count.
    tolerance: if set, words that are numbers on both sides may differ by that much, absolute or
      relative, and any space separates words.
    code: Python that calls functions of the program by their names, with plain values, and fails
      by an exception. It imports what it uses of Python's itself.
    entry_point: the function that `code` is about, if `code` defines `check(function)` or if the
      function has the name of a built-in or of a standard module.
  """

  pairs: tuple[tuple[str, str], ...] = ()
  tolerance: float | None = None
  code: str = ""
  entry_point: str | None = None

  def __post_init__(self) -> None:
    if bool(self.pairs) == bool(self.code.strip()):
      raise UserError("the tests of a program are either pairs of stdin and stdout, or code")

  @classmethod
  def from_json(cls, text: str) -> "ProgramTests":
    """From an object of these fields, those left out that have their default."""
    fields = json.loads(text)
    return cls(**fields | {"pairs": tuple(map(tuple, fields.get("pairs", ())))})


class ProgramJudge:
  """Judges many programs side by side; a context manager.

  Args:
    workers: programs that run at the same time.
    limits: of each.
    allow_unisolated: whether programs may run where the machine allows no isolation.
    isolation: what separates programs from the machine; default: all it allows.

  Raises:
    UserError: no isolation is possible, and that is not allowed.
  """

  def __init__(
    self,
    workers: int,
    limits: Limits,
    allow_unisolated: bool = False,
    isolation: Isolation | None = None,
  ):
    self.isolation = probe() if isolation is None else isolation
    if not self.isolation.isolated:
      if not allow_unisolated:
        raise UserError(
          f"{self.isolation}; choose another machine or container, or accept the risk by "
          "ProgramJudge(allow_unisolated=True)"
        )
      logging.getLogger(__name__).warning("%s", self.isolation)
    self._limits = limits
    self._jailer = Jailer(self.isolation, limits)
    self._threads = concurrent.futures.ThreadPoolExecutor(workers, "program")

  def __enter__(self) -> "ProgramJudge":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def submit(self, completion: str, tests: ProgramTests) -> "concurrent.futures.Future[Verdict]":
    """Judges the last program in a completion, in the background."""
    return self._threads.submit(
      _judge, extract_program(completion), tests, self._limits, self._jailer
    )

  def close(self) -> None:
    """Ends all programs; what is not yet judged is UNSCORED."""
    self._jailer.close()
    self._threads.shutdown()


def extract_program(completion: str) -> str | None:
  """The last closed ```python block, or else the last closed block of any kind, or None.

  Blocks after `</think>` come before those in it.
  """
  thinking, _, answer = completion.rpartition("</think>")
  for text in (answer, thinking):
    blocks = _blocks(text)
    python = [block for block in blocks if block[0] in _PYTHON]
    if blocks:
      return (python or blocks)[-1][1]
  return None


def judge_program(
  program: str | None, tests: ProgramTests, limits: Limits, isolation: Isolation
) -> Verdict:
  """Runs a program against its tests, all of which it has to pass.

  Never raises for what a program or its tests hold. The reason says how many tests passed, and
  which was the first that did not and how. UNPARSEABLE: there is no program (None).
  """
  return _judge(program, tests, limits, Jailer(isolation, limits))


def same_output(printed: str, expected: str, tolerance: float | None = None) -> bool:
  """Whether a program printed what was expected; see `ProgramTests` for what does not count."""
  if _lines(printed) == _lines(expected):
    return True
  if tolerance is None:
    return False
  ours, theirs = printed.split(), expected.split()
  return len(ours) == len(theirs) and all(
    _close(one, other, tolerance) for one, other in zip(ours, theirs, strict=True)
  )


# ------------------------------------------------------------------------------ a verdict


def _judge(program: str | None, tests: ProgramTests, limits: Limits, jailer: Jailer) -> Verdict:
  if program is None:
    return Verdict(Outcome.UNPARSEABLE, None, "no closed block of code")
  if len(program) > MAX_PROGRAM_CHARS:
    reason = f"a program of more than {MAX_PROGRAM_CHARS} characters"
    return Verdict(Outcome.WRONG, None, reason)
  job = {"program": program}
  if tests.pairs:
    job["stdins"] = [stdin for stdin, _ in tests.pairs]
  else:
    job |= {"code": tests.code, "entry_point": tests.entry_point}
  try:
    report = jailer.run(job, runs=max(1, len(tests.pairs)))
  except OSError as error:
    return Verdict(Outcome.UNSCORED, program, f"the judge could not start: {error}")
  judged = _of_outputs(report, tests, limits) if tests.pairs else _of_asserts(report, limits)
  return Verdict(judged[0], program, judged[1])


def _of_outputs(report: Report, tests: ProgramTests, limits: Limits) -> tuple[Outcome, str]:
  complaints = [
    _complaint(ended, expected, tests.tolerance, limits)
    for ended, (_, expected) in zip(report.ended, tests.pairs, strict=False)
  ]
  passed, total = complaints.count(None), len(tests.pairs)
  share = f"{passed} of {total} tests passed"
  if passed == total:
    return Outcome.RIGHT, share
  failed = ((number, what) for number, what in enumerate(complaints, 1) if what)
  number, complaint = next(failed, (0, ""))
  if number:
    not_run = f", {total - len(complaints)} not run" if len(complaints) < total else ""
    return Outcome.WRONG, f"{share}{not_run}; test {number}: {complaint}"
  outcome, complaint = _broken_off(report)
  return outcome, f"{share}; test {len(complaints) + 1}: {complaint}"


def _of_asserts(report: Report, limits: Limits) -> tuple[Outcome, str]:
  if not report.ended:
    return _broken_off(report)
  (ended,) = report.ended
  match ended["passed"]:
    case True:
      return Outcome.RIGHT, "all asserts hold"
    case None:
      return Outcome.UNSCORED, ended["reason"]
  return Outcome.WRONG, _too_slow(limits) if ended["why"] == "time" else ended["reason"]


def _broken_off(report: Report) -> tuple[Outcome, str]:
  """What a report says that ends before its time."""
  if report.closed:
    return Outcome.UNSCORED, "the judge was closed"
  if report.started > len(report.ended):
    return Outcome.WRONG, "the program ended or stalled its judge"
  return Outcome.UNSCORED, f"the judge could not start it: {report.refusal or 'no report'}"


def _complaint(ended: dict, expected: str, tolerance: float | None, limits: Limits) -> str | None:
  """What is wrong with one run, in words; None: nothing."""
  if ended["why"] == "output":
    return f"more than {limits.output_kb} kB of output"
  if ended["why"] == "time":
    return _too_slow(limits)
  status = ended["status"]
  if status < 0:
    return f"ended by {signal.Signals(-status).name}"
  if status > 0:
    last = ended["stderr"].strip().rpartition("\n")[2]
    return f"crashed: {_short(last) or 'exit status ' + str(status)}"
  if same_output(ended["stdout"], expected, tolerance):
    return None
  return f"wrong output: {_difference(ended['stdout'], expected)}"


def _too_slow(limits: Limits) -> str:
  return f"more than {limits.cpu_s} s of CPU time or {limits.wall_s:g} s in all"


# ------------------------------------------------------------------------------ text


def _blocks(text: str) -> list[tuple[str, str]]:
  """(language, content) of each closed block; linear in the text, however many fences it has."""
  blocks: list[tuple[str, str]] = []
  opened, lines = None, []
  for line in text.split("\n"):
    fence = _FENCE.fullmatch(line.rstrip("\r"))
    if opened and fence and not fence[3] and len(fence[2]) >= len(opened[2]):
      blocks.append((opened[3].lower(), textwrap.dedent("\n".join(lines)) + "\n"))
      opened = None
    elif fence and (fence[3] or not opened):  # a new one inside one that was never closed
      opened, lines = fence, []
    elif opened:
      lines.append(line)
  return blocks


def _lines(text: str) -> list[str]:
  return [line.rstrip() for line in text.rstrip().split("\n")]


def _close(one: str, other: str, tolerance: float) -> bool:
  if one == other:
    return True
  try:
    return math.isclose(float(one), float(other), rel_tol=tolerance, abs_tol=tolerance)
  except ValueError:
    return False


def _difference(printed: str, expected: str) -> str:
  pairs = itertools.zip_longest(_lines(printed), _lines(expected), fillvalue="")
  differing = ((n, a, b) for n, (a, b) in enumerate(pairs, 1) if a != b)
  number, ours, theirs = next(differing, (1, "", ""))
  return f"line {number} is {_short(ours)!r}, not {_short(theirs)!r}"


def _short(text: str) -> str:
  return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."
