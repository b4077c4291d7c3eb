"""Top-k and top-p against their definitions, by hand and by sorting in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.distribution import decoding, draw, log_probs, token_log_probs


def kept(probabilities, top_k, top_p, num_ids=None):
  logits = jnp.log(jnp.asarray([probabilities], jnp.float32))
  how = decoding(1.0, top_k, top_p, num_ids or len(probabilities))
  return np.flatnonzero(np.isfinite(np.asarray(log_probs(logits, how))[0])).tolist()


@pytest.mark.parametrize(
  ("probabilities", "top_k", "top_p", "expected"),
  [
    ([0.5, 0.3, 0.15, 0.05], 0, 1.0, [0, 1, 2, 3]),
    ([0.5, 0.3, 0.15, 0.05], 2, 1.0, [0, 1]),
    ([0.5, 0.3, 0.15, 0.05], 9, 1.0, [0, 1, 2, 3]),
    ([0.5, 0.3, 0.15, 0.05], 0, 0.4, [0]),  # the most likely token is always kept
    ([0.5, 0.3, 0.15, 0.05], 0, 0.51, [0, 1]),  # the token that crosses top_p belongs to it
    ([0.05, 0.15, 0.3, 0.5], 0, 0.79, [2, 3]),
    ([0.5, 0.3, 0.15, 0.05], 2, 0.6, [0]),  # top_p applies to what top_k left: 0.5/0.8 = 0.625
    ([0.4, 0.3, 0.3], 2, 1.0, [0, 1, 2]),  # equal probabilities are kept together
  ],
)
def test_filters_by_hand(probabilities, top_k, top_p, expected):
  assert kept(probabilities, top_k, top_p) == expected


def test_ids_beyond_the_tokenizer_have_no_mass():
  assert kept([0.1, 0.2, 0.3, 0.4], 0, 1.0, num_ids=3) == [0, 1, 2]
  assert kept([0.1, 0.2, 0.3, 0.4], 1, 1.0, num_ids=3) == [2]


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.3), (0, 0.95), (7, 1.0), (30, 0.8)])
def test_filters_equal_a_sort(top_k, top_p):
  logits = np.random.default_rng(0).normal(0, 3, (16, 200)).astype(np.float32)
  ours = np.asarray(log_probs(jnp.asarray(logits), decoding(0.7, top_k, top_p, 200)))
  for row, logp in zip(logits.astype(np.float64) / 0.7, ours, strict=True):
    order = np.argsort(-row)[: top_k or None]
    p = np.exp(row[order] - row[order].max())
    p /= p.sum()
    order = order[np.cumsum(p) - p < top_p]
    expected = np.full(len(row), -np.inf)
    expected[order] = row[order] - np.log(np.exp(row[order]).sum())
    np.testing.assert_allclose(logp, expected, atol=1e-5)


def test_probabilities_sum_to_one_at_any_temperature():
  logits = jnp.asarray(np.random.default_rng(1).normal(0, 5, (4, 50)), jnp.float32)
  for temperature in (0.1, 0.7, 1.0, 3.0):
    total = np.exp(np.asarray(log_probs(logits, decoding(temperature, 0, 0.9, 50)))).sum(-1)
    np.testing.assert_allclose(total, 1.0, atol=1e-5)


def test_a_sampled_token_stays_possible_for_the_trainer():
  """On the edge of top-p the trainer's last bits may drop the token: its ratio would be zero and
  the gradient of its log-probability not a number."""
  logits = jnp.log(jnp.asarray([[0.5, 0.3, 0.2]], jnp.float32))
  how = decoding(1.0, 0, 0.6, 3)

  def logp_of_dropped(logits):
    return token_log_probs(logits, jnp.array([2]), how)[0][0]

  value, gradient = jax.value_and_grad(logp_of_dropped)(logits)
  assert np.isfinite(value)
  assert np.isfinite(gradient).all()


def test_entropy_of_a_known_distribution():
  logits = jnp.log(jnp.asarray([[0.5, 0.25, 0.25, 1e-9]], jnp.float32))
  _, entropy = token_log_probs(logits, jnp.array([0]), decoding(1.0, 0, 1.0, 4))
  np.testing.assert_allclose(entropy, 1.5 * np.log(2), atol=1e-5)
  _, entropy = token_log_probs(logits, jnp.array([0]), decoding(1.0, 1, 1.0, 4))
  np.testing.assert_allclose(entropy, 0.0, atol=1e-6)


@pytest.mark.parametrize(("V", "top_k", "top_p"), [(5, 0, 1.0), (300, 0, 1.0), (300, 20, 0.9)])
def test_draws_follow_the_distribution_and_say_its_log_probs(V, top_k, top_p):
  """Chi-square over blocks and within them; a vocabulary that 128 does not divide is filled up."""
  rows = 20_000
  logits = np.random.default_rng(2).normal(0, 2, V).astype(np.float32)
  how = decoding(0.8, top_k, top_p, V - 1)
  keys = jax.random.split(jax.random.key(0), rows)
  tokens, logp = jax.jit(draw)(keys, jnp.tile(logits, (rows, 1)), how)
  exact = np.asarray(log_probs(jnp.asarray(logits[None]), how))[0]
  np.testing.assert_allclose(logp, exact[tokens], atol=1e-5)
  counts, expected = np.bincount(tokens, minlength=V), rows * np.exp(exact)
  assert counts[expected == 0].sum() == 0
  common = expected > 5
  chi2 = np.sum((counts - expected)[common] ** 2 / expected[common])
  assert chi2 < common.sum() + 5 * np.sqrt(2 * common.sum())


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_a_row_that_is_not_finite_has_no_log_prob_and_spoils_no_other(temperature, spoilt):
  logits = np.zeros((2, 300), np.float32)
  logits[0, 7] = spoilt
  keys = jax.random.split(jax.random.key(0), 2)
  _, logp = draw(keys, jnp.asarray(logits), decoding(temperature, 0, 1.0, 300))
  assert np.isfinite(logp).tolist() == [False, True]
