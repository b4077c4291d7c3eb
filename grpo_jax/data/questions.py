"""What does a person ask: one text, or a file of them, and as which tokens?

Unlike a problem, a question has no answer to be judged by. It keeps all fields it came with, so
that whoever asked finds them beside the completions.
"""

import dataclasses
import pathlib
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from grpo_jax.data.rows import Row, read_rows
from grpo_jax.data.templates import render
from grpo_jax.data.tokenizer import Tokenizer
from grpo_jax.errors import UserError

STDIN = "-"
TEXT_FIELDS = ("prompt", "question")
CHATML_TEMPLATE = "chatml_boxed"  # what training uses unless told otherwise


@dataclasses.dataclass(frozen=True)
class Question:
  """What is asked, all fields it came with, and its place in words."""

  text: str
  fields: Mapping[str, Any]
  place: str


def one_question(text: str, place: str) -> Question:
  """The question of a command line; `place` names it in errors."""
  return _question(Row({"prompt": text}, place), reserved=())


def read_questions(file: str, reserved: Collection[str] = ()) -> list[Question]:
  """The questions of a file of rows ("-": JSONL on stdin), one a row, in "prompt" or "question".

  Args:
    file: its name says how to read it (`data.rows`).
    reserved: fields that no row may have.

  Raises:
    UserError: names the file and line, and what is wrong there.
  """
  rows = _stdin_rows() if file == STDIN else read_rows(pathlib.Path(file).expanduser())
  questions = [_question(row, reserved) for row in rows]
  if not questions:
    raise UserError(f"{'stdin' if file == STDIN else file}: there is no question in it")
  return questions


def encode_question(
  question: Question, template: str, tokenizer: Tokenizer, max_tokens: int
) -> np.ndarray:
  """The prompt's token ids, int32.

  Args:
    max_tokens: what the model reads, prompt and completion together.

  Raises:
    UserError: an unknown template, text that has no tokens, or no room for a completion.
  """
  text = render(template, question.text)
  try:
    tokens = tokenizer.encode(text)
  except UserError as error:
    raise UserError(f"{question.place}: {error}") from error
  if len(tokens) >= max_tokens:
    raise UserError(
      f"{question.place}: the prompt has {len(tokens):,} tokens and the model reads at most "
      f"{max_tokens:,} (max_position_embeddings): there is no room for even one new token"
    )
  return np.array(tokens, np.int32)


def default_template(tokenizer: Tokenizer) -> str:
  """That of training where the tokenizer has ChatML's markers, else the question alone."""
  return CHATML_TEMPLATE if "<|im_start|>" in tokenizer.backend.get_vocab() else "plain"


def _stdin_rows() -> Iterable[Row]:
  with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder, "stdin.jsonl")
    file.write_bytes(sys.stdin.buffer.read())
    return list(read_rows(file))


def _question(row: Row, reserved: Collection[str]) -> Question:
  named = [name for name in TEXT_FIELDS if name in row.fields]
  if len(named) != 1:
    found = "both" if named else ", ".join(map(repr, row.fields)) or "nothing"
    raise UserError(f"{row.place}: expected one field 'prompt' or 'question', found {found}")
  text = row.fields[named[0]]
  if not isinstance(text, str):
    raise UserError(f"{row.place}: the {named[0]} is not a text but {text!r}")
  if not text.strip():
    raise UserError(f"{row.place}: the {named[0]} is empty")
  taken = sorted(set(reserved) & set(row.fields))
  if taken:
    raise UserError(f"{row.place}: completions have a field {taken[0]!r} too; rename this one")
  return Question(text, row.fields, row.place)
