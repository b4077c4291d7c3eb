"""Prompts in, completions out, with the log-probabilities they were drawn with.

A fixed number of decode slots works through a queue of rollouts. A prompt is prefilled once and its
keys and values are copied into the slots of all its rollouts; slots decode together in bursts of a
few tokens on the device; between bursts, finished rollouts are handed out and their slots refilled.
So no slot decodes padding behind a short answer for longer than one burst, the cache is as long as
the longest rollout alive and no longer, and the host is asked once a burst, not once a token.

A rollout's tokens depend on its key, its prompt and the policy alone: not on its slot, its
neighbours, the order of refills or the number of devices.

What is data stays data: temperature, top-k, top-p, end-of-sequence ids, keys, limits and group
sizes are arrays, so none of them compiles anything again. Lengths come in buckets, each compiled
once.
"""

import collections
import dataclasses
import functools
from collections.abc import Iterator

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from grpo_jax import distribution
from grpo_jax.distribution import Decoding
from grpo_jax.model.qwen3 import (
  Cache,
  Params,
  Qwen3,
  abstract_params,
  empty_cache,
  split_layers,
)
from grpo_jax.records import Finish, Samples

SMALLEST_BUCKET = 16


@dataclasses.dataclass(frozen=True)
class Requests:
  """What to sample, on the host: R rollouts over N prompts. Groups may be uneven; rollouts of one
  prompt stand next to each other, or it is prefilled again."""

  prompts: list[np.ndarray]  # int32 token ids
  prompt_of_R: np.ndarray  # int32, which prompt each rollout continues
  limit_R: np.ndarray  # int32, most new tokens of each rollout, at least 1
  keys_R: jax.Array  # one random key a rollout


@dataclasses.dataclass(frozen=True)
class Finished:
  """Completions that ended in the last burst, on the host."""

  rollout_F: np.ndarray  # which of the R rollouts each is
  tokens: list[np.ndarray]  # int32, the completion; an end-of-sequence id is its last token
  behaviour_logp: list[np.ndarray]  # float32, of each token
  finish_F: np.ndarray  # of records.Finish


@flax.struct.dataclass
class _Prefilled:
  """Prompts that have been read: n of them, padded to one length P."""

  cache: Cache  # [n, K, P, h] a layer
  hidden_nD: jax.Array  # of each prompt's last token
  length_n: jax.Array


@flax.struct.dataclass
class _Slots:
  """B decode slots. A slot that is done waits to be emptied and refilled."""

  cache: Cache  # [B, K, S, h] a layer
  hidden_BD: jax.Array  # of each row's last token: the next one is drawn from it
  position_B: jax.Array  # int32, tokens so far, prompt included
  count_B: jax.Array  # int32, tokens of the completion so far
  limit_B: jax.Array
  keys_B: jax.Array
  done_B: jax.Array
  finish_B: jax.Array
  tokens_BN: jax.Array  # the completion
  logp_BN: jax.Array


