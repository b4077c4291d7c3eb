"""Question: how fast and how lean is our update, beside other code bases and beside the machine?

  python experiments/bench_update.py --tunix=PYTHON --flashbax=PYTHON   # everything, an hour
  python experiments/bench_update.py --only=toy,replay_large            # the others are kept
  python experiments/bench_update.py --quick                            # a look, nothing is kept

PYTHON is the interpreter of an environment that holds tunix (1.6 GB), or flashbax, or both:

  python -m venv peers && peers/bin/pip install google-tunix==0.1.7 flashbax==0.1.3 jax==0.10.2

Every contender is a process with a model of the same shape, fed with the same batches; all wait
while one works. Qwen3-0.6B is updated by one after the other, there and back, as no machine we had
holds three of them. A case is a first call of each, which compiles and is told apart, then rounds.
Writes experiments/results/update.{json,md,png}. Cases are in contenders/update_cases.py; run it on
a quiet machine with 24 GB.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys

from contenders import machine, report, update_report
from contenders.protocol import Setup, Worker, WorkerError
from contenders.turns import opened, take_turns
from contenders.update_cases import CASES, ReplayCase, UpdateCase

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
KEPT = RESULTS / "update.json"
QUICK = ("quickstart", "replay_quickstart")
QUICK_ROUNDS = 2


def main() -> None:
  options = parse()
  kept = {"sections": {}} if options.quick or not KEPT.exists() else json.loads(KEPT.read_text())
  for name in options.only:
    print(f"== {name}", flush=True)
    case = CASES[name]
    if options.quick:
      case = dataclasses.replace(case, rounds=QUICK_ROUNDS)
    found = measure(name, case, options)
    kept["sections"][name] = found | {"machine": machine.describe(), "command": command()}
    if not options.quick:
      keep(kept)
  print(update_report.render(kept))


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--tunix", metavar="PYTHON", help="interpreter that has google-tunix")
  parser.add_argument("--flashbax", metavar="PYTHON", help="interpreter that has flashbax")
  parser.add_argument("--quick", action="store_true", help="two rounds, nothing kept")
  parser.add_argument("--only", help=f"some of {','.join(CASES)}")
  options = parser.parse_args()
  everything = QUICK if options.quick else tuple(CASES)
  options.only = options.only.split(",") if options.only else everything
  unknown = sorted(set(options.only) - set(CASES))
  if unknown:
    parser.error(f"--only: no case {', '.join(unknown)}; known: {', '.join(CASES)}")
  return options


def measure(name: str, case: UpdateCase | ReplayCase, options: argparse.Namespace) -> dict:
  """What each contender measured, and what is to be told about it."""
  found = {"timings": {}, "about": {}, "left_out": {}}
  begin = lambda contender, log: start(case, contender, options, log)
  for contenders in sittings(case):
    present = [contender for contender in contenders if contender not in found["left_out"]]
    with opened(present, begin, found["left_out"]) as workers:
      works = (case.work(turn) for turn in range(case.rounds + 1))
      for contender, timing in take_turns(name, works, workers, found["left_out"]).items():
        before = found["timings"].get(contender, timing | {"rounds": []})
        rounds = before["rounds"] + timing["rounds"]
        found["timings"][contender] = timing | {"first": before["first"], "rounds": rounds}
      found["about"] |= {contender: worker.about for contender, worker in workers.items()}
  for contender in found["left_out"]:  # at the second sitting, too
    found["timings"].pop(contender, None)
  for contender, timing in found["timings"].items():
    seconds = statistics.median(timing["rounds"])
    print(f"{contender:>12}  first {timing['first']:6.1f} s, then {seconds:8.4f} s", flush=True)
  return found


def sittings(case: UpdateCase | ReplayCase) -> list[list[str]]:
  """Who is loaded together. One at a time they come twice, there and back, so that a machine that
  grows slower meanwhile slows all of them."""
  if case.together:
    return [list(case.contenders)]
  there = [[contender] for contender in case.contenders]
  return there + there[::-1] if len(there) > 1 else there


def start(
  case: UpdateCase | ReplayCase, name: str, options: argparse.Namespace, log: pathlib.Path
) -> Worker:
  """A contender with its model loaded.

  Raises:
    WorkerError: it cannot be had here.
  """
  contender = case.contenders[name]
  python = getattr(options, contender.python) if contender.python else sys.executable
  if not python:
    raise WorkerError(f"no --{contender.python}=PYTHON was given")
  shape = dataclasses.asdict(case.shape) if case.shape else {}
  setup = Setup(shape, "float32", machine.threads())
  return Worker([python, "-m", contender.module], setup, log)


def command() -> str:
  words = report.without_paths(sys.argv[1:], "--tunix", "--flashbax")
  return " ".join(["python experiments/bench_update.py", *words])


def keep(kept: dict) -> None:
  """Writes what is known so far, so that a study that is stopped has its finished cases."""
  RESULTS.mkdir(parents=True, exist_ok=True)
  KEPT.write_text(json.dumps(kept, indent=1) + "\n")
  (RESULTS / "update.md").write_text(update_report.render(kept))
  if any(update_report.is_update(name) for name in kept["sections"]):
    update_report.draw(kept, RESULTS / "update.png")


if __name__ == "__main__":
  main()
