"""Files for configs/worked_sums.py: sums worked out in lines, and three ways to ask about them.

  python -m experiments.worked_sums --config=configs/worked_sums.py:seed=0 --out=sums

A sum has a first term of two digits and further ones of one digit; a line adds one of them:

    17 + 5 + 8 = ?
    + 5 = 22 so far
    + 8 = 30 so far
    \\boxed{30} it is

The form is made for a judge who compares words (`verify.segments`): one wrong number of a line's
four words is one too many, and no half of a line passes without its number. Written are, below the
folder that --out names:

  train.jsonl, test.jsonl  problems with solutions and answers
  texts/                   the same two as plain text: problem and solution, a document each
  demonstrations.jsonl     prompts of all three kinds (the answer, the next step, the next sentence)
                           with what to write, from sums of their own; some totals are wrong
  tokenizer/               a token for each digit and for each text between digits

Everything is derived from sha256 and the config's seed. Which of the three sets a sum is in depends
on the sum alone.
"""

import hashlib
import itertools
import json
import pathlib
import re
from collections.abc import Iterable, Iterator

from absl import flags

from grpo_jax import cli
from grpo_jax.data.problems import Problem, ProblemSet
from grpo_jax.data.segments import segment_problems
from grpo_jax.data.steps import step_problems
from grpo_jax.data.tokenizer import character_tokenizer
from grpo_jax.run.files import write_atomically
from grpo_jax.train import config_of_command

ADDED = (2, 3, 4)  # numbers of further terms, in turn
# Far below what there is: two further terms give 324 sums for the test, 648 for each other set.
SIZES = {"train": 480, "test": 128, "demonstrations": 800}
# Of a sum's remainder by 5 in its hash: who has it.
_SPLITS = ("test", "train", "train", "demonstrations", "demonstrations")
MISTAKES = 0.15  # share of wrong totals in demonstrations
_FURTHEST = 5  # how far off a wrong total is at most
# A digit, a line end, a mark of the forms, or what stands between these.
_TOKEN = re.compile(r"\d|\n|<[^<>]+>|[^\d\n<]+")


def sums(split: str, seed: int) -> Iterator[tuple[int, ...]]:
  """The terms of different sums of a split, for ever."""
  seen = set()
  for draw in itertools.count():
    name = f"{seed}/{split}/{draw}"
    further = ADDED[len(seen) % len(ADDED)]
    terms = (
      10 + _below(f"{name}/0", 20),
      *(1 + _below(f"{name}/{term}", 9) for term in range(1, further + 1)),
    )
    if terms not in seen and _SPLITS[_below(f"split {terms}", len(_SPLITS))] == split:
      seen.add(terms)
      yield terms


def worked(terms: tuple[int, ...], mistakes: float = 0.0, name: str = "") -> Problem:
  """A sum as a problem with its solution.

  mistakes: share of wrong totals, on which what follows then rests, the answer too.
  name: of the stream that the mistakes are drawn from.
  """
  total, lines = terms[0], []
  for place, term in enumerate(terms[1:]):
    total += term
    if _below(f"{name}/wrong/{place}", 1_000_000) < 1_000_000 * mistakes:
      off = 1 + _below(f"{name}/off/{place}", _FURTHEST)
      total += off if _below(f"{name}/up/{place}", 2) else -off
    lines.append(f"+ {term} = {total} so far")
  lines.append(f"\\boxed{{{total}}} it is")
  question = " + ".join(map(str, terms)) + " = ?"
  return Problem(f"{question}\n", str(total), "\n".join(lines), str(len(terms) - 1))


def as_text(problem: Problem) -> str:
  """Question and solution one after the other, as if someone had written them down."""
  return problem.question + problem.solution


def demonstrations(seed: int) -> Iterator[Problem]:
  """Of four sums two are solved whole, one step by step, one is read sentence by sentence."""
  chosen = itertools.islice(sums("demonstrations", seed), SIZES["demonstrations"])
  for number, terms in enumerate(chosen):
    problem = worked(terms, MISTAKES, f"{seed}/{number}")
    if number % 4 == 0:
      yield from step_problems(ProblemSet("steps", (problem,)))
    elif number % 4 == 1:
      yield from segment_problems(as_text(problem))
    else:
      yield problem


def alphabet(texts: Iterable[str]) -> list[str]:
  """The tokens that spell these texts, in order."""
  return sorted({token for text in texts for token in _TOKEN.findall(text)})


def write(out: pathlib.Path, seed: int) -> None:
  """All files, in a folder that may be there."""
  (out / "texts").mkdir(parents=True, exist_ok=True)
  shown = list(demonstrations(seed))
  training, held_out = (
    [worked(terms) for terms in itertools.islice(sums(split, seed), SIZES[split])]
    for split in ("train", "test")
  )
  spelled = [text for one in shown for text in (one.question, one.solution)]
  character_tokenizer(alphabet(spelled)).save(out / "tokenizer")
  rows = {
    "train": map(_problem, training),
    "test": map(_problem, held_out),
    "texts/train": ({"text": as_text(problem)} for problem in training),
    "texts/test": ({"text": as_text(problem)} for problem in held_out),
    "demonstrations": map(_demonstration, shown),
  }
  for name, its in rows.items():
    text = "".join(json.dumps(row) + "\n" for row in its)
    write_atomically(out / f"{name}.jsonl", text.encode())


def _problem(one: Problem) -> dict[str, str | None]:
  return {name: getattr(one, name) for name in ("question", "answer", "solution", "level")}


def _demonstration(one: Problem) -> dict[str, str | None]:
  return {"prompt": one.question, "solution": one.solution}


def _below(name: str, limit: int) -> int:
  """From 0 to limit - 1, decided by the name."""
  return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % limit


def main() -> None:
  out = flags.DEFINE_string("out", None, "The folder to write to.", required=True)
  config, _ = config_of_command()
  write(pathlib.Path(out.value).expanduser(), config.seed)


if __name__ == "__main__":
  cli.run(main)
