"""What did the run do, at one glance? A picture drawn from `metrics.jsonl` alone.

Accuracy stands on top, against what it cost; below it the few curves that tell why it went so.
A panel whose metrics the run does not have is left out.
"""

import dataclasses
import io
import itertools
import math
import os
import re
import statistics
from collections.abc import Iterator, Sequence

from grpo_jax.errors import UserError
from grpo_jax.run.files import write_atomically
from grpo_jax.run.metrics import read_metrics

_COST = "cost/rollouts"
_COST_LABEL = "rollouts sampled"
_EVAL = re.compile(r"eval/(?:(?P<name>.+)/)?accuracy")
_COLUMNS = 4

_INK, _FAINT = "#24292f", "#8c959f"
_COLORS = ("#0b63c5", "#c2410c", "#15803d", "#7c3aed", "#b91c5c", "#0e7490")

_Curve = tuple[list[float], list[float]]


@dataclasses.dataclass(frozen=True)
class _Style:
  """Font size in points, and the most ticks on an axis."""

  size: int
  ticks: int


_LARGE, _SMALL = _Style(size=12, ticks=8), _Style(size=9, ticks=4)


@dataclasses.dataclass(frozen=True)
class Panel:
  """A small plot. lines: metric and its label, which is empty where the title says it all."""

  title: str
  unit: str
  lines: tuple[tuple[str, str], ...]
  percent: bool = False


PANELS = (
  Panel("Reward", "mean of a rollout", (("reward/mean", ""),)),
  Panel("Completion length", "tokens, mean", (("rollout/length_mean", ""),)),
  Panel(
    "Groups without signal", "% of groups", (("reward/zero_variance_share", ""),), percent=True
  ),
  Panel("Entropy", "nats per token", (("train/entropy", ""),)),
  Panel(
    "Clipped",
    "% of tokens",
    (("train/clip_fraction_fresh", "fresh"), ("train/clip_fraction_replay", "replay")),
    percent=True,
  ),
  Panel(
    "Policy against behaviour",
    "mean |Δ log-prob|",
    (("train/abs_dlogp_mean_fresh", "fresh"), ("train/abs_dlogp_mean_replay", "replay")),
  ),
  Panel(
    "Replay age",
    "steps, mean",
    (("replay/age_mean", "stored"), ("replay/drawn_age_mean", "drawn")),
  ),
  Panel("Replay store", "% filled", (("replay/fill", ""),), percent=True),
)


def draw_curves(metrics_path: str | os.PathLike, png_path: str | os.PathLike, title: str) -> None:
  """Draws the metrics of a run as a PNG, at most 1560 pixels wide and 1350 high.

  Raises UserError if there are no metrics to draw, or if the disk refuses the picture.
  """
  rows = read_metrics(metrics_path)
  evaluations = _evaluations(rows)
  panels = [panel for panel in PANELS if _curves(rows, panel)]
  if not evaluations and not panels:
    raise UserError(f"{metrics_path}: nothing to draw yet, no metric beside {_COST}")
  figure, top, small = _layout(title, bool(evaluations), len(panels))
  if top is not None:
    _draw_accuracy(top, evaluations)
  for axes, panel in zip(small, panels, strict=True):
    _draw_panel(axes, panel, _curves(rows, panel))
  picture = io.BytesIO()
  figure.savefig(picture, format="png", dpi=130)
  write_atomically(png_path, picture.getvalue())


def _evaluations(rows: Sequence[dict]) -> dict[str, _Curve]:
  """Accuracy in percent on each problem set, by its name."""
  found = {}
  for name in sorted({name for row in rows for name in row}):
    match = _EVAL.fullmatch(name)
    curve = _curve(rows, name, 100) if match else None
    if curve:
      found[match["name"] or ""] = curve
  return found


def _curves(rows: Sequence[dict], panel: Panel) -> dict[str, _Curve]:
  """The curves of a panel that are there, by label."""
  scale = 100 if panel.percent else 1
  curves = {label: _curve(rows, name, scale) for name, label in panel.lines}
  return {label: curve for label, curve in curves.items() if curve}


def _curve(rows: Sequence[dict], name: str, scale: float) -> _Curve | None:
  """Cost and scaled value where the metric has a value; None where it never has."""
  points = [
    (row[_COST], scale * row[name])
    for row in rows
    if row.get(name) is not None and row.get(_COST) is not None
  ]
  return tuple(map(list, zip(*points, strict=True))) if points else None


