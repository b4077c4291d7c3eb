"""What does a model write? Completions of your own prompts, from a Hugging Face Qwen3 folder.

  python -m grpo_jax.sample --folder=runs/quickstart/export --prompt="47+38=" --samples=4
  python -m grpo_jax.sample --folder=Qwen3-0.6B --prompts=questions.jsonl --out=completions.jsonl

Each completion is shown, or written as a line of JSON, when it ends and not when all have ended. A
completion depends on the seed, its prompt and that prompt's place in the file: not on the slots.
"""

import dataclasses
import functools
import math
import pathlib
import sys
import time
from collections.abc import Iterator

import jax
import numpy as np
from absl import flags

from grpo_jax import backend, cli
from grpo_jax.buckets import bucket
from grpo_jax.data.questions import (
  CHATML_TEMPLATE,
  Question,
  default_template,
  encode_question,
  one_question,
  read_questions,
)
from grpo_jax.data.tokenizer import Tokenizer, load_tokenizer
from grpo_jax.distribution import Decoding, decoding
from grpo_jax.errors import UserError
from grpo_jax.model.config import read_config
from grpo_jax.model.qwen3 import Params, Qwen3, abstract_params
from grpo_jax.model.sharding import check_divisible, make_layout, memory_of_device
from grpo_jax.model.weights import check_folder, load_params
from grpo_jax.randomness import Purpose, key_for, rollout_keys
from grpo_jax.records import Finish
from grpo_jax.run.completion_log import (
  KEYS,
  STDOUT,
  Completion,
  as_json,
  as_text,
  finish_name,
  open_new,
)
from grpo_jax.run.files import disk_errors
from grpo_jax.run.human import human_count, human_duration
from grpo_jax.run.memory import check_memory
from grpo_jax.run.summary import memory_sentence
from grpo_jax.sampling.memory import sampling_memory
from grpo_jax.sampling.sampler import Requests, Sampler


@dataclasses.dataclass(frozen=True)
class Options:
  """The command's flags."""

  folder: str
  prompt: str | None = None
  prompts: str = ""
  out: str = ""
  template: str = ""
  samples: int = 1
  temperature: float = 1.0
  top_p: float = 1.0
  top_k: int = 0
  max_new_tokens: int = 1024
  seed: int = 0
  slots: int = 32
  dtype: str = ""


def sample(options: Options) -> None:
  """Samples completions of all prompts; shows or writes each when it ends.

  Raises:
    UserError: anything wrong with flags, prompts, tokenizer, config, or the names and shapes of the
      weights, all before a weight is read.
  """
  check_options(options)
  questions = questions_of(options)
  folder = pathlib.Path(options.folder).expanduser()
  model, tokenizer = open_folder(folder, options.dtype or dtype_of_platform())
  template = options.template or default_template(tokenizer)
  most = model.config.max_position_embeddings
  prompts = [encode_question(question, template, tokenizer, most) for question in questions]
  limits = [min(options.max_new_tokens, most - len(prompt)) for prompt in prompts]
  requests = make_requests(prompts, limits, options.samples, options.seed)
  slots = whole_slots(options.slots, len(requests.limit_R), model.layout.batch_shards)
  sampler = Sampler(model, slots=slots)
  how = decoding(options.temperature, options.top_k, options.top_p, tokenizer.size)

  # Whatever reads completions from stdout must not find anything else there.
  say = functools.partial(print, file=sys.stderr if options.out == STDOUT else sys.stdout)
  say(introduction(folder, model, template))
  say(memory(model, sampler, slots, requests), flush=True)
  with open_new(options.out) as out:
    prepared = load(folder, model, sampler)
    started, tokens = time.perf_counter(), 0
    for completion in completions(sampler, prepared, requests, how, tokenizer, options.samples):
      question = questions[completion.prompt_index]
      if options.out:
        line = as_json(completion, question.fields)
      else:
        line = as_text(completion, question.text)
      with disk_errors(options.out or "stdout"):
        print(line, file=out, flush=True)
      tokens += completion.tokens
  say(conclusion(len(requests.limit_R), tokens, time.perf_counter() - started))


