"""Is this config one that can run? Everything that can be wrong with its values alone: found before
a file is read or anything is compiled, and told with the key, its value and what would be right.
"""

import math
import re

from ml_collections import ConfigDict

from grpo_jax.build import lora_of
from grpo_jax.errors import UserError
from grpo_jax.learner.advantages import check_choices
from grpo_jax.learner.kl import ESTIMATORS
from grpo_jax.learner.surrogate import Surrogate
from grpo_jax.methods.keep import KEEP
from grpo_jax.methods.weigh import WEIGH
from grpo_jax.model.attention import check_kernel
from grpo_jax.model.qwen3 import REMAT
from grpo_jax.model.sharding import Layout, make_layout
from grpo_jax.slots import ALLOCATE, OF_EXAM, OF_STEP, SELECT, STAGES, by_profile, make_draw
from grpo_jax.task import ASK


def check(config: ConfigDict) -> Layout:
  """Everything that can be wrong with the numbers alone; returns the mesh they describe.

  Raises:
    UserError: names the key, its value and what would be right.
  """
  positive = {
    "steps": config.steps,
    "rollout.problems": config.rollout.problems,
    "rollout.samples": config.rollout.samples,
    "rollout.rounds": config.rollout.rounds,
    "rollout.slots": config.rollout.slots,
    "rollout.burst": config.rollout.burst,
    "rollout.max_new_tokens": config.rollout.max_new_tokens,
    "rollout.temperature": config.rollout.temperature,
    "optimizer.epochs": config.optimizer.epochs,
    "optimizer.minibatches": config.optimizer.minibatches,
    "eval.every": config.eval.every,
    "eval.samples": config.eval.samples,
    "checkpoint.every": config.checkpoint.every,
    "checkpoint.keep": config.checkpoint.keep,
    "checkpoint.deadline_seconds": config.checkpoint.deadline_seconds,
    "log.stuck_steps": config.log.stuck_steps,
    "log.rollouts_every": config.log.rollouts_every,
    "log.max_bad_steps": config.log.max_bad_steps,
  }
  for key, value in positive.items():
    if not value > 0:
      raise UserError(f"config.{key} is {value}; it must be above 0")
  if not config.audit.rollouts >= 0:
    raise UserError(f"config.audit.rollouts is {config.audit.rollouts}; it must be 0 or above")
  if config.keep not in KEEP:
    raise UserError(f"config.keep is {config.keep!r}; known: {', '.join(KEEP)}")
  for section in ("data", "more", "eval", "eval_more"):
    if config[section].ask not in ASK:
      raise UserError(f"config.{section}.ask is {config[section].ask!r}; known: {', '.join(ASK)}")
  if config.weigh not in WEIGH:
    raise UserError(f"config.weigh is {config.weigh!r}; known: {', '.join(WEIGH)}")
  check_survival(config)
  check_decisions(config)
  check_replay(config)
  check_company(config)
  check_learning(config)
  lora_of(config)
  layout = make_layout(**config.mesh)
  check_warm_start(config, layout)
  check_memory(config, layout)
  split_over_devices = {
    "rollout.problems x rollout.samples": config.rollout.problems * config.rollout.samples,
    "rollout.slots": config.rollout.slots,
    "replay.capacity": config.replay.capacity if config.replay.ratio else 0,
  }
  for key, rows in split_over_devices.items():
    if rows % layout.batch_shards:
      up = rows + -rows % layout.batch_shards
      raise UserError(
        f"config.{key} is {rows}; it must divide over {layout.batch_shards} devices "
        f"(mesh.data x mesh.fsdp): {up} would"
      )
  check_kernel(config.model.attention, layout)
  return layout


def check_survival(config: ConfigDict) -> None:
  """What can be wrong with how a run survives.

  Raises:
    UserError: names the key, its value and what would be right.
  """
  best, regular = config.checkpoint.keep_best, config.checkpoint.keep_every
  every = config.checkpoint.every
  not_below_0 = {
    "checkpoint.keep_best": best,
    "checkpoint.keep_every": regular,
    "log.stall_seconds": config.log.stall_seconds,
  }
  for key, value in not_below_0.items():
    if not value >= 0:
      raise UserError(f"config.{key} is {value}; it must be 0 or above")
  if best and every % config.eval.every:
    raise UserError(
      f"config.checkpoint.keep_best is {best}, but not every checkpoint would have an accuracy: "
      f"checkpoint.every ({every}) must be a multiple of eval.every ({config.eval.every})"
    )
  if regular % every:
    raise UserError(
      f"config.checkpoint.keep_every is {regular}; it must be a multiple of checkpoint.every "
      f"({every})"
    )