class Sampler:
  """Compiles sampling for a model; holds no parameters and no random state.

  `prepared` has the shapes and shardings of `prepare(params)`.
  """

  def __init__(
    self,
    model: Qwen3,
    *,
    slots: int,
    max_new_tokens: int,
    burst: int = 16,
    prefill: int = 8,
    gather_weights: bool = True,
  ):
    """
    Args:
      model: the trained module; sampling uses its unrolled twin.
      slots: B, rollouts decoded together; a multiple of the devices a batch is split over.
      max_new_tokens: N, the longest completion; a rollout's own limit may be smaller.
      burst: tokens between two looks of the host.
      prefill: prompts read together.
      gather_weights: hold the weights whole along fsdp while sampling, so that no token waits for
        them to be gathered; False where they do not fit.
    """
    model = model.clone(scan_layers=False, remat=False)
    self._slots, self._max_new_tokens = slots, max_new_tokens
    self._burst_tokens, self._prompts = burst, prefill
    # Slots are split over devices; prompts, few at a time, are given to all.
    every, by_row = model.layout.replicated, model.layout.sharding("batch")
    in_slots = _Slots(model.layout.sharding("batch", "kv_heads"), *[by_row] * 9)
    in_prefill = _Prefilled(model.layout.sharding(None, "kv_heads"), every, every)
    self.prepared = _prepared(model, gather_weights)
    self.prepare = jax.jit(
      functools.partial(_prepare, model),
      out_shardings=jax.tree.map(lambda leaf: leaf.sharding, self.prepared),
    )
    self._prefill = jax.jit(
      functools.partial(_prefill, model),
      in_shardings=(None, every, every),
      out_shardings=in_prefill,
    )
    self._empty = jax.jit(
      functools.partial(_empty, model, slots, max_new_tokens),
      static_argnums=0,
      out_shardings=in_slots,
    )
    self._insert = jax.jit(
      _insert,
      donate_argnums=0,
      in_shardings=(in_slots, in_prefill, by_row, by_row, by_row),
      out_shardings=in_slots,
    )
    self._grow = jax.jit(
      _grow, static_argnums=1, donate_argnums=0, in_shardings=in_slots, out_shardings=in_slots
    )
    self._burst = jax.jit(
      functools.partial(_burst, model, burst),
      donate_argnums=1,
      in_shardings=(None, in_slots, every, every),
      out_shardings=in_slots,
    )

  def stream(
    self, prepared: Params, requests: Requests, how: Decoding, eos_ids_E: np.ndarray
  ) -> Iterator[Finished]:
    """Samples all requests and yields them as they finish.

    Args:
      prepared: `self.prepare(params)`: per-layer parameters in the compute dtype, made once a
        sampling phase.
      requests: what to sample.
      how: temperature and filters.
      eos_ids_E: int32; any of these ends a rollout.
    """
    prompt_len_N = np.array([len(prompt) for prompt in requests.prompts], np.int32)
    padded = bucket(prompt_len_N.max())
    limit_R = np.minimum(requests.limit_R, self._max_new_tokens).astype(np.int32)
    start_R = prompt_len_N[requests.prompt_of_R]
    end_R = start_R + limit_R
    waiting = collections.deque(range(len(limit_R)))
    rollout_B = np.full(self._slots, -1)
    position_B = np.zeros(self._slots, np.int32)
    window, length = None, bucket(max(padded, min(padded + self._burst_tokens, end_R.max())))
    slots = self._empty(length)

    while waiting or (rollout_B >= 0).any():
      for window_index, chosen in self._assign(waiting, rollout_B, requests):
        if window is None or window[0] != window_index:
          window = window_index, self._read(prepared, requests, window_index, padded)
        slots = self._fill(slots, window, chosen, requests, limit_R)
        position_B[list(chosen)] = start_R[list(chosen.values())]
      after_burst = np.minimum(position_B + self._burst_tokens, end_R[rollout_B])
      needed = bucket(after_burst[rollout_B >= 0].max())
      if needed > length:
        slots, length = self._grow(slots, needed), needed
      slots = self._burst(prepared, slots, how, eos_ids_E)
      done_B, position_B = jax.device_get((slots.done_B, slots.position_B))
      position_B = np.array(position_B)
      ended = np.flatnonzero(done_B & (rollout_B >= 0))
      if len(ended):
        yield _finished(slots, ended, rollout_B[ended])
        rollout_B[ended] = -1

  def compiled_programs(self) -> int:
    """How many programs sampling has compiled so far; new settings must not raise it."""
    programs = (self._prefill, self._empty, self._insert, self._grow, self._burst)
    return sum(program._cache_size() for program in programs)

  def _assign(self, waiting, rollout_B, requests) -> Iterator[tuple[int, dict[int, int]]]:
    """Gives free slots to waiting rollouts: yields, for each window of prompts, slot -> rollout."""
    chosen: dict[int, dict[int, int]] = {}
    for slot in np.flatnonzero(rollout_B < 0):
      if not waiting:
        break
      rollout = waiting.popleft()
      rollout_B[slot] = rollout
      window = int(requests.prompt_of_R[rollout]) // self._prompts
      chosen.setdefault(window, {})[int(slot)] = rollout
    yield from chosen.items()

  def _read(self, prepared, requests: Requests, window: int, padded: int) -> _Prefilled:
    """Prefills a window of prompts; the last window is filled up with its first prompt."""
    prompts = requests.prompts[window * self._prompts :][: self._prompts]
    prompts = prompts + prompts[:1] * (self._prompts - len(prompts))
    tokens_nP, length_n = pad_prompts(prompts, padded)
    return self._prefill(prepared, tokens_nP, length_n)

  def _fill(self, slots, window, chosen, requests: Requests, limit_R) -> _Slots:
    """Puts rollouts into their slots."""
    index, prefilled = window
    source_B = np.full(self._slots, -1, np.int32)
    rollout_B = np.zeros(self._slots, np.int32)
    for slot, rollout in chosen.items():
      source_B[slot] = requests.prompt_of_R[rollout] - index * self._prompts
      rollout_B[slot] = rollout
    keys_B = requests.keys_R[rollout_B]
    return self._insert(slots, prefilled, source_B, limit_R[rollout_B], keys_B)


