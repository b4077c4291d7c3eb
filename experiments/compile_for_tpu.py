"""Question: on which TPUs does which model run, with which mesh, and what moves between chips?

  pip install -e '.[tpu]'
  python -m experiments.compile_for_tpu                        # everything, on a CPU: hours
  python -m experiments.compile_for_tpu --only=qwen3_0p6b_v5e_8x1     # some; the others are kept
  python -m experiments.compile_for_tpu --render               # the table again, from what is kept

No TPU is needed: the compiler that pip installs, libtpu, compiles for chips that are not there, and
says what each program takes of a chip's memory. The programs are those of a run: sampling, update
and replay, as `grpo_jax.train` jits them. Writes experiments/results/tpu.{json,md}. Cases are in
tpu/cases.py, how their numbers are found in tpu/measure.py. Compiling is one process that may need
some GB and minutes; nothing is executed, so there are no times of execution here.
"""

import argparse
import gc
import json
import os
import pathlib
import time

os.environ["JAX_PLATFORMS"] = "cpu"  # a TPU that is there is left alone

import importlib.metadata

from experiments.tpu.cases import CASES
from experiments.tpu.measure import measure
from experiments.tpu.report import render

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
KEPT = RESULTS / "tpu.json"


def main() -> None:
  options = parse()
  kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
  for case in CASES:
    if case.key not in options.only:
      continue
    print(f"== {case.key}", flush=True)
    started = time.perf_counter()
    versions = {name: importlib.metadata.version(name) for name in ("jax", "libtpu")}
    kept[case.key] = measure(case) | {"versions": versions}
    print(f"  {time.perf_counter() - started:.0f} s in all", flush=True)
    keep(kept)
    gc.collect()
  if options.render:
    keep(kept)
  print(render(kept))


def parse() -> argparse.Namespace:
  known = [case.key for case in CASES]
  parser = argparse.ArgumentParser(
    prog="python -m experiments.compile_for_tpu", description=__doc__.splitlines()[0]
  )
  parser.add_argument("--only", help=f"some of {','.join(known)}")
  parser.add_argument("--render", action="store_true", help="compile nothing")
  options = parser.parse_args()
  options.only = options.only.split(",") if options.only else [] if options.render else known
  unknown = sorted(set(options.only) - set(known))
  if unknown:
    parser.error(f"--only: no case {', '.join(unknown)}; known: {', '.join(known)}")
  return options


def keep(kept: dict) -> None:
  """Writes what is known so far, in the order of CASES: a study that is stopped has its finished
  ones."""
  kept = {case.key: kept[case.key] for case in CASES if case.key in kept}
  RESULTS.mkdir(parents=True, exist_ok=True)
  KEPT.write_text(json.dumps(kept, indent=1) + "\n")
  (RESULTS / "tpu.md").write_text(render(kept))


if __name__ == "__main__":
  main()
