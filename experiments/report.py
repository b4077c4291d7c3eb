"""One page on a study, or on any runs: which variant was better, at what cost, and how sure is it?

  python -m experiments.report experiments/which_trick.py [--runs=DIR] [--out=experiments/results]
  python -m experiments.report runs/mine [--baseline=grpo] [--target=0.7]

Writes NAME.html, which needs nothing beside itself; NAME.md and NAME.png, the table and the
differences; and NAME.json, the numbers of every run at its exams. Of a folder that is no study, all
runs below it are taken: those that differ in the seed alone are one variant.
"""

import argparse
import dataclasses
import html
import json
import math
import pathlib
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from experiments import pictures
from experiments.outcomes import (
  COSTS,
  REASONS,
  Outcome,
  Paired,
  at_cost,
  cost_to,
  holm,
  interval,
  mean_to_cost,
  paired,
  read_finished,
  score_against,
)
from experiments.study import load_study, runs_folder
from grpo_jax.errors import UserError
from grpo_jax.evaluation.statistics import AesConstants
from grpo_jax.run.files import write_atomically
from grpo_jax.run.human import human_count

CONSTANTS = AesConstants()
_SAMPLE_LINES = 60  # of rollouts shown for a variant


@dataclasses.dataclass(frozen=True)
class Report:
  """All that the page says, before it is written."""

  title: str
  command: str
  question: str
  rule: str
  families: Mapping[str, Mapping[str, str]]  # variant and what is asked of it, by family
  outcomes: Mapping[str, Mapping[int, Outcome]]  # by variant and seed
  samples: Mapping[str, str]  # rollouts as text, by variant
  baseline: str
  target: float
  missing: Sequence[str]  # variants that are not finished at all seeds

  @property
  def budget(self) -> float:
    """Rollouts of the shortest baseline run: what every variant may spend."""
    return min(o.cost_E["rollouts"][-1] for o in self.outcomes[self.baseline].values())

  @property
  def k(self) -> int:
    return next(iter(self.outcomes[self.baseline].values())).k

  def values(self, name: str, measure) -> dict[int, float]:
    return {seed: measure(outcome) for seed, outcome in self.outcomes[name].items()}

  def differences(self, measure) -> dict[str, Paired]:
    """Of every variant but the baseline, in points."""
    reference = self.values(self.baseline, measure)
    return {
      name: paired(
        {seed: 100 * value for seed, value in self.values(name, measure).items()},
        {seed: 100 * value for seed, value in reference.items()},
      )
      for name in self.outcomes
      if name != self.baseline
    }

  def shares_to_end(self, name: str) -> list[float]:
    """Rollouts to the accuracy with which the baseline ended at the same seed, as a share of its
    own; infinite where a run never was there."""
    reference = self.outcomes[self.baseline]
    return [
      cost_to(outcome, "rollouts", reference[seed].accuracy_E[-1])
      / reference[seed].cost_E["rollouts"][-1]
      for seed, outcome in self.outcomes[name].items()
      if seed in reference
    ]

  def at_budget(self, outcome: Outcome) -> float:
    return at_cost(outcome, outcome.accuracy_E, self.budget)

  def pass_at_budget(self, outcome: Outcome) -> float:
    return at_cost(outcome, outcome.pass_E, self.budget)

  def more_at_budget(self, outcome: Outcome) -> float:
    return at_cost(outcome, outcome.more_E, self.budget)

  def both_at_budget(self, outcome: Outcome) -> float:
    return (self.at_budget(outcome) + self.more_at_budget(outcome)) / 2

  def mean_to_budget(self, outcome: Outcome) -> float:
    return mean_to_cost(outcome, self.budget)


def verdict(report: Report) -> str:
  """Which differences are there? By the intervals of the paired differences alone."""
  found = report.differences(report.at_budget)
  adjusted = holm({name: pair.p for name, pair in found.items()})
  told = {
    "Above": [name for name, pair in found.items() if pair.low > 0],
    "Below": [name for name, pair in found.items() if pair.high < 0],
  }
  parts = [
    f"{side} {report.baseline}: "
    + ("; ".join(name + " (surely)" * (adjusted[name] < 0.05) for name in names) or "none")
    for side, names in told.items()
  ]
  rest = len(found) - sum(map(len, told.values()))
  return f"{parts[0]}. {parts[1]}. No difference shown: the other {rest}."


# ------------------------------------------------------------------------------ tables

Table = tuple[list[str], dict[str, list[list[str]]]]  # head, rows by family


