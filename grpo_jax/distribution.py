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
  the set does not depend on an order among them.

  Nothing is sorted: a threshold is found bit by bit, in 32 sums over the vocabulary. It is the same
  set a sort would find, for a small part of a sort's time at 151,936 ids.
  """
  bits_BV = _ordered_bits(scaled_BV)
  V = scaled_BV.shape[-1]
  k = jnp.where(how.top_k > 0, jnp.minimum(how.top_k, V), V)
  at_top_k_B = _highest_threshold(bits_BV, jnp.ones_like(scaled_BV), k)
  in_top_k_BV = bits_BV >= at_top_k_B[:, None]
  probs_BV = jax.nn.softmax(jnp.where(in_top_k_BV, scaled_BV, -jnp.inf), axis=-1)
  at_top_p_B = _highest_threshold(bits_BV, probs_BV, how.top_p)
  floor_B = jnp.minimum(jnp.maximum(at_top_k_B, at_top_p_B), bits_BV.max(axis=-1))
  kept_BV = bits_BV >= floor_B[:, None]
  return jnp.min(jnp.where(kept_BV, scaled_BV, jnp.inf), axis=-1, keepdims=True)


def _highest_threshold(bits_BV: jax.Array, weight_BV: jax.Array, target: jax.Array) -> jax.Array:
  """The largest t, uint32 [B], for which the weights where bits >= t still add up to the target."""

  def narrow(i, t_B):
    higher_B = t_B | (jnp.uint32(1) << (31 - i).astype(jnp.uint32))
    weight_B = jnp.sum(jnp.where(bits_BV >= higher_B[:, None], weight_BV, 0.0), axis=-1)
    return jnp.where(weight_B >= target, higher_B, t_B)

  return jax.lax.fori_loop(0, 32, narrow, jnp.zeros(bits_BV.shape[0], jnp.uint32))


def _ordered_bits(x: jax.Array) -> jax.Array:
  """float32 to uint32 of the same order: negative numbers have their bits flipped, others the sign
  bit set."""
  bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
  sign = jnp.uint32(1 << 31)
  return jnp.where(bits >= sign, ~bits, bits | sign)
