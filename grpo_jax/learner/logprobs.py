"""Log-probabilities the current parameters give to sampled tokens."""

import jax
import jax.numpy as jnp

from grpo_jax.distribution import Decoding
from grpo_jax.learner.vocabulary import chosen_log_probs
from grpo_jax.model.lines import lay_end_to_end
from grpo_jax.model.qwen3 import Params, Qwen3, vocabulary_table
from grpo_jax.records import Samples, completion_mask


def sample_log_probs(
  model: Qwen3,
  params: Params,
  samples: Samples,
  how: Decoding,
  line: int | None = None,
  d_params: Params | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Log-probability of every completion token given those before it, under the sampler's
  distribution. Prompts cost no projection onto the vocabulary.

  Args:
    samples: B rows, a multiple of the layout's `batch_shards`.
    how: temperature and filters the rows were sampled with.
    line: tokens that the rows of one device have at most; they are laid end to end, and padding
      costs nothing but in attention. None: rows are computed as they are.
    d_params: references to sums of the parameters' gradients: that of the vocabulary's table is
      added there, in place (learner/vocabulary.py). None: it is returned like all others.

  Returns:
    Two float32 arrays [B, T]: log-probabilities and entropies (nats); 0 off the completion, and for
    a row's first token, which nothing predicts.
  """
  tokens_BT = samples.tokens_RT
  B, T = tokens_BT.shape
  positions_BT = jnp.broadcast_to(jnp.arange(T), (B, T))
  # The state at t predicts token t + 1.
  target_BT, chosen_BT = (_shifted(x, -1) for x in (tokens_BT, completion_mask(samples)))
  inputs = (tokens_BT, target_BT, chosen_BT)
  lines = None
  if line is not None:
    length_B = samples.prompt_len_R + samples.completion_len_R
    lines = lay_end_to_end(length_B, T, model.layout, line)
    inputs = map(lines.joined, inputs)
  tokens, target, chosen = inputs
  hidden, _ = model.apply({"params": params}, tokens, positions_BT, lines=lines)
  table_VD = vocabulary_table(model.config, params).astype(model.dtype)
  d_table_VD = vocabulary_table(model.config, d_params) if d_params else None
  scores = chosen_log_probs(model.layout, hidden, table_VD, target, chosen, how, d_table_VD)
  if lines is not None:
    scores = (lines.apart(x_SN, B) for x_SN in scores)
  logp_BT, entropy_BT = (_shifted(x_BT, 1) for x_BT in scores)
  return logp_BT, entropy_BT


def _shifted(x_BT: jax.Array, places: int) -> jax.Array:
  """Along T, with zeros moving in."""
  T = x_BT.shape[1]
  padded = jnp.pad(x_BT, ((0, 0), (max(places, 0), max(-places, 0))))
  return padded[:, max(-places, 0) :][:, :T]
