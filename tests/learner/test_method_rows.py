"""Rows of configs/methods.py: each is a valid choice, they compose, contradictions are named."""

import pytest

from configs import base, methods
from grpo_jax.check import check_company, check_learning, check_replay
from grpo_jax.errors import UserError
from grpo_jax.learner.surrogate import Surrogate


def config_of(method):
  config = base.get_config()
  methods.apply(config, method)
  return config


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_row_stands_alone(name):
  check_learning(config_of(name))


@pytest.mark.parametrize(
  "name", ["aper+tis", "aper+dapo+icepop+ibro", "dr_grpo+cispo", "rloo+gspo", "minirl+aper"]
)
def test_rows_compose(name):
  check_learning(config_of(name))


def test_a_composed_loss_is_the_union_of_its_rows():
  loss = Surrogate(**config_of("cispo+icepop+ibro").loss)
  assert (loss.clip, loss.correction, loss.entropy) == ("cispo", "mask", "advantage")
  assert (loss.clip_high, loss.correction_high, loss.entropy_coef) == (4.0, 5.0, 1e-3)


# The rows of the tables of arXiv 2606.04560, and the keys that tell them from its own method.
APER_TABLES = {
  "aper+pool+by_query+by_chance": ("pool", "query", "uniform"),  # table 1, uniform
  "aper+pool+by_query+by_spread": ("pool", "query", "group_spread"),  # table 1, sigma_g
  "aper": ("fresh_anchored", "rollout", "advantage"),
  "aper+pool": ("pool", "rollout", "advantage"),  # composition
  "aper+by_query+by_chance": ("fresh_anchored", "query", "uniform"),  # priority x level
  "aper+by_chance": ("fresh_anchored", "rollout", "uniform"),
  "aper+by_query+by_spread": ("fresh_anchored", "query", "group_spread"),
  "aper+by_spread": ("fresh_anchored", "rollout", "group_spread"),
}


@pytest.mark.parametrize(("method", "choices"), APER_TABLES.items())
def test_every_table_row_of_the_replay_paper_is_a_preset(method, choices):
  config = config_of(method)
  check_replay(config)
  replay = config.replay
  assert (replay.composition, replay.level, replay.priority) == choices
  block = (replay.ratio, replay.alpha, replay.max_age, replay.warmup_steps, replay.capacity)
  assert block == (0.5, 0.5, 10, 20, 30_000)
  assert config.keep == "mixed_groups"


@pytest.mark.parametrize(
  "method",
  ["aper+by_share", "aper+refreshed+tis_replayed", "fifo+refreshed", "repo", "rlep", "exgrpo+coba"],
)
def test_rows_joined_to_replay(method):
  check_replay(config_of(method))
  check_learning(config_of(method))


@pytest.mark.parametrize(
  ("method", "message"),
  [
    ("aper+by_share+dr_grpo", "scale 'none' do not grow with their group"),
    ("aper+refreshed+bnpo", "'refreshed', by a group"),
    ("tis_replayed", "'recomputed_replayed', but config.replay.ratio is 0"),
    ("refreshed", "'refreshed', but config.replay.ratio is 0"),
    ("by_chance", "'uniform', but config.replay.ratio is 0"),
    ("aper+tis_replayed+tis", "tis_replayed and tis disagree on loss.anchor"),
  ],
)
def test_replay_that_cannot_be_meant_is_refused(method, message):
  with pytest.raises(UserError) as error:
    check_replay(config_of(method))
    check_company(config_of(method))
  assert message in str(error.value)


@pytest.mark.parametrize(
  ("method", "changes", "message"),
  [
    ("tis+icepop", {}, "tis and icepop disagree on loss.correction"),
    ("bnpo+minirl", {}, "bnpo and minirl disagree on advantage.scale"),
    ("minirl", {"loss.correction": "truncate"}, "weighed by the ratio to the sampler already"),
    ("bnpo+dapo", {}, "rewards of two values: set reward.overlong"),
    ("grpo", {"reward.overlong": 1.5}, "config.reward.overlong is 1.5"),
    ("grpo", {"reward.kl": "kl"}, "config.reward.kl is 'kl'; known: k1, k2, k3"),
    ("grpo", {"reward.kl_coef": -1.0}, "config.reward.kl_coef is -1.0"),
    ("grpo", {"advantage.scale": "std"}, "config.advantage.scale is 'std'"),
  ],
)
def test_what_cannot_be_meant_is_refused_with_its_reason(method, changes, message):
  with pytest.raises(UserError) as error:
    config = config_of(method)
    config.update_from_flattened_dict(changes)
    check_learning(config)
  assert message in str(error.value)
