"""From a config to all that the loop calls: tokenizer, problems, model, and the compiled parts.

What the papers choose is made in slots.py. What is wrong with files is found here, before weights
are read or anything is compiled.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import numpy as np
import optax
from ml_collections import ConfigDict

from grpo_jax.answers import Answerer, Answers
from grpo_jax.collect import Collector
from grpo_jax.distribution import Decoding, decoding
from grpo_jax.errors import UserError
from grpo_jax.exam import Examiner, examine
from grpo_jax.guards import Auditor
from grpo_jax.learner.advantages import group_advantages
from grpo_jax.learner.optimizer import make_optimizer
from grpo_jax.learner.surrogate import Surrogate
from grpo_jax.learner.update import Update
from grpo_jax.methods.decide import Decisions
from grpo_jax.methods.keep import KEEP
from grpo_jax.methods.profile import Profile
from grpo_jax.methods.weigh import WEIGH
from grpo_jax.model.config import from_shape, read_config
from grpo_jax.model.lora import LoRA, abstract_frozen, fingerprint, make_lora
from grpo_jax.model.qwen3 import Params, Qwen3, abstract_params
from grpo_jax.model.sharding import Layout, check_divisible
from grpo_jax.model.weights import check_folder, load_params
from grpo_jax.recall import Recall
from grpo_jax.run.folder import RunFolder
from grpo_jax.sampling.sampler import Sampler
from grpo_jax.slots import make_decisions, make_measure, make_penalties, make_recall, profile_of
from grpo_jax.start import WarmStart, make_start_folder
from grpo_jax.task import (
  ProblemSpec,
  Prompts,
  Task,
  join,
  load_demonstrations,
  load_prompts,
  open_tokenizer,
)
from grpo_jax.verify import Judges, Outcome, VerifierPool
from grpo_jax.verify.jailer import Limits
from grpo_jax.verify.judges import CHECKS, PROGRAM, SEGMENT
from grpo_jax.verify.programs import ProgramJudge
from grpo_jax.verify.segments import BEGIN, END


@dataclasses.dataclass(frozen=True)
class Parts:
  """All that the loop calls, built once."""

  model: Qwen3
  sampler: Sampler
  optimizer: optax.GradientTransformation
  update: Update
  recall: Recall
  lora: LoRA | None  # None: all parameters are trained
  reference: Params | None  # the start policy: what KL is measured to, and adapters are added to
  start: str  # fingerprint of the weights that adapters belong to; "" where there are none
  profile: Profile | None  # success rates of the start policy, where problems are chosen by them
  how: Decoding  # of training rollouts
  collect: Collector
  exam: Callable[[Params], dict[str, float]]


def load_task(config: ConfigDict) -> Task:
  """Tokenizer and problems."""
  tokenizer = open_tokenizer(config.tokenizer, config.model.folder)

  def prompts(section: ConfigDict) -> Prompts:
    spec = ProblemSpec(
      section.source,
      section.path,
      section.split,
      section.limit,
      tuple(section.levels),
      section.ask,
    )
    template = section.template or config.data.template
    max_tokens = config.data.max_prompt_tokens
    return load_prompts(spec, tokenizer, template=template, max_tokens=max_tokens, seed=config.seed)

  training = join([prompts(part) for part in (config.data, config.more) if part.source])
  demonstrations = training
  if config.warm_start.demonstrations:
    demonstrations = load_demonstrations(
      config.warm_start.demonstrations,
      tokenizer,
      template=config.data.template,
      max_tokens=config.data.max_prompt_tokens,
    )
  held_out_more = prompts(config.eval_more) if config.eval_more.source else None
  return Task(tokenizer, training, prompts(config.eval), held_out_more, demonstrations)


def make_judges(config: ConfigDict, task: Task) -> Judges:
  """What judges completions; to be closed.

  Raises:
    UserError: programs are to be judged, and this machine allows no isolation.
  """
  sets = (task.training, *task.examined().values())
  problems = [problem for prompts in sets for problem in prompts.problems]
  workers, deadline_s = config.verifier.workers, config.verifier.deadline_seconds
  checks = CHECKS | {SEGMENT: config.reward.segment_judge}
  kinds = {problem.judge for problem in problems}
  if SEGMENT in kinds:
    check_segment_judge(config)
  if PROGRAM not in kinds:
    return Judges(workers, deadline_s, checks)
  seconds, memory_mb = config.verifier.program_seconds, config.verifier.program_memory_mb
  limits = Limits(cpu_s=seconds, wall_s=3 * seconds, memory_mb=memory_mb)
  try:
    programs = ProgramJudge(workers, limits, allow_unisolated=config.verifier.unisolated_programs)
  except UserError as error:
    named = "config.verifier.unisolated_programs=True"
    raise UserError(str(error).replace("ProgramJudge(allow_unisolated=True)", named)) from error
  return Judges(workers, deadline_s, checks, programs)


def check_segment_judge(config: ConfigDict) -> None:
  """Whether the judge that is named gives a verdict at all.

  Raises:
    UserError: it gives none on a made-up prediction.
  """
  named = config.reward.segment_judge
  with VerifierPool(1, config.verifier.deadline_seconds, check=named) as pool:
    (verdict,) = pool.verify_all([f"{BEGIN}It is so.{END}"], ["It is so."])
  if verdict.outcome is Outcome.UNSCORED:
    raise UserError(
      f"config.reward.segment_judge is {named!r}, which gave no verdict on a made-up prediction "
      f"({verdict.reason}); it is a function of a module that Python finds"
    )


def make_model(config: ConfigDict, task: Task, layout: Layout) -> Qwen3:
  """The model of a folder, whose weights are checked by name and shape, or of a shape."""
  folder = config.model.folder
  if folder:
    shape, _ = read_config(pathlib.Path(folder).expanduser())
  else:
    shape = from_shape(config.model.shape, vocab_size=task.tokenizer.size)
  check_divisible(shape, layout)
  if shape.vocab_size < task.tokenizer.size:
    raise UserError(
      f"the model's vocab_size {shape.vocab_size} is smaller than the tokenizer's "
      f"{task.tokenizer.size} ids: they do not belong together"
    )
  dtype = np.dtype(config.model.dtype)
  model = Qwen3(
    shape,
    layout,
    dtype=dtype,
    remat=config.model.remat,
    attention_kernel=config.model.attention,
  )
  if folder:
    check_folder(pathlib.Path(folder).expanduser(), abstract_params(model))
  return model


def start_folder(config: ConfigDict, task: Task, model: Qwen3, run: RunFolder) -> pathlib.Path:
  """The model folder a run starts from: the one named, or one made in the run, from scratch or by
  a warm start from the one named."""
  named, warm_start = config.model.folder, WarmStart(**config.warm_start)
  base = pathlib.Path(named).expanduser() if named else None
  if base and not warm_start.steps_of(len(task.demonstrations.prompts)):
    return base
  if not (run.start / "config.json").is_file():
    make_start_folder(
      run.start,
      model if base else model.clone(dtype=np.dtype("float32"), remat="none"),
      task.tokenizer,
      task.demonstrations,
      warm_start,
      base=base,
      seed=config.seed,
      say=print,
    )
  return run.start


def build(
  config: ConfigDict,
  task: Task,
  model: Qwen3,
  folder: pathlib.Path,
  judges: Judges,
  second: VerifierPool,
  check_stop: Callable[[], None],
) -> Parts:
  """Compiles nothing yet; loads nothing but the start policy, where it is kept. `second` are the
  workers of another grader, for audits; `check_stop` raises when training rollouts should be given
  up."""
  layout, lora = model.layout, lora_of(config)
  sampler, optimizer = make_sampler(config, model), optimizer_of(config)
  how = decoding(
    config.rollout.temperature, config.rollout.top_k, config.rollout.top_p, task.tokenizer.size
  )
  reference = load_reference(config, model, folder)
  penalties = make_penalties(config, model, reference, how)
  auditor = None
  if config.audit.rollouts:
    auditor = Auditor(second, task.training.problems, config.audit.rollouts, config.seed)
  profile = profile_of(config, task, folder)
  decide = make_decisions(config, task, profile)
  collect, exam = make_questioners(
    config, task, model, sampler, judges, how, penalties, decide, auditor, check_stop
  )
  return Parts(
    model=model,
    sampler=sampler,
    optimizer=optimizer,
    update=make_update(config, model, optimizer),
    recall=make_recall(config, layout),
    lora=lora,
    reference=reference,
    start=fingerprint(folder) if lora else "",
    profile=profile,
    how=how,
    collect=collect,
    exam=exam,
  )


def make_sampler(config: ConfigDict, model: Qwen3) -> Sampler:
  """The sampler of a run's rollouts and exams."""
  return Sampler(
    model,
    slots=config.rollout.slots,
    burst=config.rollout.burst,
    gather_weights=config.rollout.gather_weights,
  )


