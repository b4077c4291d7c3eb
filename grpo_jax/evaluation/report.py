"""What does a person want to read: one result as a table, and is one of two results better?"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from grpo_jax.errors import UserError
from grpo_jax.evaluation.samples import read_samples
from grpo_jax.evaluation.scores import Scores, tally
from grpo_jax.evaluation.statistics import (
  AesConstants,
  accuracy_efficiency_score,
  paired_bootstrap,
)
from grpo_jax.run.files import disk_errors

_BOOTSTRAP_SEED = 0
# Two results that differ in these compare other things than two models.
_OF_THE_MODEL = ("model", "run")


@dataclasses.dataclass(frozen=True)
class Result:
  """A finished result folder."""

  path: pathlib.Path
  metrics: Mapping[str, float | None]
  settings: Mapping[str, Any]

  def scores(self) -> Scores:
    """Reads the samples.

    Raises:
      UserError: one of them is missing.
    """
    problems = range(self.settings["problems"]["count"])
    file = self.path / "samples.jsonl"
    try:
      return tally(read_samples(file), problems, self.settings["decoding"]["samples"])
    except ValueError as error:
      raise UserError(f"{file}: {error}; run the evaluation again to complete it") from error


def open_result(path: pathlib.Path) -> Result:
  """Reads the summary of a result folder.

  Raises:
    UserError: there is none, or it is not one of ours.
  """
  file = path / "summary.json"
  if not file.is_file():
    raise UserError(f"{path}: not a finished result folder (it has no summary.json)")
  try:
    with disk_errors(file):
      summary = json.loads(file.read_text(encoding="utf-8"))
    return Result(path, summary["metrics"], summary["settings"])
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(f"{file}: not the summary of an evaluation ({error!r})") from error


def summary_table(metrics: Mapping[str, float | None], settings: Mapping[str, Any]) -> str:
  """One result: what was done, then a line a number."""
  how, count = settings["decoding"], settings["problems"]["count"]
  title = (
    f"{settings['benchmark']}: {count:,} problems x {how['samples']} samples, "
    f"template {settings['template']}, temperature {how['temperature']:g}, top_p {how['top_p']:g}, "
    f"top_k {how['top_k']}, at most {how['max_new_tokens']:,} new tokens, seed {settings['seed']}"
  )
  return "\n".join([title, *_rows(metrics, how["samples"])])


def _rows(metrics: Mapping[str, float | None], samples: int) -> Iterator[str]:
  errors = [metrics[f"accuracy_stderr{part}"] for part in ("", "_problems", "_samples")]
  total, of_problems, of_samples = map(_points, errors)
  yield (
    f"  {f'avg@{samples}':<12} {_percent(metrics['accuracy'])}  standard error {total} points "
    f"(which problems {of_problems}, which samples {of_samples})"
  )
  for name in metrics:
    kind, _, k = name.partition("_at_")
    if k:
      yield f"  {f'{kind}@{k}':<12} {_percent(metrics[name])}"
  for name in ("truncated", "nonfinite", "unparseable", "unscored"):
    yield f"  {name:<12} {_percent(metrics[name])}"
  mean, right, wrong = (_tokens(metrics[f"length_{of}"]) for of in ("mean", "right", "wrong"))
  yield f"  {'length':<12} {mean:>6} tokens (right answers {right}, wrong ones {wrong})"


def comparison(first: Result, second: Result) -> str:
  """Is the second better than the first, on the same problems?

  Raises:
    UserError: they are results on other problems.
  """
  if first.settings["problems"] != second.settings["problems"]:
    raise UserError(
      f"{first.path} and {second.path} are on other problems ({first.settings['benchmark']}, "
      f"{second.settings['benchmark']}); compare results on one set"
    )
  first_scores, second_scores = first.scores(), second.scores()
  difference = paired_bootstrap(
    first_scores.right_NS.mean(axis=1), second_scores.right_NS.mean(axis=1), seed=_BOOTSTRAP_SEED
  )
  constants = AesConstants()
  aes = accuracy_efficiency_score(
    accuracy=second_scores.right_NS.mean(),
    length=second_scores.length_NS.mean(),
    reference_accuracy=first_scores.right_NS.mean(),
    reference_length=first_scores.length_NS.mean(),
    constants=constants,
  )
  verdict = "; the reference is never right" if aes != aes else ""
  return "\n".join(
    [
      *_other_settings(first.settings, second.settings),
      *(_line(name, result) for name, result in (("A", first), ("B", second))),
      f"B - A: {_points(difference.mean, sign='+')} points, 95 % interval "
      f"{_points(difference.low, sign='+')} to {_points(difference.high, sign='+')}, not better in "
      f"{_percent(difference.not_better).strip()} of 10,000 paired resamples of the problems",
      f"AES of B against A: {aes:+.3f} (O1-Pruner; alpha {constants.alpha:g}, "
      f"beta {constants.beta:g}, gamma {constants.gamma:g}{verdict})",
    ]
  )


def _line(name: str, result: Result) -> str:
  metrics, samples = result.metrics, result.settings["decoding"]["samples"]
  return (
    f"{name}  {_percent(metrics['accuracy'])} avg@{samples} "
    f"(standard error {_points(metrics['accuracy_stderr'])})  "
    f"{_tokens(metrics['length_mean'])} tokens  "
    f"{_percent(metrics['truncated']).strip()} truncated  {result.path}"
  )


def _other_settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
  """A warning for each setting that is not the same, beside the model."""
  for key in first:
    if key not in _OF_THE_MODEL and first[key] != second.get(key):
      yield f"NOT THE SAME: {key} is {first[key]} in A, {second.get(key)} in B"


def _percent(share: float | None) -> str:
  return "     -" if share is None else f"{100 * share:5.1f}%"


def _points(share: float | None, sign: str = "") -> str:
  """A share of 1 as percentage points; `-` where there is no number."""
  return "-" if share is None else f"{100 * share:{sign}.1f}"


def _tokens(length: float | None) -> str:
  return "-" if length is None else f"{length:,.0f}"
