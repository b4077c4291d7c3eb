"""When does the second set of problems join, and what does selection know of it?"""

import math

import numpy as np
import pytest

from grpo_jax.methods.allocate import AsSelected
from grpo_jax.methods.choice import Budget
from grpo_jax.methods.decide import Decisions
from grpo_jax.methods.history import WithoutSolved
from grpo_jax.methods.select import ShuffledEpochs
from grpo_jax.methods.stages import AtPlateau, AtStep, TwoStages
from tests.methods.evidence import groups, streams


def walk(select, end, verdicts, metrics):
  """(places of each step, problems open after it) of 4 problems in the first set, 3 in the other;
  `verdicts` maps a place to the verdicts on it."""
  decisions = Decisions(TwoStages(4, end), select, AsSelected(), Budget(2, 2), window=1)
  state, steps = decisions.start(7), []
  for step, row in enumerate(metrics, start=1):
    choice, state = decisions.choose(state)
    evidence = groups(*(verdicts(place) for place in choice.place_N))
    state = decisions.record(state, choice, evidence, step)
    state, _ = decisions.passed(state, step, row)
    steps.append((choice.place_N.tolist(), decisions.open(state)))
  return steps


def test_the_second_set_joins_after_the_step():
  steps = walk(ShuffledEpochs(streams), AtStep(3), lambda place: "10", [{}] * 7)
  assert [size for _, size in steps] == [4, 4, 7, 7, 7, 7, 7]
  first = [place for places, _ in steps[:3] for place in places]
  assert sorted(first[:4]) == [0, 1, 2, 3]
  assert max(first) == 3
  second = [place for places, _ in steps[3:] for place in places]
  assert sorted(second[:7]) == list(range(7)), "a whole epoch of both, from its beginning"


@pytest.mark.parametrize(
  ("values", "over"),
  [
    ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], None),  # it still grows
    ([0.2, 0.3, 0.25, 0.25], 4),
    ([0.5, 0.4, 0.3, 0.2], 4),  # it falls
    ([0.1, 0.5, 0.3, 0.4], None),  # 0.35 is 0.05 above 0.3
    ([0.1, 0.5, 0.3, 0.309], 4),  # 0.3045 is less than 0.01 above
    ([math.nan, 0.3, None, 0.3, 0.3, 0.3], 6),  # steps without the number are no evidence
  ],
)
def test_a_plateau_is_two_windows_that_do_not_differ(values, over):
  stages = TwoStages(4, AtPlateau("eval/accuracy", window=2, gain=0.01))
  state, ended = stages.start(), None
  for step, value in enumerate(values, start=1):
    state = stages.passed(state, step, {} if value is None else {"eval/accuracy": value})
    ended = ended or (step if stages.open(state, 7) == 7 else None)
  assert ended == over


def test_only_every_so_manyth_step_is_evidence():
  stages = TwoStages(4, AtPlateau("eval/accuracy", window=1, gain=0.01, every=3))
  state, sizes = stages.start(), []
  for step in range(1, 7):
    state = stages.passed(state, step, {"eval/accuracy": 0.1})
    sizes.append(stages.open(state, 7))
  assert sizes == [4, 4, 4, 4, 4, 7]


def test_there_is_no_way_back():
  stages = TwoStages(4, AtPlateau("reward/mean", window=1, gain=0.1))
  state = stages.start()
  for step, value in enumerate([0.1, 0.1, 0.9, 2.0]):
    state = stages.passed(state, step, {"reward/mean": value})
  assert stages.open(state, 7) == 7


def test_resampling_forgets_in_a_new_stage_what_it_dropped_and_what_was_said_before():
  """Problem 0 is always right, so one epoch later it is out; with the second set it comes back, and
  is judged by the new epoch alone."""
  steps = walk(
    WithoutSolved(streams), AtStep(5), lambda place: "11" if place in (0, 5) else "10", [{}] * 14
  )
  asked = [place for places, _ in steps for place in places]
  assert 0 in asked[:4]
  assert 0 not in asked[4:10]
  assert set(asked[10:17]) == set(range(7))
  assert not {0, 5} & set(asked[17:27])


def test_a_ledger_of_the_first_problems_is_what_a_whole_ledger_says_of_them():
  decisions = Decisions(
    TwoStages(4, AtStep(99)), ShuffledEpochs(streams), AsSelected(), Budget(2, 2), 2
  )
  state = decisions.start(7)
  choice, state = decisions.choose(state)
  ledger = decisions.record(state, choice, groups("11", "01"), 1).ledger
  first = ledger.first(4)
  assert (first.size, first.recent_PW2.shape) == (4, (4, 2, 2))
  np.testing.assert_array_equal(first.rights_P, ledger.rights_P[:4])
  np.testing.assert_array_equal(first.entropy_2, ledger.entropy_2)
