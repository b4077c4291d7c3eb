"""Plain text as next pieces: what is shown, what is asked for, how much it counts."""

import json

import pytest

from grpo_jax.data.segments import segment_problems
from grpo_jax.data.sources import load_problems
from grpo_jax.errors import UserError
from grpo_jax.verify.segments import same_words

S = [f"This is sentence {n}." for n in ("one", "two", "three", "four", "five", "six")]


def test_each_sentence_after_the_first_is_asked_for_once_and_the_two_kinds_take_turns():
  problems = list(segment_problems(" ".join(S)))
  assert [problem.answer.split("\n")[0] for problem in problems] == S[1:]
  assert [problem.weight for problem in problems] == [1.0, 0.5, 1.0, 0.5, 1.0]
  after, middle, *_, last = problems
  assert after.question.startswith(f"{S[0]}\n\n")
  assert after.answer == "\n".join(S[1:4])
  assert middle.question.startswith("\n".join([S[0], S[1], "[...]", S[3]]) + "\n\n")
  assert S[2] not in middle.question
  assert last.answer == S[5]
  assert {problem.judge for problem in problems} == {"segment"}


def test_a_middle_needs_an_end():
  assert [problem.weight for problem in segment_problems(" ".join(S[:3]))] == [1.0, 1.0]


def test_short_sentences_are_dropped_and_texts_without_two_give_nothing():
  assert not list(segment_problems("Only one sentence here."))
  assert [p.answer for p in segment_problems(f"{S[0]} No! {S[1]}")] == [S[1]]


def test_a_long_text_is_shown_in_part():
  *_, last = segment_problems(" ".join(S * 20))
  assert last.question.count("\n") < 50


def test_a_demonstration_has_the_form_that_is_judged():
  for problem in segment_problems(" ".join(S)):
    assert same_words(problem.solution, problem.answer)


def test_texts_are_read_from_rows(tmp_path):
  file = tmp_path / "texts.jsonl"
  file.write_text("".join(json.dumps({"text": " ".join(S[a:])}) + "\n" for a in (0, 3)))
  problems = load_problems("text", path=file)
  assert (len(problems), problems.name) == (5 + 2, "texts")
  assert problems[5].question.startswith(S[3])
  file.write_text('{"title": "x"}\n')
  with pytest.raises(UserError, match=r"texts.jsonl, line 1: no field 'text'"):
    load_problems("text", path=file)
