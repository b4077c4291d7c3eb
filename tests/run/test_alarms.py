"""Each alarm by the numbers that must raise it, and by those that must not."""

import pytest

from grpo_jax.errors import UserError
from grpo_jax.run.alarms import Alarms, Audited, alarms

SOUND = {
  "train/mismatch": 1e-3,
  "rollout/truncated": 0.2,
  "reward/std": 0.5,
  "reward/unscored": 0.0,
  "train/skipped": 0.0,
  "train/tokens": 100.0,
  "train/poisoned_rows": 0.0,
  "rollout/nonfinite": 0.0,
  "rollout/repetitive": 0.0,
  "rollout/abs_advantage_mean": 0.7,
  "train/param_norm": 9.0,
  "reward/agreed_wrong": 0.0,
}


@pytest.mark.parametrize(
  ("change", "expected"),
  [
    ({}, []),
    ({"train/mismatch": 0.2}, ["mismatch"]),
    ({"train/mismatch": float("nan")}, []),  # a step without fresh tokens
    ({"rollout/truncated": 1.0, "reward/std": 0.0}, ["truncated"]),
    ({"rollout/truncated": 1.0}, []),  # long, but it learns
    ({"reward/unscored": 0.5}, ["unscored"]),
    ({"train/skipped": 1.0}, ["skipped"]),
    ({"train/skipped": 1.0, "train/tokens": 0.0}, []),  # nothing survived the filter
    ({"train/poisoned_rows": 2.0}, ["poisoned"]),
    ({"rollout/nonfinite": 0.1}, ["nonfinite"]),
    ({"rollout/repetitive": 0.6}, ["repetitive"]),
    ({"reward/agreed_wrong": 0.6}, ["agreed_wrong"]),
    (
      {"rollout/nonfinite": 1.0, "train/skipped": 1.0, "train/tokens": 0.0},
      ["nonfinite", "skipped"],  # NaN weights: no rollout is left, and none ever will be
    ),
    (
      {"train/poisoned_rows": 2.0, "train/skipped": 1.0, "train/tokens": 0.0},
      ["poisoned", "skipped"],
    ),
  ],
)
def test_alarms(change, expected):
  assert list(alarms(SOUND | change, mismatch=0.05, audit=0.1, audited=Audited())) == expected


def test_an_alarm_is_told_when_it_begins():
  bad = SOUND | {"train/skipped": 1.0}
  told = Alarms(mismatch=0.05, audit=0.1, stuck_steps=99, max_bad_steps=9)
  assert [len(told.begun(step)) for step in (SOUND, bad, bad, SOUND, bad)] == [0, 1, 0, 0, 1]


def test_a_run_stops_after_too_many_bad_steps_in_a_row():
  bad = SOUND | {"train/skipped": 1.0}
  alarms = Alarms(mismatch=0.05, audit=0.1, stuck_steps=99, max_bad_steps=3)
  for step, metrics in enumerate((bad, bad, SOUND, bad, bad)):
    alarms.begun(metrics)
    alarms.stop_if_hopeless(step)
  alarms.begun(bad)
  with pytest.raises(UserError, match="stopped at step 6: 3 steps in a row"):
    alarms.stop_if_hopeless(6)


@pytest.mark.parametrize(
  ("refused", "steps", "sounds"),
  [
    (0.125, 20, True),  # one in eight
    (0.0, 20, False),
    (1.0, 4, False),  # 32 rewards: too few to tell
    (1.0, 5, True),
  ],
)
def test_an_audit_sounds_when_enough_rewards_are_refused(refused, steps, sounds):
  audits = {"reward/audited_paid": 8, "reward/audit_refused": refused}
  guard = Alarms(mismatch=0.05, audit=0.1, stuck_steps=99, max_bad_steps=3)
  told = [text for _ in range(steps) for text in guard.begun(SOUND | audits)]
  assert [text.startswith("a second grader refuses") for text in told] == [True] * sounds


def test_old_audits_are_forgotten():
  guard = Alarms(mismatch=0.05, audit=0.1, stuck_steps=99, max_bad_steps=3)
  for refused in [1.0] * 5 + [0.0] * 20:
    guard.begun(SOUND | {"reward/audited_paid": 8, "reward/audit_refused": refused})
  again = [guard.begun(SOUND | {"reward/audited_paid": 8, "reward/audit_refused": 1.0})]
  assert again == [[]]  # 8 of 160 is below the alarm, and the old ones count no more


@pytest.mark.parametrize("norm", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_stop_a_run_at_once(norm):
  alarms = Alarms(mismatch=0.05, audit=0.1, stuck_steps=99, max_bad_steps=99)
  alarms.begun(SOUND)
  alarms.stop_if_hopeless(1)
  alarms.begun(SOUND | {"train/param_norm": norm})
  with pytest.raises(UserError, match="stopped at step 2: the weights are no longer finite"):
    alarms.stop_if_hopeless(2)


def test_what_was_counted_before_a_cut_counts_after_it():
  bad = SOUND | {"train/skipped": 1.0, "rollout/abs_advantage_mean": 0.0, "train/mismatch": None}
  again = Alarms(mismatch=0.05, audit=0.1, stuck_steps=3, max_bad_steps=3)
  again.remember([SOUND, bad, bad])
  again.stop_if_hopeless(2)
  (text,) = again.begun(bad | {"train/mismatch": 0.0})
  assert "for 3 steps in a row" in text  # and not that a step was skipped: that sounded before
  with pytest.raises(UserError, match="stopped at step 3: 3 steps in a row"):
    again.stop_if_hopeless(3)
