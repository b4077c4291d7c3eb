"""Choices that cannot be meant are refused before anything is read; test_contract.py holds what
all others have in common."""

import pytest

from configs import base
from grpo_jax.check import check_company, check_decisions
from grpo_jax.errors import UserError


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    ({"select": "best"}, "config.select is 'best'; known: shuffled_epochs"),
    ({"allocate": "best"}, "config.allocate is 'best'; known: as_selected"),
    ({"select": "easy_to_hard"}, "needs config.easy_to_hard.profile"),
    ({"evidence.window": 0}, "config.evidence.window is 0; it must be 1 or above"),
    ({"easy_to_hard.unsolved_share": 1.5}, "must be between 0 and 1"),
    ({"perplexity_window.share": 0.0}, "config.perplexity_window.share is 0.0; it must be between"),
    ({"by_capability.least": 0}, "config.by_capability.least is 0; it must be 1 or above"),
    ({"by_capability.most": 1}, "config.by_capability.most is 1; it must be 2 or above"),
    ({"by_capability.concentration": 1.0}, "must be 2 or above"),
    ({"stages.switch": "soon"}, "'soon'; known: none, step, share, plateau"),
    ({"stages.switch": "step"}, "config.stages.switch 'step' needs config.more.source"),
    ({"stages.share": 1.5}, "config.stages.share is 1.5; it must be between 0 and 1"),
    ({"stages.metric": "train/loss"}, "known: eval/accuracy, reward/mean, reward/right"),
    (
      {"stages.switch": "step", "more.source": "code", "select": "easy_to_hard",
       "easy_to_hard.profile": "file"}, "'step' does not go with config.select 'easy_to_hard'",
    ),
  ],
)
def test_what_cannot_be_meant_is_refused_with_its_reason(changes, named):
  config = base.get_config()
  config.update_from_flattened_dict(changes)
  with pytest.raises(UserError) as error:
    check_decisions(config)
  assert named in str(error.value)


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    (
      {"select": "most_uncertain", "allocate": "by_capability"},
      "is 'by_capability' beside config.select 'most_uncertain'; it asks one problem",
    ),
    ({"select": "easy_to_hard", "allocate": "by_capability"}, "the sizes of their phases"),
    ({"replay.level": "query"}, "config.replay.level is 'query', but config.replay.ratio is 0"),
    ({"replay.decay": 5.0}, "set a ratio, or join a row that does, or set 0.0"),
  ],
)
def test_what_would_do_nothing_or_undo_another_choice_is_refused(changes, named):
  config = base.get_config()
  config.update_from_flattened_dict(changes)
  with pytest.raises(UserError) as error:
    check_company(config)
  assert named in str(error.value)
