"""Which sets of problems, asked how, and is this file really that set?

The same model differs by many points between two prompts, two token limits or the two sets that
are both called AMC. So a benchmark is a name for one set of a known size, with the prompt and the
decoding that reports on it mostly use; another prompt or decoding is chosen by name and recorded.
"""

import collections
import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping
from typing import TypeVar

from grpo_jax.data.problems import ProblemSet
from grpo_jax.data.sources import load_problems
from grpo_jax.errors import UserError

_EXACT = "grpo_jax.verify.verifier:verify"

Entry = TypeVar("Entry")


@dataclasses.dataclass(frozen=True)
class Preset:
  """How answers are drawn. Published protocols under their names."""

  samples: int  # a problem
  temperature: float  # 0: the most likely token
  top_p: float
  top_k: int  # 0: off
  max_new_tokens: int


PRESETS: dict[str, Preset] = {
  # One answer a problem, as lm-evaluation-harness and Qwen2.5-Math report it.
  "greedy": Preset(1, 0.0, 1.0, 0, 8192),
  # arXiv 2606.04560, 0.6B and 1.7B models; MATH500 with 8 samples, 4B models with 16,384 tokens.
  "aper": Preset(16, 0.6, 0.8, 0, 8192),
  "deepscaler": Preset(16, 0.6, 0.95, 0, 32768),
  "open_r1": Preset(64, 0.6, 0.95, 0, 32768),  # AIME; MATH500 with 4 samples
  "dapo": Preset(32, 1.0, 0.7, 0, 20480),  # arXiv 2503.14476
  # Model cards of Qwen3.
  "qwen3_thinking": Preset(16, 0.6, 0.95, 20, 32768),
  "qwen3_no_thinking": Preset(16, 0.7, 0.8, 20, 32768),
}

PRESET_FIELDS = tuple(field.name for field in dataclasses.fields(Preset))


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """One set of problems.

  Attributes:
    about: which one it is, in words.
    source: how its files are read, a source of data.sources.
    sizes: how many problems it has; several where copies differ, () where any number is fine.
    template: of data.templates.
    preset: of PRESETS.
    check: `module:name` of the function that judges its answers.
  """

  about: str
  source: str = "math"
  sizes: tuple[int, ...] = ()
  template: str = "qwen_math"
  preset: str = "greedy"
  check: str = _EXACT


def _competition(about: str, *sizes: int) -> Benchmark:
  """A set so small that one answer a problem says little."""
  return Benchmark(about, sizes=sizes, preset="deepscaler")


BENCHMARKS: dict[str, Benchmark] = {
  "gsm8k": Benchmark("GSM8K, the test split", source="gsm8k", sizes=(1319,)),
  "math500": Benchmark("MATH500, the part of MATH that PRM800K held out", sizes=(500,)),
  "aime24": _competition("AIME 2024, I and II", 30),
  "aime25": _competition("AIME 2025, I and II", 30),
  "aime26": _competition("AIME 2026, I and II", 30),
  "amc23": _competition("AMC 12 of 2023 as in Qwen2.5-Math: 40 problems", 40),
  "amc83": _competition("AMC 12 of 2022 and 2023 (AIMO validation, DeepScaleR): 83 problems", 83),
  "hmmt_feb25": _competition("HMMT February 2025", 30),
  "hmmt_feb26": _competition("HMMT February 2026", 33),
  "minerva": Benchmark(
    "272 questions of MIT OpenCourseWare; not lm-eval's minerva_math, which is MATH",
    source="minerva",
    sizes=(272,),
    check="grpo_jax.evaluation.tolerance:verify_minerva",
  ),
  "olympiadbench": Benchmark(
    "OlympiadBench, OE_TO_maths_en_COMP",
    source="olympiadbench",
    sizes=(675, 674),
    check="grpo_jax.evaluation.tolerance:verify_within",
  ),
  "jsonl": Benchmark("any file of problems and answers", source="jsonl"),
}


