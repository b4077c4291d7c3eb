"""One update: the same whatever the microbatches, the mesh and the padding; REINFORCE at step 0."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grpo_jax.distribution import decoding
from grpo_jax.learner.aggregate import AGGREGATES
from grpo_jax.learner.logprobs import sample_log_probs
from grpo_jax.learner.state import create_state
from grpo_jax.learner.surrogate import Tokens, token_losses
from grpo_jax.learner.update import Update
from grpo_jax.model.config import Qwen3Config
from grpo_jax.model.qwen3 import Qwen3, init_params
from grpo_jax.model.sharding import make_layout
from grpo_jax.records import Rollouts, Samples, completion_mask
from tests.learner.choices import make_surrogate, surrogate_of

CONFIG = Qwen3Config(
  vocab_size=64,
  hidden_size=32,
  intermediate_size=64,
  num_hidden_layers=2,
  num_attention_heads=4,
  num_key_value_heads=2,
  head_dim=8,
  rope_theta=1e4,
  initializer_range=0.15,
)
HOW = decoding(0.7, 0, 1.0, 60)
DAPO = make_surrogate()
T, P = 20, 6


@functools.cache
def make_model(mesh=None):
  layout = make_layout(*mesh) if mesh else make_layout(devices=jax.devices()[:1])
  model = Qwen3(CONFIG, layout)
  return model, init_params(model, jax.random.key(0))


def random_rollouts(model, params, rows, seed=0, *, drift=0.0, birth=0) -> Rollouts:
  """Rollouts of random tokens whose behaviour log-probs are the model's, `drift` away."""
  rng = np.random.default_rng(seed)
  samples = Samples(
    tokens_RT=rng.integers(0, 60, (rows, T)).astype(np.int32),
    prompt_len_R=rng.integers(1, P + 1, rows).astype(np.int32),
    completion_len_R=rng.integers(1, T - P + 1, rows).astype(np.int32),
    behaviour_logp_RT=np.zeros((rows, T), np.float32),
    finish_R=np.zeros(rows, np.int32),
  )
  logp, _ = jax.jit(lambda p, s: sample_log_probs(model, p, s, HOW))(params, samples)
  logp = np.asarray(logp) + drift * rng.normal(size=logp.shape).astype(np.float32)
  samples = samples.replace(behaviour_logp_RT=np.where(completion_mask(samples), logp, 0.0))
  return Rollouts(
    samples=samples,
    reward_R=np.zeros(rows, np.float32),
    advantage_R=rng.normal(size=rows).astype(np.float32),
    weight_R=np.ones(rows, np.float32),
    group_R=np.arange(rows, dtype=np.int32) // 2,
    problem_R=np.arange(rows, dtype=np.int32),
    birth_R=np.full(rows, birth, np.int32),
    group_size_R=np.full(rows, 2, np.int32),
  )


def make_step(model, optimizer, surrogate, micro, **choices):
  """An update whose microbatches hold `micro` rows of the greatest length, T."""
  return Update(
    model,
    optimizer,
    surrogate,
    microbatch_tokens=micro * T // model.layout.batch_shards,
    max_completion_tokens=T - P,
    **choices,
  )


@functools.cache
def gradient_descent(model, surrogate, micro, lr):
  optimizer = optax.sgd(lr)
  return optimizer, make_step(model, optimizer, surrogate, micro)


def step(model, params, fresh, replayed=None, *, surrogate=DAPO, micro=4, reference=None, lr=1.0):
  """New parameters under plain gradient descent (params - gradient), and metrics."""
  optimizer, update = gradient_descent(model, surrogate, micro, lr)
  state = create_state(jax.tree.map(jnp.copy, params), optimizer, model.layout)
  state, metrics = update(state, reference, fresh, replayed, HOW, shuffle())
  return jax.device_get(state.params), metrics


def shuffle(seed=0):
  return np.random.default_rng(seed)


def assert_close(left, right, atol=2e-6):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), left, right)


