"""Question: what can be done to a run, and does it still end as if nothing had been?

  python -m experiments.chaos                # minutes; writes experiments/results/chaos.md
  python -m experiments.chaos --only=disk    # one part, printed only

A tiny run on a CPU is killed, stopped, starved and spoilt in every way we know of, started again,
and compared with the same run unbroken: parameters, optimizer and replay store of the last
checkpoint, its ledger, cursor and costs, every row of metrics.jsonl, rollout texts and the exported
model, bit for bit; only what clocks decide is left out.
"""

import argparse
import functools
import pathlib
import sys
import tempfile
import time

from experiments.chaos import scenarios
from experiments.chaos.runs import ROOT
from experiments.chaos.scenarios import STEPS, Outcome

KILLS, LONG = 24, 120  # random kills, and the steps of the run they fall in
PARTS = {
  "phases": scenarios.killed_in_each_phase,
  "random": functools.partial(scenarios.killed_at_random, steps=LONG, kills=KILLS),
  "stop": scenarios.asked_to_stop,
  "damage": scenarios.damaged,
  "workers": scenarios.verifier_workers,
  "disk": scenarios.disk,
  "numbers": scenarios.spoilt_numbers,
  "hang": scenarios.hanging,
}


def main() -> None:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.chaos", description=__doc__.splitlines()[0]
  )
  parser.add_argument("--only", choices=PARTS, help="one part; writes no file")
  only = parser.parse_args().only
  began, tally = time.monotonic(), []
  with tempfile.TemporaryDirectory() as folder:
    work = pathlib.Path(folder)
    for name, part in PARTS.items():
      if only in (None, name):
        steps = LONG if name == "random" else STEPS
        wanted = work / f"unbroken-{steps}"
        if not wanted.exists():
          scenarios.unbroken(wanted, steps)
        for outcome in part(work, wanted):
          tally.append((name, outcome))
          print(f"{'ok  ' if outcome.right else 'FAIL'} {name}: {outcome.done}: {outcome.came}")
  wrong = sum(not outcome.right for _, outcome in tally)
  minutes = (time.monotonic() - began) / 60
  summary = f"{len(tally)} outcomes, {wrong} wrong, {minutes:.0f} minutes."
  print(summary)
  if not only:
    write(tally, summary)
  sys.exit(bool(wrong))


def write(tally: list[tuple[str, Outcome]], summary: str) -> None:
  lines = [
    "# What a run survives",
    "",
    "`python -m experiments.chaos`: a tiny run on a CPU, broken and started again, against the",
    "same run unbroken. Equal means parameters, optimizer, replay store, ledger, cursor, costs,",
    f"metrics, rollout texts and export, bit for bit. {summary}",
    "",
    "| part | what was done | times | what came of it | right |",
    "| --- | --- | --- | --- | --- |",
  ]
  for part, outcome in tally:
    came = outcome.came.replace("|", "/")
    right = "yes" if outcome.right else "**no**"
    lines.append(f"| {part} | {outcome.done} | {outcome.times} | {came} | {right} |")
  (ROOT / "experiments" / "results" / "chaos.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
  main()