def optimizer_of(config: ConfigDict) -> optax.GradientTransformation:
  """What makes steps of a run's gradients."""
  return make_optimizer(
    learning_rate=config.optimizer.learning_rate,
    warmup_steps=config.optimizer.warmup_steps,
    b1=config.optimizer.b1,
    b2=config.optimizer.b2,
    weight_decay=config.optimizer.weight_decay,
    max_grad_norm=config.optimizer.max_grad_norm,
    momentum_dtype=config.optimizer.momentum_dtype,
  )


def make_update(
  config: ConfigDict, model: Qwen3, optimizer: optax.GradientTransformation
) -> Update:
  """What a run learns by."""
  return Update(
    model,
    optimizer,
    Surrogate(**config.loss),
    microbatch_tokens=config.optimizer.microbatch_tokens,
    max_completion_tokens=config.rollout.max_new_tokens,
    epochs=config.optimizer.epochs,
    minibatches=config.optimizer.minibatches,
    lora=lora_of(config),
  )


def lora_of(config: ConfigDict) -> LoRA | None:
  """What is trained; None: all parameters.

  Raises:
    UserError: names the key, its value and what would be right.
  """
  return make_lora(config.model.lora_rank, config.model.lora_alpha, config.model.lora_targets)


def load_reference(config: ConfigDict, model: Qwen3, folder: pathlib.Path) -> Params | None:
  """The start policy, where it is needed beside what is trained."""
  params = abstract_params(model)
  if config.model.lora_rank:
    return load_params(folder, abstract_frozen(params, model.dtype))
  return load_params(folder, params) if config.loss.kl_coef or config.reward.kl_coef else None