def bucket(length: int) -> int:
  """The next length up of 16, 24, 32, 48, 64, 96, ...: a third is wasted at most, a quarter or so
  on average, and a cache that doubles compiles two programs."""
  size = SMALLEST_BUCKET
  while size < length:
    size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
  return size


def pad_prompts(prompts: list[np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
  """Right-pads prompts to int32 [N, length]; returns them with their lengths [N]."""
  tokens_NP = np.zeros((len(prompts), length), np.int32)
  for row, prompt in enumerate(prompts):
    tokens_NP[row, : len(prompt)] = prompt
  return tokens_NP, np.array([len(prompt) for prompt in prompts], np.int32)


def collect_samples(requests: Requests, parts: list[Finished], length: int) -> Samples:
  """All completions of `requests` in their order, each packed behind its prompt: numpy [R, T]."""
  R = len(requests.prompt_of_R)
  tokens_RT = np.zeros((R, length), np.int32)
  logp_RT = np.zeros((R, length), np.float32)
  prompt_len_R = np.array([len(requests.prompts[n]) for n in requests.prompt_of_R], np.int32)
  completion_len_R, finish_R = np.zeros(R, np.int32), np.zeros(R, np.int32)
  for row, n in enumerate(requests.prompt_of_R):
    tokens_RT[row, : prompt_len_R[row]] = requests.prompts[n]
  for part in parts:
    rows = zip(part.rollout_F, part.tokens, part.behaviour_logp, part.finish_F, strict=True)
    for row, tokens, logp, finish in rows:
      place = slice(prompt_len_R[row], prompt_len_R[row] + len(tokens))
      tokens_RT[row, place], logp_RT[row, place] = tokens, logp
      completion_len_R[row], finish_R[row] = len(tokens), finish
  return Samples(tokens_RT, prompt_len_R, completion_len_R, logp_RT, finish_R)


def _finished(slots: _Slots, ended: np.ndarray, rollout_F: np.ndarray) -> Finished:
  count_B, tokens_BN, logp_BN, finish_B = jax.device_get(
    (slots.count_B, slots.tokens_BN, slots.logp_BN, slots.finish_B)
  )
  return Finished(
    rollout_F=rollout_F,
    tokens=[tokens_BN[slot, : count_B[slot]] for slot in ended],
    behaviour_logp=[logp_BN[slot, : count_B[slot]] for slot in ended],
    finish_F=finish_B[ended],
  )


# ------------------------------------------------------------------------- compiled programs


def _prepared(model: Qwen3, gather_weights: bool) -> Params:
  """Shapes, dtype and shardings of the weights as sampling uses them."""
  gathered = model.layout.gathered if gather_weights else lambda sharding: sharding
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, model.dtype, sharding=gathered(leaf.sharding)),
    abstract_params(model),
  )


def _prepare(model: Qwen3, params: Params) -> Params:
  return split_layers(jax.tree.map(lambda leaf: leaf.astype(model.dtype), params))


@jax.named_scope("prefill")
def _prefill(model: Qwen3, params: Params, tokens_nP: jax.Array, length_n: jax.Array):
  """Reads prompts; only the last token's state is kept, so no logits are formed here."""
  n, P = tokens_nP.shape
  positions_nP = jnp.broadcast_to(jnp.arange(P), (n, P))
  cache = empty_cache(model.config, model.layout, n, P, model.dtype)
  hidden_nPD, cache = model.apply({"params": params}, tokens_nP, positions_nP, None, cache)
  last_n11 = (length_n - 1)[:, None, None]
  hidden_nD = jnp.take_along_axis(hidden_nPD, last_n11, axis=1)[:, 0]
  return _Prefilled(cache, hidden_nD, length_n)


def _empty(model: Qwen3, slots: int, max_new_tokens: int, length: int) -> _Slots:
  """Slots that are all done: nothing is decoded in them until they are filled."""
  zeros_B = jnp.zeros(slots, jnp.int32)
  return _Slots(
    cache=empty_cache(model.config, model.layout, slots, length, model.dtype),
    hidden_BD=jnp.zeros((slots, model.config.hidden_size), model.dtype),
    position_B=zeros_B,
    count_B=zeros_B,
    limit_B=zeros_B,
    keys_B=jax.random.split(jax.random.key(0), slots),
    done_B=jnp.ones(slots, bool),
    finish_B=zeros_B,
    tokens_BN=jnp.zeros((slots, max_new_tokens), jnp.int32),
    logp_BN=jnp.zeros((slots, max_new_tokens), jnp.float32),
  )


