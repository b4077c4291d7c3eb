"""Demonstrations for experiments/two_stages.py: sums worked out, and the same kind as programs.

  python -m experiments.sums_and_programs --config=configs/columns.py:seed=0 --out=FILE.jsonl

A line a demonstration, {"prompt", "solution"}, of both kinds in turn and with the levels of the
config's problems, from the same split. In both something is wrong: in sums what
`data.arithmetic.with_mistakes` makes wrong, in programs digits that were to be copied. Everything
is derived from the config's seed.
"""

import json
import pathlib
import re

import numpy as np
from absl import flags

from grpo_jax import cli
from grpo_jax.data.arithmetic import arithmetic_problems, arithmetic_programs, with_mistakes
from grpo_jax.data.problems import Problem
from grpo_jax.run.files import write_atomically
from grpo_jax.train import config_of_command

COUNT = 2000  # of each kind
OTHER_SEED = 1000  # for other questions than those that are learned from, nearly all
SUM_MISTAKES = 0.2  # share of wrong columns
PROGRAM_MISTAKES = 0.12  # share of wrong digits


def with_wrong_digits(problem: Problem, rng: np.random.Generator, rate: float) -> str:
  """The solution of a problem of `arithmetic_programs`, each of its digits replaced with
  probability `rate` by another one; two draws a digit are taken from `rng`, whatever the rate."""

  def slip(found: re.Match) -> str:
    wrong, distance = rng.random() < rate, 1 + int(rng.random() * 9)
    return str((int(found[0]) + distance) % 10) if wrong else found[0]

  return re.sub(r"\d", slip, problem.solution)


def demonstrations(levels: tuple[int, ...], seed: int) -> list[tuple[str, str]]:
  """Prompts, with what to write."""
  rng = np.random.default_rng(seed)
  chosen = {"count": COUNT, "levels": levels, "seed": OTHER_SEED + seed, "split": "train"}
  pairs = []
  for one, other in zip(arithmetic_problems(**chosen), arithmetic_programs(**chosen), strict=True):
    pairs.append((one.question, with_mistakes(one, rng, SUM_MISTAKES)))
    pairs.append((other.question, with_wrong_digits(other, rng, PROGRAM_MISTAKES)))
  return pairs


def main() -> None:
  out = flags.DEFINE_string("out", None, "The file to write.", required=True)
  config, _ = config_of_command()
  lines = (
    json.dumps({"prompt": prompt, "solution": solution}) + "\n"
    for prompt, solution in demonstrations(tuple(config.data.levels), config.seed)
  )
  file = pathlib.Path(out.value).expanduser()
  file.parent.mkdir(parents=True, exist_ok=True)
  write_atomically(file, "".join(lines).encode())


if __name__ == "__main__":
  cli.run(main)
