"""Rows of configs/methods.py: each is a valid choice, they compose, contradictions are named."""

import pytest

from configs import base, methods
from grpo_jax.check import check_learning
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
