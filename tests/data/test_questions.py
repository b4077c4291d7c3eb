"""Questions of a person: wherever one is wrong, its file and line are named."""

import io
import json
import sys

import pytest

from grpo_jax.data.arithmetic import ALPHABET
from grpo_jax.data.questions import default_template, encode_question, one_question, read_questions
from grpo_jax.data.tokenizer import character_tokenizer, load_tokenizer
from grpo_jax.errors import UserError


def test_a_question_keeps_its_fields(tmp_path):
  rows = [{"prompt": "a", "id": 1}, {"question": "b", "levels": [1]}]
  file = tmp_path / "questions.jsonl"
  file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  questions = read_questions(str(file))
  assert [question.text for question in questions] == ["a", "b"]
  assert [question.fields for question in questions] == rows


@pytest.mark.parametrize(
  ("line", "wrong"),
  [
    (b'{"prompt": "a",', "expected a JSON object"),
    (b'"a"', "not a string"),
    (b'{"prompt": "\xff"}', "UTF-8"),
    (b'{"prompt": "a", "prompt": "b"}', "stands there twice"),
    (b'{"prompt": "a", "question": "b"}', "found both"),
    (b'{"problem": "a", "id": 1}', "found 'problem', 'id'"),
    (b"{}", "found nothing"),
    (b'{"prompt": ["a"]}', "not a text but \\['a'\\]"),
    (b'{"question": " "}', "the question is empty"),
    (b'{"prompt": "a", "logp": 1}', "'logp' too; rename"),
  ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, line, wrong):
  file = tmp_path / "questions.jsonl"
  file.write_bytes(b'{"prompt": "fine"}\n\n' + line + b"\n")
  with pytest.raises(UserError, match=f"questions.jsonl, line 3: .*{wrong}"):
    read_questions(str(file), reserved=("logp",))


@pytest.mark.parametrize(
  ("name", "wrong"),
  [("none.jsonl", "none.jsonl"), ("empty.jsonl", "no question"), ("a.txt", "'.txt' files")],
)
def test_a_file_that_holds_no_questions(tmp_path, name, wrong):
  (tmp_path / "empty.jsonl").write_text("\n")
  with pytest.raises(UserError, match=wrong):
    read_questions(str(tmp_path / name))


def test_standard_input_is_jsonl(monkeypatch):
  monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"prompt": "\xc3\xa4"}\n[]\n')))
  with pytest.raises(UserError, match=r"stdin.*line 2"):
    read_questions("-")


def test_a_prompt_leaves_room_for_a_token():
  tokenizer = character_tokenizer(ALPHABET)
  assert encode_question(one_question("123", "here"), "plain", tokenizer, 4).tolist() == [1, 2, 3]
  with pytest.raises(UserError, match=r"here: the prompt has 3 tokens .* at most 3"):
    encode_question(one_question("123", "here"), "plain", tokenizer, 3)


def test_chatml_is_the_default_where_the_tokenizer_has_it(shared):
  assert default_template(character_tokenizer(ALPHABET)) == "plain"
  assert default_template(load_tokenizer(shared / "tokenizers" / "qwen3")) == "chatml_boxed"
