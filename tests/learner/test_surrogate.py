"""The clipped surrogate by hand: value, what is counted as clipped, and the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.learner.surrogate import Surrogate, clipped_loss, k3

DAPO = Surrogate(clip_low=0.2, clip_high=0.28, dual_clip=10.0, kl_coef=0.0)

# ratio, advantage -> loss, clipped, d loss / d ratio
TABLE = [
  (1.00, 1.0, -1.00, False, -1.0),
  (1.27, 1.0, -1.27, False, -1.0),
  (1.29, 1.0, -1.28, True, 0.0),  # already much likelier: no more push
  (0.50, 1.0, -0.50, False, -1.0),  # less likely than it was: pushed up without bound
  (0.50, -1.0, 0.80, True, 0.0),  # already much rarer
  (0.81, -2.0, 1.62, False, 2.0),
  (1.50, -1.0, 1.50, False, 1.0),
  (11.0, -1.0, 10.0, True, 0.0),  # dual clip: one wild ratio must not own the step
  (9.90, -1.0, 9.90, False, 1.0),
  (11.0, 1.0, -1.28, True, 0.0),
  (3.00, 0.0, 0.00, False, 0.0),
]


@pytest.mark.parametrize(("ratio", "advantage", "loss", "clipped", "slope"), TABLE)
def test_by_hand(ratio, advantage, loss, clipped, slope):
  def value(ratio):
    values, stopped = clipped_loss(jnp.full((1, 1), ratio), jnp.full((1, 1), advantage), DAPO)
    return values[0, 0], stopped[0, 0]

  (ours, stopped), gradient = jax.value_and_grad(value, has_aux=True)(ratio)
  np.testing.assert_allclose(ours, loss, atol=1e-6)
  np.testing.assert_allclose(gradient, slope, atol=1e-6)
  assert bool(stopped) == clipped


def test_without_dual_clip_a_negative_advantage_is_not_bounded():
  plain = Surrogate(0.2, 0.2, 0.0, 0.0)
  loss, stopped = clipped_loss(jnp.full((1, 1), 50.0), jnp.full((1, 1), -1.0), plain)
  assert loss[0, 0] == 50.0
  assert not stopped[0, 0]


def test_k3_is_zero_on_equality_never_negative_and_unbiased():
  rng = np.random.default_rng(0)
  p, q = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2])
  drawn = rng.choice(3, 200_000, p=q)
  d = np.log(p / q)[drawn]
  estimate = np.asarray(k3(jnp.asarray(d)))
  assert estimate.min() >= 0
  np.testing.assert_allclose(estimate.mean(), np.sum(q * np.log(q / p)), rtol=0.03)
  assert k3(jnp.float32(0.0)) == 0
