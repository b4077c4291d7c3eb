"""Every random number of a run is a function of (seed, purpose, step): nothing to save or restore.

A resumed run, another mesh or another schedule therefore draws the same numbers, and two purposes
never share noise.
"""

import enum
import functools

import jax
import numpy as np


class Purpose(enum.IntEnum):
  """What a stream is for; numbers are part of a run's identity: append, never renumber."""

  INIT = 0
  PROBLEM_ORDER = 1
  ROLLOUT = 2
  REPLAY = 3
  EVAL = 4
  DEMONSTRATIONS = 5
  MINIBATCHES = 6
  AUDIT = 7
  PROFILE = 8
  DEMONSTRATION_ORDER = 9


@functools.partial(jax.jit, static_argnums=(0, 1))
def key_for(seed: int, purpose: Purpose, step: int = 0) -> jax.Array:
  """The device-side stream; one program a purpose, since steps are short on small models."""
  return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), purpose), step)


def generator_for(seed: int, purpose: Purpose, step: int = 0) -> np.random.Generator:
  """The host-side stream; PCG64 gives the same numbers on every machine."""
  return np.random.Generator(np.random.PCG64([seed, purpose, step]))


def rollout_keys(key: jax.Array, problem_R: jax.Array, sample_R: jax.Array) -> jax.Array:
  """One key a rollout: a function of its problem and sample index, not of its row in a batch."""

  def one(problem, sample):
    return jax.random.fold_in(jax.random.fold_in(key, problem), sample)

  return jax.vmap(one)(problem_R, sample_R)
