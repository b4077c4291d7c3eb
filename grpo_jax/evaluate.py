"""A model folder on a benchmark: how often is it right, and how surely?

  python -m grpo_jax.evaluate --folder=my-policy --benchmark=math500 --path=math500.jsonl \\
      --samples=8 --out=results/my-policy-math500
  python -m grpo_jax.evaluate --compare=results/base-math500,results/my-policy-math500

The result folder holds every sample with its verdict and every number with its settings. The same
command goes on where it was stopped; a sample is the same however often that was, and on however
many devices. Two finished folders are compared problem by problem.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Iterable, Sequence

import jax
import numpy as np
from absl import flags

from grpo_jax import backend, cli, hosts
from grpo_jax.agreement import compare as compare_facts
from grpo_jax.data.problems import ProblemSet
from grpo_jax.data.prompts import Prompt, tokenize_prompts
from grpo_jax.data.tokenizer import Tokenizer, load_tokenizer
from grpo_jax.distribution import decoding
from grpo_jax.errors import UserError
from grpo_jax.evaluation.benchmarks import (
  BENCHMARKS,
  PRESET_FIELDS,
  PRESETS,
  Benchmark,
  Preset,
  choose_decoding,
  entry,
  load_benchmark,
)
from grpo_jax.evaluation.report import comparison, open_result, summary_table
from grpo_jax.evaluation.samples import JudgedSample, SampleLog, read_samples
from grpo_jax.evaluation.scores import describe, tally
from grpo_jax.exam import Examiner
from grpo_jax.model.config import read_config
from grpo_jax.model.qwen3 import Params, Qwen3, abstract_params
from grpo_jax.model.sharding import Layout, check_divisible, make_layout
from grpo_jax.model.weights import check_folder, load_params
from grpo_jax.run.files import write_atomically
from grpo_jax.run.folder import RunFolder, open_run
from grpo_jax.run.progress import Progress
from grpo_jax.sampling.sampler import Sampler
from grpo_jax.verify import Judges

# Where and how fast: it changes no sample.
_MAY_CHANGE = frozenset({"run"})
_NO_LIMIT = 1 << 30


@dataclasses.dataclass(frozen=True)
class Request:
  """What the command line asks for; None and "" leave a choice to the benchmark or the preset."""

  folder: str
  benchmark: str
  path: str
  out: str
  split: str = "test"
  limit: int = 0
  template: str = ""
  preset: str = ""
  samples: int | None = None
  temperature: float | None = None
  top_p: float | None = None
  top_k: int | None = None
  max_new_tokens: int | None = None
  seed: int = 0
  dtype: str = ""
  slots: int = 64
  tensor: int = 1
  workers: int = 2


@dataclasses.dataclass(frozen=True)
class Plan:
  """All that was found to be right before anything expensive happens."""

  folder: pathlib.Path
  benchmark: Benchmark
  problems: ProblemSet
  prompts: list[Prompt]
  tokenizer: Tokenizer
  model: Qwen3
  preset: Preset
  settings: dict


def evaluate(request: Request) -> dict[str, float]:
  """Samples what is not yet sampled, writes the summary, and returns its numbers.

  Raises:
    UserError: whatever is wrong with the request, before weights are read.
  """
  plan = make_plan(request)
  compare_facts(hosts.exchange({k: v for k, v in plan.settings.items() if k not in _MAY_CHANGE}))
  with _open_results(request.out, plan.settings) as run:
    samples_file = run.path / "samples.jsonl"
    first, samples = hosts.is_first(), plan.preset.samples
    with SampleLog(samples_file) if first else contextlib.nullcontext() as log:
      asked, done = hosts.of_first(
        still_to_draw(samples_file, plan.prompts, samples) if first else None
      )
      if asked:
        _sample(plan, request, asked, done, log)
    metrics = {}
    if first:
      indices = [prompt.problem for prompt in plan.prompts]
      metrics = describe(tally(read_samples(samples_file), indices, samples))
      _write_summary(run, plan, metrics)
  return hosts.of_first(metrics)


# ------------------------------------------------------------------------------ before sampling


def make_plan(request: Request) -> Plan:
  """Checks the request against the files it names."""
  for name in ("folder", "benchmark", "path", "out"):
    if not getattr(request, name):
      raise UserError(f"--{name} is missing; `python -m grpo_jax.evaluate --help` shows all flags")
  benchmark = entry(BENCHMARKS, request.benchmark, "benchmark")
  folder = pathlib.Path(request.folder).expanduser()
  shape, _ = read_config(folder)
  problems = load_benchmark(
    request.benchmark, path=request.path, split=request.split, limit=request.limit, say=print
  )
  tokenizer = load_tokenizer(folder)
  template = request.template or benchmark.template
  prompts, _ = tokenize_prompts(problems, tokenizer, template, _NO_LIMIT)
  longest = max(len(prompt.tokens) for prompt in prompts)
  preset = choose_decoding(
    request.preset or benchmark.preset,
    {name: getattr(request, name) for name in PRESET_FIELDS},
    room=shape.max_position_embeddings - longest,
    say=print,
  )
  layout = make_layout(data=-1, fsdp=1, tensor=request.tensor)
  check_divisible(shape, layout)
  _check_slots(request.slots, layout.batch_shards)
  dtype = request.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
  model = Qwen3(shape, layout, dtype=np.dtype(dtype))
  check_folder(folder, abstract_params(model))
  settings = {
    "model": {"fingerprint": fingerprint(folder), "dtype": dtype},
    "benchmark": request.benchmark,
    "problems": {"count": len(problems), "fingerprint": problems.fingerprint},
    "template": template,
    "decoding": dataclasses.asdict(preset),
    "seed": request.seed,
    "check": benchmark.check,
    "run": _where(request, layout),
  }
  return Plan(folder, benchmark, problems, prompts, tokenizer, model, preset, settings)


def _check_slots(slots: int, shards: int) -> None:
  if slots < 1 or slots % shards:
    up = max(slots, 1) + -max(slots, 1) % shards
    raise UserError(
      f"--slots={slots}: it must be above 0 and divide over {shards} device(s): {up} would"
    )


def _where(request: Request, layout: Layout) -> dict:
  """What is noted of a run and may differ in the next."""
  return {
    "folder": request.folder,
    "path": request.path,
    "slots": request.slots,
    "devices": layout.mesh.size,
    "kind": jax.devices()[0].device_kind,
  }


def fingerprint(folder: pathlib.Path) -> str:
  """sha256 (hex) over what decides a model's answers: weights, configuration, tokenizer."""
  digest = hashlib.sha256()
  for path in sorted(folder.iterdir()):
    if path.suffix in (".safetensors", ".json", ".txt", ".jinja"):
      with path.open("rb") as file:
        digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
  return digest.hexdigest()