def _layout(title: str, with_top: bool, panels: int):
  """A figure, its large axes (or None), and the axes of its small panels."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  rows = -(-panels // _COLUMNS)
  heights = [4.4] * with_top + [2.4 * rows] * (rows > 0)
  figure = Figure(figsize=(12, sum(heights) + 0.7), layout="constrained", facecolor="white")
  FigureCanvasAgg(figure)
  figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
  figure.suptitle(
    title, x=0.012, ha="left", fontsize=17, weight="bold", color=_INK, parse_math=False
  )
  parts = list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
  top = parts.pop(0).subplots() if with_top else None
  if not parts:
    return figure, top, []
  parts[0].supxlabel("pale: each step; bold: running mean", fontsize=9, color=_FAINT)
  small = parts[0].subplots(rows, _COLUMNS, squeeze=False).flat
  for unused in small[panels:]:
    unused.remove()
  return figure, top, small[:panels]


def _draw_accuracy(axes, curves: dict[str, _Curve]) -> None:
  for color, (xs, ys) in zip(_colors(), curves.values(), strict=False):
    axes.plot(xs, ys, color=color, linewidth=2.2, marker="o", markersize=5, clip_on=False)
  _dress(axes, "Accuracy on held-out problems", "% right", _LARGE)
  _label_ends(axes, curves)


def _draw_panel(axes, panel: Panel, curves: dict[str, _Curve]) -> None:
  for color, (xs, ys) in zip(_colors(), curves.values(), strict=False):
    axes.plot(xs, ys, color=color, linewidth=0.8, alpha=0.3, marker="." if len(xs) == 1 else "")
    axes.plot(xs, _running_mean(ys), color=color, linewidth=1.8)
  _dress(axes, panel.title, panel.unit, _SMALL)
  _name_curves(axes, list(curves))


def _name_curves(axes, names: Sequence[str]) -> None:
  """Writes the names in their curves' colours, from the right end of the line above the axes."""
  anchor, xy, gap = axes.transAxes, (1, 1.02), 0
  for color, name in reversed(list(zip(_colors(), names, strict=False))):
    anchor = axes.annotate(
      name,
      xy,
      xycoords=anchor,
      xytext=(gap, 0),
      textcoords="offset points",
      ha="right",
      va="bottom",
      fontsize=_SMALL.size,
      weight="bold",
      color=color,
    )
    # The next name ends where this one begins.
    xy, gap = (0, 0), -8


def _dress(axes, title: str, unit: str, style: _Style) -> None:
  """Title, units, ticks and a thin grid, both axes from 0 unless values are below; no frame."""
  from matplotlib.ticker import EngFormatter, MaxNLocator

  axes.set_title(
    title, loc="left", fontsize=style.size + 2, weight="bold", color=_INK, pad=2 * style.size
  )
  axes.text(
    0, 1.02, unit, transform=axes.transAxes, va="bottom", fontsize=style.size, color=_FAINT
  )
  axes.set_xlabel(_COST_LABEL, fontsize=style.size, color=_FAINT)
  axes.xaxis.set_major_formatter(EngFormatter(sep=""))
  for axis in (axes.xaxis, axes.yaxis):
    axis.set_major_locator(MaxNLocator(style.ticks))
  axes.margins(x=0)
  axes.set_xlim(left=0)
  if axes.dataLim.ymin >= 0:
    axes.set_ylim(bottom=0)
  axes.tick_params(labelsize=style.size, colors=_INK, length=0, pad=5)
  axes.grid(color="#e4e7eb", linewidth=0.7)
  axes.set_axisbelow(True)
  axes.spines[:].set_visible(False)


def _label_ends(axes, curves: dict[str, _Curve]) -> None:
  """Name and last value of each curve right of its end, moved up where two would meet."""
  low, high = axes.get_ylim()
  height = -math.inf
  colored = zip(_colors(), curves.items(), strict=False)
  for color, (name, (_, ys)) in sorted(colored, key=lambda item: item[1][1][1][-1]):
    height = max(ys[-1], height + 0.065 * (high - low))
    axes.annotate(
      f"{name} {ys[-1]:.1f}%",
      (1, height),
      xycoords=axes.get_yaxis_transform(),
      xytext=(9, 0),
      textcoords="offset points",
      va="center",
      fontsize=_LARGE.size,
      weight="bold",
      color=color,
      parse_math=False,
    )


def _colors() -> Iterator[str]:
  return itertools.cycle(_COLORS)


def _running_mean(values: Sequence[float]) -> list[float]:
  """The mean of each value and its neighbours, a twentieth of the curve in all."""
  reach = len(values) // 40
  windows = (values[max(0, i - reach) : i + reach + 1] for i in range(len(values)))
  return [statistics.fmean(window) for window in windows]
