"""Every surrogate three ways: against loops over its formula, against finite differences, and
against a few numbers that must not move. Then what each must do at step 0, and what is refused."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.errors import UserError
from grpo_jax.learner.aggregate import AGGREGATES
from grpo_jax.learner.surrogate import Tokens, token_losses
from tests.learner.choices import make_surrogate, surrogate_of

B, T, LIMIT = 5, 7, 6

# What is looked at: all rows of methods.py that change the loss, and choices no row makes.
CASES = {
  name: surrogate_of(name)
  for name in ("grpo", "dr_grpo", "gspo", "cispo", "minirl", "ibro", "tis", "icepop", "exgrpo")
} | {
  "symmetric": make_surrogate(clip_low=0.1, clip_high=0.1, dual_clip=0.0),
  "tight dual clip": make_surrogate(dual_clip=1.05),
  "no clip": make_surrogate(clip="none", aggregate="sequence_mean"),
  "k2 in the loss": make_surrogate(kl="k2", kl_coef=0.3),
  "k3 in the loss": make_surrogate(kl="k3", kl_coef=0.3),
  "entropy bonus": make_surrogate(entropy_coef=0.1),
  "minirl, low cap": surrogate_of("minirl", weight_cap=0.9),
  "icepop, narrow": surrogate_of("icepop", correction_low=0.8, correction_high=1.2),
  "gspo + tis": surrogate_of("gspo+tis"),
  "cispo + icepop + ibro": surrogate_of("cispo+icepop+ibro"),
}
cases = pytest.mark.parametrize("name", CASES)


def make_tokens(*, drift=0.4, dtype=np.float64) -> Tokens:
  """Random rows of uneven length; the last one has no token."""
  rng = np.random.default_rng(0)
  length_B = np.array([6, 1, 3, 5, 0])
  mask_BT = np.arange(T) < length_B[:, None]
  logp_BT = np.log(rng.uniform(0.05, 0.95, (B, T)))

  def near(scale):
    return logp_BT + scale * rng.normal(size=(B, T))

  arrays = {
    "logp_BT": logp_BT,
    "entropy_BT": rng.uniform(0.1, 2.0, (B, T)),
    "behaviour_BT": near(drift),
    "anchor_BT": near(drift),
    "reference_BT": near(drift),
    "advantage_BT": np.broadcast_to(rng.normal(size=(B, 1)), (B, T)),
  }
  return Tokens(
    **{name: np.where(mask_BT, x, 0).astype(dtype) for name, x in arrays.items()},
    mask_BT=mask_BT,
    replayed_B1=np.arange(B)[:, None] >= 2,
  )


def objective(surrogate, tokens: Tokens):
  """What a step minimises, in one piece."""
  loss_BT, _ = token_losses(surrogate, tokens)
  length_B = tokens.mask_BT.sum(axis=1)
  scale_B = AGGREGATES[surrogate.aggregate](length_B, length_B > 0, LIMIT)
  return jnp.sum(scale_B[:, None] * jnp.where(tokens.mask_BT, loss_BT, 0))


def slow_objective(s, tokens: Tokens, logp, entropy) -> float:
  """The same from the formulas, token by token. What stands under a stopped gradient is computed of
  `tokens.logp_BT`; the rest of `logp`, which finite differences move."""
  rows = [np.flatnonzero(mask) for mask in tokens.mask_BT]
  learn = [i for i in range(B) if len(rows[i])]
  total = 0.0
  for i in learn:
    for t in rows[i]:
      divisor = {
        "token_mean": sum(len(rows[j]) for j in learn),
        "sequence_mean": len(rows[i]) * len(learn),
        "constant": LIMIT * len(learn),
      }[s.aggregate]
      total += slow_token(s, tokens, logp, entropy, i, t, rows[i]) / divisor
  return total


def slow_token(s, tokens, logp, entropy, i, t, row) -> float:
  advantage = tokens.advantage_BT[i, t]
  ratio = slow_ratio(s, logp, tokens, i, t, row)
  frozen_ratio = slow_ratio(s, tokens.logp_BT, tokens, i, t, row)
  mismatch = math.exp(tokens.anchor_BT[i, t] - tokens.behaviour_BT[i, t])
  weight = 1.0
  if s.correction == "truncate":
    weight = min(mismatch, s.correction_high)
  if s.correction == "mask":
    weight = mismatch if s.correction_low <= mismatch <= s.correction_high else 0.0

  if s.clip == "shaped_replayed" and tokens.replayed_B1[i, 0]:
    loss = -ratio / (ratio + 0.1) * advantage
  elif s.clip in ("ppo", "shaped_replayed"):
    clipped = min(max(ratio, 1 - s.clip_low), 1 + s.clip_high)
    loss = max(-ratio * advantage, -clipped * advantage)
    if s.dual_clip and advantage < 0:
      loss = min(loss, -s.dual_clip * advantage)
  elif s.clip == "cispo":
    clipped = min(max(frozen_ratio, 1 - s.clip_low), 1 + s.clip_high)
    loss = -clipped * advantage * logp[i, t]
  elif s.clip == "minirl":
    drift = math.exp(tokens.logp_BT[i, t] - tokens.behaviour_BT[i, t])
    out = frozen_ratio > 1 + s.clip_high if advantage > 0 else frozen_ratio < 1 - s.clip_low
    loss = 0.0 if out else -min(drift, s.weight_cap) * advantage * logp[i, t]
  else:
    loss = -ratio * advantage
  return weight * loss + slow_extras(s, tokens, logp, entropy, i, t)


def slow_ratio(s, logp, tokens, i, t, row) -> float:
  if s.ratio == "token":
    return math.exp(logp[i, t] - tokens.anchor_BT[i, t])
  return math.exp(sum(logp[i, u] - tokens.anchor_BT[i, u] for u in row) / len(row))


def slow_extras(s, tokens, logp, entropy, i, t) -> float:
  d = tokens.reference_BT[i, t] - logp[i, t]
  kl = d * d / 2 if s.kl == "k2" else math.exp(d) - 1 - d
  weight = tokens.advantage_BT[i, t] if s.entropy == "advantage" else 1.0
  return s.kl_coef * kl - s.entropy_coef * weight * entropy[i, t]


@cases
def test_loops_over_the_formula_agree(name):
  with jax.enable_x64(True):
    tokens = make_tokens()
    ours = objective(CASES[name], tokens)
    slow = slow_objective(CASES[name], tokens, tokens.logp_BT, tokens.entropy_BT)
    np.testing.assert_allclose(ours, slow, rtol=1e-12)


@cases
def test_the_gradient_equals_finite_differences(name):
  """By each log-prob and by each entropy; a forgotten stop_gradient would show here."""
  surrogate, h = CASES[name], 1e-6
  with jax.enable_x64(True):
    tokens = make_tokens()
    gradient = jax.grad(lambda x: objective(surrogate, x), allow_int=True)(tokens)
    moving = {"logp_BT": tokens.logp_BT, "entropy_BT": tokens.entropy_BT}
    for field, values in moving.items():
      for i, t in np.argwhere(tokens.mask_BT):
        at = np.zeros((B, T))
        at[i, t] = h
        up, down = (
          slow_objective(surrogate, tokens, *(moving | {field: values + sign * at}).values())
          for sign in (1, -1)
        )
        numeric = (up - down) / (2 * h)
        np.testing.assert_allclose(
          getattr(gradient, field)[i, t], numeric, atol=1e-8, err_msg=f"{field} {i} {t}"
        )


# objective and norm of its gradient by the log-probs.
GOLDEN = {
  "grpo": (0.940935, 0.431615),
  "dr_grpo": (0.588085, 0.269759),
  "gspo": (0.907613, 0.491071),
  "cispo": (-0.867055, 0.431687),
  "minirl": (-0.219298, 0.200802),
  "ibro": (0.941406, 0.431615),
  "tis": (0.530896, 0.312345),
  "exgrpo": (0.606328, 0.110136),
  "icepop": (0.348530, 0.302009),
  "symmetric": (0.942388, 0.431527),
  "tight dual clip": (0.676786, 0.174981),
  "no clip": (0.927773, 0.499816),
  "k2 in the loss": (0.951889, 0.427570),
  "k3 in the loss": (0.952846, 0.424761),
  "entropy bonus": (0.830410, 0.431615),
  "minirl, low cap": (-0.196747, 0.161729),
  "icepop, narrow": (0.072418, 0.189122),
  "gspo + tis": (0.531849, 0.363996),
  "cispo + icepop + ibro": (-0.162608, 0.302086),
}


@cases
def test_golden(name):
  with jax.enable_x64(True):
    value, gradient = jax.value_and_grad(lambda x: objective(CASES[name], x), allow_int=True)(
      make_tokens()
    )
    numbers = (float(value), float(jnp.linalg.norm(gradient.logp_BT)))
  np.testing.assert_allclose(
    numbers,
    GOLDEN[name],
    rtol=1e-5,
    err_msg=(
      "A surrogate's numbers moved. They may change only with its formula or with a default of "
      "configs/base.py or methods.py; then say so in the commit and put the new ones here."
    ),
  )


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"minirl, low cap", "exgrpo"}))  # below 1
def test_at_step_0_the_ratio_is_one_and_the_gradient_is_reinforce(name):
  tokens = make_tokens(drift=0.0)
  surrogate = CASES[name]
  length_B = tokens.mask_BT.sum(axis=1)
  with jax.enable_x64(True):
    scale_B = AGGREGATES[surrogate.aggregate](length_B, length_B > 0, LIMIT)
    _, facts = token_losses(surrogate, tokens)
    gradient = jax.grad(lambda x: objective(surrogate, x), allow_int=True)(tokens)
  assert (np.asarray(facts["ratio_mean"]) == 1).all()
  assert not np.asarray(facts["clip_fraction"]).any()
  reinforce_BT = -tokens.advantage_BT * np.asarray(scale_B)[:, None]
  np.testing.assert_allclose(gradient.logp_BT, reinforce_BT, rtol=1e-6, atol=1e-12)


def test_the_anchor_stays_while_the_policy_moves():
  """`logp - stop_gradient(logp)` as the ratio is 1 however far the policy went: nothing is clipped
  in the second of two minibatches."""
  tokens = make_tokens(drift=0.0)
  moved = tokens.replace(logp_BT=tokens.logp_BT + np.where(tokens.mask_BT, 1.0, 0.0))
  _, facts = token_losses(surrogate_of("tis"), moved)
  upwards = tokens.mask_BT & (tokens.advantage_BT > 0)
  assert np.asarray(facts["clip_fraction"])[upwards].all()


# ratio, advantage -> loss, clipped, d loss / d ratio
PPO_TABLE = [
  (1.00, 1.0, -1.00, False, -1.0),
  (1.27, 1.0, -1.27, False, -1.0),
  (1.29, 1.0, -1.28, True, 0.0),  # already much likelier: no more push
  (0.50, 1.0, -0.50, False, -1.0),  # less likely than it was: pushed up without bound
  (0.50, -1.0, 0.80, True, 0.0),  # already much rarer
  (0.81, -2.0, 1.62, False, 2.0),
  (1.50, -1.0, 1.50, False, 1.0),
  (11.0, -1.0, 10.0, True, 0.0),  # dual clip: one wild ratio must not own the step
  (9.90, -1.0, 9.90, False, 1.0),
  (11.0, 1.0, -1.28, True, 0.0),
  (3.00, 0.0, 0.00, False, 0.0),
]


def one_token(surrogate, ratio, advantage):
  """Loss, whether it was clipped, and its slope by the ratio, of a token of log-prob 0."""
  zero = jnp.zeros((1, 1))
  tokens = Tokens(
    *[zero] * 5, jnp.full((1, 1), advantage), jnp.ones((1, 1), bool), jnp.zeros((1, 1), bool)
  )

  def value(ratio):
    loss, facts = token_losses(surrogate, tokens.replace(logp_BT=jnp.log(ratio) * jnp.ones((1, 1))))
    return loss[0, 0], facts["clip_fraction"][0, 0]

  (loss, clipped), slope = jax.value_and_grad(value, has_aux=True)(ratio)
  return float(loss), bool(clipped), float(slope)


@pytest.mark.parametrize(("ratio", "advantage", "loss", "clipped", "slope"), PPO_TABLE)
def test_ppo_by_hand(ratio, advantage, loss, clipped, slope):
  ours, stopped, gradient = one_token(make_surrogate(), ratio, advantage)
  np.testing.assert_allclose((ours, gradient), (loss, slope), atol=1e-5)
  assert stopped == clipped


def test_without_dual_clip_a_negative_advantage_is_not_bounded():
  loss, clipped, _ = one_token(make_surrogate(dual_clip=0.0), 50.0, -1.0)
  np.testing.assert_allclose(loss, 50.0, rtol=1e-5)
  assert not clipped


def test_cispo_keeps_the_gradient_ppo_drops():
  """d loss / d log-prob is the clipped weight, so by the ratio it is weight / ratio."""
  loss_slope = one_token(surrogate_of("cispo"), 10.0, 1.0)
  assert loss_slope[1]
  np.testing.assert_allclose(loss_slope[2], -5.0 / 10.0, rtol=1e-5)
  assert one_token(make_surrogate(), 10.0, 1.0)[2] == 0


REFUSED = [
  ({"clip": "ppo2"}, "config.loss.clip is 'ppo2'; known: ppo, cispo, minirl, none, "),
  ({"ratio": "word"}, "config.loss.ratio is 'word'; known: token, sequence"),
  ({"aggregate": "mean"}, "config.loss.aggregate is 'mean'; known: token_mean, "),
  ({"anchor": "old"}, "config.loss.anchor is 'old'; known: behaviour, recomputed"),
  ({"correction": "tis"}, "config.loss.correction is 'tis'; known: none, truncate, mask"),
  ({"kl": "k4"}, "config.loss.kl is 'k4'; known: k1, k2, k3"),
  ({"entropy": "ibro"}, "config.loss.entropy is 'ibro'; known: uniform, advantage"),
  ({"clip_low": -0.1}, "config.loss.clip_low is -0.1; it must be 0 or above"),
  ({"kl_coef": math.nan}, "config.loss.kl_coef is nan"),
  ({"dual_clip": 0.5}, "config.loss.dual_clip is 0.5"),
  ({"weight_cap": 0.0}, "config.loss.weight_cap is 0.0"),
  ({"correction_low": 3.0}, "config.loss.correction_high is 2.0; it must be above"),
  ({"correction": "truncate"}, "it would always be 1: set 'recomputed'"),
  (
    {"correction": "mask", "anchor": "recomputed", "clip": "minirl"},
    "weighed by the ratio to the sampler already",
  ),
  ({"kl": "k1", "kl_coef": 0.1}, "gradient is zero on average"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_cannot_be_meant_is_refused(changes, message):
  with pytest.raises(UserError) as error:
    make_surrogate(**changes)
  assert message in str(error.value)
