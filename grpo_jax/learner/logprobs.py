"""Log-probabilities the current parameters give to sampled tokens."""

import jax
import jax.numpy as jnp

from grpo_jax.distribution import Decoding
from grpo_jax.learner.vocabulary import chosen_log_probs
from grpo_jax.model.qwen3 import Params, Qwen3, vocabulary_table
from grpo_jax.records import Samples, completion_mask


def sample_log_probs(
  model: Qwen3, params: Params, samples: Samples, how: Decoding
) -> tuple[jax.Array, jax.Array]:
  """Log-probability of every completion token given those before it, under the sampler's
  distribution. Prompts cost no projection onto the vocabulary.

  Args:
    samples: B rows, a multiple of the layout's `batch_shards`.
    how: temperature and filters the rows were sampled with.

  Returns:
    Two float32 arrays [B, T]: log-probabilities and entropies (nats); 0 off the completion, and for
    a row's first token, which nothing predicts.
  """
  tokens_BT = samples.tokens_RT
  B, T = tokens_BT.shape
  positions_BT = jnp.broadcast_to(jnp.arange(T), (B, T))
  hidden_BTD, _ = model.apply({"params": params}, tokens_BT, positions_BT)
  table_VD = vocabulary_table(model.config, params).astype(model.dtype)
  # The state at t predicts token t + 1.
  target_BT, chosen_BT = (_shifted(x, -1) for x in (tokens_BT, completion_mask(samples)))
  scores = chosen_log_probs(model.layout, hidden_BTD, table_VD, target_BT, chosen_BT, how)
  return jax.tree.map(lambda x_BT: _shifted(x_BT, 1), scores)


def _shifted(x_BT: jax.Array, places: int) -> jax.Array:
  """Along T, with zeros moving in."""
  T = x_BT.shape[1]
  padded = jnp.pad(x_BT, ((0, 0), (max(places, 0), max(-places, 0))))
  return padded[:, max(-places, 0) :][:, :T]
