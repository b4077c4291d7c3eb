"""Completions are written by a model: no text may break a line of JSON or command a terminal."""

import datetime
import json

import pytest

from grpo_jax.errors import UserError
from grpo_jax.records import Finish
from grpo_jax.run.completion_log import (
  Completion,
  as_json,
  as_text,
  finish_name,
  open_new,
  terminal_safe,
)

ENDED = Completion(0, 2, "one\n\x1b[2Jtwo", 4, "stop", -2.0)


def test_a_person_reads_a_headline_and_a_margin():
  assert as_text(ENDED, "1+1=\n" + "?" * 99) == (
    "--- prompt 1, sample 3: 4 tokens, stop, mean log-prob -0.500, asked 1+1=\\n" + "?" * 55 + "\n"
    "  | one\n"
    "  | \\x1b[2Jtwo"
  )


def test_a_completion_may_be_without_a_token():
  """A model of broken weights ends where the first token's logits are no numbers."""
  assert "0 tokens, nonfinite" in as_text(Completion(0, 0, "", 0, "nonfinite", 0.0), "1+1=")


def test_a_program_reads_the_fields_and_the_completion():
  fields = {"prompt": "1+1=", "day": datetime.date(2024, 1, 2)}
  line = as_json(ENDED, fields)
  assert line.isascii() and line.isprintable()
  assert json.loads(line) == {
    "prompt": "1+1=", "day": "2024-01-02", "prompt_index": 0, "sample_index": 2,
    "completion": "one\n\x1b[2Jtwo", "tokens": 4, "finish": "stop", "logp": -2.0,
  }  # fmt: skip


@pytest.mark.parametrize("logp", [float("nan"), float("-inf")])
def test_a_log_prob_that_is_no_number_is_null(logp):
  """NaN is no JSON: one such line and strict readers give up on the file."""
  line = as_json(Completion(0, 0, "", 1, "nonfinite", logp), {})
  assert json.loads(line, parse_constant=pytest.fail)["logp"] is None


@pytest.mark.parametrize(
  ("text", "shown"),
  [
    ("a\tb\n\nc", "a\tb\n\nc"),
    ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
    ("over\rwritten\x08", r"over\rwritten\x08"),
    ("\x9b31m\u202e\u2028", r"\x9b31m\u202e\u2028"),
    ("\ud800", r"\ud800"),
    ("é漢🙂", "é漢🙂"),
  ],
)
def test_only_lines_and_tabs_are_kept(text, shown):
  assert terminal_safe(text) == shown


def test_an_end_token_is_a_stop():
  assert (finish_name(Finish.EOS), finish_name(Finish.LENGTH)) == ("stop", "length")


def test_a_file_is_never_overwritten(tmp_path):
  out = tmp_path / "out.jsonl"
  with open_new(str(out)) as file:
    file.write("kept")
  with pytest.raises(UserError, match=r"out\.jsonl"), open_new(str(out)):
    pass
  assert out.read_text() == "kept"
