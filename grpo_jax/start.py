"""From which weights? Always from a Hugging Face folder.

A published model has one. A model from scratch gets one, of random weights, and so does any model
after a supervised warm start: what learns from rewards then begins there, and so does the policy
that KL is measured to. Everything after this reads weights, configuration and tokenizer from that
folder and cannot tell the difference. Warm starts are cached: the same weights, data and settings
are trained once a machine.

Tailor (arXiv 2511.12429) holds that what RL can reach depends on the variety of ways to reason in
such demonstrations, and lets a teacher find and write them; that, and keeping only those that
differ, happens before a run, in the making of the file `config.warm_start.demonstrations`.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import shutil
from collections.abc import Callable

import jax
import numpy as np

from grpo_jax import hosts
from grpo_jax.backend import cache_folder
from grpo_jax.data.arithmetic import with_mistakes
from grpo_jax.data.problems import Problem
from grpo_jax.data.tokenizer import Tokenizer
from grpo_jax.distribution import decoding
from grpo_jax.errors import UserError
from grpo_jax.learner.optimizer import make_optimizer
from grpo_jax.learner.state import create_state
from grpo_jax.learner.supervised import make_supervised_step, pack_demonstrations
from grpo_jax.methods.select import shuffled_epochs
from grpo_jax.model.config import Qwen3Config
from grpo_jax.model.lora import fingerprint
from grpo_jax.model.qwen3 import Params, Qwen3, abstract_params, init_params
from grpo_jax.model.weights import load_params, save_params
from grpo_jax.randomness import Purpose, generator_for, key_for
from grpo_jax.task import Prompts


@dataclasses.dataclass(frozen=True)
class WarmStart:
  """Supervised steps on worked solutions before any reward; the fields of `config.warm_start`."""

  demonstrations: str  # their file; "": solutions of the training problems
  steps: int  # with demonstrations drawn by chance; 0: none
  epochs: float  # instead of steps: passes over all of them
  rows: int  # demonstrations a step
  parts: int  # of a step's rows, for memory
  learning_rate: float
  mistakes: float  # share of wrong steps in the demonstrations (arithmetic only)

  def steps_of(self, demonstrations: int) -> int:
    return self.steps or math.ceil(self.epochs * demonstrations / self.rows)


def make_start_folder(
  folder: pathlib.Path,
  model: Qwen3,
  tokenizer: Tokenizer,
  task: Prompts,
  warm_start: WarmStart,
  *,
  base: pathlib.Path | None,
  seed: int,
  say: Callable[[str], None],
) -> None:
  """Writes weights, configuration and tokenizer to `folder`: those of the model folder `base`, or
  random ones, after the warm start on the demonstrations `task`. All hosts train it, unless the
  first one has it; that one writes."""
  cached = cache_folder() / "start" / _identity(model, task, warm_start, base, seed)
  if not hosts.of_first((cached / "config.json").is_file()):
    params = _train(model, tokenizer, task, warm_start, base, seed, say)
    _write(cached, params, model.config, tokenizer)
  elif warm_start.steps_of(len(task.prompts)):
    say(f"Warm start: taken from {cached}.")
  if hosts.is_first():
    # In one move: a run that is killed here must not take half a folder for a whole one.
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.copytree(cached, partial, dirs_exist_ok=True)
    partial.rename(folder)
  hosts.wait_for_all()


def _identity(
  model: Qwen3, task: Prompts, warm_start: WarmStart, base: pathlib.Path | None, seed: int
) -> str:
  """Names a start by all that decides its bits."""
  learned = bool(warm_start.steps_of(len(task.prompts)))
  tokens = json.dumps([prompt.tokens for prompt in task.prompts]) if learned else ""
  facts = {
    "config": dataclasses.asdict(model.config),
    "weights": fingerprint(base) if base else "",
    "arithmetic": [str(model.dtype), model.remat],
    "warm_start": dataclasses.asdict(warm_start) | {"demonstrations": ""},
    "problems": task.problems.fingerprint if learned else "",
    "prompts": hashlib.sha256(tokens.encode()).hexdigest(),
    "seed": seed,
    "mesh": dict(model.layout.mesh.shape),
    "jax": jax.__version__,
    "device": jax.devices()[0].device_kind,
  }
  return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _train(model: Qwen3, tokenizer, task, warm_start: WarmStart, base, seed: int, say) -> Params:
  """The base's parameters, or random ones, after the supervised steps."""
  if base:
    params = load_params(base, abstract_params(model))
  else:
    params = init_params(model, key_for(seed, Purpose.INIT))
  steps = warm_start.steps_of(len(task.prompts))
  if not steps:
    return params
  optimizer = make_optimizer(
    learning_rate=warm_start.learning_rate,
    warmup_steps=steps // 20,
    b1=0.9,
    b2=0.99,
    weight_decay=0.0,
    max_grad_norm=1.0,
  )
  state = create_state(params, optimizer, model.layout)
  step = make_supervised_step(model, optimizer, warm_start.parts)
  how = decoding(1.0, 0, 1.0, tokenizer.size)
  for number, rows in enumerate(_demonstrations(tokenizer, task, warm_start, seed)):
    state, loss = step(state, rows, how)
    # Steps queued up on simulated devices may each hold some of their threads, and wait for ever.
    jax.block_until_ready((state, loss))
    if (number + 1) % max(1, steps // 4) == 0:
      say(f"Warm start: step {number + 1}/{steps}, loss {float(loss):.3f}")
  return state.params


def _demonstrations(tokenizer: Tokenizer, task: Prompts, warm_start: WarmStart, seed: int):
  """Yields a batch a step; lengths are padded to the longest demonstration there can be."""
  eos = tokenizer.eos_ids[-1]
  missing = [p for p in task.prompts if task.problems[p.problem].solution is None]
  if missing:
    question = task.problems[missing[0].problem].question
    raise UserError(f"config.warm_start: no worked solution for {question[:60]!r}")

  def pair(prompt, rng):
    text = _solution(task.problems[prompt.problem], rng, warm_start.mistakes)
    return list(prompt.tokens), [*tokenizer.encode(text), eos]

  def order(epoch: int) -> np.ndarray:
    return generator_for(seed, Purpose.DEMONSTRATION_ORDER, epoch).permutation(size)

  longest = max(sum(map(len, pair(p, np.random.default_rng(0)))) for p in task.prompts)
  # A wrong sum may box one digit more than the right one.
  length = longest + (2 if warm_start.mistakes else 0)
  size = len(task.prompts)
  for step in range(warm_start.steps_of(size)):
    rng = generator_for(seed, Purpose.DEMONSTRATIONS, step)
    if warm_start.steps:
      chosen = rng.integers(size, size=warm_start.rows)
    else:
      chosen = shuffled_epochs(step * warm_start.rows, warm_start.rows, size, order)
    yield pack_demonstrations([pair(task.prompts[i], rng) for i in chosen], length)


def _solution(problem: Problem, rng: np.random.Generator, mistakes: float) -> str:
  if not mistakes:
    return problem.solution
  if problem.source != "arithmetic":
    raise UserError("config.warm_start.mistakes: only arithmetic solutions can be wrong; use 0")
  return with_mistakes(problem, rng, mistakes)


def _write(folder: pathlib.Path, params: Params, config: Qwen3Config, tokenizer: Tokenizer) -> None:
  """A complete model folder, put in place in one move so that a cut leaves nothing half-made."""
  partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
  if hosts.is_first():
    partial.mkdir(parents=True)
    tokenizer.save(partial)
  save_params(partial, params, "float32")
  if not hosts.is_first():
    return
  ends = {"eos_token_id": list(tokenizer.eos_ids), "pad_token_id": tokenizer.pad_id}
  raw = config.to_huggingface("float32") | ends
  (partial / "generation_config.json").write_text(json.dumps(ends, indent=2) + "\n")
  (partial / "config.json").write_text(json.dumps(raw, indent=2) + "\n")
  try:
    partial.rename(folder)
  except OSError:  # another process made the same start in the meantime
    shutil.rmtree(partial)
