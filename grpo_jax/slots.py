"""From a config to the choices that tell one paper from another: what stands in each slot.

Here names of the config become values: which problems, how many rollouts, what a rollout loses
beside its verdict, which old ones come back. A new choice is a line in one of these tables.
"""

import functools
import pathlib
from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from grpo_jax.answers import Answers
from grpo_jax.distribution import Decoding
from grpo_jax.learner.advantages import newcomer_advantage
from grpo_jax.learner.kl import KLPenalty
from grpo_jax.learner.overlong import overlong_penalty
from grpo_jax.learner.packing import rows_within
from grpo_jax.learner.perplexity import PromptPerplexity
from grpo_jax.methods.allocate import AsSelected
from grpo_jax.methods.capability import ByCapability
from grpo_jax.methods.choice import Budget
from grpo_jax.methods.decide import Decisions
from grpo_jax.methods.history import WithoutSolved
from grpo_jax.methods.perplexity import PerplexityWindow
from grpo_jax.methods.phases import EasyToHard, easy_to_hard
from grpo_jax.methods.profile import Profile, load_profile
from grpo_jax.methods.select import ShuffledEpochs, Streams
from grpo_jax.methods.stages import AtPlateau, AtStep, OneStage, Stages, TwoStages
from grpo_jax.methods.uncertainty import MostUncertain
from grpo_jax.model.lora import fingerprint
from grpo_jax.model.qwen3 import Params, Qwen3
from grpo_jax.model.sharding import Layout
from grpo_jax.randomness import Purpose, generator_for
from grpo_jax.recall import Recall
from grpo_jax.records import abstract_rollouts
from grpo_jax.replay.buffer import Replay
from grpo_jax.replay.priority import Draw
from grpo_jax.task import Task
from grpo_jax.verify import Outcome
from grpo_jax.verify.scripts import mixes_scripts


def make_decisions(config: ConfigDict, task: Task, profile: Profile | None) -> Decisions:
  """Which problems are asked, and how often."""
  streams = functools.partial(generator_for, config.seed, Purpose.PROBLEM_ORDER)
  share_P = profile and profile.share_P[[prompt.problem for prompt in task.training.prompts]]
  select = SELECT[config.select](config, streams, share_P)
  return Decisions(
    stages=make_stages(config, task),
    select=select,
    allocate=ALLOCATE[config.allocate](config),
    budget=Budget(config.rollout.problems, config.rollout.samples),
    window=config.evidence.window,
    candidates=select.candidates if isinstance(select, PerplexityWindow) else None,
  )


def make_measure(config: ConfigDict, model: Qwen3, num_ids: int) -> PromptPerplexity:
  """Perplexities of prompts, under the weights as the sampler has them."""
  return PromptPerplexity(
    model.clone(scan_layers=False, remat="none"),
    num_ids=num_ids,
    longest=config.data.max_prompt_tokens,
    microbatch_tokens=config.optimizer.microbatch_tokens,
  )


def make_stages(config: ConfigDict, task: Task) -> Stages:
  """Which of the problems can be selected."""
  if config.stages.switch == "none":
    return OneStage()
  return TwoStages(task.training.sizes[0], STAGES[config.stages.switch](config))


OF_EXAM, OF_STEP = ("eval/accuracy",), ("reward/mean", "reward/right")  # what a plateau is seen in
STAGES = {
  "step": lambda config: AtStep(config.stages.step),
  "share": lambda config: AtStep(round(config.stages.share * config.steps)),
  "plateau": lambda config: AtPlateau(
    config.stages.metric,
    config.stages.window,
    config.stages.gain,
    every=config.eval.every if config.stages.metric in OF_EXAM else 1,
  ),
}


def profile_of(config: ConfigDict, task: Task, folder: pathlib.Path) -> Profile | None:
  """Success rates of the start policy, which is in `folder`; None where nothing reads them."""
  if SELECT[config.select] is not by_profile:
    return None
  return load_profile(
    config.easy_to_hard.profile,
    measured_on=measured_on(config, task, folder),
    size=len(task.training.problems),
  )


def measured_on(config: ConfigDict, task: Task, folder: pathlib.Path) -> dict[str, str | int]:
  """What the success rates of the start policy depend on."""
  return {
    "problems": task.training.problems.fingerprint,
    "weights": fingerprint(folder),
    "template": config.data.template,
    "max_new_tokens": config.rollout.max_new_tokens,
  }