def test_the_split_into_microbatches_changes_nothing():
  model, params = make_model()
  fresh = random_rollouts(model, params, 12, drift=0.3)
  fresh = fresh.replace(weight_R=np.array([1, 0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1], np.float32))
  whole, metrics = step(model, params, fresh, micro=12)
  assert metrics["train/microbatches"] == 1
  for micro, microbatches in ((1, 5), (2, 3), (3, 2)):
    parts, part_metrics = step(model, params, fresh, micro=micro)
    assert_close(parts, whole, atol=1e-6)
    for name in ("train/loss", "train/clip_fraction_fresh", "train/ratio_max_fresh"):
      np.testing.assert_allclose(part_metrics[name], metrics[name], rtol=1e-5)
    assert part_metrics["train/microbatches"] == microbatches
  assert metrics["train/clip_fraction_fresh"] > 0.05


def test_dropped_rows_and_padding_change_nothing_even_if_they_hold_nan():
  model, params = make_model()
  fresh = random_rollouts(model, params, 8)
  alone, _ = step(model, params, fresh)
  garbage = random_rollouts(model, params, 4, seed=9)
  garbage = garbage.replace(
    weight_R=np.zeros(4, np.float32),
    advantage_R=np.full(4, np.nan, np.float32),
    samples=garbage.samples.replace(behaviour_logp_RT=np.full((4, T), np.nan, np.float32)),
  )
  beside, _ = step(model, params, jax.tree.map(lambda *x: np.concatenate(x), garbage, fresh))
  assert_close(beside, alone)
  later = np.arange(T) >= (fresh.samples.prompt_len_R + fresh.samples.completion_len_R)[:, None]
  tokens = np.where(later, 7, fresh.samples.tokens_RT)
  padded, _ = step(model, params, fresh.replace(samples=fresh.samples.replace(tokens_RT=tokens)))
  assert_close(padded, alone)


@pytest.mark.slow  # tests/test_meshes.py asks it of ten arrangements, of fewer kinds of rows
@pytest.mark.parametrize("mesh", [(2, 2, 2), (8, 1, 1), (1, 4, 2)], ids=str)
def test_the_mesh_changes_nothing(mesh):
  alone_model, params = make_model()
  fresh = random_rollouts(alone_model, params, 16, drift=0.1)
  alone, alone_metrics = step(alone_model, params, fresh, micro=8)
  model, spread_params = make_model(mesh)
  spread, metrics = step(model, spread_params, fresh, micro=8)
  assert_close(spread, alone, atol=1e-5)
  for name in ("train/microbatches", "train/padding"):  # a budget on each device
    alone_metrics.pop(name)
  for name, value in alone_metrics.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_replayed_rows_are_the_same_rows_in_the_same_loss():
  model, params = make_model()
  both = random_rollouts(model, params, 12, drift=0.2)
  together, _ = step(model, params, both)
  fresh, replayed = (jax.tree.map(lambda x, s=s: x[s], both) for s in (slice(8), slice(8, 12)))
  apart, metrics = step(model, params, fresh, replayed)
  assert_close(apart, together)
  assert metrics["train/tokens_fresh"] == fresh.samples.completion_len_R.sum()
  assert metrics["train/tokens_replay"] == replayed.samples.completion_len_R.sum()


def test_fresh_and_replayed_rows_report_apart():
  model, params = make_model()
  fresh = random_rollouts(model, params, 8)
  drifted = random_rollouts(model, params, 4, seed=1, drift=0.5)
  _, metrics = step(model, params, fresh, drifted)
  assert metrics["train/clip_fraction_fresh"] == 0
  assert metrics["train/abs_dlogp_max_fresh"] < 1e-5
  assert metrics["train/clip_fraction_replay"] > 0.1
  assert metrics["train/kl_behaviour_replay"] > 0.05
  assert metrics["train/ratio_max_replay"] > 1.5


def test_at_birth_the_ratio_is_one_and_the_gradient_is_reinforce():
  model, params = make_model()
  fresh = random_rollouts(model, params, 8)
  stepped, metrics = step(model, params, fresh)
  np.testing.assert_allclose(metrics["train/ratio_mean_fresh"], 1.0, atol=1e-6)
  np.testing.assert_allclose(metrics["train/ratio_max_fresh"], 1.0, atol=1e-5)

  def reinforce(params):
    logp, _ = sample_log_probs(model, params, fresh.samples, HOW)
    mask = completion_mask(fresh.samples)
    return -jnp.sum(jnp.where(mask, logp * fresh.advantage_R[:, None], 0)) / mask.sum()

  gradient = jax.jit(jax.grad(reinforce))(params)
  assert_close(stepped, jax.tree.map(lambda p, g: np.asarray(p - g), params, gradient))


