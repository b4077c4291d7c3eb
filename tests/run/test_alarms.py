"""Each alarm by the numbers that must raise it, and by those that must not."""

import pytest

from grpo_jax.run.alarms import Alarms, alarms

SOUND = {
  "train/abs_dlogp_mean_fresh": 1e-3,
  "rollout/truncated": 0.2,
  "reward/std": 0.5,
  "reward/unscored": 0.0,
  "train/skipped": 0.0,
  "train/tokens": 100.0,
}


@pytest.mark.parametrize(
  ("change", "expected"),
  [
    ({}, []),
    ({"train/abs_dlogp_mean_fresh": 0.2}, ["mismatch"]),
    ({"train/abs_dlogp_mean_fresh": float("nan")}, []),  # a step without fresh tokens
    ({"rollout/truncated": 1.0, "reward/std": 0.0}, ["truncated"]),
    ({"rollout/truncated": 1.0}, []),  # long, but it learns
    ({"reward/unscored": 0.5}, ["unscored"]),
    ({"train/skipped": 1.0}, ["skipped"]),
    ({"train/skipped": 1.0, "train/tokens": 0.0}, []),  # nothing survived the filter
  ],
)
def test_alarms(change, expected):
  assert list(alarms(SOUND | change, mismatch=0.05)) == expected


def test_an_alarm_is_told_when_it_begins():
  bad = SOUND | {"train/skipped": 1.0}
  told = Alarms(mismatch=0.05)
  assert [len(told.begun(step)) for step in (SOUND, bad, bad, SOUND, bad)] == [0, 1, 0, 0, 1]
