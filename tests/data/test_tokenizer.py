"""Ids mean the same text everywhere, and a rollout ends on every id that is an end."""

import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_jax.data.arithmetic import ALPHABET, arithmetic_problems
from grpo_jax.data.tokenizer import Tokenizer, character_tokenizer, load_tokenizer
from grpo_jax.errors import UserError

WRITING = " \n\t.,?!'nts"
IM_END, END_OF_TEXT = 151645, 151643


@pytest.fixture(scope="module")
def digits() -> Tokenizer:
  return character_tokenizer(ALPHABET)


@pytest.fixture(scope="module")
def writing() -> Tokenizer:
  return character_tokenizer(WRITING)


@pytest.fixture
def saved(digits, tmp_path) -> pathlib.Path:
  digits.save(tmp_path)
  return tmp_path


def test_one_token_for_each_entry_then_eos_and_pad(digits):
  assert digits.encode("".join(ALPHABET)) == list(range(len(ALPHABET)))
  assert digits.eos_ids == (len(ALPHABET),)
  assert digits.pad_id == len(ALPHABET) + 1
  assert digits.size == len(ALPHABET) + 2


def test_boxed_is_one_token(digits):
  assert len(digits.encode("\\boxed{85}")) == len(["\\boxed", "{", "8", "5", "}"])


def test_longer_entries_win():
  tokenizer = character_tokenizer(("a", "b", "ab", "abc", "c"))
  assert tokenizer.encode("abcabba") == [3, 2, 1, 0]


@given(text=st.lists(st.sampled_from(ALPHABET)).map("".join))
def test_characters_round_trip(digits, text):
  assert digits.decode(digits.encode(text)) == text


@given(text=st.text(st.sampled_from(WRITING)))
def test_nothing_is_tidied_up(writing, text):
  # Some decoders drop a blank before punctuation: the text scored would not be the text sampled.
  assert writing.decode(writing.encode(text)) == text


def test_special_tokens_leave_no_text(digits):
  ids = [*digits.encode("85"), *digits.eos_ids, digits.pad_id]
  assert digits.decode(ids) == "85"


@pytest.mark.parametrize(("text", "named"), [("4 7", "' '"), ("x+1", "'x'"), ("½", "'½'")])
def test_text_outside_the_alphabet_is_refused_by_name(digits, text, named):
  with pytest.raises(UserError, match="no token for") as refused:
    digits.encode(text)
  assert named in str(refused.value)


def test_an_alphabet_has_no_repetitions():
  with pytest.raises(UserError, match="'a'"):
    character_tokenizer("aba")


def test_auto_tokenizer_reads_the_same_ids(digits, saved):
  from transformers import AutoTokenizer

  text = arithmetic_problems(count=1, levels=(8,), seed=0, split="test")[0].solution
  published = AutoTokenizer.from_pretrained(saved, local_files_only=True)
  assert published.encode(text, add_special_tokens=False) == digits.encode(text)
  assert published.eos_token_id == digits.eos_ids[0]


def test_save_and_load_keep_everything(digits, saved):
  loaded = load_tokenizer(saved)
  text = "7+8=15;\\boxed{85}"
  assert loaded.encode(text) == digits.encode(text)
  assert loaded.decode(loaded.encode(text)) == text
  assert loaded.eos_ids == digits.eos_ids
  assert (loaded.pad_id, loaded.size) == (digits.pad_id, digits.size)


@pytest.mark.parametrize(
  ("generation", "config", "ends"),
  [
    (None, None, (16,)),
    ({"eos_token_id": 3}, None, (3, 16)),
    ({"eos_token_id": [3, 4]}, {"eos_token_id": 5}, (3, 4, 5, 16)),
    ({"eos_token_id": None}, {}, (16,)),
  ],
)
def test_every_file_may_name_an_end(saved, generation, config, ends):
  for name, content in (("generation_config.json", generation), ("config.json", config)):
    if content is not None:
      (saved / name).write_text(json.dumps({"model_type": "qwen3", **content}))
  assert load_tokenizer(saved).eos_ids == ends


@pytest.mark.parametrize(
  ("file", "content", "complaint"),
  [
    ("generation_config.json", "{", "generation_config.json: not a JSON object"),
    ("generation_config.json", "[1]", "generation_config.json: not a JSON object"),
    ("generation_config.json", '{"eos_token_id": "</s>"}', "must be an id"),
    ("generation_config.json", '{"eos_token_id": 18}', "below 18"),
    ("tokenizer.json", "{", "the tokenizer cannot be read"),
  ],
)
def test_broken_files_are_named(saved, file, content, complaint):
  (saved / file).write_text(content)
  with pytest.raises(UserError, match=complaint) as refused:
    load_tokenizer(saved)
  assert str(saved) in str(refused.value)
  assert "\n" not in str(refused.value)


@pytest.mark.parametrize("folder", ["nowhere", "Qwen/Qwen3-0.6B", "."])
def test_a_folder_without_a_tokenizer_is_never_looked_up_elsewhere(tmp_path, folder):
  with pytest.raises(UserError, match=r"no tokenizer\.json"):
    load_tokenizer(tmp_path / folder)


def test_code_in_a_model_folder_is_not_run(saved):
  canary = saved / "ran"
  (saved / "evil.py").write_text(f"open({str(canary)!r}, 'w')\nclass Evil: pass\n")
  settings = json.loads((saved / "tokenizer_config.json").read_text())
  settings["auto_map"] = {"AutoTokenizer": [None, "evil.Evil"]}
  (saved / "tokenizer_config.json").write_text(json.dumps(settings))
  try:
    load_tokenizer(saved)
  except UserError as refused:
    assert "trust_remote_code" in str(refused)
  assert not canary.exists()


def test_qwen3_stops_on_both_ends_and_knows_its_size(qwen3):
  assert qwen3.eos_ids == (END_OF_TEXT, IM_END)
  assert qwen3.pad_id == END_OF_TEXT
  assert qwen3.size == 151_669


def test_qwen3_adds_nothing(qwen3):
  assert qwen3.encode("") == []
  assert qwen3.encode("<|im_end|>") == [IM_END]
  assert qwen3.decode([*qwen3.encode("so 5."), IM_END, END_OF_TEXT]) == "so 5."


# The text of a special token becomes that token, and decoding leaves those out.
@given(text=st.text(st.characters(max_codepoint=0x24F)).filter(lambda text: "<|" not in text))
def test_qwen3_loses_no_text(qwen3, text):
  assert qwen3.decode(qwen3.encode(text)) == text
