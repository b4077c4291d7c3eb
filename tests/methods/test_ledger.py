"""Evidence by hand: what counts as a try, what a window forgets, what a checkpoint brings back."""

import json
import math

import numpy as np

from grpo_jax.methods.ledger import DECAY, Ledger, empty_ledger
from tests.methods.evidence import groups


def test_groups_are_added_up_and_what_has_no_verdict_is_no_try():
  ledger = empty_ledger(4, window=2)
  ledger = ledger.recorded(np.array([2, 0, 3]), groups("110", "0?", "??"), step=5)
  assert ledger.tries_P.tolist() == [1, 0, 3, 0]
  assert ledger.rights_P.tolist() == [0, 0, 2, 0]
  assert ledger.visits_P.tolist() == [1, 0, 1, 0]
  assert ledger.last_step_P.tolist() == [5, 0, 5, 0]


def test_a_right_answer_without_a_score_is_not_counted():
  evidence = groups("1?")
  evidence.right_R[1] = True
  ledger = empty_ledger(1, window=1).recorded(np.array([0]), evidence, step=1)
  assert (ledger.rights_P[0], ledger.tries_P[0]) == (1, 1)


def test_a_problem_twice_in_one_round_is_two_visits():
  ledger = empty_ledger(2, window=2).recorded(np.array([1, 1]), groups("11", "00"), step=1)
  assert ledger.visits_P.tolist() == [0, 2]
  assert ledger.recent_PW2[1].tolist() == [[2, 2], [0, 2]]


def test_the_window_forgets_the_totals_do_not():
  ledger = empty_ledger(1, window=2)
  for step, group in enumerate(["1111", "10", "00"], start=1):
    ledger = ledger.recorded(np.array([0]), groups(group), step)
  assert ledger.recent_share(np.array([0])) == 1 / 4
  assert (ledger.rights_P[0], ledger.tries_P[0]) == (5, 8)


def test_never_seen_is_not_zero():
  assert math.isnan(empty_ledger(1, window=3).recent_share(np.array([0]))[0])


def test_spread_starts_at_the_first_group_and_moves_slowly():
  """Starting the average from 0 would call every problem certain for its first ten visits."""
  ledger = empty_ledger(1, window=1).recorded(np.array([0]), groups("10"), step=1)
  assert ledger.spread_P[0] == 0.5
  ledger = ledger.recorded(np.array([0]), groups("11"), step=2)
  np.testing.assert_allclose(ledger.spread_P[0], DECAY * 0.5)


def test_the_first_entropy_stays_and_one_that_could_not_be_measured_changes_nothing():
  ledger = empty_ledger(1, window=1)
  for entropy in (math.nan, 2.0, math.nan, 1.0):
    ledger = ledger.recorded(np.array([0]), groups("1", entropy=entropy), step=1)
  assert ledger.entropy_2.tolist() == [2.0, 1.0]


def test_recording_leaves_the_ledger_before_alone():
  before = empty_ledger(1, window=1)
  before.recorded(np.array([0]), groups("1"), step=1)
  assert before.tries_P[0] == before.recent_PW2.sum() == before.spread_P[0] == 0


def test_a_prompt_is_measured_before_it_is_asked_and_verdicts_leave_that_alone():
  before = empty_ledger(3, window=1)
  ledger = before.measured(np.array([2, 0]), np.array([1.5, 2.5]), step=4)
  ledger = ledger.recorded(np.array([0]), groups("10"), step=4)
  np.testing.assert_array_equal(ledger.perplexity_P, [2.5, np.nan, 1.5])
  assert ledger.measured_P.tolist() == [4, 0, 4]
  assert np.isnan(before.perplexity_P).all()


def test_json_brings_back_every_bit_and_type():
  ledger = empty_ledger(3, window=2).recorded(np.array([1]), groups("110", entropy=0.1), step=7)
  ledger = ledger.measured(np.array([0]), np.array([1 / 3]), step=8)
  for state in (ledger, empty_ledger(2, window=1)):
    again = Ledger.from_dict(json.loads(json.dumps(state.to_dict())))
    for name, value in vars(state).items():
      np.testing.assert_array_equal(vars(again)[name], value, err_msg=name, strict=True)
