"""The pictures of a report: learning curves with bands, and paired differences with intervals."""

import io
from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from experiments.outcomes import Outcome, Paired

INK, FAINT, LINE = "#24292f", "#8c959f", "#e4e7eb"
BASELINE, VARIANT, BETTER, WORSE = "#8c959f", "#0b63c5", "#15803d", "#b91c1c"
_COLUMNS = 4
_GRID = 60  # points of a curve


def curves(
  variants: Mapping[str, Sequence[Outcome]],
  baseline: tuple[str, Sequence[Outcome]],
  budget: float,
  cost: str = "rollouts",
) -> Figure:
  """A small plot a variant, the baseline in grey in each: mean over seeds, band of one standard
  error of the mean on each side."""
  columns = min(_COLUMNS, len(variants))
  rows = -(-len(variants) // columns)
  figure, grid = plt.subplots(
    rows,
    columns,
    figsize=(3 * columns, 2.35 * rows + 0.25),
    sharex=True,
    sharey=True,
    squeeze=False,
    layout="constrained",
  )
  spent = np.linspace(0, budget, _GRID)
  for axes, (name, outcomes) in zip(grid.flat, variants.items(), strict=False):
    _band(axes, baseline[1], spent, cost, BASELINE)
    if name != baseline[0]:
      _band(axes, outcomes, spent, cost, VARIANT)
    axes.set_title(name, loc="left", fontsize=10, weight="bold", color=INK, parse_math=False)
    _dress(axes)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
  for unused in list(grid.flat)[len(variants) :]:
    unused.remove()
  figure.supylabel("% right, held out", fontsize=9, color=INK)
  figure.supxlabel(f"{cost}; grey: {baseline[0]}", fontsize=9, color=INK)
  return figure


def _band(axes, outcomes: Sequence[Outcome], spent: np.ndarray, cost: str, color: str) -> None:
  """Before its first step a run has spent what it measured; its curve begins there."""
  start = max(outcome.cost_E[cost][0] for outcome in outcomes)
  end = min(outcome.cost_E[cost][-1] for outcome in outcomes)
  spent = spent[(spent >= start) & (spent <= end)]
  right_SE = 100 * np.array(
    [np.interp(spent, outcome.cost_E[cost], outcome.accuracy_E) for outcome in outcomes]
  )
  mean = right_SE.mean(axis=0)
  if len(outcomes) > 1:
    error = right_SE.std(axis=0, ddof=1) / np.sqrt(len(outcomes))
    axes.fill_between(spent, mean - error, mean + error, color=color, alpha=0.18, linewidth=0)
  axes.plot(spent, mean, color=color, linewidth=1.8)


def forest(
  differences: Mapping[str, Mapping[str, Paired]], sure: Mapping[str, bool], unit: str
) -> Figure:
  """Every variant's paired difference with its interval, by family.

  Args:
    differences: by family and name, in points.
    sure: whether a difference stands after adjustment for the number of variants.
    unit: what the axis shows.
  """
  count = sum(len(family) for family in differences.values()) + len(differences)
  figure, axes = plt.subplots(figsize=(9, 0.235 * count + 0.9), layout="constrained")
  places, labels, y = [], [], 0
  for family, members in differences.items():
    axes.text(
      0.0, y, family, transform=axes.get_yaxis_transform(), fontsize=9.5, color=FAINT,
      va="center", ha="left", style="italic", parse_math=False,
      bbox={"color": "white", "pad": 1.5},
    )  # fmt: skip
    for name, found in members.items():
      y -= 1
      color = _verdict_color(found)
      axes.plot([found.low, found.high], [y, y], color=color, linewidth=2, alpha=0.7)
      filled = color if sure.get(name) else "white"
      axes.plot(
        found.mean, y, "o", markersize=6, color=color, markerfacecolor=filled, markeredgewidth=1.6
      )
      places.append(y)
      labels.append(name)
    y -= 1
  axes.axvline(0, color=INK, linewidth=1)
  axes.set_yticks(places, labels, parse_math=False)
  axes.set_ylim(y + 0.4, 0.8)
  axes.set_xlabel(unit, fontsize=9.5, color=INK)
  _dress(axes)
  axes.grid(axis="y", visible=False)
  return figure


def _verdict_color(found: Paired) -> str:
  if found.low > 0:
    return BETTER
  return WORSE if found.high < 0 else BASELINE


def _dress(axes) -> None:
  axes.tick_params(labelsize=8.5, colors=INK, length=0)
  axes.grid(color=LINE, linewidth=0.7)
  axes.set_axisbelow(True)
  axes.spines[:].set_visible(False)


def png(figure: Figure) -> bytes:
  file = io.BytesIO()
  figure.savefig(file, format="png", dpi=130)
  plt.close(figure)
  return file.getvalue()


def svg(figure: Figure) -> str:
  """As an element that can stand in a page; text stays text."""
  file = io.StringIO()
  with plt.rc_context({"svg.fonttype": "none", "font.family": "sans-serif"}):
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
  plt.close(figure)
  text = file.getvalue()
  return text[text.index("<svg") :]