def test_the_gradient_equals_finite_differences():
  """In one random direction through all parameters, clipping and KL included."""
  model, params = make_model()
  fresh = random_rollouts(model, params, 8, drift=0.2)
  reference = init_params(model, jax.random.key(5))
  surrogate = make_surrogate(dual_clip=2.0, kl_coef=0.1)
  stepped, _ = step(model, params, fresh, surrogate=surrogate, reference=reference)
  gradient = jax.tree.map(lambda old, new: np.asarray(old) - new, params, stepped)

  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(7), len(leaves))
  direction = jax.tree.unflatten(
    tree, [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
  )
  optimizer = optax.sgd(0.0)
  update = make_step(model, optimizer, surrogate, 8)

  def loss_at(distance):
    moved = jax.tree.map(lambda p, d: p + distance * d, params, direction)
    state = create_state(moved, optimizer, model.layout)
    _, metrics = update(state, reference, fresh, None, HOW, shuffle())
    return metrics["train/loss"]

  h = 2e-4
  numeric = (loss_at(h) - loss_at(-h)) / (2 * h)
  analytic = sum(
    np.vdot(g, d)
    for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
  )
  np.testing.assert_allclose(numeric, analytic, rtol=0.02)
  assert abs(analytic) > 0.1


def test_kl_pulls_towards_the_reference():
  model, params = make_model()
  fresh = random_rollouts(model, params, 8)
  fresh = fresh.replace(advantage_R=np.zeros(8, np.float32))
  reference = init_params(model, jax.random.key(5))
  surrogate = make_surrogate(kl_coef=1.0)
  kls = []
  for _ in range(5):
    params, metrics = step(
      model, params, fresh, surrogate=surrogate, reference=reference, lr=0.02
    )
    kls.append(metrics["train/kl_reference_fresh"])
  assert kls[-1] < 0.8 * kls[0]
  _, metrics = step(model, reference, fresh, surrogate=surrogate, reference=reference)
  assert metrics["train/kl_reference_fresh"] < 1e-9


@pytest.mark.parametrize("what", ["nothing to learn from", "a gradient that is not finite"])
def test_an_unusable_step_changes_nothing_and_is_counted(what):
  model, params = make_model()
  fresh = random_rollouts(model, params, 8)
  if what == "nothing to learn from":
    fresh = fresh.replace(weight_R=np.zeros(8, np.float32))
  else:
    fresh.advantage_R[3] = 3e38  # finite, so that its row is not dropped
  optimizer = optax.adamw(1e-2)
  state = create_state(jax.tree.map(jnp.copy, params), optimizer, model.layout)
  before = jax.device_get(state)
  update = make_step(model, optimizer, DAPO, 4)
  after, metrics = update(state, None, fresh, None, HOW, shuffle())
  jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(after))
  assert metrics["train/skipped"] == 1


