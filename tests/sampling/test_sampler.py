"""The sampler draws what it says it draws, and transformers agrees where it is deterministic."""

import itertools
import math
import re
import time

import jax
import numpy as np
import pytest

from grpo_jax.distribution import decoding
from grpo_jax.learner.logprobs import sample_log_probs
from grpo_jax.model.config import read_config
from grpo_jax.model.qwen3 import Qwen3, abstract_params
from grpo_jax.model.sharding import make_layout
from grpo_jax.model.weights import load_params
from grpo_jax.randomness import Purpose, key_for, rollout_keys
from grpo_jax.records import Finish, completion_mask
from grpo_jax.sampling.sampler import Requests, Sampler, bucket, collect_samples
from tests.model.huggingface import write_model

VOCAB = 128
NO_EOS = np.array([-1], np.int32)
PLAIN = decoding(1.0, 0, 1.0, VOCAB)
GREEDY = decoding(0.0, 0, 1.0, VOCAB)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp("tiny_qwen3")
  write_model(path, std=0.15)
  return path


def load(folder, mesh=None):
  config, _ = read_config(folder)
  layout = make_layout(*mesh) if mesh else make_layout(devices=jax.devices()[:1])
  model = Qwen3(config, layout)
  return model, load_params(folder, abstract_params(model))


def random_prompts(lengths, seed=0):
  rng = np.random.default_rng(seed)
  return [rng.integers(1, VOCAB, n).astype(np.int32) for n in lengths]


def requests(prompts, copies, *, limit=12, seed=0, step=0):
  """`copies[n]` rollouts of prompt n."""
  prompt_of_R = np.repeat(np.arange(len(prompts)), copies).astype(np.int32)
  sample_R = np.concatenate([np.arange(c) for c in copies]).astype(np.int32)
  keys_R = rollout_keys(key_for(seed, Purpose.ROLLOUT, step), prompt_of_R, sample_R)
  limit_R = np.broadcast_to(np.asarray(limit, np.int32), prompt_of_R.shape)
  return Requests(prompts, prompt_of_R, limit_R, keys_R)


def sample(model, params, asked, how=PLAIN, eos=NO_EOS, *, slots=8, burst=5, max_new_tokens=12):
  sampler = Sampler(model, slots=slots, burst=burst, prefill=2)
  return run(sampler, sampler.prepare(params), asked, how, eos, max_new_tokens)


def run(sampler, prepared, asked, how=PLAIN, eos=NO_EOS, max_new_tokens=12):
  parts = list(sampler.stream(prepared, asked, how, eos))
  length = max(map(len, asked.prompts)) + max_new_tokens
  return collect_samples(asked, parts, length)


def completions(samples):
  return [
    list(tokens[start : start + length])
    for tokens, start, length in zip(
      samples.tokens_RT, samples.prompt_len_R, samples.completion_len_R, strict=True
    )
  ]


def test_greedy_equals_transformers_generate_token_for_token(tmp_path):
  torch = pytest.importorskip("torch")
  reference = write_model(tmp_path, std=0.15)
  model, params = load(tmp_path)
  prompts = random_prompts([9, 4, 1, 7])
  ours = completions(sample(model, params, requests(prompts, [1] * 4), GREEDY))
  for prompt, completion in zip(prompts, ours, strict=True):
    theirs = reference.generate(
      torch.tensor(prompt[None].astype(np.int64)), do_sample=False, max_new_tokens=12
    )[0, len(prompt) :].tolist()
    assert completion == theirs
  assert len({tuple(c) for c in ours}) > 1, "a model that always says the same proves nothing"


def test_every_eos_id_ends_a_row_and_is_its_last_token(folder):
  """Qwen3 has two: a completion ending in the other must not be counted as truncated."""
  model, params = load(folder)
  prompts = random_prompts([5, 5, 5, 5])
  free = completions(sample(model, params, requests(prompts, [1] * 4)))
  eos = np.array([free[0][3], free[1][5]], np.int32)
  stopped = sample(model, params, requests(prompts, [1] * 4), eos=eos)
  for row, (before, after) in enumerate(zip(free, completions(stopped), strict=True)):
    hits = [i for i, token in enumerate(before) if token in eos]
    expected = before[: hits[0] + 1] if hits else before
    assert after == expected
    assert stopped.finish_R[row] == (Finish.EOS if hits else Finish.LENGTH)
  assert stopped.finish_R[0] == stopped.finish_R[1] == Finish.EOS


