"""How are the kept rounds told? A table a section, ratios, the machine's limit, and a picture."""

import dataclasses
import pathlib
import statistics

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import EngFormatter

from contenders.cases import (
  CONTENDERS,
  LONG,
  OURS,
  OURS_BF16,
  REAL,
  SECTIONS,
  SHORT,
  TRANSFORMERS_BF16,
  Section,
)
from grpo_jax.run.human import human_bytes

BYTES = {"float32": 4, "bfloat16": 2}
COLOR = "#0b63c5"


@dataclasses.dataclass(frozen=True)
class Timing:
  """One contender in one case."""

  tokens: int  # wanted of a round
  first: float  # seconds of the first call, which compiles
  rounds: list[float]  # seconds
  peak_bytes: int

  @property
  def seconds(self) -> float:
    return statistics.median(self.rounds)

  @property
  def tokens_per_second(self) -> float:
    return self.tokens / self.seconds


Timings = dict[str, Timing]  # by contender


def render(results: dict) -> str:
  """All kept sections as Markdown; of `growth` there is a picture."""
  kept = results["sections"]
  parts = ["# Sampling: tokens/s, end to end from token ids to token ids", legend(results)]
  for name, section in SECTIONS.items():
    if name in kept and name != "growth":
      parts += [section_text(section, kept[name])]
  if "machine" in kept and "real" in kept:
    parts += [machine_text(kept["machine"]["bandwidth"], timings(kept["real"]))]
  if "growth" in kept:
    parts += ["## Growth\n\n![Tokens per second](sampling.png)"]
  return "\n\n".join(parts) + "\n"


def legend(results: dict) -> str:
  return (
    f"{provenance(results)}\n\n"
    "Medians over interleaved rounds of new tokens that were asked for, per second. Ratios: how\n"
    "many times as fast as they ours is, of the medians, and in brackets the range over rounds;\n"
    "ours is in fp32, but against bf16 in the better of our dtypes. Random weights, temperature\n"
    "1, 64 prompt tokens, nothing ends early."
  )


def provenance(results: dict) -> str:
  """Commands, machines and versions behind the kept sections."""
  versions = {}
  for kept in results["sections"].values():
    for about in kept.get("about", {}).values():
      versions |= about["versions"]
  told = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
  machines = sorted({kept["machine"] for kept in results["sections"].values()})
  commands = sorted({kept["command"] for kept in results["sections"].values()})
  return f"`{'`, `'.join(commands)}`  \n{'; '.join(machines)}; {told}"


def without_paths(words: list[str], *options: str) -> list[str]:
  """A command's words, without where the interpreters lie that `options` name."""
  return [
    next((f"{option}=PYTHON" for option in options if word.startswith(option)), word)
    for word in words
  ]


def timings(kept: dict) -> dict[str, Timings]:
  """Of each case of a section."""
  return {
    case: {name: Timing(**values) for name, values in by_contender.items()}
    for case, by_contender in kept["cases"].items()
  }


def section_text(section: Section, kept: dict) -> str:
  cases = timings(kept)
  shown = [name for name in CONTENDERS if any(name in case for case in cases.values())]
  goals = section.goals
  rivals = [name for name in goals if name in shown and OURS in shown]
  heads = ["tokens/s", *shown, *(f"ours / {name} (goal {goals[name]:g})" for name in rivals)]
  rows = [
    [
      case,
      *(speed(of.get(name)) for name in shown),
      *(ratio(ours_against(name, of), of.get(name)) for name in rivals),
    ]
    for case, of in cases.items()
  ]
  rows += [
    [f"first call, {case}, s", *(first(of.get(name)) for name in shown), *[""] * len(rivals)]
    for case, of in list(cases.items())[-1:]
  ]
  peaks = [max(of[name].peak_bytes for of in cases.values() if name in of) for name in shown]
  rows += [["most memory, loading included", *map(human_bytes, peaks), *[""] * len(rivals)]]
  lines = [f"## {section.title[0].upper()}{section.title[1:]}", "", table(heads, rows)]
  lines += notes(kept)
  return "\n".join(lines)


