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
from collections.abc import Iterable, Iterator

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Format
from jax.experimental.layout import Layout as MemoryOrder

from grpo_jax import distribution
from grpo_jax.buckets import bucket
from grpo_jax.distribution import Decoding
from grpo_jax.model.lora import merge_adapters
from grpo_jax.model.qwen3 import (
  Cache,
  LayerCache,
  Params,
  Qwen3,
  abstract_params,
  empty_cache,
  layer_of,
  split_layers,
)
from grpo_jax.model.sharding import Layout
from grpo_jax.records import Finish, Samples


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
  finish_F: np.ndarray  # int32, of records.Finish


@flax.struct.dataclass
class _Prefilled:
  """Prompts that have been read: n of them, padded to one length P."""

  cache: Cache  # [n, K, P, h] a layer
  hidden_nD: jax.Array  # of each prompt's last token
  length_n: jax.Array


@flax.struct.dataclass
class _Slots:
  """B decode slots. A slot that is done waits to be refilled."""

  cache: Cache  # [B, K, S, h] a layer
  hidden_BD: jax.Array  # of each row's last token: the next one is drawn from it
  position_B: jax.Array  # int32, tokens so far, prompt included
  count_B: jax.Array  # int32, tokens of the completion so far
  limit_B: jax.Array
  keys_B: jax.Array
  done_B: jax.Array
  finish_B: jax.Array


@flax.struct.dataclass
class _Drawn:
  """What one burst drew in each slot; what stands behind a row's end is not part of it."""

  tokens_Bk: jax.Array
  logp_Bk: jax.Array


@flax.struct.dataclass
class _Seen:
  """What the host is told after a burst."""

  drawn: _Drawn
  position_B: jax.Array
  done_B: jax.Array
  finish_B: jax.Array