def test_rows_have_their_own_limits_and_nothing_beyond_them(folder):
  model, params = load(folder)
  limits = [1, 5, 12]
  samples = sample(model, params, requests(random_prompts([3, 8, 5]), [1] * 3, limit=limits))
  np.testing.assert_array_equal(samples.completion_len_R, limits)
  np.testing.assert_array_equal(samples.finish_R, [Finish.LENGTH] * 3)
  mask = np.asarray(completion_mask(samples))
  np.testing.assert_array_equal(mask.sum(1), limits)
  assert (samples.behaviour_logp_RT[~mask] == 0).all()
  assert (samples.behaviour_logp_RT[mask] < 0).all()
  beyond = np.arange(mask.shape[1]) >= (samples.prompt_len_R + samples.completion_len_R)[:, None]
  assert (samples.tokens_RT[beyond] == 0).all()


@pytest.mark.parametrize(
  "how",
  [(1.0, 0, 1.0), (0.7, 0, 1.0), (1.0, 0, 0.9), (0.7, 20, 0.8), (1.3, 5, 1.0)],
  ids=lambda how: "T={} top_k={} top_p={}".format(*how),
)
def test_behaviour_log_probs_are_the_trainers(folder, how):
  """Where they differ, ratios are wrong before the first update."""
  model, params = load(folder)
  how = decoding(*how, VOCAB)
  samples = sample(model, params, requests(random_prompts([9, 3, 6]), [4, 4, 4]), how)
  trainer, entropy = jax.jit(lambda p, s: sample_log_probs(model, p, s, how))(params, samples)
  mask = np.asarray(completion_mask(samples))
  np.testing.assert_allclose(
    np.asarray(trainer)[mask], samples.behaviour_logp_RT[mask], atol=1e-4
  )
  assert samples.behaviour_logp_RT[mask].min() < -1, "no surprising token: nothing was tested"
  assert (np.asarray(entropy)[mask] >= 0).all()


def test_ids_beyond_the_tokenizer_are_never_sampled(folder):
  model, params = load(folder)
  how = decoding(5.0, 0, 1.0, 40)
  samples = sample(model, params, requests(random_prompts([4]), [64]), how, slots=64)
  tokens = np.concatenate(completions(samples))
  assert tokens.max() < 40
  greedy = sample(model, params, requests(random_prompts([4]), [1]), decoding(0.0, 0, 1.0, 40))
  assert max(completions(greedy)[0]) < 40


def test_the_same_seed_gives_the_same_samples(folder):
  model, params = load(folder)
  asked = requests(random_prompts([4, 6]), [3, 3], seed=5, step=7)
  assert completions(sample(model, params, asked)) == completions(sample(model, params, asked))


def test_rows_steps_groups_and_seeds_never_share_noise(folder):
  """A peer seeds every call alike: slot i sees the same noise at every step. Here prompts are
  equal, so equal noise would give equal completions; chance gives that once in 128^12 or so."""
  model, params = load(folder)
  prompt = random_prompts([5])[0]
  hot = decoding(3.0, 0, 1.0, VOCAB)
  seen = [
    tuple(c)
    for seed, step in [(0, 0), (0, 1), (1, 0), (1, 1)]
    for c in completions(
      sample(model, params, requests([prompt] * 3, [4, 2, 2], seed=seed, step=step), hot)
    )
  ]
  assert len(set(seen)) == len(seen) == 32


def test_a_rollout_does_not_depend_on_its_neighbours(folder):
  model, params = load(folder)
  prompts = random_prompts([4, 9, 6])
  together = completions(sample(model, params, requests(prompts, [2, 3, 2])))
  keys = rollout_keys(
    key_for(0, Purpose.ROLLOUT, 0), np.array([1], np.int32), np.array([2], np.int32)
  )
  one = Requests(prompts[1:2], np.zeros(1, np.int32), np.full(1, 12, np.int32), keys)
  assert completions(sample(model, params, one)) == [together[4]]


@pytest.mark.parametrize(("slots", "burst"), [(1, 4), (2, 1), (3, 7), (16, 3), (16, 12)])
def test_the_schedule_changes_no_token(folder, slots, burst):
  """Slots refilled in any order, at any time, with rollouts of very different lengths."""
  model, params = load(folder)
  asked = requests(random_prompts([4, 9, 6, 1, 12]), [3, 1, 4, 2, 2], limit=np.arange(12) % 5 + 1)
  one_batch = sample(model, params, asked, slots=12, burst=12)
  other = sample(model, params, asked, slots=slots, burst=burst)
  np.testing.assert_array_equal(other.tokens_RT, one_batch.tokens_RT)
  np.testing.assert_allclose(other.behaviour_logp_RT, one_batch.behaviour_logp_RT, atol=1e-5)
  np.testing.assert_array_equal(other.finish_R, one_batch.finish_R)