def main_table(report: Report) -> Table:
  """Accuracy, its difference from the baseline, and how sure that is."""
  at, along = report.differences(report.at_budget), report.differences(report.mean_to_budget)
  adjusted = holm({name: found.p for name, found in at.items()})
  head = [
    "variant",
    f"accuracy, avg@{report.k}",
    f"pass@{report.k}",
    f"difference from {report.baseline}",
    "p (Holm)",
    "difference of the mean over the run",
    "AES",
    "seeds",
  ]

  def row(name: str) -> list[str]:
    scores = [100 * value for value in report.values(name, report.at_budget).values()]
    passed = [100 * value for value in report.values(name, report.pass_at_budget).values()]
    cells = [name, _interval(scores), f"{statistics.fmean(passed):.1f}"]
    if name == report.baseline:
      return [*cells, "", "", "", "", str(len(scores))]
    reference = report.outcomes[report.baseline]
    scored = [
      score_against(outcome, reference[seed], CONSTANTS)
      for seed, outcome in report.outcomes[name].items()
      if seed in reference
    ]
    p = f"{_p(at[name].p)} ({_p(adjusted[name])})"
    score = statistics.fmean(scored) if scored else math.nan
    aes = "-" if math.isnan(score) else f"{score:+.2f}"
    return [*cells, _paired(at[name]), p, _paired(along[name]), aes, str(len(scores))]

  return head, _by_family(report, row)


def more_table(report: Report) -> Table:
  """Accuracy on the other held-out set, config.eval_more, and the mean of it and the first."""
  measures = {"of the other": report.more_at_budget, "mean of both": report.both_at_budget}
  found = {name: report.differences(measure) for name, measure in measures.items()}
  head = ["variant"]
  for name in measures:
    head += [f"accuracy, {name}", f"difference from {report.baseline}"]

  def row(name: str) -> list[str]:
    cells = [name]
    for its, measure in measures.items():
      cells.append(_interval([100 * v for v in report.values(name, measure).values()]))
      cells.append("" if name == report.baseline else _paired(found[its][name]))
    return cells

  return head, _by_family(report, row)


def cost_table(report: Report) -> Table:
  """What it took to get where the baseline ends, and to the target, and what the whole run took."""
  head = ["variant", f"rollouts to {report.baseline}'s end", "reached"]
  head += [*(f"{cost} to {report.target:.0%}" for cost in COSTS), "reached"]
  head += [f"{cost}, whole run" for cost in COSTS]

  def row(name: str) -> list[str]:
    outcomes = report.outcomes[name].values()
    shares = report.shares_to_end(name)
    to = {cost: [cost_to(o, cost, report.target) for o in outcomes] for cost in COSTS}
    whole = [statistics.fmean(o.cost_E[cost][-1] for o in outcomes) for cost in COSTS]
    return [
      name,
      _median(shares, "{:.0%}".format),
      _reached(shares),
      *(_median(values, human_count) for values in to.values()),
      _reached(to["rollouts"]),
      *map(human_count, whole),
    ]

  return head, _by_family(report, row)


def reason_table(report: Report) -> Table:
  """Means over the steps of a run, over seeds."""
  head = ["variant", *REASONS]

  def row(name: str) -> list[str]:
    outcomes = list(report.outcomes[name].values())
    means = [statistics.fmean(o.reasons[reason] for o in outcomes) for reason in REASONS]
    return [name, *("-" if math.isnan(mean) else f"{mean:.3g}" for mean in means)]

  return head, _by_family(report, row)


def _by_family(report: Report, row) -> dict[str, list[list[str]]]:
  rows = {
    family: [row(name) for name in members if report.outcomes.get(name)]
    for family, members in report.families.items()
  }
  return {family: found for family, found in rows.items() if found}


def _interval(values: Sequence[float]) -> str:
  mean, low, high = interval(values)
  return f"{mean:.1f} ({low:.1f} to {high:.1f})"


def _paired(found: Paired) -> str:
  if math.isnan(found.low):
    return f"{found.mean:+.1f}"
  return f"{found.mean:+.1f} ({found.low:+.1f} to {found.high:+.1f})"


def _p(value: float) -> str:
  if math.isnan(value):
    return "-"
  return f"{value:.3f}" if value >= 0.0005 else "<0.001"


def _median(values: Sequence[float], write: Callable[[float], str]) -> str:
  """Over all seeds, those that never got there counted as infinite."""
  middle = statistics.median_high(values) if math.inf in values else statistics.median(values)
  return "never" if math.isinf(middle) else write(middle)


