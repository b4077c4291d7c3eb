"""Question: how fast is our sampler, beside other code bases and beside what the machine can do?

  python experiments/bench_sampling.py --tunix=PYTHON        # everything, about 25 minutes
  python experiments/bench_sampling.py --only=toy,grpo       # some sections; the others are kept
  python experiments/bench_sampling.py --quick               # a look at ours, nothing is kept

PYTHON is the interpreter of an environment that holds tunix (1.6 GB):

  python -m venv tunix && tunix/bin/pip install google-tunix==0.1.7 jax==0.10.2

Every contender is a process with a model of the same shape; all wait while one samples. A case is a
first call of each, which compiles and is told apart, then rounds in which each has its turn. Writes
experiments/results/sampling.{json,md,png}: all rounds, tables of medians, and a picture of what our
speed depends on. Sections and their rounds are in contenders/cases.py; run it on a quiet machine.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys

from contenders import machine, report
from contenders.cases import CONTENDERS, OURS, SECTIONS, TUNIX, Case, Section
from contenders.protocol import Setup, Worker, WorkerError
from contenders.turns import opened, take_turns

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
KEPT = RESULTS / "sampling.json"
NAMES = (*SECTIONS, "machine")
QUICK_ROUNDS = 2


def main() -> None:
  options = parse()
  kept = {"sections": {}} if options.quick or not KEPT.exists() else json.loads(KEPT.read_text())
  for name in options.only:
    print(f"== {name}", flush=True)
    found = measure_machine() if name == "machine" else measure(section_of(name, options), options)
    kept["sections"][name] = found | {"machine": machine.describe(), "command": command()}
    if not options.quick:
      keep(kept)
  print(report.render(kept))


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--tunix", metavar="PYTHON", help="interpreter that has google-tunix")
  parser.add_argument("--quick", action="store_true", help="two rounds of fp32, nothing kept")
  parser.add_argument("--only", help=f"some of {','.join(NAMES)}")
  options = parser.parse_args()
  everything = ("toy",) if options.quick else NAMES
  options.only = options.only.split(",") if options.only else everything
  unknown = sorted(set(options.only) - set(NAMES))
  if unknown:
    parser.error(f"--only: no section {', '.join(unknown)}; known: {', '.join(NAMES)}")
  return options


def section_of(name: str, options: argparse.Namespace) -> Section:
  """A section; of a quick look, its float32 JAX contenders and few rounds."""
  section = SECTIONS[name]
  if not options.quick:
    return section
  cases = tuple(dataclasses.replace(case, rounds=QUICK_ROUNDS) for case in section.cases)
  wanted = (OURS, TUNIX) if options.tunix else (OURS,)
  contenders = tuple(contender for contender in section.contenders if contender in wanted)
  return dataclasses.replace(section, cases=cases, contenders=contenders)


def measure(section: Section, options: argparse.Namespace) -> dict:
  """All cases of a section, and what is to be told about its contenders."""
  left_out: dict[str, str] = {}
  begin = lambda name, log: start(name, section, options, log)
  with opened(section.contenders, begin, left_out) as workers:
    cases = {
      case.name: run_case(case, section.shape.vocab_size, workers, left_out)
      for case in section.cases
    }
    about = {name: worker.about for name, worker in workers.items()}
  return {"cases": cases, "about": about, "left_out": left_out}


def start(
  name: str, section: Section, options: argparse.Namespace, log: pathlib.Path
) -> Worker:
  """A contender with its model loaded.

  Raises:
    WorkerError: it cannot be had here.
  """
  module, dtype = CONTENDERS[name]
  python = options.tunix if name.startswith("tunix") else sys.executable
  if not python:
    raise WorkerError("no --tunix=PYTHON was given")
  setup = Setup(dataclasses.asdict(section.shape), dtype, machine.threads())
  return Worker([python, "-m", module], setup, log)


def run_case(
  case: Case, vocab_size: int, workers: dict[str, Worker], left_out: dict[str, str]
) -> dict[str, dict]:
  """First calls, then rounds in turn: `report.Timing` of each contender."""
  works = (case.work(vocab_size, turn) for turn in range(case.rounds + 1))
  found = take_turns(case.name, works, workers, left_out)
  for name, timing in found.items():
    median = statistics.median(timing["rounds"])
    speed = timing["tokens"] / median
    print(
      f"{case.name:>24}  {name:<18} first {timing['first']:6.1f} s, then {median:7.3f} s, "
      f"{speed:8,.0f} tokens/s",
      flush=True,
    )
  return found


def measure_machine() -> dict:
  found = machine.bandwidth()
  print(", ".join(f"{name} {value / 1e9:.1f} GB/s" for name, value in found.items()), flush=True)
  return {"bandwidth": found}


def command() -> str:
  """What was typed, without where the interpreter of tunix lies."""
  words = report.without_paths(sys.argv[1:], "--tunix")
  return " ".join(["python experiments/bench_sampling.py", *words])


def keep(kept: dict) -> None:
  """Writes what is known so far, so that a study that is stopped has its finished sections."""
  RESULTS.mkdir(parents=True, exist_ok=True)
  KEPT.write_text(json.dumps(kept, indent=1) + "\n")
  (RESULTS / "sampling.md").write_text(report.render(kept))
  if "growth" in kept["sections"]:
    report.draw(kept["sections"]["growth"], RESULTS / "sampling.png")


if __name__ == "__main__":
  main()