SLOW_LOOP = [
  ("grpo", 1, 3),
  ("tis", 2, 2),
  pytest.param("cispo", 3, 1, marks=pytest.mark.slow),
  pytest.param("dr_grpo", 2, 2, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("method", "epochs", "minibatches"), SLOW_LOOP)
def test_several_optimizer_steps_are_those_of_a_slow_loop(method, epochs, minibatches):
  """Row by row, with the anchor of before the first step in all of them."""
  model, params = make_model()
  surrogate, lr = surrogate_of(method), 0.3
  fresh = random_rollouts(model, params, 8, drift=0.2)
  fresh.weight_R[3] = 0
  optimizer = optax.sgd(lr)
  update = make_step(model, optimizer, surrogate, 4, epochs=epochs, minibatches=minibatches)
  state = create_state(jax.tree.map(jnp.copy, params), optimizer, model.layout)
  state, metrics = update(state, None, fresh, None, HOW, shuffle(3))
  assert metrics["train/updates"] == state.updates == epochs * minibatches
  assert metrics["train/tokens"] == epochs * fresh.samples.completion_len_R @ fresh.weight_R

  @jax.jit
  def descend(params, anchor_BT, in_step_B):
    gradient = jax.grad(plain_loss)(params, model, surrogate, fresh, anchor_BT, in_step_B)
    return jax.tree.map(lambda p, g: p - lr * g, params, gradient)

  anchor_BT, _ = jax.jit(lambda p: sample_log_probs(model, p, fresh.samples, HOW))(params)
  learners, rng = np.flatnonzero(fresh.weight_R), shuffle(3)
  for _ in range(epochs):
    for rows in np.array_split(rng.permutation(learners), minibatches):
      params = jax.block_until_ready(descend(params, anchor_BT, np.isin(np.arange(8), rows)))
  assert_close(jax.device_get(state.params), jax.device_get(params), atol=5e-6)


@pytest.mark.parametrize(("epochs", "minibatches"), [(1, 1), (1, 2)])
def test_a_correction_of_replayed_rows_alone(epochs, minibatches):
  """Fresh rows learn as by default, replayed ones as under truncated importance sampling."""
  model, params = make_model()
  fresh = random_rollouts(model, params, 6, drift=0.2)
  old = random_rollouts(model, params, 4, seed=1, drift=0.6)
  both = jax.tree.map(lambda *x: np.concatenate(x), fresh, old)
  lr, optimizer = 0.3, optax.sgd(0.3)
  surrogate = surrogate_of("tis_replayed", correction_high=1.2)
  update = make_step(model, optimizer, surrogate, 4, epochs=epochs, minibatches=minibatches)
  state = create_state(jax.tree.map(jnp.copy, params), optimizer, model.layout)
  state, _ = update(state, None, fresh, old, HOW, shuffle(3))

  @jax.jit
  def descend(params, anchor_BT, in_step_B):
    def loss(params):
      is_old_B1 = (jnp.arange(10) >= 6)[:, None]
      mask_BT = completion_mask(both.samples) & in_step_B[:, None]
      logp_BT, _ = sample_log_probs(model, params, both.samples, HOW)
      behaviour_BT = both.samples.behaviour_logp_RT
      weight_BT = jnp.where(is_old_B1, jnp.minimum(jnp.exp(anchor_BT - behaviour_BT), 1.2), 1)
      ratio_BT = jnp.exp(logp_BT - jnp.where(is_old_B1, anchor_BT, behaviour_BT))
      advantage_B1 = both.advantage_R[:, None]
      ppo_BT = jnp.maximum(-ratio_BT * advantage_B1, -jnp.clip(ratio_BT, 0.8, 1.28) * advantage_B1)
      ppo_BT = jnp.where(advantage_B1 < 0, jnp.minimum(ppo_BT, -10 * advantage_B1), ppo_BT)
      return jnp.sum(jnp.where(mask_BT, weight_BT * ppo_BT, 0)) / jnp.sum(mask_BT)

    return jax.tree.map(lambda p, g: p - lr * g, params, jax.grad(loss)(params))

  anchor_BT, _ = jax.jit(lambda p: sample_log_probs(model, p, both.samples, HOW))(params)
  rng = shuffle(3)
  for _ in range(epochs):
    for rows in np.array_split(rng.permutation(10), minibatches):
      params = jax.block_until_ready(descend(params, anchor_BT, np.isin(np.arange(10), rows)))
  assert_close(jax.device_get(state.params), jax.device_get(params), atol=5e-6)


def test_without_replayed_rows_their_correction_changes_nothing():
  model, params = make_model()
  fresh = random_rollouts(model, params, 8, drift=0.3)
  plain, _ = step(model, params, fresh)
  corrected, _ = step(model, params, fresh, surrogate=surrogate_of("tis_replayed"))
  jax.tree.map(np.testing.assert_array_equal, plain, corrected)


def plain_loss(params, model, surrogate, rollouts, anchor_BT, in_step_B):
  """One padded batch, no microbatches."""
  logp_BT, entropy_BT = sample_log_probs(model, params, rollouts.samples, HOW)
  behaviour_BT = rollouts.samples.behaviour_logp_RT
  mask_BT = completion_mask(rollouts.samples) & in_step_B[:, None]
  tokens = Tokens(
    logp_BT=logp_BT,
    entropy_BT=entropy_BT,
    behaviour_BT=behaviour_BT,
    anchor_BT=anchor_BT if surrogate.anchor == "recomputed" else behaviour_BT,
    reference_BT=logp_BT,
    advantage_BT=rollouts.advantage_R[:, None] * jnp.ones_like(logp_BT),
    mask_BT=mask_BT,
    replayed_B1=jnp.zeros((len(mask_BT), 1), bool),
  )
  tokens = jax.tree.map(lambda x_BT: jnp.where(mask_BT, x_BT, 0), tokens)
  loss_BT, _ = token_losses(surrogate, tokens)
  scale_B = AGGREGATES[surrogate.aggregate](rollouts.samples.completion_len_R, in_step_B, T - P)
  return jnp.sum(scale_B[:, None] * jnp.where(mask_BT, loss_BT, 0))


def test_minibatches_are_dealt_anew_and_by_their_seed():
  model, params = make_model()
  fresh = random_rollouts(model, params, 8, drift=0.2)
  optimizer = optax.sgd(0.3)
  update = make_step(model, optimizer, DAPO, 8, minibatches=2)

  def result(seed):
    state = create_state(jax.tree.map(jnp.copy, params), optimizer, model.layout)
    return jax.device_get(update(state, None, fresh, None, HOW, shuffle(seed))[0].params)

  first, again, other = result(1), result(1), result(2)
  jax.tree.map(np.testing.assert_array_equal, first, again)
  assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (first, other)), strict=True))


