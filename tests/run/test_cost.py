"""What a run has cost, counted once and across restarts."""

import json

import numpy as np
import pytest

from grpo_jax.run.cost import CostMeter


def one_step(cost):
  cost = cost.sampled(parameters=1000, rollouts=8, prompt_tokens=10, generated_tokens=40)
  cost = cost.trained(parameters=1000, trained_tokens=30, replayed_tokens=5)
  return cost.elapsed(seconds=0.5, devices=4)


def test_a_step_is_counted_in_every_unit():
  assert one_step(CostMeter()).as_metrics() == {
    "cost/rollouts": 8,
    "cost/prompt_tokens": 10,
    "cost/generated_tokens": 40,
    "cost/profiling_tokens": 0,
    "cost/probe_tokens": 0,
    "cost/trained_tokens": 30,
    "cost/replayed_tokens": 5,
    "cost/flops": 2 * 1000 * 50 + 6 * 1000 * 30,
    "cost/flops_by_generated": 12 * 1000 * 40,
    "cost/device_seconds": 2.0,
  }


def test_measuring_problems_is_counted_before_the_first_step_and_between_steps():
  """Ours: 2 per parameter for each token of a forward pass. arXiv 2606.08854, G.4: 2 for each token
  generated while profiling, 12 for each one of training."""
  cost = CostMeter().profiled(parameters=1000, rollouts=4, prompt_tokens=6, generated_tokens=20)
  assert (cost.profiling_tokens, cost.flops) == (26, 2 * 1000 * 26)
  assert (cost.rollouts, cost.prompt_tokens, cost.generated_tokens) == (4, 6, 20)
  cost = cost.sampled(
    parameters=1000, rollouts=8, prompt_tokens=10, generated_tokens=40, probe_tokens=100
  )
  assert (cost.probe_tokens, cost.flops) == (100, 2 * 1000 * (26 + 150))
  assert cost.flops_by_generated == 1000 * (2 * 20 + 12 * 40)
  assert (cost.rollouts, cost.generated_tokens) == (12, 60)


def test_a_restart_goes_on_counting():
  cost = CostMeter()
  for _ in range(3):
    cost = CostMeter.from_dict(json.loads(json.dumps(one_step(cost).to_dict())))
  assert cost == one_step(one_step(one_step(CostMeter())))
  assert cost.rollouts == 24


def test_flops_of_a_large_run_stay_exact_with_numpy_counts():
  """int64 ends at 9.2e18, which a 1.7B model passes after 9e8 tokens."""
  cost = CostMeter()
  for _ in range(3):
    cost = cost.trained(parameters=np.int64(1_720_574_976), trained_tokens=np.int64(10**9))
  assert cost.flops == 3 * 6 * 1_720_574_976 * 10**9
  json.dumps(cost.to_dict())


def test_an_unknown_total_is_an_error():
  with pytest.raises(TypeError, match="rollout_count"):
    CostMeter.from_dict({"rollout_count": 3})
