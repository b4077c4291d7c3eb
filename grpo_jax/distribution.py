"""The distribution a token is drawn from: one definition for the sampler and for the trainer.

Temperature divides the logits, ids the tokenizer does not know are removed, then top-k, then top-p
on what top-k left, then the rest is renormalised. The behaviour log-probability of a token is its
log-probability under exactly this; a trainer that leaves out any part sees ratios that are wrong
before the first update.
"""

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Decoding:
  """How to sample; arrays, so that a new value compiles nothing."""

  temperature: jax.Array  # float32; 0: the most likely token, whose log-probability is then 0
  top_k: jax.Array  # int32; 0: off
  top_p: jax.Array  # float32; 1: off
  num_ids: jax.Array  # int32; ids from here on (padding rows of the embedding) are never sampled


def decoding(temperature: float, top_k: int, top_p: float, num_ids: int) -> Decoding:
  return Decoding(
    jnp.float32(temperature), jnp.int32(top_k), jnp.float32(top_p), jnp.int32(num_ids)
  )


def log_probs(logits_BV: jax.Array, how: Decoding) -> jax.Array:
  """Log-probabilities [B, V] of the distribution sampled from; -inf where nothing is sampled."""
  return jax.nn.log_softmax(_allowed_logits(logits_BV, how, must_keep_BV=False), axis=-1)


def token_log_probs(
  logits_BV: jax.Array, tokens_B: jax.Array, how: Decoding
) -> tuple[jax.Array, jax.Array]:
  """Log-probability of given tokens, and the entropy, under the same distribution; differentiable.

  A token that was sampled is never filtered out here: the trainer's logits differ from the
  sampler's in the last bits, and a token on the edge of top-p must not become impossible.

  Returns:
    Two float32 arrays [B]: log-probabilities and entropies (nats).
  """
  is_token_BV = jnp.arange(logits_BV.shape[-1])[None, :] == tokens_B[:, None]
  logits_BV = _allowed_logits(logits_BV, how, is_token_BV)
  logp_BV = jax.nn.log_softmax(logits_BV, axis=-1)
  logp_B = jnp.take_along_axis(logp_BV, tokens_B[:, None], axis=-1)[:, 0]
  possible_BV = jnp.isfinite(logits_BV)
  entropy_B = -jnp.sum(jnp.exp(logp_BV) * jnp.where(possible_BV, logp_BV, 0.0), axis=-1)
  return logp_B, entropy_B


def draw(keys_B: jax.Array, logp_BV: jax.Array, logits_BV: jax.Array, how: Decoding) -> jax.Array:
  """One token a row, by the Gumbel-max trick; each row has its own key. int32 [B]."""
  noise_BV = jax.vmap(lambda key: jax.random.gumbel(key, logp_BV.shape[1:]))(keys_B)
  sampled_B = jnp.argmax(logp_BV + noise_BV, axis=-1)
  known_V = jnp.arange(logits_BV.shape[-1]) < how.num_ids
  greedy_B = jnp.argmax(jnp.where(known_V, logits_BV, -jnp.inf), axis=-1)
  return jnp.where(how.temperature > 0, sampled_B, greedy_B).astype(jnp.int32)


def _allowed_logits(logits_BV, how: Decoding, must_keep_BV) -> jax.Array:
  """Tempered logits, -inf where the distribution has no mass."""
  known_V = jnp.arange(logits_BV.shape[-1]) < how.num_ids
  # Greedy rows never read these values; dividing by one keeps them finite.
  scaled_BV = logits_BV / jnp.where(how.temperature > 0, how.temperature, 1.0)
  scaled_BV = jnp.where(known_V, scaled_BV, -jnp.inf)
  filtering = (how.top_k > 0) | (how.top_p < 1)
  floor_B1 = jax.lax.cond(
    filtering, _lowest_kept, lambda x, how: jnp.full_like(x[:, :1], -jnp.inf),
    jax.lax.stop_gradient(scaled_BV), how,
  )  # fmt: skip
  return jnp.where((scaled_BV >= floor_B1) | must_keep_BV, scaled_BV, -jnp.inf)


def _lowest_kept(scaled_BV: jax.Array, how: Decoding) -> jax.Array:
  """The smallest logit [B, 1] inside top-k and top-p. Equal logits are kept or dropped together, so
  the set does not depend on the order of a sort."""
  V = scaled_BV.shape[-1]
  sorted_BV = -jnp.sort(-scaled_BV, axis=-1)
  k = jnp.where(how.top_k > 0, jnp.minimum(how.top_k, V), V)
  in_top_k_BV = jnp.arange(V)[None, :] < k
  probs_BV = jax.nn.softmax(jnp.where(in_top_k_BV, sorted_BV, -jnp.inf), axis=-1)
  # A token belongs to the nucleus while the tokens before it have not reached top_p.
  before_BV = jnp.cumsum(probs_BV, axis=-1) - probs_BV
  kept_B = jnp.sum(in_top_k_BV & (before_BV < how.top_p), axis=-1)
  last_B1 = jnp.maximum(kept_B - 1, 0)[:, None]
  return jnp.take_along_axis(sorted_BV, last_B1, axis=-1)
