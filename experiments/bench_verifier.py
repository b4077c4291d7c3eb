"""Question: how does our verifier compare with math-verify, in verdicts, in time, under attack?

  python experiments/bench_verifier.py --cases=FOLDER

FOLDER holds graded answers (cases_dev.jsonl), hostile completions (adversarial_dev.jsonl), and
grade.py, which spells out those among them that are too large for a file. It is loaded as code:
name only a folder you trust. Both verifiers run in the same kind of killable worker, one process
each; the table is printed and written to experiments/results/verifier.md.
"""

import argparse
import dataclasses
import importlib.util
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np

from grpo_jax import cli
from grpo_jax.errors import UserError
from grpo_jax.run.files import write_atomically
from grpo_jax.verify import Verdict, VerifierPool
from grpo_jax.verify.extract import AnswerTooLongError, extract_answer

RESULTS = pathlib.Path(__file__).resolve().parent / "results" / "verifier.md"
DEADLINE_S = 10.0
MEMORY_MB = 4096
SLOW_S = 2.0
BATCH = 4096  # rollouts of a large step
THOUGHT = "We have $x^2 + 1$, and \\frac{1}{2} of it is what was asked for. " * 60

# Functions that worker processes call.
VERIFIERS = {
  "ours": "grpo_jax.verify.verifier:verify",
  "math-verify": "grpo_jax.verify.second_opinion:verify",
}


@dataclasses.dataclass(frozen=True)
class Graded:
  """Verdicts on a list of completions, and the seconds each took."""

  verdicts: list[Verdict]
  seconds: np.ndarray

  @property
  def right(self) -> list[bool]:
    return [bool(verdict) for verdict in self.verdicts]


@dataclasses.dataclass(frozen=True)
class Attacked:
  """What became of the attacks."""

  accepted: list[str]  # ids of those that should have been refused
  executed: list[str]
  lost: list[str]  # over the deadline, or the end of their process
  slow: list[str]
  slowest: float


def grade(check: str, completions: Sequence[str], golds: Sequence[str]) -> Graded:
  """Verdicts of one worker; its start is not part of the seconds."""
  with VerifierPool(1, DEADLINE_S, MEMORY_MB, check) as pool:
    pool.submit(r"\boxed{1}", "1").result()
    verdicts = pool.verify_all(completions, golds)
    return Graded(verdicts, np.array(pool.counters.seconds)[1:])


def grade_cases(folder: pathlib.Path) -> tuple[list[dict], dict[str, Graded]]:
  """The graded answers, and what each verifier says of them."""
  cases = read(folder / "cases_dev.jsonl")
  texts, golds = [case["completion"] for case in cases], [case["gold"] for case in cases]
  return cases, {name: grade(check, texts, golds) for name, check in VERIFIERS.items()}


def attack(folder: pathlib.Path) -> tuple[int, dict[str, Attacked]]:
  """How many attacks there are, and what each verifier made of them."""
  spell_out = load_grader(folder / "grade.py").realize
  attacks = [row for row in read(folder / "adversarial_dev.jsonl") if not row.get("soft")]
  outcomes = {}
  for name, check in VERIFIERS.items():
    with tempfile.TemporaryDirectory() as canaries:
      paths = [pathlib.Path(canaries) / row["id"] for row in attacks]
      texts, golds = (
        [spell_out(row[key], str(path)) for row, path in zip(attacks, paths, strict=True)]
        for key in ("completion", "gold")
      )
      graded = grade(check, texts, golds)
      outcomes[name] = _attacked(attacks, graded, [path.exists() for path in paths])
  return len(attacks), outcomes


def _attacked(attacks: Sequence[dict], graded: Graded, executed: Sequence[bool]) -> Attacked:
  def ids(chosen) -> list[str]:
    return [row["id"] for row, is_chosen in zip(attacks, chosen, strict=True) if is_chosen]

  to_refuse = [row["expect"] == "false" for row in attacks]
  ended = ("the check took more", "the check ended")
  return Attacked(
    accepted=ids(np.logical_and(graded.right, to_refuse)),
    executed=ids(executed),
    lost=ids([verdict.reason.startswith(ended) for verdict in graded.verdicts]),
    slow=ids(graded.seconds > SLOW_S),
    slowest=graded.seconds.max(),
  )


def batch_seconds(cases: Sequence[dict], workers: int) -> float:
  """Seconds of the pool for a step's completions: long texts that end in the cases' answers."""
  chosen = [cases[i % len(cases)] for i in range(BATCH)]
  completions = [THOUGHT + case["completion"] for case in chosen]
  golds = [case["gold"] for case in chosen]
  with VerifierPool(workers) as pool:
    pool.verify_all(completions[: 64 * workers], golds[: 64 * workers])
    start = time.perf_counter()
    pool.verify_all(completions, golds)
    return time.perf_counter() - start


# ------------------------------------------------------------------------------ tables


def mistakes(cases: Sequence[dict], right: Sequence[bool]) -> tuple[int, int]:
  """False negatives and false positives."""
  pairs = [(case["expect"], bool(said)) for case, said in zip(cases, right, strict=True)]
  return pairs.count((True, False)), pairs.count((False, True))