def check_warm_start(config: ConfigDict, layout: Layout) -> None:
  """What can be wrong with supervised steps before the first rollout.

  Raises:
    UserError: names the key, its value and what would be right.
  """
  start = config.warm_start
  if start.steps < 0 or start.epochs < 0 or (start.steps and start.epochs):
    raise UserError(
      f"config.warm_start.steps is {start.steps} and epochs is {start.epochs}: at most one of them "
      "is above 0, and none below"
    )
  if not start.steps and not start.epochs:
    if start.demonstrations:
      raise UserError(
        "config.warm_start.demonstrations is set, but neither steps nor epochs: 2 or 3 epochs "
        "would learn from them"
      )
    return
  if start.parts < 1 or start.rows < 1 or start.rows % (start.parts * layout.batch_shards):
    raise UserError(
      f"config.warm_start.rows is {start.rows}; it must divide over {start.parts} parts "
      f"(warm_start.parts) on {layout.batch_shards} devices (mesh.data x mesh.fsdp)"
    )


def check_memory(config: ConfigDict, layout: Layout) -> None:
  """What can be wrong with the choices that trade memory.

  Raises:
    UserError: names the key, its value and what would be right.
  """
  dtypes = ("float32", "bfloat16")
  choices = {
    "model.dtype": (config.model.dtype, dtypes),
    "model.remat": (config.model.remat, tuple(REMAT)),
    "optimizer.momentum_dtype": (config.optimizer.momentum_dtype, dtypes),
  }
  for key, (value, known) in choices.items():
    if value not in known:
      raise UserError(f"config.{key} is {value!r}; known: {', '.join(known)}")
  device = layout.mesh.local_devices[0]
  kinds = {memory.kind for memory in device.addressable_memories()}
  if config.model.remat == "offload" and "pinned_host" not in kinds:
    raise UserError(
      f"config.model.remat is 'offload', but {device.device_kind} has no pinned_host memory: "
      "set 'block'"
    )
  longest = config.data.max_prompt_tokens + config.rollout.max_new_tokens
  if config.optimizer.microbatch_tokens < longest:
    raise UserError(
      f"config.optimizer.microbatch_tokens is {config.optimizer.microbatch_tokens:,}; a row has up "
      f"to {longest:,} (data.max_prompt_tokens + rollout.max_new_tokens): {longest} would do"
    )


def check_decisions(config: ConfigDict) -> None:
  """What can be wrong with the choice of problems and of their rollouts.

  Raises:
    UserError: names the key, its value and what would be right.
  """
  for key, value, known in (
    ("select", config.select, SELECT),
    ("allocate", config.allocate, ALLOCATE),
    ("stages.switch", config.stages.switch, ("none", *STAGES)),
    ("stages.metric", config.stages.metric, (*OF_EXAM, *OF_STEP)),
  ):
    if value not in known:
      raise UserError(f"config.{key} is {value!r}; known: {', '.join(known)}")
  least, never = config.by_capability.least, float("inf")
  between = {
    "evidence.window": (config.evidence.window, 1, never),
    "without_solved.return_every": (config.without_solved.return_every, 0, never),
    "easy_to_hard.solved_above": (config.easy_to_hard.solved_above, 0, 1),
    "easy_to_hard.unsolved_share": (config.easy_to_hard.unsolved_share, 0, 1),
    "most_uncertain.candidates": (config.most_uncertain.candidates, 1, never),
    "most_uncertain.exploration": (config.most_uncertain.exploration, 0, never),
    "most_uncertain.warmup_steps": (config.most_uncertain.warmup_steps, 0, never),
    "perplexity_window.share": (config.perplexity_window.share, 0.01, 1),
    "by_capability.concentration": (config.by_capability.concentration, 2, never),
    "by_capability.least": (least, 1, never),
    "by_capability.most": (config.by_capability.most, least, never),
    "by_capability.steps": (config.by_capability.steps, 1, never),
    "stages.step": (config.stages.step, 1, never),
    "stages.share": (config.stages.share, 0, 1),
    "stages.window": (config.stages.window, 1, never),
  }
  for key, (value, low, high) in between.items():
    if not low <= value <= high:
      limits = f"{low} or above" if high == never else f"between {low} and {high}"
      raise UserError(f"config.{key} is {value}; it must be {limits}")
  if SELECT[config.select] is by_profile and not config.easy_to_hard.profile:
    raise UserError(
      f"config.select {config.select!r} needs config.easy_to_hard.profile, a file with the success "
      "rate of every training problem; `python -m grpo_jax.profile_prompts`, with the --config of "
      "this run and --out=profile.json, makes one"
    )
  if config.stages.switch != "none":
    check_stages(config)


def check_stages(config: ConfigDict) -> None:
  """What can be wrong with a schedule of stages.

  Raises:
    UserError: names the key, its value and what would be right.
  """
  switch = config.stages.switch
  if not config.more.source:
    raise UserError(
      f"config.stages.switch {switch!r} needs config.more.source: what the next stage adds"
    )
  if SELECT[config.select] is by_profile:
    raise UserError(
      f"config.stages.switch {switch!r} does not go with config.select {config.select!r}, whose "
      "phases are the stages: set one of them"
    )


