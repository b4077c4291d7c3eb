"""What does the model actually write? A text file a person can read, for each logged step.

Completions are whatever a model sampled: escape sequences, right-to-left marks, a megabyte of one
letter, a copy of this file's own headings. So control characters are spelled out, long texts lose
their middle, and every line of a completion carries a margin.
"""

import dataclasses
import itertools
import os
import pathlib
import statistics
from collections.abc import Sequence

from grpo_jax.run.files import disk_errors, write_atomically

_RULE = "=" * 100


@dataclasses.dataclass(frozen=True)
class RolloutEntry:
  """One rollout as a person wants to see it.

  group: number of the group; entries of a group stand next to each other.
  problem, gold: the question and the reference answer, the same for the whole group.
  verdict: why the verifier gave this reward. length: tokens of the completion.
  finish_reason: `stop` for an end token, `length` for a completion that was cut off.
  """

  group: int
  problem: str
  gold: str
  completion: str
  reward: float
  advantage: float
  verdict: str
  length: int
  finish_reason: str


def write_rollouts(
  folder: str | os.PathLike, step: int, entries: Sequence[RolloutEntry], max_chars: int = 4000
) -> pathlib.Path:
  """Writes `step_000012.txt` in `folder` and returns its path.

  max_chars: longest problem or completion shown whole. Raises UserError if the disk refuses.
  """
  folder = pathlib.Path(folder)
  with disk_errors(folder):
    folder.mkdir(parents=True, exist_ok=True)
  path = folder / f"step_{step:06d}.txt"
  groups = [list(group) for _, group in itertools.groupby(entries, key=lambda entry: entry.group)]
  title = f"step {step}: {len(entries)} rollouts in {len(groups)} groups"
  sections = [title, *(_group_section(group, max_chars) for group in groups)]
  write_atomically(path, "\n".join(sections) + "\n")
  return path


def _group_section(group: Sequence[RolloutEntry], max_chars: int) -> str:
  first = group[0]
  rewards = [entry.reward for entry in group]
  lines = [
    "",
    _RULE,
    f"group {first.group}: mean reward {statistics.fmean(rewards):.3f} of {len(group)} rollouts",
    "problem:",
    _margined(shorten(first.problem, max_chars)),
    f"gold: {printable(shorten(first.gold, max_chars))}",
  ]
  for number, entry in enumerate(group, start=1):
    lines += ["", _headline(number, entry), _margined(shorten(entry.completion, max_chars))]
  return "\n".join(lines)


def _headline(number: int, entry: RolloutEntry) -> str:
  return (
    f"--- rollout {number}: reward {entry.reward:g}, advantage {entry.advantage:+.3f}, "
    f"{entry.length} tokens, {entry.finish_reason}, {printable(entry.verdict)}"
  )


def _margined(text: str) -> str:
  """Printable `text` with a margin on every line, so that no text can pass for a heading."""
  return "\n".join(f"  | {printable(line)}" for line in text.split("\n"))


def printable(text: str) -> str:
  """`text` on one line: whatever would not show, or would move the cursor, as an escape."""
  return "".join(
    char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
  )


def shorten(text: str, max_chars: int) -> str:
  """`text`, with its middle replaced by a count where it is longer than `max_chars`.

  The end is kept as well as the start: it holds the answer.
  """
  if len(text) <= max_chars:
    return text
  head = max_chars // 2
  tail = max_chars - head
  cut = len(text) - max_chars
  return f"{text[:head]}\n[... {cut:,} characters left out ...]\n{text[len(text) - tail:]}"