# ------------------------------------------------------------------------------ what is asked


def check_options(options: Options) -> None:
  """Everything that is wrong with the flags alone.

  Raises:
    UserError: names the flag, its value and what would be right.
  """
  if not options.folder:
    raise UserError("--folder is missing; name the folder of a Hugging Face Qwen3")
  if not pathlib.Path(options.folder).expanduser().is_dir():
    raise UserError(f"--folder={options.folder}: no such folder")
  if (options.prompt is None) == (not options.prompts):
    raise UserError("give one of --prompt=TEXT and --prompts=FILE.jsonl")
  rules = {
    "samples": (options.samples >= 1, "at least 1"),
    "temperature": (0 <= options.temperature < math.inf, "0 (the most likely token) or above"),
    "top_p": (0 < options.top_p <= 1, "above 0 and at most 1 (off)"),
    "top_k": (0 <= options.top_k < 2**31, "0 (off) or above, below 2147483648"),
    "max_new_tokens": (options.max_new_tokens >= 1, "at least 1"),
    "seed": (0 <= options.seed < 2**32, "0 or above, below 4294967296"),
    "slots": (options.slots >= 1, "at least 1"),
  }
  for name, (holds, right) in rules.items():
    if not holds:
      raise UserError(f"--{name}={getattr(options, name)}: it must be {right}")
  if options.out not in ("", STDOUT) and pathlib.Path(options.out).expanduser().exists():
    raise UserError(f"--out={options.out}: exists already; move it away or choose another name")


def questions_of(options: Options) -> list[Question]:
  if options.prompt is not None:
    return [one_question(options.prompt, "--prompt")]
  return read_questions(options.prompts, reserved=KEYS)


def make_requests(
  prompts: list[np.ndarray], limits: list[int], samples: int, seed: int
) -> Requests:
  """`samples` rollouts of each prompt, next to each other; prompt n has its own limit."""
  prompt_of_R = np.repeat(np.arange(len(prompts), dtype=np.int32), samples)
  sample_R = np.tile(np.arange(samples, dtype=np.int32), len(prompts))
  keys_R = rollout_keys(key_for(seed, Purpose.ROLLOUT), prompt_of_R, sample_R)
  return Requests(prompts, prompt_of_R, np.array(limits, np.int32)[prompt_of_R], keys_R)


# ------------------------------------------------------------------------------ who answers


def dtype_of_platform() -> str:
  """What the devices are good at."""
  return "float32" if jax.devices()[0].platform == "cpu" else "bfloat16"


def open_folder(folder: pathlib.Path, dtype: str) -> tuple[Qwen3, Tokenizer]:
  """A folder's model on all devices, and its tokenizer; no weight is read.

  Raises:
    UserError: a missing or broken file, a wrong name or shape of a weight, or files that do not
      belong together.
  """
  shape, _ = read_config(folder)
  layout = make_layout(data=1, fsdp=-1)
  check_divisible(shape, layout)
  tokenizer = load_tokenizer(folder)
  if shape.vocab_size < tokenizer.size:
    raise UserError(
      f"{folder}: the model's vocab_size {shape.vocab_size} is smaller than the tokenizer's "
      f"{tokenizer.size} ids: they do not belong together"
    )
  model = Qwen3(shape, layout, dtype=np.dtype(dtype))
  check_folder(folder, abstract_params(model))
  return model, tokenizer


def load(folder: pathlib.Path, model: Qwen3, sampler: Sampler) -> Params:
  """The weights as sampling uses them, read in that dtype: nothing here needs them in float32."""
  abstract = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, model.dtype, sharding=leaf.sharding),
    abstract_params(model),
  )
  return jax.block_until_ready(sampler.prepare(load_params(folder, abstract)))


