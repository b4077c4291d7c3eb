"""A number that is not finite costs its row, and no other; and how much of a batch still counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.learner.poison import drop_poisoned_tokens
from grpo_jax.learner.surrogate import token_losses
from tests.learner.choices import make_surrogate, surrogate_of
from tests.learner.test_surrogate import CASES, make_tokens
from tests.learner.test_update import T, assert_close, make_model, random_rollouts, step

FIELDS = ("logp_BT", "entropy_BT", "behaviour_BT", "reference_BT")
POISON = [(field, value) for field in FIELDS for value in (np.nan, np.inf, -np.inf)]
POISON += [("logp_BT", 200.0)]  # itself finite, its ratio is not


def with_poison(tokens, field, value):
  values = np.array(getattr(tokens, field))
  values[2, 1] = value
  return tokens.replace(**{field: values})


@pytest.mark.parametrize(("field", "value"), POISON)
def test_the_gradient_of_a_poisoned_row_is_exactly_zero(field, value):
  """0 * NaN is NaN: a mask after the fact lets the row through in the gradient."""
  tokens = with_poison(make_tokens(dtype=np.float32), field, value)
  surrogate = make_surrogate(kl_coef=0.1, entropy_coef=0.1)

  def total(tokens):
    tokens, poisoned = drop_poisoned_tokens(tokens)
    loss, _ = token_losses(surrogate, tokens)
    return jnp.sum(jnp.where(tokens.mask_BT, loss, 0)), poisoned

  gradient, poisoned = jax.grad(total, has_aux=True, allow_int=True)(tokens)
  assert poisoned.tolist() == [False, False, True, False, False]
  clean, _ = jax.grad(total, has_aux=True, allow_int=True)(make_tokens(dtype=np.float32))
  for name in ("logp_BT", "entropy_BT"):
    ours, expected = (np.array(getattr(g, name)) for g in (gradient, clean))
    assert (ours[2] == 0).all()
    np.testing.assert_array_equal(np.delete(ours, 2, 0), np.delete(expected, 2, 0))


@pytest.mark.parametrize("name", CASES)
def test_no_surrogate_looks_off_the_mask(name):
  tokens = make_tokens(dtype=np.float32)
  garbage = jax.tree.map(
    lambda x: np.where(tokens.mask_BT, x, np.nan) if x.dtype == np.float32 else x, tokens
  )

  def total(tokens):
    tokens, poisoned = drop_poisoned_tokens(tokens)
    loss, _ = token_losses(CASES[name], tokens)
    return jnp.sum(jnp.where(tokens.mask_BT, loss, 0)), poisoned

  gradient, poisoned = jax.grad(total, has_aux=True, allow_int=True)(garbage)
  assert not poisoned.any()
  assert (np.array(gradient.logp_BT)[~tokens.mask_BT] == 0).all()
  assert np.isfinite(gradient.logp_BT).all()


@pytest.mark.parametrize("what", ["reward", "advantage", "behaviour log-prob"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_poisoned_rollout_is_dropped_and_counted(what, value):
  """The update is that of the batch without the row, its normaliser included."""
  model, params = make_model()
  fresh = random_rollouts(model, params, 8, drift=0.2)
  weight = np.ones(8, np.float32)
  weight[3] = 0
  alone, _ = step(model, params, fresh.replace(weight_R=weight))
  row_3 = np.arange(8) == 3
  if what == "reward":
    fresh = fresh.replace(reward_R=np.where(row_3, value, fresh.reward_R))
  elif what == "advantage":
    fresh = fresh.replace(advantage_R=np.where(row_3, value, fresh.advantage_R).astype(np.float32))
  else:
    logp = np.array(fresh.samples.behaviour_logp_RT)
    logp[3, fresh.samples.prompt_len_R[3]] = value
    fresh = fresh.replace(samples=fresh.samples.replace(behaviour_logp_RT=logp))
  beside, metrics = step(model, params, fresh)
  assert_close(beside, alone)
  assert metrics["train/poisoned_rows"] == 1
  assert metrics["train/skipped"] == 0
  assert metrics["train/rows"] == 7


def test_a_ratio_that_overflows_is_found_in_the_update():
  """Known only when the new log-prob is: the row has no gradient, but stays in the normaliser."""
  model, params = make_model()
  fresh = random_rollouts(model, params, 8)
  advantage = np.array(fresh.advantage_R)
  advantage[5] = 0
  without, metrics = step(model, params, fresh.replace(advantage_R=advantage))
  assert metrics["train/poisoned_rows"] == 0
  logp = np.array(fresh.samples.behaviour_logp_RT)
  logp[5, fresh.samples.prompt_len_R[5]] = -200.0
  fresh = fresh.replace(samples=fresh.samples.replace(behaviour_logp_RT=logp))
  stepped, metrics = step(model, params, fresh)
  assert_close(stepped, without)
  assert metrics["train/poisoned_rows"] == 1
  assert metrics["train/skipped"] == 0


def test_effective_sample_size_by_its_formula_on_each_side():
  model, params = make_model()
  fresh = random_rollouts(model, params, 8)
  replayed = random_rollouts(model, params, 4, seed=1, drift=0.5)
  _, metrics = step(model, params, fresh, replayed, surrogate=surrogate_of("tis"))
  np.testing.assert_allclose(metrics["train/ess_fresh"], 1.0, rtol=1e-5)

  current = random_rollouts(model, params, 4, seed=1).samples.behaviour_logp_RT
  samples = replayed.samples
  start = samples.prompt_len_R[:, None]
  index = np.arange(T)[None, :]
  mask = (index >= start) & (index < start + samples.completion_len_R[:, None])
  ratio = np.exp(current - samples.behaviour_logp_RT)[mask]
  expected = ratio.sum() ** 2 / (len(ratio) * (ratio**2).sum())
  assert 0.5 < expected < 0.95
  np.testing.assert_allclose(metrics["train/ess_replay"], expected, rtol=1e-4)
