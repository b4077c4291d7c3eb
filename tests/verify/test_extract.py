"""Which part of a completion is its answer; each row is a way in which rewards were given away."""

import pytest

from grpo_jax.verify import Outcome, verify
from grpo_jax.verify.extract import MAX_ANSWER_CHARS, extract_answer


@pytest.mark.parametrize(
  "completion, answer",
  [
    (r"so \boxed{5}.", "5"),
    (r"\boxed{\frac{1}{2}} is it", r"\frac{1}{2}"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\boxed{[0, 1)}", "[0, 1)"),
    (r"\boxed {5}", "5"),
    (r"\fbox{5}", "5"),
    (r"first \boxed{1}, then \boxed{2}", "2"),
    (r"<think>\boxed{1}</think> The answer is \boxed{2}", "2"),
    (r"<think>\boxed{1}</think> I am sure.", "1"),
    (r"<think>no</think> \boxed{3} <think>\boxed{4}", "4"),
    (r"\boxed{1} and then \boxed{2", "1"),
    (r"\boxed{1} as you wrote: \boxed", "1"),
    (r"\boxed{1} put it in \boxed{}.", ""),
    (r"\boxed{a \boxed{5}}", "5"),
    ("2 + 3 = 5\n#### 5", "5"),
    ("#### 4\nwait\n#### 1,234\n", "1,234"),
    ("\\boxed{7}\n#### 8", "7"),
    ("The answer is 5", None),
    ("$5$", None),
    ("the issue #### 5", None),
    (r"\boxed{5", None),
    ("", None),
  ],
)
def test_the_last_closed_box_after_thinking_is_the_answer(completion, answer):
  assert extract_answer(completion) == answer


def test_a_long_box_does_not_hand_over_to_the_box_before_it():
  long_box = "\\boxed{" + "1+" * MAX_ANSWER_CHARS + "1}"
  assert verify("\\boxed{5} " + long_box, "5").outcome is Outcome.UNPARSEABLE


def test_text_after_the_box_does_not_hide_it():
  """One published grader searched the last 300 characters only."""
  assert verify("\\boxed{5}" + " as we saw" * 5000, "5")


@pytest.mark.parametrize("gold", ["", "  ", "$$", r"\boxed{}"])
@pytest.mark.parametrize("answer", ["", " ", "5", "$$"])
def test_an_empty_gold_answer_is_never_rewarded(gold, answer):
  assert not verify(f"\\boxed{{{answer}}}", gold)


def test_a_list_of_gold_answers_offers_each_of_them():
  gold = r"['1 \\times 10^{-3}', '10^{-3}\n']"
  assert verify(r"\boxed{0.001}", gold)
  assert not verify(r"\boxed{0.01}", gold)


def test_verdict_says_what_was_read_and_why():
  verdict = verify(r"\boxed{\frac{1}{3}}", "0.5")
  assert (verdict.outcome, verdict.answer) == (Outcome.WRONG, r"\frac{1}{3}")
  assert verdict.reason == "another value"