def _reached(values: Sequence[float]) -> str:
  return f"{sum(map(math.isfinite, values))} of {len(values)}"


def method_notes(report: Report) -> list[str]:
  count = len(report.outcomes) - 1
  return [
    f"Accuracy is the share of right answers among {report.k} samples a held-out problem, in "
    f"percent, after {human_count(report.budget)} rollouts: the budget of {report.baseline}. A "
    "variant that samples more in a step, or measured problems before its first, is read earlier "
    "in its run, between two exams on a straight line.",
    "Behind accuracies: 95 % percentile bootstrap over seeds, too narrow with few of them. "
    f"Differences from {report.baseline} are paired by seed (same start weights, problems and "
    "held-out set), in points, with Student's t 95 % intervals over seeds; they speak of seeds of "
    "this task, not of other tasks.",
    f"p is two-sided, in brackets adjusted by Holm's method over {count} comparisons. Without "
    f"adjustment about {0.05 * count:.1f} of {count} intervals would miss 0 if nothing differed.",
    "The mean over the run is accuracy averaged over rollouts from 0 to the budget: how early a "
    "variant is good.",
    f"AES (O1-Pruner) against {report.baseline} at the end of the run, alpha {CONSTANTS.alpha:g}, "
    f"beta {CONSTANTS.beta:g}, gamma {CONSTANTS.gamma:g}; mean over seeds "
    "(-: a reference that is never right has none).",
    f"Rollouts to {report.baseline}'s end: to the accuracy with which it ended at the same seed, "
    "as a share of all it took; a lucky exam on the way counts.",
    f"Cost to {report.target:.0%} and to that end: median over seeds, a seed that never got there "
    "counted as infinite. FLOPs are 2 per parameter for each token sampled or read, 6 for each "
    "trained. What was spent on measuring problems is included everywhere; evaluation is not.",
  ]


# ------------------------------------------------------------------------------ writing


