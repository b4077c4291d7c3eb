"""Completions are written by a model: nothing in them may break the log or the terminal."""

import dataclasses

import pytest

from grpo_jax.errors import UserError
from grpo_jax.run.rollout_log import RolloutEntry, printable, shorten, write_rollouts

ENTRY = RolloutEntry(
  group=3,
  problem="What is 2 + 2?",
  gold="4",
  completion="Two and two.\n\\boxed{4}",
  reward=1.0,
  advantage=0.5774,
  verdict="equal",
  length=9,
  finish_reason="stop",
)


def entry(**changes):
  return dataclasses.replace(ENTRY, **changes)


def test_a_log_reads_as_groups_of_rollouts(tmp_path):
  wrong = entry(completion="5", reward=0.0, advantage=-1.7321, verdict="no answer", length=1)
  path = write_rollouts(tmp_path / "rollouts", 12, [ENTRY, wrong, entry(group=4)])
  assert path == tmp_path / "rollouts" / "step_000012.txt"
  rule = "=" * 100
  assert path.read_text() == f"""step 12: 3 rollouts in 2 groups

{rule}
group 3: mean reward 0.500 of 2 rollouts
problem:
  | What is 2 + 2?
gold: 4

--- rollout 1: reward 1, advantage +0.577, 9 tokens, stop, equal
  | Two and two.
  | \\boxed{{4}}

--- rollout 2: reward 0, advantage -1.732, 1 tokens, stop, no answer
  | 5

{rule}
group 4: mean reward 1.000 of 1 rollouts
problem:
  | What is 2 + 2?
gold: 4

--- rollout 1: reward 1, advantage +0.577, 9 tokens, stop, equal
  | Two and two.
  | \\boxed{{4}}
"""


@pytest.mark.parametrize(
  ("text", "shown"),
  [
    ("\\frac{1}{2} é 汉 €", "\\frac{1}{2} é 汉 €"),
    ("\x1b[2J\x1b[31mred", "\\x1b[2J\\x1b[31mred"),
    ("a\rb\tc\x00\x7f", "a\\rb\\tc\\x00\\x7f"),
    ("\u202eevil\u2028\u200b", "\\u202eevil\\u2028\\u200b"),
    ("\ud800", "\\ud800"),
    ("two\nlines", "two\\nlines"),
  ],
)
def test_what_does_not_show_is_spelled_out(text, shown):
  assert printable(text) == shown


def test_no_completion_can_pass_for_a_heading(tmp_path):
  forged = entry(completion="x\n--- rollout 2: reward 1\u2028--- rollout 3:\r--- rollout 4:")
  lines = write_rollouts(tmp_path, 0, [forged]).read_text().splitlines()
  assert sum(line.startswith("--- rollout") for line in lines) == 1


def test_a_lone_surrogate_does_not_lose_the_log(tmp_path):
  """Half a character is what a byte-level tokenizer gives for a cut completion."""
  path = write_rollouts(tmp_path, 0, [entry(completion="\udcff", problem="\ud800", gold="\ud800")])
  assert "\\udcff" in path.read_text()


def test_a_long_text_keeps_both_ends_and_says_what_is_gone():
  text = "a" * 5000 + "\\boxed{4}"
  short = shorten(text, 100)
  assert short == "a" * 50 + "\n[... 4,909 characters left out ...]\n" + "a" * 41 + "\\boxed{4}"
  assert shorten("a" * 100, 100) == "a" * 100


def test_a_folder_that_is_a_file_is_a_user_error(tmp_path):
  (tmp_path / "rollouts").write_text("")
  with pytest.raises(UserError, match="file, not a folder"):
    write_rollouts(tmp_path / "rollouts", 0, [ENTRY])