def whole_slots(most: int, rollouts: int, shards: int) -> int:
  """Slots for `most` rollouts at a time, if there are so many, and as many on each of `shards`
  devices."""
  return -(-min(most, rollouts) // shards) * shards


def completions(
  sampler: Sampler,
  prepared: Params,
  requests: Requests,
  how: Decoding,
  tokenizer: Tokenizer,
  samples: int,
) -> Iterator[Completion]:
  """All completions, each as soon as the sampler hands it out; `samples` of each prompt."""
  eos_ids_E = np.array(tokenizer.eos_ids, np.int32)
  for part in sampler.stream(prepared, requests, how, eos_ids_E):
    rows = zip(part.rollout_F, part.tokens, part.behaviour_logp, part.finish_F, strict=True)
    for rollout, tokens, logp, finish in rows:
      yield Completion(
        prompt_index=int(rollout) // samples,
        sample_index=int(rollout) % samples,
        completion=tokenizer.decode(tokens),
        tokens=len(tokens),
        finish=finish_name(Finish(int(finish))),
        logp=float(logp.sum()),
      )


# ------------------------------------------------------------------------------ what is shown


def introduction(folder: pathlib.Path, model: Qwen3, template: str) -> str:
  shape, kind = model.config, jax.devices()[0].platform
  return (
    f"{folder}: Qwen3 of {human_count(shape.num_params)} parameters in {model.dtype} on "
    f"{model.layout.mesh.size} {kind} device(s); template {template}."
  )


def memory(model: Qwen3, sampler: Sampler, slots: int, requests: Requests) -> str:
  """What each device holds when the longest rollout ends.

  Raises:
    UserError: more than a device has.
  """
  prompt_len_N = np.array([len(prompt) for prompt in requests.prompts])
  length = bucket(int((prompt_len_N[requests.prompt_of_R] + requests.limit_R).max()))
  sizes = sampling_memory(model, sampler, slots=slots, length=length)
  check_memory(
    sizes,
    limit=memory_of_device(model.layout),
    slots=slots,
    length=length,
    multiple=model.layout.batch_shards,
    key="--slots",
  )
  return memory_sentence(sizes, {"KV cache": f"{slots:,} slots x at most {length:,} tokens"})


def conclusion(rollouts: int, tokens: int, seconds: float) -> str:
  return (
    f"{rollouts:,} rollouts, {tokens:,} tokens in {human_duration(seconds)}, compilation included: "
    f"{human_count(tokens / seconds)} tokens/s."
  )


# ------------------------------------------------------------------------------ command line


def main() -> None:
  flags.DEFINE_string("folder", "", "A Hugging Face Qwen3: config, weights, tokenizer.")
  flags.DEFINE_string("prompt", None, "What to ask.")
  flags.DEFINE_string("prompts", "", "Or a file of rows with 'prompt' or 'question'; -: stdin.")
  flags.DEFINE_string("out", "", "A new JSONL file; -: stdout; default: shown to be read.")
  flags.DEFINE_string("template", "", f"Default: {CHATML_TEMPLATE} if the tokenizer has ChatML.")
  flags.DEFINE_integer("samples", Options.samples, "Completions of each prompt.")
  flags.DEFINE_float("temperature", Options.temperature, "0: always the most likely token.")
  flags.DEFINE_float("top_p", Options.top_p, "1: off.")
  flags.DEFINE_integer("top_k", Options.top_k, "0: off.")
  flags.DEFINE_integer("max_new_tokens", Options.max_new_tokens, "The longest completion.")
  flags.DEFINE_integer("seed", Options.seed, "Of the noise.")
  flags.DEFINE_integer("slots", Options.slots, "Rollouts decoded together at most.")
  flags.DEFINE_enum(
    "dtype", "", ["", "float32", "bfloat16"], "Default: float32 on CPU, bfloat16 elsewhere."
  )
  cli.parse()
  # What the terminal has no letter for is shown as an escape, too.
  sys.stdout.reconfigure(errors="backslashreplace")
  backend.configure()
  values = flags.FLAGS.flag_values_dict()
  sample(Options(**{field.name: values[field.name] for field in dataclasses.fields(Options)}))


if __name__ == "__main__":
  cli.run(main)
