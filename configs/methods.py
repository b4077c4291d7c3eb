"""One row a method: the whole difference from GRPO. Rows compose: "aper+other".

Keys are dotted keys of base.py. Numbers that a task must scale (the store of a run of a thousand
rollouts need not hold thirty thousand) are set again by the task's config, after the row.
"""

import difflib
from collections.abc import Iterable

from ml_collections import ConfigDict

from grpo_jax.errors import UserError

METHODS: dict[str, dict] = {
  # Group-relative policy optimisation, arXiv 2402.03300, with token mean, clip-higher and no KL.
  "grpo": {},
  # Rollout-level advantage-prioritised replay, arXiv 2606.04560, section 1: zero-variance filter,
  # every surviving fresh rollout, and half as many old ones by |A|^0.5, none older than 10 steps.
  "aper": {
    "keep": "mixed_groups",
    "replay.ratio": 0.5,
    "replay.alpha": 0.5,
    "replay.max_age": 10,
    "replay.warmup_steps": 20,
  },
}


def apply(config: ConfigDict, method: str) -> None:
  """Lays the rows of `method` over the config, in order.

  Raises:
    UserError: an unknown row, or two rows that set one key to different values.
  """
  chosen: dict[str, tuple[str, object]] = {}
  for row in method.split("+"):
    if row not in METHODS:
      raise UserError(f"method {row!r}: {nearest(row, METHODS)}")
    for key, value in METHODS[row].items():
      before = chosen.setdefault(key, (row, value))
      if before[1] != value:
        raise UserError(f"method {method!r}: {before[0]} and {row} disagree on {key}")
  config.method = method
  for key, (_, value) in chosen.items():
    config.update_from_flattened_dict({key: value})


def nearest(name: str, known: Iterable[str]) -> str:
  """'unknown; did you mean x? known: x, y' for error messages."""
  known = list(known)
  close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
  suggestion = f"did you mean {close[0]!r}? " if close else ""
  return f"unknown; {suggestion}known: {', '.join(known)}"
