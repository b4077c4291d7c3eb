"""Demonstrations are of both kinds, some of each wrong, and none is of a held-out sum."""

from experiments.sums_and_programs import demonstrations
from grpo_jax.data.arithmetic import arithmetic_problems, arithmetic_programs

LEVELS = (2, 2, 3)


def test_both_kinds_in_turn_have_their_form_and_some_mistakes():
  pairs = demonstrations(LEVELS, seed=0)
  assert pairs == demonstrations(LEVELS, seed=0)
  sums, programs = dict(pairs[0::2]), dict(pairs[1::2])
  chosen = {"count": len(sums), "levels": LEVELS, "seed": 1000, "split": "train"}
  for shown, problems in (
    (sums, arithmetic_problems(**chosen)),
    (programs, arithmetic_programs(**chosen)),
  ):
    right = {problem.question: problem.solution for problem in problems.problems}
    assert shown.keys() == right.keys()
    assert 0.3 < sum(right[question] == text for question, text in shown.items()) / len(shown) < 0.7
  assert all("\\boxed{" in text for text in sums.values())
  assert all(text.startswith("```python\nprint(") for text in programs.values())


def test_nothing_held_out_is_shown():
  shown = {question for question, _ in demonstrations(LEVELS, seed=3)}
  held_out = arithmetic_problems(count=200, levels=LEVELS, seed=3, split="test")
  assert not shown & {problem.question for problem in held_out.problems}