class Sampler:
  """Compiles sampling for a model; holds no parameters and no random state.

  `prepared` has the shapes and shardings of `prepare(params)`.
  """

  def __init__(
    self,
    model: Qwen3,
    *,
    slots: int,
    burst: int = 16,
    prefill: int = 8,
    gather_weights: bool = True,
  ):
    """
    Args:
      model: the trained module; sampling uses its unrolled twin.
      slots: B, rollouts decoded together; a multiple of the devices a batch is split over.
      burst: k, tokens between two looks of the host.
      prefill: prompts read together; more where that gives some of the devices no prompt.
      gather_weights: hold the weights whole along fsdp while sampling, so that no token waits for
        them to be gathered; False where they do not fit.
    """
    layout = dataclasses.replace(model.layout, whole_weights=gather_weights)
    model = model.clone(scan_layers=False, remat="none", layout=layout)
    if slots == 1 and model.dtype != layout.arithmetic_dtype(model.dtype):
      slots = 2  # XLA's CPU backend has no fast product of one bfloat16 row with a matrix
    self._slots, self._burst_tokens = slots, burst
    self._shards = layout.batch_shards
    self._settled = layout.settled
    self._prompts = prefill + -prefill % self._shards
    # Slots and prompts are split over devices. What a host says of them before a program and asks
    # for after it is given to all: other hosts' devices are beyond its reach.
    every, by_row = layout.replicated, layout.sharding("batch")
    in_cache = layout.sharding("batch", "kv_heads")
    in_slots = _Slots(in_cache, *[by_row] * 7)
    in_prefill = _Prefilled(in_cache, by_row, by_row)
    self.prepared = _prepared(model)
    in_layer = jax.tree.map(lambda leaf: leaf.format, self.prepared["layers_0"])
    in_rest = {
      name: jax.tree.map(lambda leaf: leaf.format, leaf)
      for name, leaf in self.prepared.items()
      if not name.startswith("layers_")
    }
    self._prepare_layer = jax.jit(
      functools.partial(_prepare_layer, model.dtype), out_shardings=in_layer
    )
    self._prepare_rest = jax.jit(functools.partial(_cast, model.dtype), out_shardings=in_rest)
    self._prefill = jax.jit(
      functools.partial(_prefill, model),
      in_shardings=(None, every, every),
      out_shardings=in_prefill,
    )
    self._empty = jax.jit(
      functools.partial(_empty, model, slots), static_argnums=0, out_shardings=in_slots
    )
    self._insert = jax.jit(
      functools.partial(_insert, layout),
      donate_argnums=0,
      in_shardings=(in_cache, in_cache, every),
      out_shardings=in_cache,
    )
    self._start = jax.jit(
      _start,
      donate_argnums=0,
      in_shardings=(in_slots, in_prefill, every, every, every),
      out_shardings=in_slots,
    )
    self._resize = jax.jit(
      _resize, static_argnums=1, in_shardings=(in_cache,), out_shardings=in_cache
    )
    self._clear = jax.jit(
      _clear, donate_argnums=0, in_shardings=(in_slots,), out_shardings=in_slots
    )
    self._burst = jax.jit(
      functools.partial(_burst, model, burst),
      donate_argnums=1,
      in_shardings=(None, in_slots, every, every),
      out_shardings=(in_slots, every),
    )

  def prepare(self, params: Params) -> Params:
    """The weights as sampling uses them: per-layer, in the compute dtype, adapters merged. Made
    layer by layer, one after the other, so that only one of them exists in between."""

    def of_layer(stacked: Params, i: int) -> Params:
      return jax.block_until_ready(self._prepare_layer(stacked, i))

    rest = {name: leaf for name, leaf in params.items() if name != "layers"}
    rest = jax.block_until_ready(self._prepare_rest(rest))
    return split_layers(rest | {"layers": params["layers"]}, of_layer)

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
    queue = _Queue(requests, self._prompts, self._shards)
    rows: list[_Row | None] = [None] * self._slots
    slots, length, window, read = None, 0, None, None
    spoilt: set[int] = set()  # slots whose cache holds NaN
    while queue.waiting or any(rows):
      seated = queue.seat(rows)
      needed = max(row.length_after(self._burst_tokens) for row in rows if row)
      needed = bucket(max([needed, *map(queue.padded_length, seated)]))
      if not length // 2 < needed <= length:
        slots, length = self._resized(slots, needed), needed
      for index, seats in seated.items():
        if spoilt & set(seats):
          slots, spoilt = self._clear(slots), spoilt - set(seats)
        if index != window:
          window = index
          read = self._settled(self._prefill(prepared, *queue.prompts(index)))
        slots = self._seated(slots, read, *queue.newcomers(index, seats, rows))
      slots, seen = self._settled(self._burst(prepared, slots, how, eos_ids_E))
      ended = _advance_rows(rows, jax.device_get(seen))
      if ended:
        spoilt |= {slot for slot, row in ended.items() if row.finish == Finish.NONFINITE}
        yield _finished(ended.values())

  def lower(
    self, params: Params, how: Decoding, *, prompt_length: int, length: int
  ) -> dict[str, jax.stages.Lowered]:
    """The programs of sampling by name, from shapes alone: what they need can be asked without
    taking it, on devices that need not be here.

    Args:
      params: what `prepare` takes, as shapes with shardings.
      how: temperature and filters.
      prompt_length: a window of prompts is padded to it.
      length: of the cache.
    """
    int_of = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
    prompts = int_of((self._prompts, prompt_length)), int_of((self._prompts,))
    read = self._prefill.eval_shape(self.prepared, *prompts)
    slots = self._empty.eval_shape(length)
    return {
      "prepare": self._prepare_layer.lower(params["layers"], 0),
      "prefill": self._prefill.lower(self.prepared, *prompts),
      "insert": self._insert.lower(slots.cache[0], read.cache[0], int_of((self._slots,))),
      "decode": self._burst.lower(self.prepared, slots, how, int_of((1,))),
    }

  def compiled_programs(self) -> int:
    """How many programs sampling has compiled so far; new settings must not raise it."""
    programs = (
      self._prefill, self._empty, self._insert, self._start, self._resize, self._clear, self._burst
    )  # fmt: skip
    return sum(program._cache_size() for program in programs)

  def _resized(self, slots: _Slots | None, length: int) -> _Slots:
    """The same slots with a cache of another length, or new ones."""
    if slots is None:
      return self._empty(length)
    # Layer by layer: the old cache and the new one never exist together.
    layers, slots = list(slots.cache), slots.replace(cache=())
    for i in range(len(layers)):
      layers[i] = self._resize(layers[i], length)
    return slots.replace(cache=tuple(layers))

  def _seated(self, slots: _Slots, read: _Prefilled, source_B, limit_B, keys_B2) -> _Slots:
    """Starts rollouts in the slots whose `source_B` names a prompt (-1: the slot goes on)."""
    # Layer by layer: a device holds all prompts of one of them, not of all.
    layers, slots = list(slots.cache), slots.replace(cache=())
    for i, prompts in enumerate(read.cache):
      layers[i] = self._settled(self._insert(layers[i], prompts, source_B))
    slots = self._settled(self._start(slots, read.replace(cache=()), source_B, limit_B, keys_B2))
    return slots.replace(cache=tuple(layers))


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


