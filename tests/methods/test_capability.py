"""Budgets by marginal value: the paper's constants, hand-drawn splits, and an exhaustive search."""

import itertools
import math

import numpy as np
import pytest

from grpo_jax.methods.capability import TAU_MIN, ByCapability, split
from grpo_jax.methods.choice import same_of_each
from grpo_jax.methods.ledger import empty_ledger
from tests.methods.evidence import groups, ledger_of


def plain_split(share, total, alpha=9.0, beta=2.0, least=2, most=128):
  return split(np.array(share), total, alpha, beta, least, most).tolist()


@pytest.mark.parametrize(
  ("failure", "alpha"),
  [
    (0.9, 1 + 9 * 0.9),  # above one half as it is
    (0.5, 1 + 9 * 0.5),  # sigmoid(0)
    (0.3, 1 + 9 / (1 + math.exp(2))),  # below it through the sigmoid
    (1.0, 10.0),  # at the limit: beta 1
  ],
)
def test_the_density_follows_the_failure_rate(failure, alpha):
  assert ByCapability().alpha(failure) == pytest.approx(alpha)


def test_it_starts_with_all_weight_on_easy_problems_and_moves_to_hard_ones():
  allocate = ByCapability()
  assert allocate.start()["alpha"] == 9
  easy = plain_split([0.2, 0.8], 40, alpha=9, beta=2)
  hard = plain_split([0.2, 0.8], 40, alpha=2, beta=9)
  assert easy[1] > easy[0]
  assert hard[0] > hard[1]


def test_the_first_step_and_only_it_is_uniform():
  allocate, choice = ByCapability(), same_of_each(np.array([0, 1]), 8)
  assert allocate(allocate.start(), empty_ledger(2, 1), choice).tolist() == [8, 8]
  one_seen = allocate(allocate.start(), ledger_of("1110", ""), choice)
  assert one_seen.sum() == 16
  assert one_seen[0] > one_seen[1], "at alpha 9, a share of 3/4 is worth more than the unseen 1/2"


def test_the_explored_part_is_where_the_value_is_greatest():
  """Against all splits of it: 80 % of what lies above two each, in the formula written out."""
  share, alpha, beta = [0.3, 0.5, 0.7], 6.0, 5.0
  rest = int(0.8 * 10)

  def value(extra):
    p = np.array(share)
    tau = TAU_MIN + 9 * min(p.var() / 0.1667, 1)
    return ((1 - np.exp(-(2 + np.array(extra)) / tau * p * (1 - p))) * p**5 * (1 - p) ** 4).sum()

  every = [e for e in itertools.product(range(rest + 1), repeat=3) if sum(e) == rest]
  best = max(every, key=value)
  alone = plain_split(share, 16, alpha, beta)
  left = np.array(alone) - 2 - np.array(best)
  assert left.sum() == 2, "the other two rollouts are dealt in proportion to 1 - p"
  assert (left >= 0).all()


@pytest.mark.parametrize(
  ("share", "total", "expected"),
  [
    ([0.0, 0.0, 0.0, 0.0], 16, [4, 4, 4, 4]),  # nothing to explore: the unsolved get it all
    ([1.0, 1.0], 12, [6, 6]),  # all solved: 1 - p is 0 for each
    ([0.0, 1.0], 16, [14, 2]),  # the unsolved come before the solved
    ([0.5], 300, [300]),  # one problem: the limit of 128 gives way
    ([0.5, 0.5, 0.5], 3, [1, 1, 1]),  # too few for two each
    ([0.5, 0.0, 1.0], 15, [8, 5, 2]),  # 9 to deal; a third explored: int(0.733 * 9) = 6, rest 3
  ],
)
def test_hand_drawn_splits(share, total, expected):
  assert plain_split(share, total) == expected


@pytest.mark.parametrize("seed", range(20))
def test_every_rollout_is_dealt_within_the_limits(seed):
  rng = np.random.default_rng(seed)
  share = rng.choice([0, 0.02, 0.3, 0.5, 0.99, 1.0], rng.integers(1, 40))
  total = len(share) * int(rng.integers(2, 20))
  copies = split(share, total, *rng.uniform(1, 10, 2), least=2, most=24)
  assert copies.sum() == total
  assert copies.min() >= 2
  assert copies.max() <= 24


def test_failures_are_averaged_over_the_last_steps_alone():
  allocate, ledger, state = ByCapability(steps=2), empty_ledger(1, 1), ByCapability().start()
  for step, group in enumerate(["00", "00", "11", "10"], start=1):
    ledger = ledger.recorded(np.array([0]), groups(group), step)
    state = allocate.judged(state, ledger, np.array([0]))
  assert state["failure_S"].tolist() == [0.0, 0.5]
  assert state["alpha"] == allocate.alpha(0.25)
