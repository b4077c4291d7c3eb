"""How does a completion reach a person, or a program that reads on?

It is whatever a model sampled. On a terminal, control characters are spelled out and every line has
a margin, as in `rollout_log`; for programs it is one line of JSON.
"""

import contextlib
import dataclasses
import json
import math
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from grpo_jax.records import Finish
from grpo_jax.run.files import disk_errors
from grpo_jax.run.rollout_log import printable

STDOUT = "-"
ASKED_CHARACTERS = 60  # of a question, in the headline of its completions


@dataclasses.dataclass(frozen=True)
class Completion:
  """One rollout that has ended; the keys of its line of JSON."""

  prompt_index: int  # from 0
  sample_index: int  # from 0, among those of its prompt
  completion: str
  tokens: int  # how many, the end-of-sequence token included
  finish: str  # of finish_name
  logp: float  # of all its tokens, nats, under the distribution they were drawn from


KEYS = tuple(field.name for field in dataclasses.fields(Completion))


def finish_name(finish: Finish) -> str:
  """`stop` for an end token, else the reason's own name: `length` where it was cut off."""
  return "stop" if finish is Finish.EOS else finish.name.lower()


@contextlib.contextmanager
def open_new(out: str) -> Iterator[TextIO]:
  """The new file `out`, or stdout for "" and "-". Raises UserError if the disk refuses."""
  if out in ("", STDOUT):
    yield sys.stdout
    return
  with disk_errors(out):
    file = pathlib.Path(out).expanduser().open("x", encoding="utf-8")
  with file:
    yield file


def as_json(completion: Completion, fields: Mapping[str, Any]) -> str:
  """One line of ASCII: the fields of what was asked, then those of the completion. JSON has no word
  for a log-prob that is no number: it is null."""
  logp = completion.logp if math.isfinite(completion.logp) else None
  line = {**fields, **dataclasses.asdict(completion), "logp": logp}
  return json.dumps(line, default=str)  # a parquet file may have held dates


def as_text(completion: Completion, asked: str) -> str:
  """A headline, then the completion behind a margin, so that no text can pass for a headline."""
  mean_logp = completion.logp / max(completion.tokens, 1)  # nothing may have been drawn
  headline = (
    f"--- prompt {completion.prompt_index + 1}, sample {completion.sample_index + 1}: "
    f"{completion.tokens:,} tokens, {completion.finish}, mean log-prob {mean_logp:.3f}, "
    f"asked {printable(asked[:ASKED_CHARACTERS])}"
  )
  lines = terminal_safe(completion.completion).split("\n")
  return "\n".join([headline, *(f"  | {line}" for line in lines)])


def terminal_safe(text: str) -> str:
  """`text` with its lines and tabs; whatever else would not show, or would command the terminal, as
  an escape."""
  lines = (line.split("\t") for line in text.split("\n"))
  return "\n".join("\t".join(map(printable, cells)) for cells in lines)
