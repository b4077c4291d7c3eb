"""One row a method: the whole difference from GRPO. Rows compose: "aper+other".

Keys are dotted keys of base.py. Numbers that a task must scale (the store of a run of a thousand
rollouts need not hold thirty thousand) are set again by the task's config, after the row.
"""

import difflib
import functools
from collections.abc import Iterable

from ml_collections import ConfigDict

from grpo_jax.errors import UserError

METHODS: dict[str, dict] = {
  # Group-relative policy optimisation, arXiv 2402.03300, with token mean, clip-higher and no KL.
  "grpo": {},
  # DAPO, arXiv 2503.14476: clip-higher, token mean, soft punishment of overlong answers (4,096 of
  # 20,480 tokens), and dynamic sampling: groups without variance are replaced by asking again.
  "dapo": {
    "keep": "mixed_groups",
    "rollout.rounds": 10,
    "loss.clip_low": 0.2,
    "loss.clip_high": 0.28,
    "loss.aggregate": "token_mean",
    "reward.overlong": 0.2,
  },
  # Dr. GRPO, arXiv 2503.20783: no division by the group's spread or by a row's length.
  "dr_grpo": {"advantage.scale": "none", "loss.aggregate": "constant"},
  # RLOO, arXiv 2402.14740: the others of the group are the baseline.
  "rloo": {"advantage.baseline": "leave_one_out", "advantage.scale": "none"},
  # REINFORCE++-baseline, arXiv 2501.03262: the spread of the batch, and KL as k2, whose coefficient
  # stays 0: set loss.kl_coef.
  "reinforce_pp": {"advantage.scale": "batch_std", "loss.kl": "k2"},
  # BNPO, arXiv 2506.02864: a fitted Beta density divides the advantage; it is fitted to one step's
  # groups. (What TRL calls "bnpo" is the token mean.)
  "bnpo": {"advantage.scale": "beta"},
  # GSPO, arXiv 2507.18071: one ratio a sequence, clipped tightly.
  "gspo": {
    "loss.ratio": "sequence",
    "loss.clip_low": 3e-4,
    "loss.clip_high": 4e-4,
    "loss.dual_clip": 0.0,
    "loss.aggregate": "sequence_mean",
  },
  # CISPO, arXiv 2506.13585: the weight is clipped, the gradient is not. Nothing bounds it from
  # below; the paper tunes the upper bound, 5 is what others set.
  "cispo": {"loss.clip": "cispo", "loss.clip_low": 1.0, "loss.clip_high": 4.0},
  # MiniRL, arXiv 2512.01374: the weight is to the sampler, the mask to the trainer's policy at the
  # start of the step; no spread, no lengths. (Its routing replay is for mixtures of experts.)
  "minirl": {
    "advantage.scale": "none",
    "loss.clip": "minirl",
    "loss.clip_low": 0.2,
    "loss.clip_high": 0.27,
    "loss.weight_cap": 5.0,
    "loss.anchor": "recomputed",
    "loss.aggregate": "constant",
  },
  # IBRO, arXiv 2507.18391: entropy weighed by the advantage. The paper does not say how much.
  "ibro": {"loss.entropy": "advantage", "loss.entropy_coef": 1e-3},
  # Truncated importance sampling, Yao et al. 2025, fengyao.notion.site/off-policy-rl: sampler and
  # trainer differ even at the same weights.
  "tis": {
    "loss.anchor": "recomputed",
    "loss.correction": "truncate",
    "loss.correction_high": 2.0,
  },
  # IcePop, arXiv 2510.18855: tokens on which they differ too much are left out.
  "icepop": {
    "loss.anchor": "recomputed",
    "loss.correction": "mask",
    "loss.correction_low": 0.5,
    "loss.correction_high": 5.0,
  },
  # Rollout-level advantage-prioritised replay, arXiv 2606.04560, section 1: zero-variance filter,
  # every surviving fresh rollout, and half as many old ones by |A|^0.5, none older than 10 steps.
  "aper": {
    "keep": "mixed_groups",
    "replay.ratio": 0.5,
    "replay.alpha": 0.5,
    "replay.max_age": 10,
    "replay.warmup_steps": 20,
  },
  # What that paper compares its replay with, to be joined to it: "aper+pool+by_query+by_spread".
  "pool": {"replay.composition": "pool"},
  "by_query": {"replay.level": "query"},
  "by_spread": {"replay.priority": "group_spread"},
  "by_chance": {"replay.priority": "uniform"},
  # FreshPER, arXiv 2604.16918, its soft age limit: priorities fall to 1/e in 500 steps.
  "age_decay": {"replay.decay": 500.0},
  # Three of our own, to be joined to a method with replay.
  # Priorities that do not grow with the size of the group: for uneven ones, as of coba and sgpo.
  "by_share": {"replay.priority": "normalised_advantage"},
  # Truncated importance sampling of replayed rows alone: where the others are clipped around the
  # policy of their birth, these are weighed by min(pi_start / pi_birth, 2) and clipped around
  # pi_start, the policy before the step.
  "tis_replayed": {
    "loss.anchor": "recomputed_replayed",
    "loss.correction": "truncate",
    "loss.correction_high": 2.0,
  },
  # A stored rollout is worth something else when its problem is asked again: what it would be worth
  # as one more member of the new group.
  "refreshed": {"replay.advantage": "refreshed"},
  # First in, first out, drawn by chance, as in arXiv 2604.08706: replay.capacity is the only limit.
  "fifo": {
    "replay.ratio": 1.0,
    "replay.priority": "uniform",
    "replay.max_age": 1_000_000,
    "replay.warmup_steps": 0,
  },
  # RePO, arXiv 2506.09340: as many own past answers to the problems of the step as fresh ones, the
  # most recent first, worth what they are among themselves. Theirs: 16 answers a problem are kept
  # and replay of it starts when there are as many; the two sets have a normaliser each. As for all
  # that draw for the problems of the step, the store must hold an epoch: replay.capacity.
  "repo": {
    "replay.ratio": 1.0,
    "replay.problems": "asked",
    "replay.most": 8,
    "replay.priority": "uniform",
    "replay.decay": 0.01,  # steps: e^-100 a step of age is an order, not a preference
    "replay.alpha": 1.0,
    "replay.advantage": "drawn",
    "replay.max_age": 1_000_000,
    "replay.warmup_steps": 0,
    "loss.clip_high": 0.2,
  },
  # RLEP, arXiv 2507.07451: two old successes join a problem's group of 16. Theirs come from a run
  # before, ours from this one; theirs change the advantages of the fresh answers of the group too.
  "rlep": {
    "replay.ratio": 0.125,
    "replay.store": "right",
    "replay.problems": "asked",
    "replay.most": 2,
    "replay.priority": "uniform",
    "replay.advantage": "refreshed",
    "replay.max_age": 1_000_000,
    "replay.warmup_steps": 0,
  },
  # ExGRPO, arXiv 2510.02245: one old success beside 8 fresh answers, that of the lowest entropy,
  # its weight shaped in place of clipped. Theirs: 7 fresh ones; entropy under the policy of today
  # (ours: at birth); problems with successes are asked again, by exp(-(accuracy - 1/2)^2 / 2),
  # between 0.88 and 1; replay starts when 35 % of a batch are right (ours: replay.warmup_steps).
  "exgrpo": {
    "replay.ratio": 0.125,
    "replay.store": "right",
    "replay.problems": "asked",
    "replay.most": 1,
    "replay.priority": "likelihood",
    "replay.alpha": 1000.0,  # an order, not a preference
    "replay.advantage": "refreshed",
    "replay.max_age": 1_000_000,
    "replay.warmup_steps": 20,
    "loss.clip": "shaped_replayed",
  },
  # The replay of DOTS, arXiv 2506.05316: half of a batch are whole groups with variance, by chance
  # from the last 512. Its choice of problems needs a predictor of difficulty, and is not here.
  "dots_replay": {
    "keep": "mixed_groups",
    "replay.ratio": 1.0,
    "replay.level": "query",
    "replay.priority": "uniform",
    "replay.max_age": 1_000_000,
    "replay.warmup_steps": 0,
    "replay.capacity": 4096,
  },
  # History resampling of SRPO, arXiv 2504.14286: problems always right in an epoch are dropped.
  "history_resampling": {"select": "without_solved"},
  # SRPO, arXiv 2504.14286, but for its stages: that, token mean, no KL, rewards of several parts,
  # advantage 0 for what was cut. How large the rewards are and where it clips is not public: ours.
  "srpo": {
    "select": "without_solved",
    "reward.wrong": 0.0,
    "reward.format": 0.2,
    "reward.language_mix": 0.2,
    "advantage.zero_truncated": True,
    "loss.clip_low": 0.2,
    "loss.clip_high": 0.2,
    "optimizer.b2": 0.95,
  },
  # Its stages: config.more (code) joins config.data (mathematics) when that no longer gains; when
  # the paper switches is not public.
  "two_stages": {"stages.switch": "plateau"},
  # sGPO, arXiv 2606.08854, section 3: easy to hard by a profile, groups of 2, 4 and 8. It needs
  # config.easy_to_hard.profile; two passes through the phases are the paper's.
  "sgpo": {
    "select": "easy_to_hard",
    "easy_to_hard.solved_above": 0.75,
    "easy_to_hard.unsolved_share": 0.1,
  },
  # SRL, arXiv 2510.25992: the next step of a worked solution, rewarded by its similarity to the
  # expert's, -1 without one; groups of nearly equal rewards are dropped. (It needs solutions of
  # several steps; how near is nearly is not public.) Dynamic sampling with refill: "srl+dapo".
  "srl": {
    "data.ask": "steps",
    "data.template": "chatml",
    "eval.template": "chatml_boxed",
    "reward.wrong": 0.0,
    "reward.format": 1.0,
    "keep": "mixed_groups",
    "keep_spread": 1e-4,
    "optimizer.learning_rate": 5e-7,
  },
  # RLPT, arXiv 2509.19249: the next sentence of plain text, 1 or 0 by a judge. Which one the paper
  # asks is not public, and the embedded one is for tests. next_segment.py is the task.
  "rlpt": {
    "data.source": "text",
    "data.template": "chatml",
    "eval.source": "text",
    "reward.wrong": 0.0,
  },
  # In the manner of Tailor, arXiv 2511.12429: a supervised start on demonstrations, then RL with KL
  # to the policy after it. It needs config.warm_start.demonstrations, which the paper has a teacher
  # make; how long, how fast and how much KL is not public.
  "tailor": {
    "warm_start.epochs": 3.0,
    "warm_start.learning_rate": 1e-5,
    "reward.wrong": 0.0,
    "loss.kl_coef": 1e-3,
  },
  # In the manner of DoPR, arXiv 2602.00815, whose formula is not public: one problem a step.
  "dopr": {"select": "most_uncertain"},
  # PREPO, arXiv 2511.00794: a fifth of the candidates, from prompts of low perplexity to those of
  # high; rollouts count by their entropy, tokens the same in any rollout.
  "prepo": {
    "select": "perplexity_window",
    "perplexity_window.share": 0.2,
    "weigh": "relative_entropy",
    "loss.aggregate": "constant",
  },
  # CoBA-RL, arXiv 2602.03048: rollouts by marginal value at the policy's capability.
  "coba": {
    "allocate": "by_capability",
    "by_capability.concentration": 11.0,
    "by_capability.least": 2,
    "by_capability.most": 128,
    "evidence.window": 1,
  },
}