# ------------------------------------------------------------------------------ sampling


def _sample(
  plan: Plan, request: Request, asked: list[tuple[int, int]], done: int, log: SampleLog
) -> None:
  """Draws and judges samples; each is on the disk as soon as it is judged."""
  preset = plan.preset
  sampler = Sampler(plan.model, slots=request.slots)
  how = decoding(preset.temperature, preset.top_k, preset.top_p, plan.tokenizer.size)
  prepared = _load(plan, sampler)
  with Judges(request.workers, checks={"answer": plan.benchmark.check}) as judges:
    examiner = Examiner(
      sampler, plan.tokenizer, judges, plan.problems, max_new_tokens=preset.max_new_tokens
    )
    judged = examiner(prepared, plan.prompts, asked, seed=request.seed, how=how)
    write_judged(judged, log, done=done, total=done + len(asked))


def still_to_draw(
  samples_file: pathlib.Path, prompts: Sequence[Prompt], samples: int
) -> tuple[list[tuple[int, int]], int]:
  """The pairs (index in `prompts`, number of the sample) that are not in the file, and how many
  are there."""
  there = {sample.place for sample in read_samples(samples_file)}
  wanted = [(n, s) for n in range(len(prompts)) for s in range(samples)]
  asked = [(n, s) for n, s in wanted if (prompts[n].problem, s) not in there]
  done = len(wanted) - len(asked)
  print(f"{len(asked):,} samples to draw, {done:,} are there.")
  return asked, done