def by_profile(config: ConfigDict, streams: Streams, share_P: np.ndarray) -> EasyToHard:
  return easy_to_hard(
    share_P,
    streams,
    solved_above=config.easy_to_hard.solved_above,
    unsolved_share=config.easy_to_hard.unsolved_share,
  )


# Each takes the config, the random streams of its epochs, and the profile's share of each prompt
# (None where no profile was asked for).
SELECT = {
  "shuffled_epochs": lambda config, streams, share_P: ShuffledEpochs(streams),
  "without_solved": lambda config, streams, share_P: WithoutSolved(
    streams, config.without_solved.return_every
  ),
  "easy_to_hard": by_profile,
  "most_uncertain": lambda config, streams, share_P: MostUncertain(
    streams,
    config.most_uncertain.candidates,
    config.most_uncertain.exploration,
    config.most_uncertain.warmup_steps,
  ),
  "perplexity_window": lambda config, streams, share_P: PerplexityWindow(
    streams, config.perplexity_window.share, config.steps
  ),
}

ALLOCATE = {
  "as_selected": lambda config: AsSelected(),
  "by_capability": lambda config: ByCapability(
    config.by_capability.concentration,
    config.by_capability.least,
    config.by_capability.most,
    config.by_capability.steps,
  ),
}


def make_recall(config: ConfigDict, layout: Layout) -> Recall:
  """What comes back from the replay store, and when."""
  return Recall(
    replay=make_replay(config, layout) if config.replay.ratio else None,
    ratio=config.replay.ratio,
    alpha=config.replay.alpha,
    max_age=config.replay.max_age,
    warmup_steps=config.replay.warmup_steps,
    pool=config.replay.composition == "pool",
    only_right=config.replay.store == "right",
    most_asked=config.rollout.rounds * config.rollout.problems * config.rollout.samples,
  )


def make_replay(config: ConfigDict, layout: Layout) -> Replay:
  """The store."""
  rows = config.rollout.problems * config.rollout.samples
  length = config.data.max_prompt_tokens + config.rollout.max_new_tokens
  max_draw = round((config.replay.ratio + (config.replay.composition == "pool")) * rows)
  newcomer = functools.partial(
    newcomer_advantage, baseline=config.advantage.baseline, scale=config.advantage.scale
  )
  return Replay(
    config.replay.capacity,
    max_draw,
    abstract_rollouts(rows, length),
    layout,
    make_draw(config),
    newcomer,
  )


def make_draw(config: ConfigDict) -> Draw:
  """What is drawn from the store.

  Raises:
    UserError: an unknown name.
  """
  return Draw(
    level=config.replay.level,
    priority=config.replay.priority,
    decay=config.replay.decay,
    problems=config.replay.problems,
    most=config.replay.most,
    advantage=config.replay.advantage,
  )


def make_penalties(
  config: ConfigDict, model: Qwen3, reference: Params | None, how: Decoding
) -> dict[str, Callable[[Answers], np.ndarray]]:
  """What rewards lose beside the verdict, by name; none that is off."""
  penalties = {}
  longest = config.data.max_prompt_tokens + config.rollout.max_new_tokens
  rows = rows_within(config.optimizer.microbatch_tokens, longest)
  if config.reward.format:
    penalties["format"] = lambda answers: config.reward.format * unparseable(answers)
  if config.reward.language_mix:
    penalties["language_mix"] = lambda answers: config.reward.language_mix * mixed(answers)
  if config.reward.overlong:
    overlong = functools.partial(
      overlong_penalty, limit=config.rollout.max_new_tokens, share=config.reward.overlong
    )
    penalties["overlong"] = lambda answers: overlong(answers.samples)
  if config.reward.kl_coef:
    to_start = KLPenalty(
      model,
      reference,
      how,
      estimator=config.reward.kl,
      coef=config.reward.kl_coef,
      microbatch_rows=rows * model.layout.batch_shards,
    )
    penalties["kl"] = lambda answers: to_start(answers.samples)
  return penalties


def unparseable(answers: Answers) -> np.ndarray:
  """bool [R]: where no answer stands in the form its judge reads (a box, a block of code)."""
  return np.array([verdict.outcome is Outcome.UNPARSEABLE for verdict in answers.verdicts])


def mixed(answers: Answers) -> np.ndarray:
  """bool [R]: where a completion mixes languages."""
  return np.array([mixes_scripts(text) for text in answers.texts])
