"""A run that cannot learn is told of, loudly and again; one that has a bad day is not."""

import pytest

from grpo_jax.run.stuck import Stuck

LEARNS = {"rollout/abs_advantage_mean": 0.7, "reward/std": 0.5, "rollout/truncated": 0.2}


@pytest.mark.parametrize(
  ("change", "told"),
  [
    ({"rollout/abs_advantage_mean": 0.0}, "no rollout was better or worse"),
    ({"reward/std": 0.0}, "all rewards were equal"),
    ({"rollout/truncated": 1.0}, "every completion was cut off"),
  ],
)
def test_many_steps_without_a_lesson_are_told(change, told):
  stuck = Stuck(3)
  texts = [stuck.after(LEARNS | change) for _ in range(6)]
  assert [len(said) for said in texts] == [0, 0, 1, 0, 0, 1]
  assert "for 3 steps in a row" in texts[2][0]
  assert "for 6 steps in a row" in texts[5][0]
  assert told in texts[2][0]


@pytest.mark.parametrize("nothing", [LEARNS, LEARNS | {"reward/std": float("nan")}])
def test_one_lesson_starts_the_count_again(nothing):
  """A step whose rewards are all unscored (NaN) is the verifier's alarm, not this one's."""
  stuck, dull = Stuck(3), LEARNS | {"reward/std": 0.0}
  for metrics in (dull, dull, nothing, dull, dull):
    assert stuck.after(metrics) == []
