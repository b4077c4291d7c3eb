"""Question: does what the tricks buy on a tiny model hold for one of 63 million parameters?

  python -m experiments.sweep experiments/which_trick_larger.py --jobs=1       # on a GPU
  python -m experiments.report experiments/which_trick_larger.py --out=experiments/results

Not run yet: it needs a GPU for some hours, and one run at a time, since each compiles for a minute.
Rule, seeds and variants are those of experiments/which_trick.py, whose runs are as many steps long;
the task is configs/long_columns.py, of which only the start was looked at.
"""

import dataclasses

from experiments import which_trick

_VARIANTS = which_trick.STUDY.variants
_FAMILIES = {
  "GRPO": ("grpo", "filter"),
  "Replay and choice": ("aper", "history", "dapo", "coba"),
  "Pairs": ("aper + history", "aper + coba"),
}

STUDY = dataclasses.replace(
  which_trick.STUDY,
  question=(
    "Which trick gets the same accuracy for fewer rollouts, on addition of one to eight digits by "
    "63 million parameters?"
  ),
  config="configs/long_columns.py",
  target=0.5,
  families={
    head: {name: _VARIANTS[name] for name in names} for head, names in _FAMILIES.items()
  },
)
