"""sGPO on hand-drawn profiles: who is in which phase, in groups of which size."""

import numpy as np
import pytest

from grpo_jax.errors import UserError
from grpo_jax.methods.choice import Budget
from grpo_jax.methods.ledger import empty_ledger
from grpo_jax.methods.phases import easy_to_hard
from tests.methods.evidence import streams


def phases_of(rights, *, unsolved_share=0.0, samples=8):
  share_P = np.array(rights) / samples
  return easy_to_hard(share_P, streams, solved_above=0.75, unsolved_share=unsolved_share)


def walk(select, *, problems, samples, steps):
  state, ledger, taken = select.start(empty_ledger(0, 1)), empty_ledger(0, 1), []
  for _ in range(steps):
    choice, state = select(state, ledger, Budget(problems, samples))
    assert choice.copies_N.sum() == problems * samples
    taken += zip(choice.place_N.tolist(), choice.copies_N.tolist(), strict=True)
  return taken


def test_the_papers_table_for_eight_samples():
  """3 to 6 right of 8: groups of 2; 2 right: of 4; 1 right: of 8; 7 and 8: left out."""
  select = phases_of([0, 1, 2, 3, 4, 5, 6, 7, 8])
  assert select.sizes == (2, 4, 8)
  assert [phase.tolist() for phase in select.phases] == [[3, 4, 5, 6], [2], [1]]


def test_the_same_unsolved_problems_are_in_every_phase():
  select = phases_of([0] * 20 + [1, 2, 4], unsolved_share=0.1)
  mixed_in = [sorted(set(phase) - {20, 21, 22}) for phase in select.phases]
  assert len(mixed_in[0]) == 2
  assert mixed_in[0] == mixed_in[1] == mixed_in[2]


def test_a_pass_visits_each_phase_once_in_its_size_and_then_begins_again():
  select = phases_of([4, 4, 2, 1])  # 2 x 2 + 4 + 8 = 16 rollouts a pass
  first, second = (walk(select, problems=2, samples=8, steps=n)[-4:] for n in (1, 2))
  for one_pass in (first, second):
    assert sorted(one_pass[:2]) == [(0, 2), (1, 2)]
    assert one_pass[2:] == [(2, 4), (3, 8)]


def test_a_step_is_as_many_problems_as_its_rollouts_allow():
  select = phases_of([4] * 64)
  assert [copies for _, copies in walk(select, problems=4, samples=8, steps=1)] == [2] * 16


def test_the_last_problem_of_a_step_takes_what_is_left():
  select = phases_of([4, 1, 1])  # 2 + 8 of 12: 2 are left for the third
  assert [copies for _, copies in walk(select, problems=3, samples=4, steps=1)] == [2, 8, 2]


def test_a_phase_without_problems_is_passed_over():
  assert phases_of([1, 1, 8]).sizes == (8,)


def test_nothing_left_to_learn_is_said():
  with pytest.raises(UserError, match="2 are never solved"):
    phases_of([0, 0, 8])