def write_judged(
  judged: Iterable[JudgedSample], log: SampleLog, *, done: int, total: int
) -> None:
  """Puts each sample on the disk as it comes, and shows how far this is: `done` of `total` were
  there before."""
  right = tokens = 0
  with Progress(total, done) as progress:
    started = time.perf_counter()
    for count, sample in enumerate(judged, start=1):
      log.write(sample)
      right, tokens = right + (sample.verdict == "right"), tokens + sample.length
      progress.update(
        done + count - 1,
        accuracy=right / count,
        tokens_per_s=tokens / (time.perf_counter() - started),
      )


def _load(plan: Plan, sampler: Sampler) -> Params:
  """The weights as sampling uses them, read in the dtype it computes in."""
  abstract = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, plan.model.dtype, sharding=leaf.sharding),
    abstract_params(plan.model),
  )
  return jax.block_until_ready(sampler.prepare(load_params(plan.folder, abstract)))


# ------------------------------------------------------------------------------ results


def _open_results(out: str, settings: dict) -> RunFolder:
  try:
    return open_run(out, settings, _MAY_CHANGE, " ".join(sys.argv))
  except UserError as error:
    # The folder of a run is --workdir elsewhere.
    raise UserError(str(error).replace("--workdir", "--out")) from error


def _write_summary(run: RunFolder, plan: Plan, metrics: dict[str, float]) -> None:
  finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
  summary = {"metrics": finite, "settings": plan.settings, "jax": jax.__version__}
  write_atomically(run.path / "summary.json", json.dumps(summary, indent=2) + "\n")
  print(summary_table(finite, plan.settings))
  print(f"Every sample: {run.path / 'samples.jsonl'}   every number: {run.path / 'summary.json'}")


def compare(folders: str) -> str:
  """The comparison of two finished result folders, named with a comma between them."""
  names = [name for name in folders.split(",") if name]
  if len(names) != 2:
    raise UserError(f"--compare={folders}: name two result folders, as in --compare=A,B")
  return comparison(*[open_result(pathlib.Path(name).expanduser()) for name in names])


# ------------------------------------------------------------------------------ command line


def main() -> None:
  of_set, of_preset = "default: the benchmark's", "default: the preset's"
  asked = {
    "folder": flags.DEFINE_string("folder", "", "The model folder."),
    "benchmark": flags.DEFINE_string("benchmark", "", f"One of: {', '.join(BENCHMARKS)}."),
    "path": flags.DEFINE_string("path", "", "Its problems: a file, or a folder as published."),
    "split": flags.DEFINE_string("split", "test", "Which split of a folder."),
    "out": flags.DEFINE_string("out", "", "The result folder."),
    "limit": flags.DEFINE_integer("limit", 0, "Only the first this many problems; 0: all."),
    "template": flags.DEFINE_string("template", "", f"How to ask; {of_set}."),
    "preset": flags.DEFINE_string("preset", "", f"One of: {', '.join(PRESETS)}; {of_set}."),
    "samples": flags.DEFINE_integer("samples", None, f"Answers a problem; {of_preset}."),
    "temperature": flags.DEFINE_float("temperature", None, f"0: greedy; {of_preset}."),
    "top_p": flags.DEFINE_float("top_p", None, f"1: off; {of_preset}."),
    "top_k": flags.DEFINE_integer("top_k", None, f"0: off; {of_preset}."),
    "max_new_tokens": flags.DEFINE_integer("max_new_tokens", None, f"An answer; {of_preset}."),
    "seed": flags.DEFINE_integer("seed", 0, "Of the samples' noise."),
    "dtype": flags.DEFINE_enum(
      "dtype", "", ["", "float32", "bfloat16"], "Default: float32 on a CPU, else bfloat16."
    ),
    "slots": flags.DEFINE_integer("slots", 64, "Answers decoded together, over all devices."),
    "tensor": flags.DEFINE_integer("tensor", 1, "Devices that share one copy of the weights."),
    "workers": flags.DEFINE_integer("workers", min(8, os.cpu_count()), "Verifier processes."),
  }
  both = flags.DEFINE_string("compare", "", "Two finished result folders, A,B: is B better?")
  join = hosts.define_flags()
  cli.parse()
  if both.value:
    print(compare(both.value))
    return
  backend.configure()
  join()
  evaluate(Request(**{name: flag.value for name, flag in asked.items()}))


if __name__ == "__main__":
  cli.run(main)
