"""Runs a study: variants x seeds, several at a time, each on its share of the cores.

  python -m experiments.sweep experiments/which_trick.py [--jobs=2] [--only="grpo;aper"]
  python -m experiments.sweep experiments/which_trick.py --print-commands

What is finished is skipped, and a run that was cut goes on from its checkpoint, so the same command
goes on after a kill. A run that fails does not stop the others: its output is in its folder, and
the command ends with a table of failures and exit code 1. Nothing has a time limit: runs may be
stopped and continued by signals. `--print-commands` prints what would run, a line a run, for the
machines of a pod.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import queue
import shlex
import subprocess
import sys
import threading
import time

from experiments.study import ROOT, Run, Study, all_runs, load_study, runs_folder
from grpo_jax.errors import UserError
from grpo_jax.run.files import write_atomically
from grpo_jax.run.human import human_duration

EXPORT = "export"  # what a run writes after its last step; a signal ends it with exit code 0 too
_LAST_LINES = 5


@dataclasses.dataclass(frozen=True)
class Failure:
  """A run that did not end well, with the last lines it wrote."""

  name: str
  reason: str
  log: pathlib.Path
  last_lines: tuple[str, ...]


def done_file(run: Run) -> pathlib.Path:
  """Exists when the run is finished, and holds the commands it was made by."""
  return run.folder / "finished.json"


def is_finished(run: Run) -> bool:
  """Whether the run was finished by these same commands.

  Raises:
    UserError: it was finished by others, so that its numbers would stand under a wrong name.
  """
  if not done_file(run).is_file():
    return False
  before = json.loads(done_file(run).read_text())["commands"]
  if before != commands_of(run):
    raise UserError(
      f"{run.folder} was finished by another command ({before[-1]}); remove it, or give the "
      "variant another name"
    )
  return True


def commands_of(run: Run) -> list[str]:
  """As they are typed, without the folder, which may have moved since."""
  return [
    shlex.join(command).replace(str(run.folder), "{folder}") for command in run.commands
  ]


def sweep(runs: list[Run], jobs: int) -> list[Failure]:
  """Runs all that is not finished, `jobs` at a time; returns those that failed, in order."""
  waiting = [run for run in runs if not is_finished(run)]
  print(f"{len(runs)} runs, {len(runs) - len(waiting)} of them finished; {jobs} at a time.")
  shares: queue.SimpleQueue[set[int]] = queue.SimpleQueue()
  for share in core_shares(sorted(os.sched_getaffinity(0)), jobs):
    shares.put(share)
  stop = threading.Event()

  def one(run: Run) -> Failure | None:
    if stop.is_set():
      return None
    cores = shares.get()
    try:
      return execute(run, cores, stop)
    finally:
      shares.put(cores)

  with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
    try:
      return [failure for failure in pool.map(one, waiting) if failure]
    except BaseException:
      stop.set()
      raise


def core_shares(cores: list[int], jobs: int) -> list[set[int]]:
  """The cores dealt out to the jobs; more jobs than cores share them."""
  if jobs > len(cores):
    return [{cores[job % len(cores)]} for job in range(jobs)]
  return [set(cores[job::jobs]) for job in range(jobs)]


def execute(run: Run, cores: set[int], stop: threading.Event) -> Failure | None:
  """The commands of one run, one after the other; their output is added to log.txt."""
  run.folder.mkdir(parents=True, exist_ok=True)
  log, started = run.folder / "log.txt", time.perf_counter()
  print(f"{run.name}: started on cores {','.join(map(str, sorted(cores)))}", flush=True)
  with log.open("ab") as output:
    for command in run.commands:
      code = call([sys.executable, *command], cores, output, stop)
      if stop.is_set():
        return None
      if code:
        print(f"{run.name}: FAILED with exit code {code}, see {log}", flush=True)
        return Failure(run.name, f"exit code {code}", log, last_lines(log))
  if not (run.folder / EXPORT).exists():
    print(f"{run.name}: STOPPED before its last step, see {log}", flush=True)
    return Failure(run.name, "stopped before its last step", log, last_lines(log))
  took = time.perf_counter() - started
  facts = {"commands": commands_of(run), "wall_seconds": round(took, 1)}
  write_atomically(done_file(run), (json.dumps(facts, indent=2) + "\n").encode())
  print(f"{run.name}: finished in {human_duration(took)}", flush=True)
  return None


def call(command: list[str], cores: set[int], output, stop: threading.Event) -> int:
  """Runs a command to its end, on these cores; its exit code."""
  process = subprocess.Popen(
    command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
  )
  os.sched_setaffinity(process.pid, cores)
  asked = False
  while True:
    try:
      return process.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
      if stop.is_set() and not asked:
        process.terminate()  # once: a second time would end a run that is saving
        asked = True


def last_lines(log: pathlib.Path) -> tuple[str, ...]:
  text = log.read_text(errors="replace").replace("\r", "\n")
  return tuple(line for line in text.split("\n") if line.strip())[-_LAST_LINES:]


def failure_table(failures: list[Failure]) -> str:
  lines = [f"{len(failures)} runs FAILED:"]
  for failure in failures:
    lines += ["", f"{failure.name}: {failure.reason}; {failure.log} ends with"]
    lines += [f"  | {line}" for line in failure.last_lines]
  return "\n".join(lines)


def part_of(study: Study, only: str, seeds: str) -> Study:
  """The study with these variants and seeds alone, joined by semicolons and commas; "": all.

  Raises:
    UserError: it has no such variant or seed.
  """
  names = only.split(";") if only else list(study.variants)
  if unknown := sorted(set(names) - set(study.variants)):
    raise UserError(f"--only {unknown[0]}: no such variant; known: {'; '.join(study.variants)}")
  known = {str(seed): seed for seed in study.seeds}
  chosen = seeds.split(",") if seeds else list(known)
  if unknown := sorted(set(chosen) - set(known)):
    raise UserError(f"--seeds {unknown[0]}: no such seed; known: {', '.join(known)}")
  families = {
    family: {name: variant for name, variant in members.items() if name in names}
    for family, members in study.families.items()
  }
  return dataclasses.replace(study, families=families, seeds=tuple(known[s] for s in chosen))


def main(arguments: list[str]) -> int:
  parser = argparse.ArgumentParser(prog="python -m experiments.sweep", description=__doc__)
  parser.add_argument("study", help="a study file")
  parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
  parser.add_argument("--only", default="", help="names of variants, joined by ;")
  parser.add_argument("--seeds", default="", help="some of the study's, joined by commas")
  parser.add_argument("--runs", default="", help="folder of the runs; default: runs/STUDY")
  parser.add_argument("--print-commands", action="store_true", help="a line a run; nothing runs")
  given = parser.parse_args(arguments)
  if given.jobs < 1:
    raise UserError(f"--jobs is {given.jobs}; it must be at least 1")
  study = part_of(load_study(given.study), given.only, given.seeds)
  runs_in = pathlib.Path(given.runs).absolute() if given.runs else runs_folder(given.study)
  runs = all_runs(study, runs_in)
  if given.print_commands:
    for run in runs:
      print(" && ".join(shlex.join(["python", *command]) for command in run.commands))
    return 0
  failures = sweep(runs, given.jobs)
  print(failure_table(failures) if failures else "All runs are finished.")
  return 1 if failures else 0


if __name__ == "__main__":
  try:
    sys.exit(main(sys.argv[1:]))
  except UserError as error:
    sys.exit(f"error: {error}")
  except KeyboardInterrupt:
    sys.exit("stopped; the same command goes on")
