"""How are the kept rounds of updates told? Goals, a table a case, the store's cost, and a picture.

The operations counted are the model's own, of real tokens: nothing for padding, for what is
computed twice to save memory, for the loss or for the optimizer. With N parameters beside the
embedding, L layers, H heads of size h, width D, V ids, rows of t tokens of which c are completion:

  6 N t  +  6 L H h t (t + 1)  +  6 D V c     summed over rows
"""

import dataclasses
import pathlib
import statistics
from collections.abc import Callable, Iterable, Mapping

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import EngFormatter

from contenders.report import Timing, first, provenance, ratio, speed, table
from contenders.update_cases import CASES, OURS, ReplayCase, UpdateCase
from grpo_jax.model.config import Qwen3Config
from grpo_jax.run.human import human_bytes

SPEED_GOAL = 1.5  # times the better of the others
MEMORY_GOAL = 0.5  # of the better of the others
PEAK_GOAL = 0.5  # of the machine's matmul peak
REPLAY_GOAL = 0.01  # of the optimizer step
SPEED_CASES = ("toy", "vocabulary", "real", "real_32")
MEMORY_CASES = ("vocabulary", "real", "real_32")
PEAK_CASES = ("real", "real_32")
COLORS = {OURS: "#0b63c5", "tunix": "#8c959f", "torch": "#d0d7de"}


@dataclasses.dataclass(frozen=True)
class Update(Timing):
  """One contender's steps."""

  loss: float  # of the last
  before_bytes: int  # held when the last began
  scratch_bytes: int | None = None  # XLA's count, of its hungriest program
  matmul_flops: dict[str, float] | None = None  # of large products, formed after the last step

  @property
  def above_bytes(self) -> int:
    """The most memory during a step beyond what is held between steps."""
    return self.peak_bytes - self.before_bytes


Updates = dict[str, Update]  # by contender


def render(results: dict) -> str:
  """All kept cases as Markdown."""
  kept = results["sections"]
  updates = {name: updates_of(kept[name]) for name in CASES if name in kept and is_update(name)}
  parts = ["# The update: one optimizer step of GRPO, and the replay store", legend(results)]
  parts += [goal_table(kept, updates)]
  parts += [case_text(name, of, kept[name]) for name, of in updates.items()]
  stores = [name for name in CASES if name in kept and not is_update(name)]
  if stores:
    parts += [replay_text({name: kept[name] for name in stores}, updates)]
  return "\n\n".join(parts) + "\n"


def legend(results: dict) -> str:
  return f"""{provenance(results)}

One step is loss, gradients and AdamW of PPO-clip to the behaviour log-probs, in float32, of random
weights, from token ids on the host to new parameters; ours has `remat="elementwise"`. Trained
tokens are prompt and completion tokens of real rows. Medians over rounds; in brackets the range.
Memory of a step: the most this process held during it (Linux's VmHWM, reset before) above what it
held before (VmRSS, once garbage was collected): gradients, activations and copies, without what
stays between steps. Scratch: XLA's own count for its hungriest program. Share of the matmul peak:
model operations,
`6 N t + 6 L H h t (t + 1) + 6 D V c` summed over rows, by seconds, by the faster of two large
float32 products that our own process forms right after its last step."""


def is_update(name: str) -> bool:
  return isinstance(CASES[name], UpdateCase)


def updates_of(kept: dict) -> Updates:
  return {name: Update(**values) for name, values in kept["timings"].items()}


# ------------------------------------------------------------------------------ goals


