"""A prompt is what the model was trained to continue, marker for marker."""

import pytest

from grpo_jax.data.templates import TEMPLATES, render
from grpo_jax.errors import UserError

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
CHAT = {
  "qwen_math": lambda question: (BOXED, question),
  "chatml_boxed": lambda question: (
    "You are a helpful assistant.",
    f"Problem: {question}\n{BOXED}",
  ),
}
QUESTIONS = ["What is $1+1$?", "  {braces} and\n\nlines ", "Für welches $x$ ist $\\frac{x}{2}=3$?"]


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("name", CHAT)
def test_chat_prompts_equal_the_tokenizers_own_template(qwen3, name, question):
  system, user = CHAT[name](question)
  messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
  text = qwen3.backend.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
  ids = qwen3.backend.apply_chat_template(
    messages, tokenize=True, add_generation_prompt=True, return_dict=False
  )
  assert render(name, question) == text
  assert qwen3.encode(render(name, question)) == ids


@pytest.mark.parametrize(
  ("name", "thinking"), [("qwen3_thinking", True), ("qwen3_no_thinking", False)]
)
@pytest.mark.parametrize("question", QUESTIONS)
def test_prompts_of_qwen3_are_its_own_with_thinking_on_and_off(qwen3, name, thinking, question):
  text = qwen3.backend.apply_chat_template(
    [{"role": "user", "content": f"{question}\n{BOXED}"}],
    tokenize=False,
    add_generation_prompt=True,
    enable_thinking=thinking,
  )
  assert render(name, question) == text


@pytest.mark.parametrize("name", CHAT)
def test_chat_markers_are_single_special_ids(qwen3, name):
  ids = qwen3.encode(render(name, "1+1?"))
  start, end = qwen3.encode("<|im_start|><|im_end|>")
  assert [i for i in ids if i in (start, end)] == [start, end, start, end, start]
  assert ids[0] == start


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_asks_the_whole_question_once(name):
  question = "How many {primes} are\nbelow $100$?"
  assert render(name, question).count(question) == 1
  assert TEMPLATES[name].name == name


def test_plain_is_the_question():
  assert render("plain", "47+38=") == "47+38="


@pytest.mark.parametrize(
  ("name", "asked"),
  [
    ("base_boxed", "\\boxed{}"),
    ("qwen_math", "\\boxed{}"),
    ("lighteval", "$\\boxed{ANSWER}$"),
    ("nemo_skills", "inside \\boxed{}."),
    ("evalscope", "inside \\boxed{}."),
    ("gsm8k", "####"),
  ],
)
def test_a_template_asks_for_the_form_that_is_scored(name, asked):
  assert asked in render(name, "1+1?")


def test_an_unknown_template_gets_a_suggestion():
  with pytest.raises(UserError, match="no template 'qwen-math', did you mean 'qwen_math'"):
    render("qwen-math", "1+1?")