def make_questioners(
  config: ConfigDict,
  task: Task,
  model: Qwen3,
  sampler: Sampler,
  judges: Judges,
  how: Decoding,
  penalties: dict[str, Callable[[Answers], np.ndarray]],
  decide: Decisions,
  auditor: Auditor | None,
  check_stop: Callable[[], None],
) -> tuple[Collector, Callable[[Params], dict[str, float]]]:
  """The collector of training rollouts, and the examination on held-out problems."""

  answerer = Answerer(
    sampler,
    task.tokenizer,
    judges,
    task.training.problems,
    max_prompt_tokens=config.data.max_prompt_tokens,
    max_new_tokens=config.rollout.max_new_tokens,
    check_stop=check_stop,
  )

  def exam(prepared: Params) -> dict[str, float]:
    metrics = {}
    for name, held_out in task.examined().items():
      examiner = Examiner(
        sampler,
        task.tokenizer,
        judges,
        held_out.problems,
        max_new_tokens=config.rollout.max_new_tokens,
      )
      metrics |= examine(
        examiner,
        prepared,
        name=name,
        prompts=held_out.prompts,
        samples=config.eval.samples,
        seed=config.seed,
        how=decoding(
          config.eval.temperature, config.eval.top_k, config.eval.top_p, task.tokenizer.size
        ),
      )
    return metrics

  collect = Collector(
    decide=decide,
    prompts=task.training.prompts,
    rounds=config.rollout.rounds,
    answerer=answerer,
    keep=functools.partial(KEEP[config.keep], spread=config.keep_spread),
    weigh=WEIGH[config.weigh],
    keep_truncated=config.keep_truncated,
    zero_truncated=config.advantage.zero_truncated,
    weight_P=np.array([problem.weight for problem in task.training.problems]),
    reward_right=config.reward.right,
    reward_wrong=config.reward.wrong,
    penalties=penalties,
    advantages=functools.partial(
      group_advantages, baseline=config.advantage.baseline, scale=config.advantage.scale
    ),
    how=how,
    layout=model.layout,
    auditor=auditor,
    measure=make_measure(config, model, task.tokenizer.size) if decide.candidates else None,
  )
  return collect, exam
