"""The estimators by what they promise, and the penalty a reward pays for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.learner.kl import KLPenalty, k1, k2, k3
from grpo_jax.learner.logprobs import sample_log_probs
from grpo_jax.model.qwen3 import init_params
from tests.learner.test_update import HOW, make_model, random_rollouts

LOGITS_P = np.array([0.3, -1.0, 0.8, 0.1])
LOGITS_Q = np.array([0.1, -0.4, 0.5, 0.4])


def log_softmax(logits):
  return logits - np.log(np.exp(logits).sum())


P, Q = log_softmax(LOGITS_P), log_softmax(LOGITS_Q)
TRUE_KL = (np.exp(P) * (P - Q)).sum()


def test_k1_and_k3_have_the_kl_as_their_mean():
  for estimator in (k1, k3):
    np.testing.assert_allclose((np.exp(P) * estimator(Q - P)).sum(), TRUE_KL, rtol=1e-5)
  assert k1(jnp.float32(0.5)) < 0
  assert (k3(Q - P) >= 0).all()


@pytest.mark.parametrize(("estimator", "share"), [(k1, 0.0), (k2, 1.0)])
def test_the_gradient_as_a_loss(estimator, share):
  """Of k2 it is the KL's; of k1 it is nothing: samples stay where they are."""

  def as_loss(logits):
    logp = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(P) * estimator(Q - logp))

  def kl(logits):
    logp = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(logp) * (logp - Q))

  ours, true = (jax.grad(f)(jnp.asarray(LOGITS_P, jnp.float32)) for f in (as_loss, kl))
  np.testing.assert_allclose(ours, share * true, atol=1e-6)


@pytest.mark.parametrize("microbatch", [4, 5])
def test_the_penalty_is_the_sum_over_a_rows_tokens(microbatch):
  """9 rows fill no number of microbatches: the last one's filling must not be read."""
  model, params = make_model()
  samples = random_rollouts(model, params, 9).samples
  reference = init_params(model, jax.random.key(5))
  penalty = KLPenalty(
    model, reference, HOW, estimator="k1", coef=0.5, microbatch_rows=microbatch
  )(samples)
  reference_logp, _ = jax.jit(lambda p, s: sample_log_probs(model, p, s, HOW))(reference, samples)
  for row in range(9):
    start = samples.prompt_len_R[row]
    span = slice(start, start + samples.completion_len_R[row])
    distance = samples.behaviour_logp_RT[row, span] - np.asarray(reference_logp)[row, span]
    np.testing.assert_allclose(penalty[row], 0.5 * distance.sum(), rtol=1e-4, atol=1e-5)


def test_the_reference_itself_pays_nothing():
  model, params = make_model()
  samples = random_rollouts(model, params, 8).samples
  penalty = KLPenalty(model, params, HOW, estimator="k3", coef=1.0, microbatch_rows=8)(samples)
  np.testing.assert_allclose(penalty, 0.0, atol=1e-6)
