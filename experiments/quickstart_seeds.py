"""Question: does the quickstart learn at every seed, and what does replay change in it?

  python experiments/quickstart_seeds.py

Runs configs/quickstart.py for each method and seed, one after the other (a killed study goes on
where it stopped), then prints a table and draws accuracy against rollouts and trained tokens:
experiments/results/quickstart.{md,png}. Three seeds show that it learns; they are too few to rank
two methods, so the table gives ranges and no verdict. Walls leave out the warm start once it is
cached, and include everything else.
"""

import pathlib
import statistics
import subprocess
import sys
import time

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import EngFormatter

from grpo_jax.run.metrics import read_metrics

ROOT = pathlib.Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs" / "quickstart_seeds"
RESULTS = ROOT / "experiments" / "results"

METHODS = ("grpo", "aper")
COLORS = {"grpo": "#8c959f", "aper": "#0b63c5"}
SEEDS = (0, 1, 2)
TARGET = 0.8


def run(method: str, seed: int) -> pathlib.Path:
  """Trains unless it was done before; notes how long the whole command took."""
  folder = RUNS / f"{method}_{seed}"
  if not (folder / "wall_seconds").exists():
    config = f"configs/quickstart.py:method={method},seed={seed}"
    command = [sys.executable, "-m", "grpo_jax.train", f"--config={config}", f"--workdir={folder}"]
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True)
    (folder / "wall_seconds").write_text(f"{time.perf_counter() - started:.0f}")
  return folder


def exams(folder: pathlib.Path) -> list[dict]:
  return [row for row in read_metrics(folder / "metrics.jsonl") if "eval/accuracy" in row]


def cost_to_target(rows: list[dict], cost: str) -> float | None:
  """What had been spent when accuracy first was at the target."""
  return next((row[cost] for row in rows if row["eval/accuracy"] >= TARGET), None)


def table(folders: dict[str, list[pathlib.Path]]) -> str:
  """One line a method; each number is the median over seeds, with the range behind it."""
  lines = [
    f"| method | accuracy before | after | rollouts to {TARGET:.0%} | "
    f"trained tokens to {TARGET:.0%} | wall s |",
    "|---|---|---|---|---|---|",
  ]
  for method, runs in folders.items():
    curves = [exams(folder) for folder in runs]
    columns = [
      spread([rows[0]["eval/accuracy"] for rows in curves], "{:.1%}"),
      spread([rows[-1]["eval/accuracy"] for rows in curves], "{:.1%}"),
      spread([cost_to_target(rows, "cost/rollouts") for rows in curves], "{:,.0f}"),
      spread([cost_to_target(rows, "cost/trained_tokens") for rows in curves], "{:,.0f}"),
      spread([float((folder / "wall_seconds").read_text()) for folder in runs], "{:.0f}"),
    ]
    lines.append(f"| {method} | {' | '.join(columns)} |")
  return "\n".join(lines)


def spread(values: list[float | None], form: str) -> str:
  """Median and range; says how many never got there."""
  reached = [value for value in values if value is not None]
  if not reached:
    return "never"
  median, low, high = (form.format(f(reached)) for f in (statistics.median, min, max))
  never = len(values) - len(reached)
  return f"{median} ({low} to {high})" + (f", {never} never" if never else "")


def draw(folders: dict[str, list[pathlib.Path]], path: pathlib.Path) -> None:
  """Every seed as a thin line, the mean over seeds as a bold one."""
  figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
  costs = {"cost/rollouts": "rollouts sampled", "cost/trained_tokens": "tokens trained on"}
  for axis, (cost, label) in zip(axes, costs.items(), strict=True):
    for row, (method, runs) in enumerate(folders.items()):
      color = COLORS[method]
      curves = [exams(folder) for folder in runs]
      for rows in curves:
        axis.plot(*points(rows, cost), color=color, linewidth=0.8, alpha=0.5)
      by_axis = zip(*(points(rows, cost) for rows in curves), strict=True)
      spent, right = (mean(columns) for columns in by_axis)
      axis.plot(spent, right, color=color, linewidth=2.2)
      axis.text(
        0.97, 0.06 + 0.07 * row, method, transform=axis.transAxes, ha="right", color=color,
        fontweight="bold",
      )  # fmt: skip
    axis.set_xlabel(label)
    axis.grid(color="#eaeef2")
    axis.spines[["top", "right"]].set_visible(False)
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
  axes[0].set_ylabel("% right on held-out problems")
  figure.savefig(path, dpi=130)


def mean(columns: tuple[list[float], ...]) -> list[float]:
  """Place by place over seeds."""
  return [statistics.fmean(values) for values in zip(*columns, strict=True)]


def points(rows: list[dict], cost: str) -> tuple[list[float], list[float]]:
  return [row[cost] for row in rows], [100 * row["eval/accuracy"] for row in rows]


def main() -> None:
  folders = {method: [run(method, seed) for seed in SEEDS] for method in METHODS}
  RESULTS.mkdir(parents=True, exist_ok=True)
  text = table(folders)
  heading = f"# Quickstart, {len(SEEDS)} seeds: median (range)\n\n"
  (RESULTS / "quickstart.md").write_text(f"{heading}{text}\n")
  draw(folders, RESULTS / "quickstart.png")
  print(text)


if __name__ == "__main__":
  main()
