"""What came of a study's runs, as numbers: curves over cost, cost to a target, paired differences.

Runs of one seed share start weights, problems and held-out set, so a variant is compared with the
baseline seed by seed. With few seeds the method is stated where its numbers stand: differences have
Student's t interval over seeds, means the percentile bootstrap over seeds (too narrow below ten
seeds), and the p-values of a table are adjusted by Holm's method.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from grpo_jax.evaluation.statistics import (
  AesConstants,
  accuracy_efficiency_score,
  paired_bootstrap,
)
from grpo_jax.run.metrics import read_metrics

COSTS = {
  "rollouts": "cost/rollouts",
  "generated tokens": "cost/generated_tokens",
  "trained tokens": "cost/trained_tokens",
  "FLOPs": "cost/flops",
}
# Means over the steps of a run that tell why it went as it did.
REASONS = {
  "right, of those asked": "reward/right",
  "groups all right": "reward/groups_all_right",
  "groups all wrong": "reward/groups_all_wrong",
  "kept": "rollout/kept",
  "clipped, fresh": "train/clip_fraction_fresh",
  "clipped, replayed": "train/clip_fraction_replay",
  "age of replayed": "replay/drawn_age_mean",
  "entropy": "train/entropy",
  "grad norm": "train/grad_norm",
}
_RESAMPLING_SEED = 0


@dataclasses.dataclass(frozen=True)
class Outcome:
  """One run, at its exams."""

  accuracy_E: np.ndarray  # share of all answers that are right: avg@k
  pass_E: np.ndarray  # unbiased pass@k, for the largest k there is
  k: int
  length_E: np.ndarray  # tokens of an answer
  cost_E: Mapping[str, np.ndarray]  # by the names of COSTS, profiling included
  reasons: Mapping[str, float]  # by the names of REASONS; NaN where a run has no such number
  more_E: np.ndarray | None = None  # accuracy on config.eval_more; None: nothing is held out there


def read_outcome(folder: pathlib.Path) -> Outcome:
  """From the metrics of a run."""
  rows = read_metrics(folder / "metrics.jsonl")
  exams = [row for row in rows if "eval/accuracy" in row]
  k = max(int(name.rsplit("_", 1)[1]) for name in exams[0] if name.startswith("eval/pass_at_"))
  return Outcome(
    accuracy_E=_column(exams, "eval/accuracy"),
    pass_E=_column(exams, f"eval/pass_at_{k}"),
    k=k,
    length_E=_column(exams, "eval/length_mean"),
    cost_E={name: _column(exams, key) for name, key in COSTS.items()},
    reasons={name: _mean(_column(rows, key)) for name, key in REASONS.items()},
    more_E=_column(exams, "eval_more/accuracy") if "eval_more/accuracy" in exams[0] else None,
  )


def read_finished(
  variants: Mapping[str, Sequence[pathlib.Path]], marker: str = "finished.json"
) -> dict[str, dict[int, Outcome]]:
  """The runs of each variant by seed, without those whose folder lacks the file `marker`."""
  return {
    name: {
      json.loads((folder / "config.json").read_text())["seed"]: read_outcome(folder)
      for folder in folders
      if (folder / marker).is_file()
    }
    for name, folders in variants.items()
  }


def cost_to(outcome: Outcome, cost: str, target: float) -> float:
  """What had been spent when accuracy first was at the target, between two exams on a straight
  line; infinite where it never was."""
  spent, right = outcome.cost_E[cost], outcome.accuracy_E
  reached = np.flatnonzero(right >= target)
  if not len(reached):
    return math.inf
  e = reached[0]
  if e == 0:
    return float(spent[0])
  share = (target - right[e - 1]) / (right[e] - right[e - 1])
  return float(spent[e - 1] + share * (spent[e] - spent[e - 1]))


def at_cost(outcome: Outcome, values_E: np.ndarray, budget: float, cost: str = "rollouts") -> float:
  """A value of the exams when `budget` had been spent, between two exams on a straight line. A run
  that had not yet begun by then has its first value, one that ended before its last."""
  return float(np.interp(budget, outcome.cost_E[cost], values_E))


def mean_to_cost(outcome: Outcome, budget: float, cost: str = "rollouts") -> float:
  """Accuracy averaged over what was spent, from nothing to `budget`: how early a run is good."""
  inner = outcome.cost_E[cost]
  spent = np.unique([0.0, *inner[(inner > 0) & (inner < budget)], budget])
  right = np.interp(spent, inner, outcome.accuracy_E)
  return float(np.trapezoid(right, spent) / budget)


@dataclasses.dataclass(frozen=True)
class Paired:
  """A variant less the baseline, over the seeds both have."""

  mean: float
  low: float  # of the 95 % interval, Student's t over seeds
  high: float
  p: float  # two-sided; that the mean is 0
  seeds: int


def paired(variant: Mapping[int, float], baseline: Mapping[int, float]) -> Paired:
  """Differences seed by seed; no interval from fewer than two."""
  seeds = sorted(variant.keys() & baseline.keys())
  difference = np.array([variant[seed] - baseline[seed] for seed in seeds])
  n = len(difference)
  if n < 2:
    return Paired(float(difference.mean()) if n else math.nan, math.nan, math.nan, math.nan, n)
  mean, error = difference.mean(), difference.std(ddof=1) / math.sqrt(n)
  if error == 0:
    return Paired(float(mean), float(mean), float(mean), 1.0 if mean == 0 else 0.0, n)
  reach = stats.t.ppf(0.975, n - 1) * error
  p = 2 * stats.t.sf(abs(mean) / error, n - 1)
  return Paired(*map(float, (mean, mean - reach, mean + reach, p)), n)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
  """Adjusted p-values: below 0.05 for some name by chance in 5 of 100 tables. NaN stays NaN."""
  known = sorted((p, name) for name, p in p_values.items() if not math.isnan(p))
  adjusted, largest = dict.fromkeys(p_values, math.nan), 0.0
  for rank, (p, name) in enumerate(known):
    largest = max(largest, min(1.0, (len(known) - rank) * p))
    adjusted[name] = largest
  return adjusted


def interval(values: Sequence[float]) -> tuple[float, float, float]:
  """Mean and 95 % percentile bootstrap over seeds."""
  found = paired_bootstrap(np.zeros(len(values)), np.array(values), seed=_RESAMPLING_SEED)
  return found.mean, found.low, found.high


def score_against(outcome: Outcome, reference: Outcome, constants: AesConstants) -> float:
  """AES at the last exam."""
  return accuracy_efficiency_score(
    accuracy=outcome.accuracy_E[-1],
    length=outcome.length_E[-1],
    reference_accuracy=reference.accuracy_E[-1],
    reference_length=reference.length_E[-1],
    constants=constants,
  )


def _column(rows: Sequence[dict], key: str) -> np.ndarray:
  values = [row.get(key) for row in rows]
  return np.array([math.nan if value is None else value for value in values], float)


def _mean(values: np.ndarray) -> float:
  known = values[np.isfinite(values)]
  return float(known.mean()) if len(known) else math.nan