def category_table(cases: Sequence[dict], graded: dict[str, Graded]) -> str:
  """False verdicts by category of the unambiguous cases; the debatable ones in a row of their
  own."""
  names = list(graded)
  head = ["category", "cases", *[f"{name}: {kind}" for name in names for kind in ("FN", "FP")]]
  categories = sorted({case["category"] for case in cases})
  groups = {
    name: [i for i, case in enumerate(cases) if not case["soft"] and case["category"] == name]
    for name in categories
  }
  groups["**all**"] = [i for i, case in enumerate(cases) if not case["soft"]]
  groups["debatable ones"] = [i for i, case in enumerate(cases) if case["soft"]]
  rows = []
  for group, members in groups.items():
    counts = [
      count
      for name in names
      for count in mistakes([cases[i] for i in members], [graded[name].right[i] for i in members])
    ]
    rows.append([group, len(members), *counts])
  return table(head, [row for row in rows if row[1]])


def speed_table(cases: Sequence[dict], graded: dict[str, Graded]) -> str:
  """Agreement with the unambiguous cases, and time over all."""
  rows = []
  for name, of in graded.items():
    agreed = [
      said == case["expect"]
      for case, said in zip(cases, of.right, strict=True)
      if not case["soft"]
    ]
    p50, p99 = 1e3 * np.quantile(of.seconds, (0.5, 0.99))
    rows.append([
      name, f"{np.mean(agreed):.1%}", f"{len(cases) / of.seconds.sum():,.0f}", f"{p50:.2f} ms",
      f"{p99:.1f} ms", f"{1e3 * of.seconds.max():,.0f} ms",
    ])  # fmt: skip
  return table(["verifier", "agreement", "cases/s on one core", "p50", "p99", "slowest"], rows)


def attack_table(outcomes: dict[str, Attacked]) -> str:
  head = ["verifier", "accepted", "executed", "hung or crashed", f"over {SLOW_S:g} s", "slowest"]
  rows = [
    [name, *map(counted, (of.accepted, of.executed, of.lost, of.slow)), f"{of.slowest:.2f} s"]
    for name, of in outcomes.items()
  ]
  return table(head, rows)


def counted(ids: Sequence[str]) -> str:
  """`2 (adv007, adv031)`"""
  return f"{len(ids)} ({', '.join(ids[:6])}{', ...' if len(ids) > 6 else ''})" if ids else "0"


def disagreement_table(cases: Sequence[dict], graded: dict[str, Graded]) -> str:
  """Every case on which a verifier differs from the expected verdict."""
  rows = []
  for i, case in enumerate(cases):
    said = [of.right[i] for of in graded.values()]
    if all(verdict == case["expect"] for verdict in said):
      continue
    kind = case["category"] + (", debatable" if case["soft"] else "")
    words = ["right" if verdict else "wrong" for verdict in (case["expect"], *said)]
    rows.append([case["id"], kind, code(case["gold"]), code(answer_of(case)), *words])
  return table(["case", "category", "gold", "answer", "expected", *graded], rows)


def answer_of(case: dict) -> str:
  try:
    return extract_answer(case["completion"]) or case["completion"]
  except AnswerTooLongError:
    return case["completion"]


def code(text: str) -> str:
  """A text as code in one cell of a table: on one line, and no bar that would end the cell."""
  line = " ".join(text.split()).replace("|", "\\|").replace("`", "'")
  return f"`{line[:60]}{'...' if len(line) > 60 else ''}`"


def table(head: Sequence[str], rows: Sequence[Sequence]) -> str:
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


# ------------------------------------------------------------------------------ command


def report(folder: pathlib.Path, workers: int) -> str:
  """Measures everything; the whole page."""
  cases, graded = grade_cases(folder)
  count, attacks = attack(folder)
  seconds = batch_seconds([case for case in cases if not case["soft"]], workers)
  return "\n\n".join([
    "# The verifier against math-verify",
    "`python experiments/bench_verifier.py --cases=FOLDER`: "
    f"{len(cases)} graded answers, one worker process each; FN: a right answer refused, "
    "FP: a wrong one accepted. Ours was developed against these cases: expect less on others.",
    speed_table(cases, graded),
    f"A batch of {BATCH:,} completions of {len(THOUGHT):,} characters is graded in "
    f"**{seconds:.1f} s** by our pool of {workers} workers ({BATCH / seconds:,.0f} a second).",
    f"{count} attacks, at most {DEADLINE_S:g} s each:",
    attack_table(attacks),
    category_table(cases, graded),
    "Every case where one of them differs from the expected verdict:",
    disagreement_table(cases, graded),
  ]) + "\n"  # fmt: skip


def read(file: pathlib.Path) -> list[dict]:
  if not file.is_file():
    raise UserError(f"{file}: no such file; --cases names the folder that holds it")
  return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def load_grader(file: pathlib.Path):
  if not file.is_file():
    raise UserError(f"{file}: no such file; --cases names the folder that holds it")
  spec = importlib.util.spec_from_file_location("grade", file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--cases", type=pathlib.Path, required=True, help="folder of the cases")
  parser.add_argument("--workers", type=int, default=2, help="of the pool that grades the batch")
  parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="where the table goes")
  options = parser.parse_args()
  sys.path.append(str(pathlib.Path(__file__).resolve().parent))  # for VERIFIERS
  page = report(options.cases, options.workers)
  print(page)
  write_atomically(options.out, page)


if __name__ == "__main__":
  cli.run(main)