def goal_table(kept: dict, updates: Mapping[str, Updates]) -> str:
  """Each goal beside its figure."""
  rows = []
  for case in present(SPEED_CASES, updates):
    times = against_the_better(updates[case], lambda update: 1 / update.seconds)
    goal = f"trained tokens/s >= {SPEED_GOAL:g} x the better"
    rows.append([goal, case, told(times, "{:.2f} x"), verdict(times, SPEED_GOAL, at_least=True)])
  for case in present(MEMORY_CASES, updates):
    share = against_the_better(updates[case], lambda update: -update.above_bytes)
    goal = f"memory of a step <= {MEMORY_GOAL:g} x the better"
    rows.append([goal, case, told(share, "{:.2f} x"), verdict(share, MEMORY_GOAL, at_least=False)])
  for case in present(PEAK_CASES, updates):
    share = peak_share(case, updates[case].get(OURS), kept[case])
    goal = f"share of the matmul peak >= {PEAK_GOAL:.0%}"
    rows.append([goal, case, told(share, "{:.0%}"), verdict(share, PEAK_GOAL, at_least=True)])
  for case in [name for name in kept if not is_update(name)]:
    share = replay_share(case, kept, updates)
    goal = f"replay's share of a step < {REPLAY_GOAL:.0%}"
    rows.append([goal, case, told(share, "{:.2%}"), verdict(share, REPLAY_GOAL, at_least=False)])
  return table(["goal", "case", "figure", ""], rows)


def present(names: tuple[str, ...], updates: Mapping[str, Updates]) -> list[str]:
  return [name for name in names if name in updates]


def against_the_better(of: Updates, merit: Callable[[Update], float]) -> float | None:
  """Our merit by that of the best of the others; None where one side is missing."""
  others = [merit(update) for name, update in of.items() if name != OURS]
  return merit(of[OURS]) / max(others) if OURS in of and others else None


def told(figure: float | None, form: str) -> str:
  return "nothing to compare with" if figure is None else form.format(figure)


def verdict(figure: float | None, goal: float, *, at_least: bool) -> str:
  if figure is None:
    return ""
  return "reached" if (figure >= goal if at_least else figure <= goal) else "missed"


# ------------------------------------------------------------------------------ updates


def case_text(name: str, of: Updates, kept: dict) -> str:
  heads = [
    "", "trained tokens/s", "ours is faster by", "of the matmul peak", "memory of a step",
    "scratch by XLA", "most held, loading included", "first call, s", "last loss",
  ]  # fmt: skip
  rows = [
    [
      contender,
      speed(update),
      "" if contender == OURS else ratio(of.get(OURS), update),
      told(peak_share(name, update, kept), "{:.0%}"),
      human_bytes(update.above_bytes),
      "" if update.scratch_bytes is None else human_bytes(update.scratch_bytes),
      human_bytes(update.peak_bytes),
      first(update),
      f"{update.loss:.4f}",
    ]
    for contender, update in of.items()
  ]
  lines = [f"## {CASES[name].title}", "", table(heads, rows), *left_out(kept)]
  peak = kept["timings"].get(OURS, {}).get("matmul_flops", {})
  products = ", ".join(f"{shape} {flops / 1e9:,.0f} Gflop/s" for shape, flops in peak.items())
  return "\n".join([*lines, "", f"Products: {products}."] if products else lines)


def left_out(kept: dict) -> list[str]:
  told = [f"- {name} left out: {reason}" for name, reason in kept["left_out"].items()]
  return ["", *told] if told else []


def model_flops(case: UpdateCase) -> float:
  """Of one step."""
  rows = [(case.prompt_tokens + tokens, tokens) for tokens in case.completion_tokens]
  return operations(case.shape, rows)


def operations(shape: Qwen3Config, rows: Iterable[tuple[int, int]]) -> float:
  """Of rows given as all tokens and completion tokens, by the formula of this file's docstring."""
  embedding = shape.vocab_size * shape.hidden_size
  parameters = shape.num_params - embedding * (1 if shape.tie_word_embeddings else 2)
  heads = shape.num_hidden_layers * shape.num_attention_heads * shape.head_dim
  return 6 * sum(parameters * t + heads * t * (t + 1) + embedding * c for t, c in rows)


def peak_share(name: str, update: Update | None, kept: dict) -> float | None:
  """Of what large products reach on this machine."""
  peak = kept["timings"].get(OURS, {}).get("matmul_flops")
  if update is None or not peak:
    return None
  return model_flops(CASES[name]) / update.seconds / max(peak.values())