def markdown(report: Report) -> str:
  parts = [f"# {report.title}", "", f"`{report.command}`", ""]
  parts += [report.question, "", f"Decision rule, written before the runs: {report.rule}", ""]
  parts += [f"**{verdict(report)}**", ""]
  if report.missing:
    parts += [f"Not finished, and left out: {'; '.join(report.missing)}.", ""]
  for title, (head, families) in tables(report).items():
    parts += [f"## {title}", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for family, rows in families.items():
      parts.append(f"| *{family}* |{' |' * (len(head) - 1)}")
      parts += [f"| {' | '.join(row)} |" for row in rows]
    parts.append("")
  parts += ["## How to read it", "", *(f"- {note}" for note in method_notes(report)), ""]
  return "\n".join(parts)


def tables(report: Report) -> dict[str, Table]:
  after = f"after {human_count(report.budget)} rollouts"
  found = {f"Accuracy {after}": main_table(report)}
  if all(o.more_E is not None for runs in report.outcomes.values() for o in runs.values()):
    found[f"The other held-out problems {after}"] = more_table(report)
  return found | {
    "Cost": cost_table(report),
    "Why: means over a run's steps": reason_table(report),
  }


def forest_figure(report: Report):
  found = report.differences(report.at_budget)
  adjusted = holm({name: pair.p for name, pair in found.items()})
  by_family = {
    family: {name: found[name] for name in members if name in found}
    for family, members in report.families.items()
  }
  return pictures.forest(
    {family: members for family, members in by_family.items() if members},
    {name: p < 0.05 for name, p in adjusted.items()},
    f"points of accuracy above {report.baseline} after {human_count(report.budget)} rollouts, "
    f"95 % interval over seeds (filled: also after Holm)",
  )


def numbers(report: Report) -> str:
  """Every run at its exams: what all the rest is made of."""
  found = {
    name: {
      seed: {
        "accuracy": outcome.accuracy_E.tolist(),
        f"pass@{outcome.k}": outcome.pass_E.tolist(),
        "length": outcome.length_E.tolist(),
        **({} if outcome.more_E is None else {"accuracy, other": outcome.more_E.tolist()}),
        **{cost: spent_E.tolist() for cost, spent_E in outcome.cost_E.items()},
      }
      for seed, outcome in sorted(outcomes.items())
    }
    for name, outcomes in report.outcomes.items()
  }
  runs = [f'"{name}": {json.dumps(by_seed)}' for name, by_seed in found.items()]
  return "{\n" + ",\n".join(runs) + "\n}\n"


STYLE = """
:root { --ink: #24292f; --faint: #6e7781; --line: #e4e7eb; --blue: #0b63c5; }
* { box-sizing: border-box; }
body { font: 15px/1.55 system-ui, sans-serif; color: var(--ink); margin: 0 auto;
  padding: 2.5rem 2rem;  max-width: 1220px; }
h1 { font-size: 1.9rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; }
.lead { font-size: 1.05rem; max-width: 72ch; } .faint { color: var(--faint); }
p, li { max-width: 90ch; } code, pre { font: 12.5px/1.45 ui-monospace, monospace; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; }
th { text-align: left; vertical-align: bottom; font-weight: 600; max-width: 9.5rem; }
th, td { padding: .28rem .7rem .28rem 0; border-bottom: 1px solid var(--line); }
td { white-space: nowrap; font-variant-numeric: tabular-nums; } td:first-child { font-weight: 600; }
tr.family td { color: var(--faint); font-style: italic; font-weight: 400; padding-top: .9rem; }
tr.baseline td { background: #f6f8fa; }
details { border-bottom: 1px solid var(--line); padding: .35rem 0; } summary { cursor: pointer; }
pre { background: #f6f8fa; padding: .8rem 1rem; overflow-x: auto; }
svg { max-width: 100%; height: auto; }
"""


def page(report: Report) -> str:
  """The whole page; every text that a model or a file wrote is escaped."""
  parts = [
    '<!doctype html><html lang="en"><head><meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    f"<title>{html.escape(report.title)}</title><style>{STYLE}</style></head><body>",
    f"<h1>{html.escape(report.title)}</h1>",
    f'<p class="lead">{html.escape(report.question)}</p>',
    f"<p><b>Decision rule</b>, written before the runs: {html.escape(report.rule)}</p>",
    f"<p><b>{html.escape(verdict(report))}</b></p>",
    f'<p class="faint"><code>{html.escape(report.command)}</code></p>',
  ]
  if report.missing:
    parts.append(f"<p><b>Not finished, left out:</b> {html.escape('; '.join(report.missing))}</p>")
  parts += ["<h2>Differences</h2>", pictures.svg(forest_figure(report))]
  for title, table in tables(report).items():
    parts += [f"<h2>{html.escape(title)}</h2>", _html_table(table, report.baseline)]
  parts += ["<h2>How to read it</h2><ul>"]
  parts += [f"<li>{html.escape(note)}</li>" for note in method_notes(report)]
  parts += ["</ul>", *_curve_sections(report), *_asked(report), *_sample_sections(report)]
  return "\n".join([*parts, "</body></html>", ""])


def _curve_sections(report: Report) -> Iterator[str]:
  yield "<h2>Curves</h2><p>Mean over seeds; the band is one standard error on each side.</p>"
  baseline = (report.baseline, list(report.outcomes[report.baseline].values()))
  for family, members in report.families.items():
    found = {
      name: list(report.outcomes[name].values())
      for name in members
      if report.outcomes.get(name) and name != report.baseline
    }
    if found:
      yield f'<p class="faint">{html.escape(family)}</p>'
      yield pictures.svg(pictures.curves(found, baseline, report.budget))


def _asked(report: Report) -> Iterator[str]:
  yield "<h2>The variants</h2><ul>"
  for members in report.families.values():
    for name, about in members.items():
      if about:
        yield f"<li><b>{html.escape(name)}</b>: {html.escape(about)}</li>"
  yield "</ul>"


def _sample_sections(report: Report) -> Iterator[str]:
  yield "<h2>Sample rollouts</h2><p>The last ones written down, of the first seed.</p>"
  for name, text in report.samples.items():
    yield f"<details><summary>{html.escape(name)}</summary><pre>{html.escape(text)}</pre></details>"


def _html_table(table: Table, baseline: str) -> str:
  head, families = table
  lines = ['<div class="scroll"><table><tr>', *(f"<th>{html.escape(cell)}</th>" for cell in head)]
  lines.append("</tr>")
  for family, rows in families.items():
    lines.append(
      f'<tr class="family"><td colspan="{len(head)}">{html.escape(family)}</td></tr>'
    )
    for row in rows:
      kind = ' class="baseline"' if row[0] == baseline else ""
      cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
      lines.append(f"<tr{kind}>{cells}</tr>")
  return "".join([*lines, "</table></div>"])


# ------------------------------------------------------------------------------ reading


def of_study(path: str, runs: pathlib.Path) -> Report:
  """The report of a study file, from the variants that are finished at all seeds.

  Raises:
    UserError: its baseline is not among them.
  """
  study = load_study(path)
  folders = {
    name: [runs / name / f"seed_{seed}" for seed in study.seeds] for name in study.variants
  }
  finished = read_finished(folders)
  # A mean over other seeds than the baseline's would be read as another accuracy.
  outcomes = {name: found for name, found in finished.items() if len(found) == len(study.seeds)}
  if study.baseline not in outcomes:
    raise UserError(f"{runs}: {study.baseline} has not finished at all seeds; run the sweep first")
  missing = [
    f"{name} ({len(found)} of {len(study.seeds)} seeds)"
    for name, found in finished.items()
    if name not in outcomes
  ]
  return Report(
    title=pathlib.Path(path).stem.replace("_", " ").capitalize(),
    command=f"python -m experiments.sweep {path} && python -m experiments.report {path}",
    question=study.question,
    rule=study.rule,
    families={
      family: {name: variant.about for name, variant in members.items()}
      for family, members in study.families.items()
    },
    outcomes=outcomes,
    samples={name: last_rollouts(folders[name][0]) for name in outcomes},
    baseline=study.baseline,
    target=study.target,
    missing=missing,
  )


def of_folder(path: pathlib.Path, baseline: str, target: float) -> Report:
  """The report of all runs below a folder.

  Raises:
    UserError: there are none, or none of the baseline.
  """
  variants: dict[str, list[pathlib.Path]] = {}
  named: dict[str, str] = {}
  for file in sorted(path.rglob("metrics.jsonl")):
    config = json.loads((file.parent / "config.json").read_text())
    same = json.dumps(config | {"seed": None}, sort_keys=True)
    if same not in named:
      taken = config["method"] in named.values()
      named[same] = f"{config['method']} ({file.parent.name})" if taken else config["method"]
    variants.setdefault(named[same], []).append(file.parent)
  if baseline not in variants:
    raise UserError(f"{path}: no run of {baseline!r}; there are: {', '.join(variants) or 'none'}")
  return Report(
    title=path.name,
    command=f"python -m experiments.report {path}",
    question=f"All runs below {path}.",
    rule="none",
    families={"runs": dict.fromkeys(variants, "")},
    outcomes=read_finished(variants, marker="metrics.jsonl"),
    samples={name: last_rollouts(folders[0]) for name, folders in variants.items()},
    baseline=baseline,
    target=target,
    missing=(),
  )


def last_rollouts(folder: pathlib.Path) -> str:
  """The start of the newest file of readable rollouts; what models write is printable there."""
  files = sorted((folder / "rollouts").glob("step_*.txt"))
  if not files:
    return "none were written down"
  lines = files[-1].read_text(errors="replace").splitlines()
  more = len(lines) - _SAMPLE_LINES
  left_out = [f"[... {more} more lines ...]"] if more > 0 else []
  return "\n".join(lines[:_SAMPLE_LINES] + left_out)


def main(arguments: list[str]) -> None:
  parser = argparse.ArgumentParser(prog="python -m experiments.report", description=__doc__)
  parser.add_argument("what", help="a study file, or a folder of runs")
  parser.add_argument("--runs", default="", help="folder of a study's runs; default: runs/STUDY")
  parser.add_argument("--out", default="", help="where to write; default: the folder of the runs")
  parser.add_argument("--baseline", default="grpo", help="of a folder: what differences are from")
  parser.add_argument("--target", type=float, default=0.5, help="of a folder: share right")
  given = parser.parse_args(arguments)
  path = pathlib.Path(given.what)
  if path.suffix == ".py":
    runs = pathlib.Path(given.runs) if given.runs else runs_folder(given.what)
    report = of_study(given.what, runs)
  else:
    runs, report = path, of_folder(path, given.baseline, given.target)
  out = pathlib.Path(given.out) if given.out else runs
  out.mkdir(parents=True, exist_ok=True)
  write_atomically(out / f"{path.stem}.html", page(report).encode())
  write_atomically(out / f"{path.stem}.md", markdown(report).encode())
  write_atomically(out / f"{path.stem}.json", numbers(report).encode())
  write_atomically(out / f"{path.stem}.png", pictures.png(forest_figure(report)))
  print(f"{out / path.stem}.html, .md, .png and .json")


if __name__ == "__main__":
  try:
    main(sys.argv[1:])
  except UserError as error:
    sys.exit(f"error: {error}")
