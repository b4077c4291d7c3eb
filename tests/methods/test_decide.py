"""The contract of every row of configs/methods.py that decides, and of every pair that composes."""

import itertools
import json
import types

import numpy as np
import pytest

from configs import base, methods
from grpo_jax.check import check_decisions
from grpo_jax.errors import UserError
from grpo_jax.methods.decide import DecisionState
from grpo_jax.methods.ledger import Evidence
from grpo_jax.methods.profile import Profile
from grpo_jax.slots import make_decisions

PROBLEMS = 30


def decides(row: dict) -> bool:
  return bool({"select", "allocate"} & set(row))


ROWS = [name for name, row in methods.METHODS.items() if decides(row)]
PAIRS = [
  f"{a}+{b}"
  for a, b in itertools.combinations(ROWS, 2)
  if not {"select", "allocate"} & set(methods.METHODS[a]) & set(methods.METHODS[b])
]


@pytest.fixture(params=["grpo", *ROWS, *PAIRS])
def decisions(request):
  """As a run makes them, of a task in which every second prompt was too long."""
  config = base.get_config()
  methods.apply(config, request.param)
  config.rollout.problems, config.rollout.samples = 7, 4
  config.most_uncertain.warmup_steps, config.most_uncertain.candidates = 2, 5
  config.easy_to_hard.profile = "profile.json"
  check_decisions(config)
  profile = Profile(np.arange(2 * PROBLEMS) % 9 / 8, 8, 1, 1, "")
  prompts = [types.SimpleNamespace(problem=2 * place) for place in range(PROBLEMS)]
  training = types.SimpleNamespace(prompts=prompts)
  return make_decisions(config, types.SimpleNamespace(training=training), profile)


def verdicts(choice, step) -> Evidence:
  """Problem p is right with probability p / PROBLEMS; a few answers have no verdict."""
  rng = np.random.Generator(np.random.PCG64(step))
  group_R = np.repeat(np.arange(len(choice.place_N)), choice.copies_N)
  right_R = rng.random(len(group_R)) < choice.place_N[group_R] / (PROBLEMS - 1)
  return Evidence(group_R, right_R, rng.random(len(group_R)) < 0.9, 1 / step)


def history(decisions, state, steps):
  """What is chosen in these steps, and the state after them."""
  chosen = []
  for step in steps:
    choice, state = decisions.choose(state)
    chosen.append((choice.place_N.tolist(), choice.copies_N.tolist()))
    state = decisions.record(state, choice, verdicts(choice, step), step)
  return chosen, state


def test_every_choice_costs_the_budget_and_names_prompts_there_are(decisions):
  for places, copies in history(decisions, decisions.start(PROBLEMS), range(1, 40))[0]:
    assert len(places) == len(copies) > 0
    assert sum(copies) == 28
    assert min(copies) >= 1
    assert set(places) <= set(range(PROBLEMS))


def test_a_state_saved_in_mid_epoch_goes_on_identically(decisions):
  """Through JSON as a checkpoint holds it, after every one of the first steps."""
  whole, _ = history(decisions, decisions.start(PROBLEMS), range(1, 25))
  for cut in (0, 1, 2, 3, 7, 12):
    _, state = history(decisions, decisions.start(PROBLEMS), range(1, cut + 1))
    saved = json.loads(json.dumps(state.to_dict()))
    rest, _ = history(decisions, DecisionState.from_dict(saved), range(cut + 1, 25))
    assert rest == whole[cut:]


def test_a_choice_changes_nothing_it_was_given(decisions):
  _, state = history(decisions, decisions.start(PROBLEMS), range(1, 4))
  before = json.dumps(state.to_dict())
  choice, _ = decisions.choose(state)
  decisions.record(state, choice, verdicts(choice, 4), 4)
  assert json.dumps(state.to_dict()) == before


def test_rows_that_decide_differ_from_the_default():
  assert len(ROWS) >= 4
  assert PAIRS


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    ({"select": "best"}, "config.select is 'best'; known: shuffled_epochs"),
    ({"allocate": "best"}, "config.allocate is 'best'; known: as_selected"),
    ({"select": "easy_to_hard"}, "needs config.easy_to_hard.profile"),
    ({"evidence.window": 0}, "config.evidence.window is 0; it must be 1 or above"),
    ({"easy_to_hard.unsolved_share": 1.5}, "must be between 0 and 1"),
    ({"by_capability.least": 0}, "config.by_capability.least is 0; it must be 1 or above"),
    ({"by_capability.most": 1}, "config.by_capability.most is 1; it must be 2 or above"),
    ({"by_capability.concentration": 1.0}, "must be 2 or above"),
  ],
)
def test_what_cannot_be_meant_is_refused_with_its_reason(changes, named):
  config = base.get_config()
  config.update_from_flattened_dict(changes)
  with pytest.raises(UserError) as error:
    check_decisions(config)
  assert named in str(error.value)
