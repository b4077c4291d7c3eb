"""Prompts in, completions out, with the log-probabilities they were drawn with.

One compiled program: each prompt is prefilled once and its cache given to all rollouts that share
it, then a `while_loop` decodes one token a row until every row has ended. What is data stays data:
temperature, top-k, top-p, end-of-sequence ids, keys, lengths and limits are arrays, so none of them
compiles anything again.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from grpo_jax import distribution
from grpo_jax.distribution import Decoding
from grpo_jax.model.qwen3 import Cache, LayerCache, Params, Qwen3, empty_cache, split_layers
from grpo_jax.records import Finish, Samples


@flax.struct.dataclass
class Requests:
  """What to sample: R rollouts over N prompts; groups may be uneven."""

  prompts_NP: jax.Array  # int32, right-padded
  prompt_len_N: jax.Array  # int32
  prompt_of_R: jax.Array  # int32, which prompt each rollout continues
  limit_R: jax.Array  # int32, most new tokens of each rollout; at least 1
  keys_R: jax.Array  # one random key a rollout


@flax.struct.dataclass
class _Decoding:
  """State of the decode loop after `count` tokens a row."""

  count: jax.Array  # int32 scalar
  hidden_RD: jax.Array  # of each row's last token: the next token is drawn from it
  cache: Cache
  tokens_RN: jax.Array
  logp_RN: jax.Array
  length_R: jax.Array  # tokens of the completion so far, frozen once a row has ended
  finish_R: jax.Array
  done_R: jax.Array


class Sampler:
  """Compiles sampling for a model; holds no parameters and no random state."""

  def __init__(self, model: Qwen3, *, max_new_tokens: int):
    """
    Args:
      model: the trained module; sampling uses its unrolled twin.
      max_new_tokens: N, the size of the decode buffers; a row's own limit may be smaller.
    """
    self._model = model.clone(scan_layers=False, remat=False)
    self.prepare = jax.jit(functools.partial(_prepare, self._model))
    # Rollouts are split over devices; prompts, fewer and of any number, are given to all.
    every, by_row = model.layout.replicated, model.layout.sharding("batch")
    self._generate = jax.jit(
      functools.partial(_generate, self._model, max_new_tokens),
      in_shardings=(None, Requests(every, every, by_row, by_row, by_row), every, every),
      out_shardings=by_row,
    )

  def generate(
    self, prepared: Params, requests: Requests, how: Decoding, eos_ids_E: jax.Array
  ) -> Samples:
    """Samples all requests.

    Args:
      prepared: `self.prepare(params)`: per-layer parameters in the compute dtype, made once a
        sampling phase.
      requests: what to sample.
      how: temperature and filters.
      eos_ids_E: int32; any of these ends a row and is the last token of its completion.

    Returns:
      Samples with T = P + N columns.
    """
    return self._generate(prepared, requests, how, eos_ids_E)


def pad_prompts(prompts: list[np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
  """Right-pads prompts to int32 [N, length]; returns them with their lengths [N]."""
  tokens_NP = np.zeros((len(prompts), length), np.int32)
  for row, prompt in enumerate(prompts):
    tokens_NP[row, : len(prompt)] = prompt
  return tokens_NP, np.array([len(prompt) for prompt in prompts], np.int32)


def _prepare(model: Qwen3, params: Params) -> Params:
  return split_layers(jax.tree.map(lambda leaf: leaf.astype(model.dtype), params))


def _generate(model: Qwen3, max_new_tokens: int, params, requests, how, eos_ids_E) -> Samples:
  with jax.named_scope("prefill"):
    hidden_RD, cache = _prefill(model, params, requests, max_new_tokens)
  with jax.named_scope("decode"):
    end = _decode(model, max_new_tokens, params, requests, how, eos_ids_E, hidden_RD, cache)
  return _pack(requests, end)


def _prefill(model: Qwen3, params, requests: Requests, max_new_tokens: int):
  """Runs each prompt once; returns last hidden states and caches, repeated for its rollouts."""
  N, P = requests.prompts_NP.shape
  positions_NP = jnp.broadcast_to(jnp.arange(P), (N, P))
  cache = empty_cache(model.config, model.layout, N, P, model.dtype)
  hidden_NPD, cache = model.apply(
    {"params": params}, requests.prompts_NP, positions_NP, None, cache
  )
  last_N11 = (requests.prompt_len_N - 1)[:, None, None]
  hidden_ND = jnp.take_along_axis(hidden_NPD, last_N11, axis=1)[:, 0]

  def for_rollouts(x_NKPh):
    x_RKSh = jnp.pad(x_NKPh[requests.prompt_of_R], ((0, 0), (0, 0), (0, max_new_tokens), (0, 0)))
    return model.layout.constrain(x_RKSh, "batch", "kv_heads", "length", "head_dim")

  cache = tuple(LayerCache(for_rollouts(c.k_BKSh), for_rollouts(c.v_BKSh)) for c in cache)
  return hidden_ND[requests.prompt_of_R], cache


def _decode(model, max_new_tokens, params, requests, how, eos_ids_E, hidden_RD, cache):
  """Draws, records and feeds back one token a row until all rows have ended."""
  R = requests.prompt_of_R.shape[0]
  prompt_len_R = requests.prompt_len_N[requests.prompt_of_R]
  limit_R = jnp.minimum(requests.limit_R, max_new_tokens)

  def unfinished(state: _Decoding):
    return ~jnp.all(state.done_R)

  def step(state: _Decoding) -> _Decoding:
    logits_RV = model.apply({"params": params}, state.hidden_RD, method="logits")
    token_R, logp_R = _draw(requests.keys_R, state.count, logits_RV, how)
    is_eos_R = jnp.any(token_R[:, None] == eos_ids_E[None, :], axis=-1)
    length_R = state.length_R + ~state.done_R
    position_R1 = (prompt_len_R + state.count)[:, None]
    hidden_R1D, cache = model.apply(
      {"params": params}, token_R[:, None], position_R1, None, state.cache
    )
    return _Decoding(
      count=state.count + 1,
      hidden_RD=hidden_R1D[:, 0],
      cache=cache,
      tokens_RN=_set_column(state.tokens_RN, token_R, state.count),
      logp_RN=_set_column(state.logp_RN, logp_R, state.count),
      length_R=length_R,
      finish_R=jnp.where(~state.done_R & is_eos_R, Finish.EOS, state.finish_R),
      done_R=state.done_R | is_eos_R | (length_R >= limit_R),
    )

  start = _Decoding(
    count=jnp.int32(0),
    hidden_RD=hidden_RD,
    cache=cache,
    tokens_RN=jnp.zeros((R, max_new_tokens), jnp.int32),
    logp_RN=jnp.zeros((R, max_new_tokens), jnp.float32),
    length_R=jnp.zeros(R, jnp.int32),
    finish_R=jnp.full(R, Finish.LENGTH, jnp.int32),
    done_R=limit_R < 1,
  )
  return jax.lax.while_loop(unfinished, step, start)


def _draw(keys_R, count, logits_RV, how: Decoding) -> tuple[jax.Array, jax.Array]:
  logp_RV = distribution.log_probs(logits_RV, how)
  keys_R = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys_R, count)
  token_R = distribution.draw(keys_R, logp_RV, logits_RV, how)
  logp_R = jnp.take_along_axis(logp_RV, token_R[:, None], axis=-1)[:, 0]
  return token_R, jnp.where(how.temperature > 0, logp_R, 0.0)


def _set_column(x_RN: jax.Array, value_R: jax.Array, column: jax.Array) -> jax.Array:
  return jax.lax.dynamic_update_slice(x_RN, value_R[:, None], (0, column))


def _pack(requests: Requests, end: _Decoding) -> Samples:
  """Prompt and completion side by side from index 0, zeros after them."""
  prompt_len_R = requests.prompt_len_N[requests.prompt_of_R]
  prompts_RP = requests.prompts_NP[requests.prompt_of_R]
  P, N = prompts_RP.shape[1], end.tokens_RN.shape[1]
  index_1T = jnp.arange(P + N)[None, :]
  place_RT = index_1T - prompt_len_R[:, None]
  in_completion_RT = (place_RT >= 0) & (place_RT < end.length_R[:, None])
  place_RT = jnp.clip(place_RT, 0, N - 1)
  completion_RT = jnp.take_along_axis(end.tokens_RN, place_RT, axis=1)
  logp_RT = jnp.take_along_axis(end.logp_RN, place_RT, axis=1)
  prompts_RT = jnp.pad(prompts_RP, ((0, 0), (0, N)))
  prompts_RT = jnp.where(index_1T < prompt_len_R[:, None], prompts_RT, 0)
  return Samples(
    tokens_RT=jnp.where(in_completion_RT, completion_RT, prompts_RT),
    prompt_len_R=prompt_len_R,
    completion_len_R=end.length_R,
    behaviour_logp_RT=jnp.where(in_completion_RT, logp_RT, 0.0),
    finish_R=end.finish_R,
  )