@pytest.mark.parametrize("mesh", [None, pytest.param((2, 2, 2), marks=pytest.mark.slow)], ids=str)
def test_new_survivors_of_sizes_that_were_met_compile_nothing(mesh):
  model, params = make_model(mesh)
  optimizer = optax.adamw(1e-3)
  state = create_state(jax.tree.map(jnp.copy, params), optimizer, model.layout)
  update = make_step(model, optimizer, surrogate_of("tis"), 4, epochs=2, minibatches=2)

  def take_steps(state, first):
    for seed, survivors in enumerate((8, 5, 0)):
      fresh = random_rollouts(*make_model(), 8, seed=seed)
      learn = np.roll(np.arange(8) < survivors, first).astype(np.float32)
      tokens = np.full(8, 12, np.int32)
      samples = fresh.samples.replace(completion_len_R=tokens - fresh.samples.prompt_len_R)
      fresh = fresh.replace(weight_R=learn, samples=samples)
      state, _ = update(state, None, fresh, None, HOW, shuffle(seed))
    return state, update.compiled_programs()

  state, compiled = take_steps(state, first=0)
  assert take_steps(state, first=3)[1] == compiled
  assert update._add_gradients._cache_size() <= 3, "minibatches of 4, 3 and 2 rows of 12 tokens"


def test_moments_are_born_where_their_parameters_live():
  model, params = make_model((2, 2, 2))
  state = create_state(params, optax.adamw(1e-3), model.layout)
  moments = state.opt_state[0].mu
  jax.tree.map(lambda m, p: (m.sharding == p.sharding) or pytest.fail(str(m)), moments, params)


GOLDEN = {"train/loss": 0.083096, "train/grad_norm": 4.078228, "train/entropy": 3.380351}


@functools.cache
def golden_metrics():
  model, params = make_model()
  fresh = random_rollouts(model, params, 8, drift=0.3)
  return step(model, params, fresh)[1]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_step(name):
  np.testing.assert_allclose(
    golden_metrics()[name],
    GOLDEN[name],
    rtol=1e-4,
    err_msg=(
      "The numbers of one update moved. They may change only with the model's initialisation, the "
      "surrogate's default or the normalisation of the loss; then say so in the commit and put the "
      "new value here. A refactoring or a speed-up must not move them."
    ),
  )
