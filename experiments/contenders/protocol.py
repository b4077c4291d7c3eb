"""How does a benchmark ask a contender, whose interpreter is its own, to work?

A worker loads one model, then reads one request a line on stdin, does it, and answers one line on
stdout, both JSON. While it waits for the next line it computes nothing, so that several workers may
be alive and one at a time be timed. Needs the standard library alone: each contender's environment
has it.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from contenders.memory import peak_bytes

EXPERIMENTS = pathlib.Path(__file__).resolve().parent.parent
# Settings of the caller's that would change what is measured, or how long a first call takes.
HIDDEN_SETTINGS = ("JAX_", "XLA_", "NPROC", "OMP_", "MKL_")
# Unfiltered, a traceback ends in the error itself.
WORKER_SETTINGS = {"JAX_PLATFORMS": "cpu", "JAX_TRACEBACK_FILTERING": "off"}


@dataclasses.dataclass(frozen=True)
class Setup:
  """What a worker loads."""

  shape: dict[str, Any]  # fields of a Hugging Face config.json; none where no model is needed
  dtype: str  # of weights and activations: "float32" or "bfloat16"
  threads: int


@dataclasses.dataclass(frozen=True)
class Work:
  """What to sample: `group` completions of each prompt, the first prompt's first."""

  prompts: list[list[int]]
  group: int
  new_tokens: list[int]  # of each completion; nothing else ends one
  longest: int  # the most new tokens any completion might have had: what a cache must hold
  top_p: float
  slots: int  # completions our sampler decodes together; the others decode all of them
  seed: int
  burst: int | None = None  # tokens between two refills of our slots; None: the default

  @property
  def rows(self) -> list[list[int]]:
    """The prompt of each completion."""
    return [prompt for prompt in self.prompts for _ in range(self.group)]


Sample = Callable[[Work], Sequence[Sequence[int]]]


class WorkerError(Exception):
  """A contender could not start, or not do what it was asked."""


class Worker:
  """The driver's end of one worker process."""

  def __init__(self, command: Sequence[str], setup: Setup, log: pathlib.Path):
    """Starts it and waits until its model is loaded.

    Args:
      command: the interpreter and the module to run; the setup is appended.
      log: a file for what it says besides its answers.

    Raises:
      WorkerError: it could not.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith(HIDDEN_SETTINGS)}
    self._log = log
    try:
      with log.open("w") as stderr:
        self._process = subprocess.Popen(
          [*command, json.dumps(dataclasses.asdict(setup))],
          cwd=EXPERIMENTS,
          env=env | WORKER_SETTINGS,
          stdin=subprocess.PIPE,
          stdout=subprocess.PIPE,
          stderr=stderr,
          text=True,
        )
    except OSError as error:
      raise WorkerError(f"{command[0]}: {error.strerror}") from None
    try:
      self.about = self._answer()  # versions, and seconds spent on preparing weights
    except BaseException:
      self.close()
      raise

  def ask(self, work: Any) -> dict[str, Any]:
    """Has it do `work`, a data class; returns what it measured, `seconds` among it.

    Raises:
      WorkerError: it failed.
    """
    # A pipe that is broken is told of by what the worker last said.
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.write(json.dumps(dataclasses.asdict(work)) + "\n")
      self._process.stdin.flush()
    return self._answer()

  def close(self) -> None:
    self._process.kill()
    self._process.communicate()

  def _answer(self) -> dict[str, Any]:
    line = self._process.stdout.readline()
    if line:
      return json.loads(line)
    code = self._process.wait()
    if code == -signal.SIGKILL:  # whatever it last said is not why
      raise WorkerError("it was killed, as Linux does when memory runs out")
    told = [line for line in self._log.read_text().splitlines() if line.strip()]
    raise WorkerError(told[-1].strip() if told else f"ended with exit code {code}")


def timed(sample: Sample, work: Work) -> dict[str, Any]:
  """Samples once, from token ids to token ids on the host.

  Raises:
    WorkerError: a completion is shorter than was asked.
  """
  start = time.perf_counter()
  completions = sample(work)
  seconds = time.perf_counter() - start
  lengths = [len(completion) for completion in completions]
  too_short = any(got < wanted for got, wanted in zip(lengths, work.new_tokens, strict=False))
  if len(lengths) != len(work.new_tokens) or too_short:
    raise WorkerError(f"completions of {lengths} tokens, wanted {work.new_tokens}")
  return {"seconds": seconds, "tokens": sum(work.new_tokens), "peak_bytes": peak_bytes()}


def serve(
  load: Callable[[Setup], tuple[Callable, dict[str, Any]]],
  work_of: Callable[..., Any] = Work,
  measure: Callable[[Callable, Any], dict[str, Any]] = timed,
) -> None:
  """The worker's end: loads what the command line says, then works until stdin ends.

  Args:
    load: from a setup to the function that works, and what is to be told about it.
    work_of: the data class of a request.
    measure: has that function do a request, and says how it went.
  """
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # whatever a library prints goes to the log

  def say(answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()

  function, about = load(Setup(**json.loads(sys.argv[-1])))
  say(about)
  for line in sys.stdin:
    say(measure(function, work_of(**json.loads(line))))
