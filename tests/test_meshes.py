"""Eight devices in every arrangement of data x fsdp x tensor: the same rollouts, the same update,
and nothing that is large is held whole."""

import functools

import jax
import numpy as np
import optax
import pytest

from grpo_jax.distribution import decoding
from grpo_jax.learner.state import create_state
from grpo_jax.learner.update import Update
from grpo_jax.model.config import Qwen3Config
from grpo_jax.model.qwen3 import Qwen3, abstract_params, init_params
from grpo_jax.model.sharding import make_layout
from grpo_jax.randomness import Purpose, generator_for, key_for, rollout_keys
from grpo_jax.records import Rollouts
from grpo_jax.replay.buffer import Replay
from grpo_jax.sampling.sampler import Requests, Sampler, collect_samples
from tests.learner.choices import make_surrogate

MESHES = [
  (data, fsdp, 8 // (data * fsdp))
  for data in (1, 2, 4, 8)
  for fsdp in (1, 2, 4, 8)
  if data * fsdp <= 8
]
QUICK = [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)]  # each takes half a minute to compile
CONFIG = Qwen3Config(
  vocab_size=64,
  hidden_size=32,
  intermediate_size=64,
  num_hidden_layers=1,
  num_attention_heads=16,
  num_key_value_heads=8,
  head_dim=4,
  rope_theta=1e4,
  initializer_range=0.15,
)
HOW = decoding(1.0, 0, 1.0, 60)
R, T, NEW = 16, 16, 8  # one bucket of lengths: every program is compiled once a mesh


def make_model(mesh: tuple[int, int, int] | None) -> Qwen3:
  return Qwen3(CONFIG, make_layout(*mesh) if mesh else make_layout(devices=jax.devices()[:1]))


@functools.cache
def start() -> dict:
  """The parameters, on the host."""
  return jax.device_get(init_params(make_model(None), key_for(0, Purpose.INIT)))


def spread(model: Qwen3):
  return jax.tree.map(
    lambda leaf, like: jax.device_put(leaf, like.sharding), start(), abstract_params(model)
  )


@functools.cache
def one_step(mesh: tuple[int, int, int] | None):
  """Rollouts of a step, those drawn from the store, the parameters after an update, metrics."""
  model = make_model(mesh)
  params, sampler = spread(model), Sampler(model, slots=8, burst=8)
  rng = np.random.default_rng(0)
  prompts = [rng.integers(1, 60, n).astype(np.int32) for n in (3, 8, 5, 6)]
  prompt_of_R, sample_R = np.divmod(np.arange(R, dtype=np.int32), R // len(prompts))
  keys_R = rollout_keys(key_for(0, Purpose.ROLLOUT, 1), prompt_of_R, sample_R)
  asked = Requests(prompts, prompt_of_R, rng.integers(2, NEW + 1, R).astype(np.int32), keys_R)
  parts = list(sampler.stream(sampler.prepare(params), asked, HOW, np.array([7], np.int32)))
  fresh = Rollouts(
    samples=collect_samples(asked, parts, T),
    reward_R=np.zeros(R, np.float32),
    advantage_R=rng.normal(size=R).astype(np.float32),
    weight_R=np.ones(R, np.float32),
    group_R=prompt_of_R,
    problem_R=np.arange(R, dtype=np.int32),
    birth_R=np.ones(R, np.int32),
    group_size_R=np.full(R, R // len(prompts), np.int32),
  )
  on_devices = model.layout.split_rows(fresh)
  replay = Replay(32, 8, fresh, model.layout)
  buffer = replay.add(replay.create(), on_devices)
  buffer, drawn = replay.draw(buffer, key_for(0, Purpose.REPLAY, 1), 6, 0.5)
  optimizer = optax.sgd(1.0)
  update = Update(
    model, optimizer, make_surrogate(), microbatch_tokens=4 * T, max_completion_tokens=NEW
  )
  state = create_state(params, optimizer, model.layout)
  shuffle = generator_for(0, Purpose.MINIBATCHES, 1)
  state, metrics = update(state, None, on_devices, drawn, HOW, shuffle)
  return fresh, jax.device_get(drawn), jax.device_get(state.params), metrics


@pytest.mark.parametrize(
  "mesh",
  [pytest.param(m, marks=[] if m in QUICK else pytest.mark.slow, id=str(m)) for m in MESHES],
)
def test_the_arrangement_of_the_devices_changes_nothing(mesh):
  (fresh, drawn, params, metrics), alone = one_step(mesh), one_step(None)
  np.testing.assert_array_equal(fresh.samples.tokens_RT, alone[0].samples.tokens_RT)
  np.testing.assert_allclose(
    fresh.samples.behaviour_logp_RT, alone[0].samples.behaviour_logp_RT, atol=1e-5
  )
  np.testing.assert_array_equal(drawn.problem_R, alone[1].problem_R)
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), params, alone[2])
  for name in set(metrics) - {"train/microbatches", "train/padding"}:  # a budget on each device
    np.testing.assert_allclose(metrics[name], alone[3][name], rtol=1e-4, atol=1e-5, err_msg=name)
  moved = max(map(lambda a, b: np.abs(a - b).max(), *map(jax.tree.leaves, (params, start()))))
  assert moved > 1e-3, "an update that moves nothing shows nothing"


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_no_device_holds_a_large_array_whole(mesh):
  """The cache of keys and values, the store, and every matrix: 1 part in 8, and of the matrices,
  which data copies, 1 in fsdp x tensor."""
  data, fsdp, tensor = mesh
  model = make_model(mesh)
  slots = Sampler(model, slots=8)._empty(16)
  for leaf in jax.tree.leaves(slots.cache):
    assert part_of(leaf) == (8 // (data * fsdp), 8 // tensor, 16, CONFIG.head_dim)
  store = Replay(32, 8, one_step(None)[0], model.layout).create()
  assert {part_of(leaf)[0] for leaf in jax.tree.leaves(store) if leaf.ndim} == {32 // (data * fsdp)}
  for leaf in jax.tree.leaves(spread(model)):
    if leaf.size > 1000:
      assert np.prod(part_of(leaf)) == leaf.size // (fsdp * tensor)


def part_of(leaf: jax.Array) -> tuple[int, ...]:
  """The shape of what one device holds."""
  return leaf.addressable_shards[0].data.shape