def entry(table: Mapping[str, Entry], name: str, what: str) -> Entry:
  """The entry of a table of this module.

  Raises:
    UserError: there is none of that name; says which is near.
  """
  if name not in table:
    close = difflib.get_close_matches(name, table, n=1, cutoff=0.0)[0]
    raise UserError(f"no {what} {name!r}, did you mean {close!r}? known: {', '.join(table)}")
  return table[name]


def load_benchmark(
  name: str, *, path: str, split: str, limit: int, say: Callable[[str], None]
) -> ProblemSet:
  """The problems of a file or folder, if they are those of the benchmark of this name.

  Args:
    limit: only the first this many of them; 0: all.
    say: told what a reader of the score has to know about the file.

  Raises:
    UserError: whatever is wrong with the files, or another number of problems.
  """
  if limit < 0:
    raise UserError(f"--limit={limit}: it is a number of problems, or 0 for all")
  published = load_problems(BENCHMARKS[name].source, path=path, split=split)
  problems, times = without_repeats(published)
  if times > 1:
    say(f"{path}: every problem stands there {times} times; each is taken once.")
  check_size(name, problems, path)
  unusable = sum(not problem.answer for problem in problems)
  if unusable:
    say(f"{path}: {unusable} problem(s) without an answer, which count as not solved.")
  return ProblemSet(name, problems.problems[: limit or None])


def choose_decoding(
  preset: str, given: Mapping[str, float | None], *, room: int, say: Callable[[str], None]
) -> Preset:
  """The preset of this name with the given values laid over it; None leaves the preset's.

  Args:
    room: how many tokens the model has for an answer behind the longest prompt; a preset that wants
      more is cut to it, and `say` is told.

  Raises:
    UserError: a value that cannot be, or more tokens than there is room for.
  """
  chosen = entry(PRESETS, preset, "preset")
  values = {name: value for name, value in given.items() if value is not None}
  if "max_new_tokens" not in values and chosen.max_new_tokens > room:
    say(f"At most {room:,} new tokens, not {chosen.max_new_tokens:,}: the model has no more.")
    values["max_new_tokens"] = room
  chosen = dataclasses.replace(chosen, **values)
  limits = {
    "samples": (1, math.inf),
    "temperature": (0, math.inf),
    "top_p": (1e-6, 1),
    "top_k": (0, math.inf),
    "max_new_tokens": (1, room),
  }
  for name, (low, high) in limits.items():
    value = getattr(chosen, name)
    if not low <= value <= high or math.isinf(value):
      upper = "" if math.isinf(high) else f" and at most {high}"
      raise UserError(f"--{name}={value}: it must be at least {low}{upper}")
  if chosen.temperature == 0 and chosen.samples > 1:
    raise UserError(
      f"--samples={chosen.samples} at temperature 0 would be {chosen.samples} times the same "
      "answer; set --samples=1, or --temperature above 0"
    )
  return chosen


def check_size(name: str, problems: ProblemSet, place: str) -> None:
  """Refuses a file that is not the set of that name, by its number of problems.

  Raises:
    UserError: names the benchmarks that do have so many.
  """
  sizes, count = BENCHMARKS[name].sizes, len(problems)
  if not sizes or count in sizes:
    return
  others = [other for other, benchmark in BENCHMARKS.items() if count in benchmark.sizes]
  fitting = f"{' and '.join(others)} has that many" if others else "--benchmark=jsonl takes any"
  raise UserError(
    f"{place}: {count} problems, but {name} has {' or '.join(map(str, sizes))}; {fitting}"
  )


def without_repeats(problems: ProblemSet) -> tuple[ProblemSet, int]:
  """A set in which every problem stands equally often, as some files do it to average over samples,
  is taken as what it repeats; a set with a few doubles is left as it was published.

  Returns:
    The set, and how often each problem stood in it.
  """
  times = collections.Counter((problem.question, problem.answer) for problem in problems)
  if len(set(times.values())) != 1:
    return problems, 1
  first = {(problem.question, problem.answer): problem for problem in reversed(problems.problems)}
  kept = tuple(first[key] for key in times)
  return dataclasses.replace(problems, problems=kept), len(problems) // len(kept)