# ------------------------------------------------------------------------------ replay


def replay_share(name: str, kept: dict, updates: Mapping[str, Updates]) -> float | None:
  """Our store's seconds by those of our optimizer step of the case it belongs to."""
  step = updates.get(CASES[name].update, {}).get(OURS)
  store = kept[name]["timings"].get(OURS)
  return statistics.median(store["rounds"]) / step.seconds if step and store else None


def replay_text(kept: Mapping[str, dict], updates: Mapping[str, Updates]) -> str:
  rows = []
  for name, of in kept.items():
    case: ReplayCase = CASES[name]
    ours = of["timings"].get(OURS)
    for contender, timing in of["timings"].items():
      step = statistics.median(timing["rounds"])
      against = "" if contender == OURS or not ours else ratio(as_timing(ours), as_timing(timing))
      share = told(replay_share(name, kept, updates), "{:.2%}") if contender == OURS else ""
      rows.append([
        case.title, contender, f"{1e3 * step:.2f}", against, f"{share} of `{case.update}`"
        if share else "", human_bytes(timing["peak_bytes"]),
      ])  # fmt: skip
  heads = ["full store", "", "ms", "ours is faster by", "share of a step", "most held"]
  reasons = [line for of in kept.values() for line in left_out(of)]
  return "\n".join([
    "## Replay: 256 rollouts added, 128 drawn", "",
    "Ours evicts by age and draws without replacement; flashbax does neither. Shares are of the\n"
    "optimizer step alone; that of the large store is of a batch of 4 rows, where a step that\n"
    "needed such a store would train hundreds: an upper bound.", "",
    table(heads, rows), *reasons,
  ])  # fmt: skip


def as_timing(values: dict) -> Timing:
  return Timing(0, values["first"], values["rounds"], values["peak_bytes"])


# ------------------------------------------------------------------------------ picture


def draw(results: dict, path: pathlib.Path) -> None:
  """Speed and memory of every contender, and our share of the machine."""
  kept = results["sections"]
  updates = {name: updates_of(kept[name]) for name in CASES if name in kept and is_update(name)}
  figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
  bars(axes[0], updates, lambda name, update: update.tokens_per_second)
  axes[0].set_yscale("log")
  axes[0].set_ylabel("trained tokens/s")
  large = {name: updates[name] for name in MEMORY_CASES if name in updates}
  bars(axes[1], large, lambda name, update: update.above_bytes)
  axes[1].set_ylabel("memory of a step")
  axes[1].yaxis.set_major_formatter(EngFormatter("B"))
  ours = {name: {OURS: of[OURS]} for name, of in updates.items() if OURS in of}
  bars(axes[2], ours, lambda name, update: 100 * peak_share(name, update, kept[name]))
  axes[2].axhline(100 * PEAK_GOAL, color="#cf222e", linewidth=1, linestyle="--")
  axes[2].set_ylabel("% of the matmul peak, ours")
  handles, names = axes[0].get_legend_handles_labels()
  figure.legend(handles, names, frameon=False, ncols=len(names), loc="outside upper center")
  figure.savefig(path, dpi=130)
  plt.close(figure)


def bars(
  axis, updates: Mapping[str, Updates], value: Callable[[str, Update], float]
) -> None:
  """A group of bars a case, a bar a contender."""
  width = 0.8 / len(COLORS)
  for place, (contender, color) in enumerate(COLORS.items()):
    shown = [(i, name) for i, name in enumerate(updates) if contender in updates[name]]
    axis.bar(
      [i + (place - 1) * width for i, _ in shown],
      [value(name, updates[name][contender]) for _, name in shown],
      width,
      color=color,
      label=contender if shown else None,
    )
  axis.set_xticks(range(len(updates)), list(updates), rotation=20)
  axis.grid(axis="y", color="#eaeef2")
  axis.set_axisbelow(True)
  axis.spines[["top", "right"]].set_visible(False)