# ------------------------------------------------------------------------- the host's side


@dataclasses.dataclass
class _Row:
  """A rollout in its slot."""

  rollout: int
  position: int  # tokens so far, prompt included
  end: int  # where its limit stops it
  tokens: list[np.ndarray]  # of each burst
  logp: list[np.ndarray]
  finish: int = Finish.LENGTH

  def length_after(self, tokens: int) -> int:
    return min(self.position + tokens, self.end)


class _Queue:
  """Rollouts that wait, those of short prompts first, and the windows in which prompts are read:
  neighbours by length, so that little of a window is padding."""

  def __init__(self, requests: Requests, window: int, shards: int):
    self._requests, self._window, self._shards = requests, window, shards
    used_N = np.unique(requests.prompt_of_R)
    length_N = np.array([len(requests.prompts[n]) for n in used_N])
    self._ordered = used_N[np.argsort(length_N, kind="stable")].tolist()
    self._place = {n: place for place, n in enumerate(self._ordered)}
    by_place = sorted(
      range(len(requests.prompt_of_R)), key=lambda r: self._place[requests.prompt_of_R[r]]
    )
    self.waiting = collections.deque(by_place)
    self._keys_R = np.asarray(jax.random.key_data(requests.keys_R))

  def seat(self, rows: list[_Row | None]) -> dict[int, list[int]]:
    """Puts waiting rollouts into empty rows; returns the slots filled from each window."""
    seated: dict[int, list[int]] = {}
    for slot, row in enumerate(rows):
      if row is not None:
        continue
      if not self.waiting:
        break
      rollout = self.waiting.popleft()
      prompt = self._requests.prompt_of_R[rollout]
      start = len(self._requests.prompts[prompt])
      rows[slot] = _Row(rollout, start, start + int(self._requests.limit_R[rollout]), [], [])
      seated.setdefault(self._place[prompt] // self._window, []).append(slot)
    return seated

  def prompts(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    """The window's prompts, padded to a bucket, and their lengths. A window that is not full is
    filled up to a power of two on each device."""
    prompts = self._in_window(index)
    size = self._shards << (-(-len(prompts) // self._shards) - 1).bit_length()
    return pad_prompts(prompts + prompts[:1] * (size - len(prompts)), self.padded_length(index))

  def padded_length(self, index: int) -> int:
    return bucket(max(map(len, self._in_window(index))))

  def newcomers(
    self, index: int, seats: list[int], rows: list[_Row | None]
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each slot: the prompt of the window that starts there (-1: none), limit and key."""
    source_B = np.full(len(rows), -1, np.int32)
    limit_B = np.zeros(len(rows), np.int32)
    keys_B2 = np.zeros((len(rows), *self._keys_R.shape[1:]), self._keys_R.dtype)
    for slot in seats:
      rollout = rows[slot].rollout
      place = self._place[self._requests.prompt_of_R[rollout]]
      source_B[slot] = place - index * self._window
      limit_B[slot] = self._requests.limit_R[rollout]
      keys_B2[slot] = self._keys_R[rollout]
    return source_B, limit_B, keys_B2

  def _in_window(self, index: int) -> list[np.ndarray]:
    chosen = self._ordered[index * self._window :][: self._window]
    return [self._requests.prompts[n] for n in chosen]


def _advance_rows(rows: list[_Row | None], seen: _Seen) -> dict[int, _Row]:
  """Hands each row what it drew; takes those that ended out of their slots and returns them."""
  ended = {}
  for slot, row in enumerate(rows):
    if row is None:
      continue
    new = seen.position_B[slot] - row.position
    row.tokens.append(seen.drawn.tokens_Bk[slot, :new])
    row.logp.append(seen.drawn.logp_Bk[slot, :new])
    row.position += new
    if seen.done_B[slot]:
      row.finish, rows[slot], ended[slot] = seen.finish_B[slot], None, row
  return ended


def _finished(ended: Iterable[_Row]) -> Finished:
  ended = list(ended)
  return Finished(
    rollout_F=np.array([row.rollout for row in ended]),
    tokens=[np.concatenate(row.tokens) for row in ended],
    behaviour_logp=[np.concatenate(row.logp) for row in ended],
    finish_F=np.array([row.finish for row in ended], np.int32),
  )


# ------------------------------------------------------------------------- compiled programs


def _prepared(model: Qwen3) -> Params:
  """Shapes, dtype, shardings and memory order of the weights as sampling uses them."""

  def of(path, leaf):
    # A TPU multiplies by these matrices a head at a time. In rows of all heads, as training keeps
    # them, they would be copied into that order at every burst.
    by_head = model.layout.platform == "tpu" and leaf.ndim == 3 and path[-2].key != "out"
    order = MemoryOrder((1, 0, 2)) if by_head else None
    return jax.ShapeDtypeStruct(leaf.shape, model.dtype, sharding=Format(order, leaf.sharding))

  return jax.tree_util.tree_map_with_path(of, abstract_params(model))


def _prepare_layer(dtype: jnp.dtype, stacked: Params, i: jax.Array) -> Params:
  return _cast(dtype, merge_adapters(layer_of(stacked, i)))


def _cast(dtype: jnp.dtype, params: Params) -> Params:
  return jax.tree.map(lambda leaf: leaf.astype(dtype), params)


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


def _empty(model: Qwen3, slots: int, length: int) -> _Slots:
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
  )


@jax.named_scope("insert")
def _insert(layout: Layout, into: LayerCache, prompts: LayerCache, source_B) -> LayerCache:
  """Puts the prompt that `source_B` names into the front of each slot (-1: the slot goes on)."""

  def copy(into_BKSh, from_nKPh):
    P = from_nKPh.shape[2]
    from_nKPh = layout.constrain(from_nKPh, None, "kv_heads", None, None)  # from all devices
    start_BKPh = _chosen(source_B, from_nKPh, into_BKSh[:, :, :P])
    return jax.lax.dynamic_update_slice(into_BKSh, start_BKPh, (0, 0, 0, 0))

  return jax.tree.map(copy, into, prompts)


def _start(slots: _Slots, read: _Prefilled, source_B, limit_B, keys_B2) -> _Slots:
  """All else of a slot that starts with a prompt."""
  fresh_B = source_B >= 0
  return slots.replace(
    hidden_BD=_chosen(source_B, read.hidden_nD, slots.hidden_BD),
    position_B=_chosen(source_B, read.length_n, slots.position_B),
    count_B=jnp.where(fresh_B, 0, slots.count_B),
    limit_B=jnp.where(fresh_B, limit_B, slots.limit_B),
    keys_B=jnp.where(fresh_B, jax.random.wrap_key_data(keys_B2), slots.keys_B),
    done_B=jnp.where(fresh_B, limit_B < 1, slots.done_B),
    finish_B=jnp.where(fresh_B, Finish.LENGTH, slots.finish_B),
  )


def _chosen(source_B: jax.Array, new_n: jax.Array, old_B: jax.Array) -> jax.Array:
  """Of each slot the new row it names, or the old one where it names none."""
  fresh_B = (source_B >= 0).reshape(-1, *[1] * (old_B.ndim - 1))
  return jnp.where(fresh_B, new_n[jnp.maximum(source_B, 0)], old_B)


def _resize(layer: LayerCache, length: int) -> LayerCache:
  """A longer cache, or a shorter one of which only the front is in use."""

  def fit(x_BKSh):
    longer = max(0, length - x_BKSh.shape[2])
    return jnp.pad(x_BKSh, ((0, 0), (0, 0), (0, longer), (0, 0)))[:, :, :length]

  return jax.tree.map(fit, layer)


def _clear(slots: _Slots) -> _Slots:
  """Zeros where NaN may be: attention gives unused places the weight 0, and 0 x NaN is NaN."""
  spoilt_B = slots.finish_B == Finish.NONFINITE
  clean = functools.partial(jnp.where, spoilt_B[:, None, None, None], 0)
  return slots.replace(cache=jax.tree.map(clean, slots.cache))


@jax.named_scope("decode")
def _burst(
  model: Qwen3, steps: int, params: Params, slots: _Slots, how: Decoding, eos_ids_E
) -> tuple[_Slots, _Seen]:
  """Decodes up to `steps` tokens in every slot that is not done; ends early when all are."""
  B = len(slots.done_B)
  nothing = _Drawn(jnp.zeros((B, steps), jnp.int32), jnp.zeros((B, steps), jnp.float32))

  def unfinished(carry):
    step, slots, _ = carry
    return (step < steps) & ~jnp.all(slots.done_B)

  def advance(carry):
    step, slots, drawn = carry
    slots, token_B, logp_B = _advance(model, params, slots, how, eos_ids_E)
    # All rows write the same column: a row is alive from the first column on until its end.
    tokens_Bk = jax.lax.dynamic_update_slice(drawn.tokens_Bk, token_B[:, None], (0, step))
    logp_Bk = jax.lax.dynamic_update_slice(drawn.logp_Bk, logp_B[:, None], (0, step))
    return step + 1, slots, _Drawn(tokens_Bk, logp_Bk)

  _, slots, drawn = jax.lax.while_loop(unfinished, advance, (jnp.int32(0), slots, nothing))
  return slots, _Seen(drawn, slots.position_B, slots.done_B, slots.finish_B)


def _advance(
  model: Qwen3, params: Params, slots: _Slots, how: Decoding, eos_ids_E
) -> tuple[_Slots, jax.Array, jax.Array]:
  """Draws one token a slot and feeds it back. Slots that are done compute, but change nothing that
  is read later."""
  logits_BV = model.apply({"params": params}, slots.hidden_BD, method="logits")
  keys_B = jax.vmap(jax.random.fold_in)(slots.keys_B, slots.count_B)
  token_B, logp_B = distribution.draw(keys_B, logits_BV, how)
  alive_B, sound_B = ~slots.done_B, jnp.isfinite(logp_B)
  going_B = alive_B & sound_B
  is_eos_B = jnp.any(token_B[:, None] == eos_ids_E[None, :], axis=-1)
  hidden_B1D, cache = model.apply(
    {"params": params}, token_B[:, None], slots.position_B[:, None], None, slots.cache
  )
  count_B = slots.count_B + going_B
  finish_B = jnp.where(going_B & is_eos_B, Finish.EOS, slots.finish_B)
  slots = slots.replace(
    cache=cache,
    hidden_BD=hidden_B1D[:, 0],
    position_B=slots.position_B + going_B,
    count_B=count_B,
    done_B=slots.done_B | ~sound_B | is_eos_B | (count_B >= slots.limit_B),
    finish_B=jnp.where(alive_B & ~sound_B, Finish.NONFINITE, finish_B),
  )
  return slots, token_B, logp_B