# Keys that some rows set, and every task's config: a difference only where a row set it.
OF_TASKS = ("data.", "eval.", "optimizer.", "warm_start.", "replay.capacity")


def as_grpo(config: ConfigDict, chosen: Iterable[str] = ()) -> tuple[tuple[str, object], ...]:
  """What rows change, and those of the method (the keys `chosen`) in any case, with the values
  `config` has before any row is laid over it."""
  whole = config.to_dict()
  of_rows = {key for row in METHODS.values() for key in row if not key.startswith(OF_TASKS)}
  keys = sorted(of_rows | set(chosen))
  return tuple((key, functools.reduce(dict.get, key.split("."), whole)) for key in keys)


def apply(config: ConfigDict, method: str) -> None:
  """Lays the rows of `method` over the config, in order.

  Raises:
    UserError: an unknown row, or two rows that set one key to different values.
  """
  chosen: dict[str, tuple[str, object]] = {}
  for row in method.split("+"):
    if row not in METHODS:
      raise UserError(f"method {row!r}: {nearest(row, METHODS)}")
    for key, value in METHODS[row].items():
      before = chosen.setdefault(key, (row, value))
      if before[1] != value:
        raise UserError(f"method {method!r}: {before[0]} and {row} disagree on {key}")
  config.method, config.grpo = method, as_grpo(config, chosen)
  for key, (_, value) in chosen.items():
    config.update_from_flattened_dict({key: value})


def nearest(name: str, known: Iterable[str]) -> str:
  """'unknown; did you mean x? known: x, y' for error messages."""
  known = list(known)
  close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
  suggestion = f"did you mean {close[0]!r}? " if close else ""
  return f"unknown; {suggestion}known: {', '.join(known)}"