def notes(kept: dict) -> list[str]:
  """What is not in the columns."""
  told = [
    f"{name}: weights prepared once in {about['prepare_seconds']:.1f} s (not in the figures)"
    for name, about in kept["about"].items()
    if "prepare_seconds" in about
  ]
  told += [f"{name} left out: {reason}" for name, reason in kept["left_out"].items()]
  return ["", *(f"- {line}" for line in told)] if told else []


def machine_text(bandwidth: dict[str, float], cases: dict[str, Timings]) -> str:
  """How near decoding one row is to reading all weights once a token."""
  best = max(bandwidth.values())
  rows = []
  for name, (_, dtype) in CONTENDERS.items():
    pair = [cases[case].get(name) for case in (SHORT, LONG)]
    if None in pair:
      continue
    short, long = pair
    # What both runs have in common, prefill included, cancels.
    seconds = (long.seconds - short.seconds) / (long.tokens - short.tokens)
    read = step_bytes(dtype, 64 + (short.tokens + long.tokens) / 2)
    rows.append(
      [name, f"{1e3 * seconds:.1f}", human_bytes(read), f"{read / seconds / 1e9:.1f}",
       f"{read / seconds / best:.0%}"]
    )  # fmt: skip
  heads = ["Qwen3-0.6B, B=1", "ms a step", "a step reads", "GB/s", "of the machine's"]
  measured = ", ".join(f"{name} {value / 1e9:.1f} GB/s" for name, value in bandwidth.items())
  return f"## Against the machine: {measured}\n\n{table(heads, rows)}"


def step_bytes(dtype: str, live_tokens: float) -> float:
  """What one decoding step of one row must read of the 0.6B model: weights, keys and values."""
  per_token = 2 * REAL.num_hidden_layers * REAL.num_key_value_heads * REAL.head_dim
  return BYTES[dtype] * (REAL.num_params + per_token * live_tokens)


def ours_against(rival: str, of: Timings) -> Timing | None:
  """Ours in float32; against a rival in bfloat16 ours in whatever dtype is faster."""
  ours = [of[name] for name in (OURS, OURS_BF16) if name in of]
  if rival != TRANSFORMERS_BF16 or not ours:
    return of.get(OURS)
  return min(ours, key=lambda timing: timing.seconds)


def speed(timing: Timing | None) -> str:
  return f"{timing.tokens_per_second:,.0f}" if timing else ""


def first(timing: Timing | None) -> str:
  return f"{timing.first:.1f}" if timing else ""


def ratio(ours: Timing | None, theirs: Timing | None) -> str:
  """`1.9 (1.8 to 2.1)`; no range of a single round."""
  if ours is None or theirs is None:
    return ""
  ratios = [b / a for a, b in zip(ours.rounds, theirs.rounds, strict=True)]
  spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
  return f"{theirs.seconds / ours.seconds:.2f}{spread}"


def table(heads: list[str], rows: list[list[str]]) -> str:
  lines = [heads, ["---"] * len(heads), *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(kept: dict, path: pathlib.Path) -> None:
  """Tokens per second of ours: the median as a line, every round as a dot."""
  panels: dict[str, dict[int, Timing]] = {}
  for case, of in timings(kept).items():
    name, value = case.split("=")
    panels.setdefault(name, {})[int(value)] = of[OURS]
  figure, axes = plt.subplots(
    1, len(panels), figsize=(3.2 * len(panels), 3.4), squeeze=False, layout="constrained"
  )
  for axis, (name, of_value) in zip(axes[0], panels.items(), strict=True):
    medians = [timing.tokens_per_second for timing in of_value.values()]
    axis.plot(list(of_value), medians, color=COLOR, linewidth=2.2)
    for value, timing in of_value.items():
      speeds = [timing.tokens / seconds for seconds in timing.rounds]
      axis.plot([value] * len(speeds), speeds, ".", color=COLOR, alpha=0.5)
    axis.set_xscale("log", base=2)
    axis.set_xticks(list(of_value), map(str, of_value))
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.set_xlabel(name)
    axis.grid(color="#eaeef2")
    axis.spines[["top", "right"]].set_visible(False)
    axis.yaxis.set_major_formatter(EngFormatter(sep=""))
  axes[0][0].set_ylabel("new tokens/s")
  figure.savefig(path, dpi=130)
  plt.close(figure)
