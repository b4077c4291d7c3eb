"""From a config to all that the loop calls: tokenizer, problems, model, and the compiled parts.

Beside train.py the only file that sees the config. Everything wrong with it is found here, before
weights are read or anything is compiled.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import numpy as np
import optax
from ml_collections import ConfigDict

from grpo_jax.answers import Answerer
from grpo_jax.collect import Collector
from grpo_jax.data.tokenizer import Tokenizer
from grpo_jax.distribution import Decoding, decoding
from grpo_jax.errors import UserError
from grpo_jax.evaluate import evaluate
from grpo_jax.learner.optimizer import make_optimizer
from grpo_jax.learner.surrogate import Surrogate
from grpo_jax.learner.update import make_update
from grpo_jax.methods.keep import KEEP
from grpo_jax.model.config import from_shape, read_config
from grpo_jax.model.qwen3 import Params, Qwen3, abstract_params
from grpo_jax.model.sharding import Layout, check_divisible, make_layout
from grpo_jax.model.weights import check_folder, load_params
from grpo_jax.records import abstract_rollouts
from grpo_jax.replay.buffer import Replay
from grpo_jax.run.folder import RunFolder
from grpo_jax.sampling.sampler import Sampler
from grpo_jax.start import WarmStart, make_start_folder
from grpo_jax.task import ProblemSpec, Prompts, load_prompts, open_tokenizer
from grpo_jax.verify import VerifierPool


@dataclasses.dataclass(frozen=True)
class Task:
  """What is learned and how it is read."""

  tokenizer: Tokenizer
  training: Prompts
  held_out: Prompts


@dataclasses.dataclass(frozen=True)
class Parts:
  """All that the loop calls, built once."""

  model: Qwen3
  sampler: Sampler
  optimizer: optax.GradientTransformation
  update: Callable
  replay: Replay | None
  reference: Params | None  # what KL is measured to
  how: Decoding  # of training rollouts
  collect: Collector
  exam: Callable[[Params], dict[str, float]]


def check(config: ConfigDict) -> Layout:
  """Everything that can be wrong with the numbers alone; returns the mesh they describe.

  Raises:
    UserError: names the key, its value and what would be right.
  """
  positive = {
    "steps": config.steps,
    "rollout.problems": config.rollout.problems,
    "rollout.samples": config.rollout.samples,
    "rollout.slots": config.rollout.slots,
    "rollout.burst": config.rollout.burst,
    "rollout.max_new_tokens": config.rollout.max_new_tokens,
    "rollout.temperature": config.rollout.temperature,
    "optimizer.microbatch": config.optimizer.microbatch,
    "eval.every": config.eval.every,
    "eval.samples": config.eval.samples,
    "checkpoint.every": config.checkpoint.every,
    "log.rollouts_every": config.log.rollouts_every,
  }
  for key, value in positive.items():
    if not value > 0:
      raise UserError(f"config.{key} is {value}; it must be above 0")
  if config.keep not in KEEP:
    raise UserError(f"config.keep is {config.keep!r}; known: {', '.join(KEEP)}")
  if config.model.folder and config.warm_start.steps:
    raise UserError("config.warm_start.steps is for models from scratch; with model.folder it is 0")
  if config.model.dtype not in ("float32", "bfloat16"):
    raise UserError(f"config.model.dtype is {config.model.dtype!r}; known: float32, bfloat16")
  layout = make_layout(**config.mesh)
  split_over_devices = {
    "rollout.problems x rollout.samples": config.rollout.problems * config.rollout.samples,
    "rollout.slots": config.rollout.slots,
    "optimizer.microbatch": config.optimizer.microbatch,
    "replay.capacity": config.replay.capacity if config.replay.ratio else 0,
  }
  for key, rows in split_over_devices.items():
    if rows % layout.batch_shards:
      up = rows + -rows % layout.batch_shards
      raise UserError(
        f"config.{key} is {rows}; it must divide over {layout.batch_shards} devices "
        f"(mesh.data x mesh.fsdp): {up} would"
      )
  return layout


def load_task(config: ConfigDict) -> Task:
  """Tokenizer and problems."""
  tokenizer = open_tokenizer(config.tokenizer, config.model.folder)

  def prompts(section: ConfigDict) -> Prompts:
    spec = ProblemSpec(
      section.source, section.path, section.split, section.limit, tuple(section.levels)
    )
    template, max_tokens = config.data.template, config.data.max_prompt_tokens
    return load_prompts(spec, tokenizer, template=template, max_tokens=max_tokens, seed=config.seed)

  return Task(tokenizer, prompts(config.data), prompts(config.eval))


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
  model = Qwen3(shape, layout, dtype=dtype, remat=config.model.remat)
  if folder:
    check_folder(pathlib.Path(folder).expanduser(), abstract_params(model))
  return model


def start_folder(config: ConfigDict, task: Task, model: Qwen3, run: RunFolder) -> pathlib.Path:
  """The model folder a run starts from: the one named, or one made from scratch in the run."""
  if config.model.folder:
    return pathlib.Path(config.model.folder).expanduser()
  if not (run.start / "config.json").is_file():
    make_start_folder(
      run.start,
      model.clone(dtype=np.dtype("float32"), remat=False),
      task.tokenizer,
      task.training,
      WarmStart(**config.warm_start),
      seed=config.seed,
      say=print,
    )
  return run.start


def build(
  config: ConfigDict, task: Task, model: Qwen3, folder: pathlib.Path, verifier: VerifierPool
) -> Parts:
  """Compiles nothing yet; loads nothing but the KL reference."""
  layout = model.layout
  sampler = Sampler(
    model,
    slots=config.rollout.slots,
    max_new_tokens=config.rollout.max_new_tokens,
    burst=config.rollout.burst,
    gather_weights=config.rollout.gather_weights,
  )
  optimizer = make_optimizer(
    learning_rate=config.optimizer.learning_rate,
    warmup_steps=config.optimizer.warmup_steps,
    b1=config.optimizer.b1,
    b2=config.optimizer.b2,
    weight_decay=config.optimizer.weight_decay,
    max_grad_norm=config.optimizer.max_grad_norm,
  )
  how = decoding(
    config.rollout.temperature, config.rollout.top_k, config.rollout.top_p, task.tokenizer.size
  )
  surrogate = Surrogate(**config.loss)
  update = make_update(model, optimizer, surrogate, microbatch_rows=config.optimizer.microbatch)
  collect, exam = make_questioners(config, task, sampler, verifier, how, layout)
  return Parts(
    model=model,
    sampler=sampler,
    optimizer=optimizer,
    update=update,
    replay=make_replay(config, layout),
    reference=load_params(folder, abstract_params(model)) if surrogate.kl_coef else None,
    how=how,
    collect=collect,
    exam=exam,
  )


def make_questioners(
  config: ConfigDict,
  task: Task,
  sampler: Sampler,
  verifier: VerifierPool,
  how: Decoding,
  layout: Layout,
) -> tuple[Collector, Callable[[Params], dict[str, float]]]:
  """The collector of training rollouts, and the examination on held-out problems."""

  def answerer(prompts: Prompts) -> Answerer:
    return Answerer(
      sampler,
      task.tokenizer,
      verifier,
      prompts.problems,
      max_prompt_tokens=config.data.max_prompt_tokens,
      max_new_tokens=config.rollout.max_new_tokens,
    )

  exam = functools.partial(
    evaluate,
    answerer(task.held_out),
    prompts=task.held_out.prompts,
    samples=config.eval.samples,
    seed=config.seed,
    how=decoding(
      config.eval.temperature, config.eval.top_k, config.eval.top_p, task.tokenizer.size
    ),
  )
  collect = Collector(
    answerer=answerer(task.training),
    keep=KEEP[config.keep],
    reward_right=config.reward.right,
    reward_wrong=config.reward.wrong,
    how=how,
    layout=layout,
  )
  return collect, exam


def make_replay(config: ConfigDict, layout: Layout) -> Replay | None:
  """The store, or None when the method draws nothing from it."""
  if not config.replay.ratio:
    return None
  rows = config.rollout.problems * config.rollout.samples
  length = config.data.max_prompt_tokens + config.rollout.max_new_tokens
  max_draw = round(config.replay.ratio * rows)
  return Replay(config.replay.capacity, max_draw, abstract_rollouts(rows, length), layout)
