"""What is to be learned: problems to train on, problems held out, and how they become tokens."""

import dataclasses
import pathlib
from collections.abc import Sequence

from grpo_jax.data.arithmetic import ALPHABET, arithmetic_problems, arithmetic_programs
from grpo_jax.data.problems import Problem, ProblemSet
from grpo_jax.data.prompts import Prompt, tokenize_prompts
from grpo_jax.data.sources import load_problems, read_demonstrations
from grpo_jax.data.steps import step_problems
from grpo_jax.data.tokenizer import ASCII, Tokenizer, character_tokenizer, load_tokenizer
from grpo_jax.errors import UserError

# The built-in tokenizers: the least that arithmetic needs, and all of ASCII.
ALPHABETS = {"characters": ALPHABET, "ascii": ASCII}
# What is asked of a problem set: its answers, or the next steps of its worked solutions.
ASK = {"answers": lambda problems: problems, "steps": step_problems}
MADE_UP = {"arithmetic": arithmetic_problems, "arithmetic_programs": arithmetic_programs}


@dataclasses.dataclass(frozen=True)
class ProblemSpec:
  """Where a problem set comes from; the fields of `config.data` and `config.eval`."""

  source: str  # of MADE_UP, or a source of data.sources
  path: str = ""
  split: str = "train"
  limit: int = 0  # at most this many problems; 0: all (arithmetic: how many to make)
  levels: tuple[int, ...] = ()  # of what is made up: digits of the operands
  ask: str = "answers"  # of ASK


@dataclasses.dataclass(frozen=True)
class Prompts:
  """A problem set with those of its prompts that fit."""

  problems: ProblemSet
  prompts: list[Prompt]
  dropped: int  # prompts longer than the limit
  sizes: tuple[int, ...]  # prompts of each set that was joined, in their order


@dataclasses.dataclass(frozen=True)
class Task:
  """What is learned and how it is read."""

  tokenizer: Tokenizer
  training: Prompts
  held_out: Prompts
  held_out_more: Prompts | None  # of another kind
  demonstrations: Prompts  # what a warm start learns from

  def examined(self) -> dict[str, Prompts]:
    """What is held out, by the name its numbers have."""
    both = {"eval": self.held_out, "eval_more": self.held_out_more}
    return {name: prompts for name, prompts in both.items() if prompts is not None}


def load_prompts(
  spec: ProblemSpec, tokenizer: Tokenizer, *, template: str, max_tokens: int, seed: int
) -> Prompts:
  """Reads or makes the problems and tokenizes their prompts.

  Raises:
    UserError: whatever is wrong with the files, the template, or all lengths.
  """
  if spec.source in MADE_UP:
    make = MADE_UP[spec.source]
    problems = make(count=spec.limit, levels=spec.levels, seed=seed, split=spec.split)
  else:
    problems = load_problems(spec.source, path=spec.path, split=spec.split, limit=spec.limit)
  problems = ASK[spec.ask](problems)
  prompts, dropped = tokenize_prompts(problems, tokenizer, template, max_tokens)
  return Prompts(problems, prompts, dropped, (len(prompts),))


def load_demonstrations(
  path: str, tokenizer: Tokenizer, *, template: str, max_tokens: int
) -> Prompts:
  """Prompts with worked solutions from a file of their own, asked as problems are.

  Raises:
    UserError: whatever is wrong with the file, the template, or all lengths.
  """
  problems = read_demonstrations(path)
  prompts, dropped = tokenize_prompts(problems, tokenizer, template, max_tokens)
  return Prompts(problems, prompts, dropped, (len(prompts),))


def join(sets: Sequence[Prompts]) -> Prompts:
  """One set of all, in their order."""
  problems: tuple[Problem, ...] = ()
  prompts: list[Prompt] = []
  for one in sets:
    prompts += [Prompt(len(problems) + p.problem, p.tokens) for p in one.prompts]
    problems += one.problems.problems
  name = "+".join(one.problems.name for one in sets)
  sizes = tuple(len(one.prompts) for one in sets)
  return Prompts(ProblemSet(name, problems), prompts, sum(one.dropped for one in sets), sizes)


def open_tokenizer(name: str, model_folder: str) -> Tokenizer:
  """The tokenizer of a folder, of the model's own folder (""), or a built-in one.

  Raises:
    UserError: no tokenizer was named and there is no model folder to take it from.
  """
  if name in ALPHABETS:
    return character_tokenizer(ALPHABETS[name])
  if not name and not model_folder:
    known = " or ".join(map(repr, ALPHABETS))
    raise UserError(f"config.tokenizer: name a folder, {known}; there is no model.folder")
  return load_tokenizer(pathlib.Path(name or model_folder).expanduser())
