"""Adapters: nothing at the start, the merged matrices after it, and alone in what is trained."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from grpo_jax.errors import UserError
from grpo_jax.learner.gradients import Batch, Objective, add_gradients
from grpo_jax.learner.logprobs import sample_log_probs
from grpo_jax.learner.packing import Pack
from grpo_jax.learner.state import abstract_state, create_state
from grpo_jax.learner.tally import no_sums
from grpo_jax.learner.update import Update
from grpo_jax.model.lora import (
  TARGETS,
  LoRA,
  abstract_frozen,
  abstract_trained,
  fingerprint,
  init_adapters,
  make_lora,
  merged_policy,
  policy_params,
)
from grpo_jax.model.qwen3 import Qwen3, abstract_params, init_params
from grpo_jax.model.sharding import bytes_per_device, make_layout
from grpo_jax.records import abstract_rollouts
from grpo_jax.sampling.sampler import Sampler
from tests.learner.choices import make_surrogate
from tests.learner.test_update import CONFIG, HOW, P, T, random_rollouts, shuffle

ALL = LoRA(rank=4, alpha=12.0, targets=tuple(TARGETS))


@functools.cache
def make_model(mesh=None, lora=ALL):
  """A model, its base parameters and adapters as they start."""
  layout = make_layout(*mesh) if mesh else make_layout(devices=jax.devices()[:1])
  model = Qwen3(CONFIG, layout)
  adapters = init_adapters(abstract_trained(abstract_params(model), lora), jax.random.key(1))
  return model, init_params(model, jax.random.key(0)), jax.block_until_ready(adapters)


def moved(adapters, seed=2):
  """Adapters as training might leave them: B is not zero any more."""
  rng = np.random.default_rng(seed)

  def move(leaf):
    noise = 0.1 * rng.normal(size=leaf.shape).astype(np.float32)
    return jax.device_put(np.asarray(leaf) + noise, leaf.sharding)

  return jax.tree.map(move, adapters)


def tokens_and_positions(rows=3, length=11):
  tokens = np.random.default_rng(0).integers(1, 60, (rows, length)).astype(np.int32)
  return tokens, np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)


def logits_of(model, params):
  @jax.jit
  def forward(params):
    hidden, _ = model.apply({"params": params}, *tokens_and_positions())
    return model.apply({"params": params}, hidden, method="logits")

  return np.asarray(forward(params))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_at_the_start_the_policy_is_the_base_to_the_bit(dtype):
  model, base, adapters = make_model()
  model = model.clone(dtype=np.dtype(dtype))
  start = logits_of(model, policy_params(adapters, base, ALL))
  np.testing.assert_array_equal(start, logits_of(model, base))


@pytest.mark.parametrize("target", TARGETS)
def test_the_low_rank_path_is_the_merged_matrix(target):
  """One matrix after the other: a wrong axis, or a target that nothing reads, shows."""
  lora = LoRA(rank=3, alpha=6.0, targets=(target,))
  model, base, adapters = make_model(lora=lora)
  adapters = moved(adapters)
  through_rank = logits_of(model, policy_params(adapters, base, lora))
  merged = merged_policy(adapters, base, lora)
  assert jax.tree.structure(merged) == jax.tree.structure(base)
  np.testing.assert_allclose(through_rank, logits_of(model, merged), atol=1e-5)
  assert np.abs(through_rank - logits_of(model, base)).max() > 0.01


def test_merging_is_w_plus_alpha_over_rank_a_b():
  _, base, adapters = make_model()
  adapters = moved(adapters)
  kernel = merged_policy(adapters, base, ALL)["layers"]["attention"]["out"]["kernel"][1]
  pair = adapters["layers"]["attention"]["out"]
  change = 12.0 / 4 * np.einsum("Hhr,rD->HhD", pair["lora_a"][1], pair["lora_b"][1])
  expected = np.asarray(base["layers"]["attention"]["out"]["kernel"][1]) + change
  np.testing.assert_allclose(kernel, expected, atol=1e-6)


def test_the_sampler_gets_merged_weights():
  model, base, adapters = make_model()
  policy = policy_params(moved(adapters), base, ALL)
  sampler = Sampler(model, slots=2)
  prepared = sampler.prepare(policy)
  assert jax.tree.structure(prepared) == jax.tree.structure(sampler.prepared)
  unrolled = model.clone(scan_layers=False)
  np.testing.assert_allclose(logits_of(unrolled, prepared), logits_of(model, policy), atol=1e-5)


def test_the_gradient_of_adapters_is_that_of_the_matrices_by_the_chain_rule():
  """dL/dA = scale dL/dW B' and dL/dB = scale A' dL/dW, with dL/dW taken without adapters."""
  model, base, adapters = make_model()
  adapters = moved(adapters)
  fresh = random_rollouts(model, base, 4)

  def loss(params):
    return jnp.sum(jnp.sin(sample_log_probs(model, params, fresh.samples, HOW)[0]))

  of_adapters = jax.jit(jax.grad(lambda a: loss(policy_params(a, base, ALL))))(adapters)
  assert jax.tree.structure(of_adapters) == jax.tree.structure(adapters)
  of_matrices = jax.jit(jax.grad(loss))(merged_policy(adapters, base, ALL))
  for name, (part, inputs) in TARGETS.items():
    a, b = (np.asarray(adapters["layers"][part][name][k]) for k in ("lora_a", "lora_b"))
    dw = np.asarray(of_matrices["layers"][part][name]["kernel"])
    flat = dw.reshape(len(dw), math.prod(dw.shape[1 : 1 + inputs]), -1)
    a, b = a.reshape(*flat.shape[:2], -1), b.reshape(len(dw), -1, flat.shape[2])
    expected = {"lora_a": flat @ b.swapaxes(1, 2), "lora_b": a.swapaxes(1, 2) @ flat}
    for kind, value in expected.items():
      ours = np.asarray(of_adapters["layers"][part][name][kind]).reshape(value.shape)
      np.testing.assert_allclose(ours, 3 * value, atol=2e-4, err_msg=f"{name} {kind}")


@functools.cache
def make_update(mesh, **choices):
  model, _, _ = make_model(mesh)
  optimizer = optax.sgd(0.1)
  surrogate = make_surrogate(**choices)
  update = Update(
    model,
    optimizer,
    surrogate,
    microbatch_tokens=4 * T,
    max_completion_tokens=T - P,
    minibatches=2,
    lora=ALL,
  )
  return optimizer, update


def one_step(mesh=None, **choices):
  """Adapters and metrics after two optimizer steps on the same rollouts on any mesh."""
  model, base, adapters = make_model(mesh)
  optimizer, update = make_update(mesh, **choices)
  alone, base_alone, adapters_alone = make_model()
  policy = policy_params(moved(adapters_alone), base_alone, ALL)
  fresh = random_rollouts(alone, policy, 16)
  state = create_state(moved(adapters), optimizer, model.layout)
  before = jax.device_get(base)
  state, metrics = update(state, base, fresh, None, HOW, shuffle())
  jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(base))
  return jax.device_get(state.params), metrics


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [(1, 8, 1), (2, 2, 2)], ids=str)
def test_an_update_on_eight_devices_is_that_of_one(mesh):
  """With an anchor, so that log-probs too are computed with adapters."""
  one, metrics = one_step(anchor="recomputed")
  eight, of_eight = one_step(mesh, anchor="recomputed")
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), one, eight)
  np.testing.assert_allclose(of_eight["train/grad_norm"], metrics["train/grad_norm"], rtol=1e-5)
  assert metrics["train/mismatch"] < 1e-5, "the policy that is trained is the one that sampled"
  start = jax.device_get(moved(make_model()[2]))
  jax.tree.map(lambda a, b: np.abs(a - b).max() > 1e-5 or pytest.fail("did not move"), one, start)


def test_kl_is_measured_to_the_base():
  """In the update that trains adapters the reference is the same model without them."""
  model, base, adapters = make_model()
  optimizer, update = make_update(None, kl_coef=0.1)
  fresh = random_rollouts(model, base, 8)

  def kl(start):
    state = create_state(jax.tree.map(jnp.copy, start), optimizer, model.layout)
    return update(state, base, fresh, None, HOW, shuffle())[1]["train/kl_reference_fresh"]

  assert kl(moved(adapters)) > 10 * kl(adapters) > 0  # of the second minibatch: one step away


def test_adapters_are_split_as_their_kernels_are_and_equal_on_every_mesh():
  _, _, alone = make_model()
  model, base, spread = make_model((2, 2, 2))
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(alone), jax.device_get(spread))
  for name, (part, inputs) in TARGETS.items():
    kernel = base["layers"][part][name]["kernel"].sharding.spec
    pair = spread["layers"][part][name]
    assert pair["lora_a"].sharding.spec == PartitionSpec(*kernel[: 1 + inputs], None)
    of_outputs = PartitionSpec(kernel[0], None, *kernel[1 + inputs :])
    assert pair["lora_b"].sharding.spec == of_outputs
  moments = create_state(spread, optax.adamw(1e-3), model.layout).opt_state[0].mu
  jax.tree.map(lambda m, p: (m.sharding == p.sharding) or pytest.fail(str(m)), moments, spread)


def test_b_is_zero_and_a_keeps_the_size_of_what_it_reads():
  _, _, adapters = make_model(lora=LoRA(16, 16.0, ("down",)))
  pair = adapters["layers"]["feed_forward"]["down"]
  assert not np.any(pair["lora_b"])
  np.testing.assert_allclose(np.std(pair["lora_a"]), 1 / math.sqrt(64), rtol=0.05)


def test_a_base_held_in_bfloat16_computes_what_a_float32_one_does():
  """Nothing of the base is used in more than the dtype the model computes in."""
  model, base, adapters = make_model()
  model = model.clone(dtype=jnp.bfloat16)
  abstract = abstract_frozen(abstract_params(model), model.dtype)
  held = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), base, abstract)
  assert bytes_per_device(abstract) * 2 == bytes_per_device(base)
  adapters = moved(adapters)
  np.testing.assert_array_equal(
    logits_of(model, policy_params(adapters, held, ALL)),
    logits_of(model, policy_params(adapters, base, ALL)),
  )


def test_the_update_forms_no_gradient_of_frozen_parameters():
  """Told by XLA: with adapters it has no room for one of the largest of them, the vocabulary."""
  config = dataclasses.replace(CONFIG, vocab_size=40_000, hidden_size=256, num_hidden_layers=1)
  layout = make_layout(devices=jax.devices()[:1])
  model, lora = Qwen3(config, layout, remat="block"), dataclasses.replace(ALL, rank=2)
  base = abstract_params(model)
  trained = abstract_trained(base, lora)
  batch = Batch(abstract_rollouts(4, 32), jax.ShapeDtypeStruct((4,), bool), None)
  pack = Pack(jax.ShapeDtypeStruct((4, 1, 1), jnp.int32), 4, 32, 32)
  function = functools.partial(add_gradients, Objective(model, make_surrogate(), 32, lora))
  compiled = (
    jax.jit(function, out_shardings=layout.replicated)
    .lower(
      (trained, no_sums(with_reference=False)),
      trained,
      base,
      batch,
      jax.ShapeDtypeStruct((4,), bool),
      pack,
      HOW,
    )
    .compile()
  )
  table_bytes = 4 * config.vocab_size * config.hidden_size
  assert compiled.memory_analysis().temp_size_in_bytes < table_bytes


def test_off_means_that_nothing_is_different():
  model, base, _ = make_model()
  abstract = abstract_params(model)
  assert make_lora(0, -1.0, ("nothing",)) is None
  assert abstract_trained(abstract, None) is abstract
  assert policy_params(base, None, None) is base
  assert merged_policy(base, None, None) is base
  state = abstract_state(abstract_trained(abstract, None), optax.adam(1.0), model.layout)
  paths = {jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(state)}
  assert not any("lora" in path for path in paths)


BAD = {
  "a negative rank": ((-1, 1.0, ("query",)), "lora_rank is -1; it must be 0"),
  "no alpha": ((4, 0.0, ("query",)), "lora_alpha is 0.0; it must be above 0"),
  "no targets": ((4, 1.0, ()), "lora_targets is empty"),
  "a target that does not exist": ((4, 1.0, ("query", "vlaue")), "did you mean 'value'"),
  "a norm": ((4, 1.0, ("query_norm",)), "'query_norm'"),
}


@pytest.mark.parametrize(("settings", "named"), BAD.values(), ids=BAD)
def test_bad_settings_are_one_clear_line(settings, named):
  with pytest.raises(UserError, match=named) as caught:
    make_lora(*settings)
  assert "\n" not in str(caught.value)


def test_a_fingerprint_tells_weights_apart(tmp_path):
  seen = set()
  for parts in ((b"ab", b"c"), (b"a", b"bc"), (b"abc", b"")):
    for number, part in enumerate(parts):
      (tmp_path / f"model-{number}.safetensors").write_bytes(part)
    seen.add(fingerprint(tmp_path))
  assert len(seen) == 3
  (tmp_path / "README.md").write_text("not a weight")
  assert fingerprint(tmp_path) in seen
