"""The distribution a token is drawn from: one definition for the sampler and for the trainer.

Temperature divides the logits, ids the tokenizer does not know are removed, then top-k, then top-p
on what top-k left, then the rest is renormalised. The behaviour log-probability of a token is its
log-probability under exactly this; a trainer that leaves out any part sees ratios that are wrong
before the first update.
"""

import flax.struct
import jax
import jax.numpy as jnp

BLOCKS = 128  # divides Qwen3's vocabulary, on any number of devices that does


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


def draw(
  keys_B: jax.Array, logits_BV: jax.Array, how: Decoding
) -> tuple[jax.Array, jax.Array]:
  """Draws one token a row; each row has its own key.

  The vocabulary is cut into 128 blocks of equal size. One uniform number chooses a block by its
  mass, a second one the token within it: two short cumulative sums instead of one over the whole
  vocabulary, and two random numbers a row instead of V as the Gumbel trick needs, which cost more
  than the vocabulary projection itself on a CPU.

  Returns:
    Tokens, int32 [B], and their log-probabilities, float32 [B], under the distribution drawn from
    (0 for greedy rows). A row whose logits are not finite gets a log-probability of NaN.
  """
  allowed_BV = _allowed_logits(logits_BV, how, must_keep_BV=False)
  max_B1 = allowed_BV.max(axis=-1, keepdims=True)
  is_greedy = how.temperature <= 0

  def mass(logits, maximum):
    return jnp.where(is_greedy, logits == maximum, jnp.exp(logits - maximum))

  uniform_B2 = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys_B)
  uniform_B2 = jnp.where(is_greedy, 0.0, uniform_B2)  # the first of the largest
  blocks_BbC = _in_blocks(allowed_BV)
  mass_Bb = mass(blocks_BbC, max_B1[..., None]).sum(axis=-1)
  block_B, total_B = _invert(mass_Bb, uniform_B2[:, 0])
  block_BC = jnp.take_along_axis(blocks_BbC, block_B[:, None, None], axis=1)[:, 0]
  place_B, _ = _invert(mass(block_BC, max_B1), uniform_B2[:, 1])

  token_B = block_B * block_BC.shape[1] + place_B
  logit_B = jnp.take_along_axis(block_BC, place_B[:, None], axis=1)[:, 0]
  logp_B = logit_B - max_B1[:, 0] - jnp.log(total_B)
  # A greedy token's is zero, but NaN where the largest logit is not finite.
  logp_B = jnp.where(is_greedy, max_B1[:, 0] - max_B1[:, 0], logp_B)
  return token_B.astype(jnp.int32), logp_B


def _in_blocks(x_BV: jax.Array) -> jax.Array:
  """[B, V] to [B, 128, V / 128], filled up with -inf. Blocks are contiguous, so a vocabulary split
  over devices is cut where it is split."""
  B, V = x_BV.shape
  x_BV = jnp.pad(x_BV, ((0, 0), (0, -V % BLOCKS)), constant_values=-jnp.inf)
  return x_BV.reshape(B, BLOCKS, -1)


def _invert(mass_BN: jax.Array, uniform_B: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The index at which the cumulative mass passes a share `uniform` of all, and all of it. Never an
  index without mass: the sum does not rise there."""
  upto_BN = jnp.cumsum(mass_BN, axis=-1)
  total_B = upto_BN[:, -1]
  return jnp.sum(upto_BN <= (uniform_B * total_B)[:, None], axis=-1), total_B


def _allowed_logits(logits_BV, how: Decoding, must_keep_BV) -> jax.Array:
  """Tempered logits, -inf where the distribution has no mass."""
  id_V = jnp.arange(logits_BV.shape[-1])
  return allowed_logits(logits_BV, id_V, lowest_allowed(logits_BV, how), must_keep_BV, how)


def allowed_logits(logits_BU, id_U, floor_B1, must_keep_BU, how: Decoding) -> jax.Array:
  """The same of some ids, whose rows' `lowest_allowed` is known."""
  scaled_BU = _tempered(logits_BU, id_U, how)
  # Asked this way round, NaN stays NaN and is seen.
  return jnp.where((scaled_BU < floor_B1) & ~jnp.asarray(must_keep_BU), -jnp.inf, scaled_BU)


def lowest_allowed(logits_BV: jax.Array, how: Decoding) -> jax.Array:
  """[B, 1]: tempered logits below are filtered out; -inf without filters."""
  return jax.lax.cond(
    filtering(how),
    lambda x_BV: _lowest_kept(_tempered(x_BV, jnp.arange(x_BV.shape[-1]), how), how),
    lambda x_BV: jnp.full_like(x_BV[:, :1], -jnp.inf),
    jax.lax.stop_gradient(logits_BV),
  )


def filtering(how: Decoding) -> jax.Array:
  """Whether top-k or top-p is on."""
  return (how.top_k > 0) | (how.top_p < 1)


def scale(how: Decoding) -> jax.Array:
  """What logits are multiplied by. Greedy rows never read the result; 1 keeps it finite."""
  return 1.0 / jnp.where(how.temperature > 0, how.temperature, 1.0)


def _tempered(logits_BU, id_U, how: Decoding) -> jax.Array:
  """Without ids the tokenizer does not know. They are taken out before the scaling: with a scaling
  alone behind it, XLA's GPU backend forms the logits by a slower kernel that includes it."""
  return jnp.where(id_U < how.num_ids, logits_BU, -jnp.inf) * scale(how)


def _lowest_kept(scaled_BV: jax.Array, how: Decoding) -> jax.Array:
  """The smallest logit [B, 1] inside top-k and top-p. Equal logits are kept or dropped together, so
  the set does not depend on an order among them.

  Nothing is sorted: a threshold is found bit by bit, in 32 sums over the vocabulary. It is the same
  set a sort would find, for a small part of a sort's time at 151,936 ids.
  """
  bits_BV = _ordered_bits(scaled_BV)
  V = scaled_BV.shape[-1]
  k = jnp.where(how.top_k > 0, jnp.minimum(how.top_k, V), V)
  at_top_k_B = jax.lax.cond(
    k < V,
    lambda: _highest_threshold(bits_BV, jnp.ones_like(scaled_BV), k),
    lambda: jnp.zeros(len(bits_BV), jnp.uint32),
  )
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
