"""What is to be learned: problems to train on, problems held out, and how they become tokens."""

import dataclasses
import pathlib

from grpo_jax.data.arithmetic import ALPHABET, arithmetic_problems
from grpo_jax.data.problems import ProblemSet
from grpo_jax.data.prompts import Prompt, tokenize_prompts
from grpo_jax.data.sources import load_problems
from grpo_jax.data.tokenizer import Tokenizer, character_tokenizer, load_tokenizer
from grpo_jax.errors import UserError

CHARACTERS = "characters"  # names the built-in tokenizer of the arithmetic source


@dataclasses.dataclass(frozen=True)
class ProblemSpec:
  """Where a problem set comes from; the fields of `config.data` and `config.eval`."""

  source: str  # "arithmetic", or a source of data.sources
  path: str = ""
  split: str = "train"
  limit: int = 0  # at most this many problems; 0: all (arithmetic: how many to make)
  levels: tuple[int, ...] = ()  # arithmetic: digits of the operands


@dataclasses.dataclass(frozen=True)
class Prompts:
  """A problem set with those of its prompts that fit."""

  problems: ProblemSet
  prompts: list[Prompt]
  dropped: int  # prompts longer than the limit


@dataclasses.dataclass(frozen=True)
class Task:
  """What is learned and how it is read."""

  tokenizer: Tokenizer
  training: Prompts
  held_out: Prompts


def load_prompts(
  spec: ProblemSpec, tokenizer: Tokenizer, *, template: str, max_tokens: int, seed: int
) -> Prompts:
  """Reads or makes the problems and tokenizes their prompts.

  Raises:
    UserError: whatever is wrong with the files, the template, or all lengths.
  """
  if spec.source == "arithmetic":
    problems = arithmetic_problems(
      count=spec.limit, levels=spec.levels, seed=seed, split=spec.split
    )
  else:
    problems = load_problems(spec.source, path=spec.path, split=spec.split, limit=spec.limit)
  prompts, dropped = tokenize_prompts(problems, tokenizer, template, max_tokens)
  return Prompts(problems, prompts, dropped)


def open_tokenizer(name: str, model_folder: str) -> Tokenizer:
  """The tokenizer of a folder, of the model's own folder (""), or the built-in one.

  Raises:
    UserError: no tokenizer was named and there is no model folder to take it from.
  """
  if name == CHARACTERS:
    return character_tokenizer(ALPHABET)
  if not name and not model_folder:
    raise UserError(f"config.tokenizer: name a folder or {CHARACTERS!r}; there is no model.folder")
  return load_tokenizer(pathlib.Path(name or model_folder).expanduser())