def test_short_rollouts_come_out_before_long_ones_end(folder):
  """What finishes early is verified while the rest decodes."""
  model, params = load(folder)
  asked = requests(random_prompts([4]), [6], limit=[1, 12, 2, 1, 1, 1])
  sampler = Sampler(model, slots=2, burst=2)
  order = [part.rollout_F.tolist() for part in
           sampler.stream(sampler.prepare(params), asked, PLAIN, NO_EOS)]  # fmt: skip
  assert sorted(itertools.chain.from_iterable(order)) == list(range(6))
  assert order[-1] == [1]
  assert len(order) > 3


@pytest.mark.parametrize(
  ("length", "expected"), [(1, 16), (16, 16), (17, 24), (25, 32), (33, 48), (49, 64), (9000, 12288)]
)
def test_buckets(length, expected):
  assert bucket(length) == expected


def test_sampling_follows_the_distribution(folder):
  """First tokens of many rollouts of one prompt against their probabilities (chi-square)."""
  model, params = load(folder)
  how = decoding(0.8, 0, 1.0, VOCAB)
  R = 4096
  asked = requests(random_prompts([6]), [R], limit=1)
  samples = sample(model, params, asked, how, slots=512)
  first = np.array([c[0] for c in completions(samples)])
  positions = np.broadcast_to(np.arange(6, dtype=np.int32), (1, 6))
  hidden, _ = model.apply({"params": params}, samples.tokens_RT[:1, :6], positions)
  logits = model.apply({"params": params}, hidden[:, -1], method="logits")[0]
  expected = R * np.asarray(jax.nn.softmax(logits / 0.8))
  counts = np.bincount(first, minlength=VOCAB)
  common = expected > 5
  chi2 = np.sum((counts - expected)[common] ** 2 / expected[common])
  degrees = common.sum() - 1
  assert degrees > 5
  assert chi2 < degrees + 5 * np.sqrt(2 * degrees)


@pytest.mark.parametrize("mesh", [(8, 1, 1), (2, 2, 2)], ids=str)
def test_the_mesh_changes_no_token(folder, mesh):
  asked = requests(random_prompts([4, 9, 6, 2]), [4, 4, 4, 4])
  alone = sample(*load(folder), asked)
  spread = sample(*load(folder, mesh), asked)
  np.testing.assert_array_equal(spread.tokens_RT, alone.tokens_RT)
  np.testing.assert_allclose(spread.behaviour_logp_RT, alone.behaviour_logp_RT, atol=1e-4)


COLLECTIVE = re.compile(r"= \w+\[([\d,]*)\]\S* (all-gather|all-to-all|all-reduce|collective)")


@pytest.mark.parametrize("mesh", [(2, 4, 1), (1, 8, 1), (2, 2, 2)], ids=str)
def test_no_parameter_moves_between_devices_while_decoding(folder, mesh):
  """In the compiled program itself: nothing that crosses devices is as large as the smallest matrix
  of a layer."""
  model, params = load(folder, mesh)
  sampler = Sampler(model, slots=8, burst=4)
  prepared = sampler.prepare(params)
  program = sampler._burst.lower(prepared, sampler._empty(32), PLAIN, NO_EOS).compile().as_text()
  moved = [math.prod(map(int, filter(None, shape.split(",")))) for shape, _ in
           COLLECTIVE.findall(program)]  # fmt: skip
  smallest = min(leaf.size for leaf in jax.tree.leaves(prepared) if leaf.ndim > 1)
  assert max(moved, default=0) < smallest, sorted(moved)[-3:]


def test_weights_that_do_not_fit_stay_split_and_give_the_same_tokens(folder):
  asked = requests(random_prompts([4, 9]), [4, 4])
  model, params = load(folder, (2, 4, 1))
  split = Sampler(model, slots=8, gather_weights=False)
  prepared = split.prepare(params)
  assert prepared["embedding"].addressable_shards[0].data.size == prepared["embedding"].size // 4
  np.testing.assert_array_equal(
    run(split, prepared, asked).tokens_RT, sample(model, params, asked).tokens_RT
  )