@jax.named_scope("insert")
def _insert(slots: _Slots, read: _Prefilled, source_B, limit_B, keys_B) -> _Slots:
  """Starts rollouts in the slots whose `source_B` names a prompt (-1: the slot goes on)."""
  fresh_B = source_B >= 0
  source_B = jnp.maximum(source_B, 0)

  def choose(new, old):
    return jnp.where(fresh_B.reshape(-1, *[1] * (old.ndim - 1)), new, old)

  def copy(into_BKSh, from_nKPh):
    P = from_nKPh.shape[2]
    start = choose(from_nKPh[source_B], into_BKSh[:, :, :P])
    return jax.lax.dynamic_update_slice(into_BKSh, start, (0, 0, 0, 0))

  return slots.replace(
    cache=jax.tree.map(copy, slots.cache, read.cache),
    hidden_BD=choose(read.hidden_nD[source_B], slots.hidden_BD),
    position_B=choose(read.length_n[source_B], slots.position_B),
    count_B=choose(0, slots.count_B),
    limit_B=choose(limit_B, slots.limit_B),
    keys_B=jnp.where(fresh_B, keys_B, slots.keys_B),
    done_B=choose(limit_B < 1, slots.done_B),
    finish_B=choose(Finish.LENGTH, slots.finish_B),
  )


def _grow(slots: _Slots, length: int) -> _Slots:
  """The same slots with a longer cache."""

  def longer(x_BKSh):
    return jnp.pad(x_BKSh, ((0, 0), (0, 0), (0, length - x_BKSh.shape[2]), (0, 0)))

  return slots.replace(cache=jax.tree.map(longer, slots.cache))


@jax.named_scope("decode")
def _burst(model: Qwen3, steps: int, params: Params, slots: _Slots, how: Decoding, eos_ids_E):
  """Decodes up to `steps` tokens in every slot that is not done; ends early when all are."""

  def unfinished(carry):
    step, slots = carry
    return (step < steps) & ~jnp.all(slots.done_B)

  def advance(carry):
    step, slots = carry
    return step + 1, _advance(model, params, slots, how, eos_ids_E)

  return jax.lax.while_loop(unfinished, advance, (jnp.int32(0), slots))[1]


def _advance(model: Qwen3, params: Params, slots: _Slots, how: Decoding, eos_ids_E) -> _Slots:
  """Draws one token a slot and feeds it back. Slots that are done compute, but change nothing that
  is read later."""
  logits_BV = model.apply({"params": params}, slots.hidden_BD, method="logits")
  token_B, logp_B = _draw(slots.keys_B, slots.count_B, logits_BV, how)
  going_B = ~slots.done_B
  is_eos_B = jnp.any(token_B[:, None] == eos_ids_E[None, :], axis=-1)
  hidden_B1D, cache = model.apply(
    {"params": params}, token_B[:, None], slots.position_B[:, None], None, slots.cache
  )
  count_B = slots.count_B + going_B
  # A column beyond the end is dropped: what a finished row wrote stays as it is.
  rows_B = jnp.arange(len(going_B))
  column_B = jnp.where(going_B, slots.count_B, slots.tokens_BN.shape[1])
  return slots.replace(
    cache=cache,
    hidden_BD=hidden_B1D[:, 0],
    position_B=slots.position_B + going_B,
    count_B=count_B,
    done_B=slots.done_B | is_eos_B | (count_B >= slots.limit_B),
    finish_B=jnp.where(going_B & is_eos_B, Finish.EOS, slots.finish_B),
    tokens_BN=slots.tokens_BN.at[rows_B, column_B].set(token_B, mode="drop"),
    logp_BN=slots.logp_BN.at[rows_B, column_B].set(logp_B, mode="drop"),
  )


def _draw(keys_B, count_B, logits_BV, how: Decoding) -> tuple[jax.Array, jax.Array]:
  """Tokens and their log-probabilities; the noise of token i of a rollout is its key's i-th."""
  logp_BV = distribution.log_probs(logits_BV, how)
  keys_B = jax.vmap(jax.random.fold_in)(keys_B, count_B)
  token_B = distribution.draw(keys_B, logp_BV, logits_BV, how)
  logp_B = jnp.take_along_axis(logp_BV, token_B[:, None], axis=-1)[:, 0]
  return token_B, jnp.where(how.temperature > 0, logp_B, 0.0)
