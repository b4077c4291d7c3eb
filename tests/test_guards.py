"""Signs of reward hacking: each look by rollouts that must show, and by such that must not."""

import numpy as np
import pytest

from grpo_jax.answers import Answers
from grpo_jax.data.problems import Problem, ProblemSet
from grpo_jax.guards import SECOND_GRADER, Auditor, agreement, repeated_share
from grpo_jax.records import Finish, Samples
from grpo_jax.verify import Outcome, Verdict, VerifierPool


def samples(*completions: list[int]) -> Samples:
  """Rows of two prompt tokens and these completions."""
  length_R = np.array([len(tokens) for tokens in completions], np.int32)
  tokens_RT = np.zeros((len(completions), 2 + length_R.max()), np.int32)
  for row, tokens in zip(tokens_RT, completions, strict=True):
    row[2 : 2 + len(tokens)] = tokens
  return Samples(
    tokens_RT=tokens_RT,
    prompt_len_R=np.full(len(length_R), 2, np.int32),
    completion_len_R=length_R,
    behaviour_logp_RT=np.zeros(tokens_RT.shape, np.float32),
    finish_R=np.full(len(length_R), Finish.EOS, np.int32),
  )


def test_repetition_is_the_share_of_ngrams_seen_before():
  loop, new = [1, 2] * 20, list(range(40))
  # 33 windows of 8, of which two are different; a text shorter than a window repeats nothing.
  assert repeated_share(samples(loop, new, [1, 1, 1])) == pytest.approx([31 / 33, 0, 0])


def verdict(answer: str | None, right: bool = False) -> Verdict:
  return Verdict(Outcome.RIGHT if right else Outcome.WRONG, answer, "")


@pytest.mark.parametrize(
  ("group", "expected"),
  [
    ([verdict("7", True)] * 4, (1.0, 0, 0)),
    ([verdict("8")] * 3 + [verdict("7", True)], (0.75, 1, 0)),  # they agree, and earn nothing
    ([verdict("8")] * 2 + [verdict("7", True)] * 2, (0.5, 0, 0)),
    ([verdict("1/2", True), verdict("0.5", True)] * 2, (0.5, 0, 1)),
    ([verdict(None)] * 4, (0.0, 0, 0)),
    ([verdict("8")], (1.0, 0, 0)),  # nobody to agree with
  ],
)
def test_answers_are_held_against_rewards(group, expected):
  found = agreement(group, np.zeros(len(group), int))
  assert tuple(found.values()) == pytest.approx(expected)
  names = ["reward/agreement", "reward/agreed_wrong", "reward/right_in_many_ways"]
  assert list(found) == names


def answers(texts: list[str], verdicts: list[Verdict]) -> Answers:
  zeros_R = np.zeros(len(texts), np.int32)
  return Answers(samples(*[[1]] * len(texts)), zeros_R, zeros_R, texts, verdicts, 0.0, 0.0)


def test_an_audit_finds_what_only_the_first_grader_pays_for():
  """The first grader here pays for anything; one answer of four is right, one has no verdict."""
  texts = [r"\boxed{7}", r"\boxed{8}", "I do not know", "seven, in a hurry"]
  verdicts = [verdict("7", True)] * 3 + [Verdict(Outcome.UNSCORED, None, "")]
  problems = ProblemSet("one", (Problem("3+4=", "7"),))
  with VerifierPool(1, 30.0, check=SECOND_GRADER) as second:
    metrics = Auditor(second, problems, rollouts=8, seed=0)(answers(texts, verdicts), 1).metrics()
  assert metrics["reward/audited"] == metrics["reward/audited_paid"] == 3
  assert metrics["reward/audit_refused"] == metrics["reward/audit_disagreement"] == 2 / 3


def test_an_audit_asks_about_as_many_as_it_should_and_others_each_step():
  texts = [rf"\boxed{{{i}}}" for i in range(40)]
  problems = ProblemSet("one", (Problem("3+4=", "7"),))
  asked = []

  class Pool:
    def submit_all(self, completions, golds):
      asked.append(completions)
      return []

  for step in (1, 1, 2):
    Auditor(Pool(), problems, rollouts=5, seed=0)(answers(texts, [verdict("7")] * 40), step)
  assert [len(set(texts)) for texts in asked] == [5, 5, 5]
  assert asked[0] == asked[1] != asked[2]