def test_new_settings_compile_nothing(folder):
  """Temperature, filters, seeds, end ids, limits and group sizes are data; lengths come in buckets
  that were met before."""
  model, params = load(folder)
  sampler = Sampler(model, slots=4, burst=4, prefill=2)
  prepared = sampler.prepare(params)
  compiled = []
  for temperature, top_k, top_p, seed, copies in [
    (1.0, 0, 1.0, 0, [2, 4]), (0.0, 0, 1.0, 1, [1, 5]), (0.7, 5, 0.9, 2, [3, 0, 1]),
  ]:  # fmt: skip
    prompts = random_prompts([4, 7, 7][: len(copies)])
    limits = 12 - np.arange(sum(copies))[::-1] % (seed + 2)
    asked = requests(prompts, copies, seed=seed, limit=limits)
    how = decoding(temperature, top_k, top_p, VOCAB - seed)
    run(sampler, prepared, asked, how, np.array([seed], np.int32))
    compiled.append(sampler.compiled_programs())
  assert compiled[0] == compiled[1] == compiled[2]


def test_a_cache_that_grows_and_shrinks_changes_no_token(folder):
  """Caches are cut to the rollouts alive; peers pay for the longest one possible at every step."""
  model, params = load(folder)
  limits = [60, 3, 5, 40, 4, 4, 30, 2]
  asked = requests(random_prompts([4, 20, 9, 30]), [2, 2, 2, 2], limit=limits)
  whole = sample(model, params, asked, slots=8, burst=64, max_new_tokens=64)
  sampler = Sampler(model, slots=1, burst=4, prefill=1)
  lengths = []
  resize = sampler._resized
  sampler._resized = lambda slots, length: lengths.append(length) or resize(slots, length)
  bits = run(sampler, sampler.prepare(params), asked, max_new_tokens=64)
  np.testing.assert_array_equal(bits.tokens_RT, whole.tokens_RT)
  np.testing.assert_allclose(bits.behaviour_logp_RT, whole.behaviour_logp_RT, atol=1e-5)
  assert any(np.diff(lengths) > 0) and any(np.diff(lengths) < 0), lengths


def test_logits_that_are_not_finite_end_their_rollout_alone(folder):
  """One poisoned prompt: its rollouts are marked, its neighbours and the next rollouts in its slots
  draw what they would have drawn."""
  model, params = load(folder)
  prompts = random_prompts([4, 4, 4, 4])
  prompts[1][2], healthy = 77, [n for n in range(8) if n // 2 != 1]
  prompts = [np.where((p == 77) & (n != 1), 1, p) for n, p in enumerate(prompts)]
  embedding = params["embedding"].at[77].set(np.nan)
  known = decoding(1.0, 0, 1.0, 77)  # or the tied head gives every row a NaN logit
  asked = requests(prompts, [2, 2, 2, 2])
  sampler = Sampler(model, slots=2, burst=5, prefill=2)
  spoilt = run(sampler, sampler.prepare(params | {"embedding": embedding}), asked, known)
  sound = run(sampler, sampler.prepare(params), asked, known)
  assert spoilt.finish_R.tolist() == [
    Finish.LENGTH if n in healthy else Finish.NONFINITE for n in range(8)
  ]
  assert spoilt.completion_len_R[2:4].tolist() == [0, 0]
  np.testing.assert_array_equal(spoilt.tokens_RT[healthy], sound.tokens_RT[healthy])


def test_bfloat16_stays_near_float32(folder):
  """Same noise, rounded weights: log-probabilities differ by rounding alone."""
  model, params = load(folder)
  asked = requests(random_prompts([9, 4]), [2, 1])
  narrow = model.clone(dtype=np.dtype("bfloat16"))
  for slots in (1, 4):
    samples = sample(narrow, params, asked, slots=slots)
    trainer, _ = jax.jit(lambda p, s: sample_log_probs(narrow, p, s, PLAIN))(params, samples)
    mask = np.asarray(completion_mask(samples))
    difference = np.abs(np.asarray(trainer)[mask] - samples.behaviour_logp_RT[mask])
    assert 0 < difference.mean() < 0.02


def test_decoding_stops_when_all_rows_have_ended(folder):
  """With every id an end of sequence, a limit of 4096 must cost one token, not 4096."""
  model, params = load(folder)
  asked = requests(random_prompts([4]), [2], limit=4096)
  everything = np.arange(VOCAB, dtype=np.int32)
  sampler = Sampler(model, slots=2, burst=4096)
  prepared = sampler.prepare(params)
  run(sampler, prepared, asked, PLAIN, everything, 4096)
  start = time.perf_counter()
  samples = run(sampler, prepared, asked, PLAIN, everything, 4096)
  assert time.perf_counter() - start < 2.0
  np.testing.assert_array_equal(samples.completion_len_R, [1, 1])