def check_company(config: ConfigDict) -> None:
  """Choices that would do nothing beside the others, or undo one of them.

  Raises:
    UserError: names the key, its value and what would be right.
  """
  undone = {
    ("most_uncertain", "by_capability"): "it asks one problem a step: there is nothing to split",
    ("easy_to_hard", "by_capability"): "its groups have the sizes of their phases, and no others",
  }
  reason = undone.get((config.select, config.allocate))
  if reason:
    raise UserError(
      f"config.allocate is {config.allocate!r} beside config.select {config.select!r}; {reason}: "
      "set 'as_selected', or another select"
    )
  of_draws = {"level": "rollout", "priority": "advantage", "composition": "fresh_anchored"}
  of_draws |= {"decay": 0.0, "advantage": "birth", "store": "everything", "problems": "any"}
  for key, value in (of_draws | {"most": 0}).items():
    if not config.replay.ratio and config.replay[key] != value:
      raise UserError(
        f"config.replay.{key} is {config.replay[key]!r}, but config.replay.ratio is 0, so that "
        f"nothing is replayed: set a ratio, or join a row that does, or set {value!r}"
      )
  for key, value in (("anchor", "behaviour"), ("clip", "ppo")):
    if not config.replay.ratio and config.loss[key].endswith("_replayed"):
      raise UserError(
        f"config.loss.{key} is {config.loss[key]!r}, but config.replay.ratio is 0, so that nothing "
        f"is replayed: set a ratio, or join a row that does, or set {value!r}"
      )


def check_replay(config: ConfigDict) -> None:
  """What can be wrong with the choice of old rollouts.

  Raises:
    UserError: names the key, its value and what would be right.
  """
  for key, value, known in (
    ("composition", config.replay.composition, ("fresh_anchored", "pool")),
    ("store", config.replay.store, ("everything", "right")),
  ):
    if value not in known:
      raise UserError(f"config.replay.{key} is {value!r}; known: {', '.join(known)}")
  draw, baseline, scale = make_draw(config), config.advantage.baseline, config.advantage.scale
  if draw.priority == "normalised_advantage" and scale != "group_std":
    raise UserError(
      f"config.replay.priority is {draw.priority!r}, but advantages of config.advantage.scale "
      f"{scale!r} do not grow with their group: set 'advantage', or scale 'group_std'"
    )
  anew = draw.advantage != "birth"
  if anew and (baseline == "none" or scale not in ("group_std", "none")):
    raise UserError(
      f"config.replay.advantage is {draw.advantage!r}, by a group of a rollout's problem, but "
      f"advantages have baseline {baseline!r} and scale {scale!r}: set config.advantage.baseline "
      "'mean' or 'leave_one_out' and scale 'group_std' or 'none'"
    )
  if anew and config.advantage.zero_truncated:
    raise UserError(
      f"config.replay.advantage is {draw.advantage!r}, which would give a truncated rollout the "
      "worth again that config.advantage.zero_truncated took: set 'birth', or zero_truncated False"
    )


def check_learning(config: ConfigDict) -> None:
  """What can be wrong with rewards, advantages and the loss.

  Raises:
    UserError: names the key, its value and what would be right.
  """
  Surrogate(**config.loss)
  check_choices(config.advantage.baseline, config.advantage.scale)
  if config.reward.kl not in ESTIMATORS:
    raise UserError(f"config.reward.kl is {config.reward.kl!r}; known: {', '.join(ESTIMATORS)}")
  if not config.reward.kl_coef >= 0:
    raise UserError(f"config.reward.kl_coef is {config.reward.kl_coef}; it must be 0 or above")
  if not re.fullmatch(r"[\w.]+:\w+", config.reward.segment_judge):
    raise UserError(
      f"config.reward.segment_judge is {config.reward.segment_judge!r}; it names a function as "
      "package.module:name"
    )
  if not 0 <= config.keep_spread <= (0 if config.keep == "everything" else math.inf):
    raise UserError(
      f"config.keep_spread is {config.keep_spread}; it is 0 or above for keep 'mixed_groups', and "
      "0 for 'everything'"
    )
  for key in ("format", "language_mix"):
    if not config.reward[key] >= 0:
      raise UserError(f"config.reward.{key} is {config.reward[key]}; it is taken off: 0 or above")
  if config.advantage.zero_truncated and not config.keep_truncated:
    raise UserError(
      "config.advantage.zero_truncated is about rollouts that keep_truncated=False leaves out: set "
      "one of them"
    )
  if not 0 <= config.reward.overlong <= 1:
    raise UserError(
      f"config.reward.overlong is {config.reward.overlong}; it is a share of "
      "rollout.max_new_tokens: between 0 and 1"
    )
  shaped = [k for k in ("format", "language_mix", "overlong", "kl_coef") if config.reward[k]]
  if config.advantage.scale == "beta" and shaped:
    raise UserError(
      f"config.advantage.scale 'beta' is for rewards of two values: set reward.{shaped[0]} to 0"
    )
