"""Surrogates for tests: the defaults of configs/base.py with changes, or under rows of methods."""

from configs import base, methods
from grpo_jax.learner.surrogate import Surrogate


def make_surrogate(**changes) -> Surrogate:
  return Surrogate(**(base.get_config().loss.to_dict() | changes))


def surrogate_of(method: str, **changes) -> Surrogate:
  config = base.get_config()
  methods.apply(config, method)
  return Surrogate(**(config.loss.to_dict() | changes))
