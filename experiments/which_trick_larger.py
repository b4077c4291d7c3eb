"""Question: does what the tricks buy on a tiny model hold for one of 63 million parameters?

  XLA_CLIENT_MEM_FRACTION=.14 python -m experiments.sweep experiments/which_trick_larger.py --jobs=5
  python -m experiments.report experiments/which_trick_larger.py --out=experiments/results

On one GPU of 80 GB or more, a quarter of an hour for all 30 runs. Make one run alone first, of any
method: it compiles, for a minute, what the others then find in the cache.
Rule, seeds and variants are those of experiments/which_trick.py, as many as that time allowed, and
runs are as many steps long. The task is configs/long_columns.py. The target was chosen after the
runs, by GRPO's alone, as what each of them reaches about a third of the way. The two rows of
history in the kept table are from before all problems came back when fewer are left than a step
asks.
"""

import dataclasses

from experiments import which_trick

_VARIANTS = which_trick.STUDY.variants
_FAMILIES = {
  "GRPO": ("grpo",),
  "Replay": ("aper",),
  "Which problems, how often": ("history", "coba"),
  "Pairs": ("aper + history", "aper + coba"),
}

STUDY = dataclasses.replace(
  which_trick.STUDY,
  question=(
    "Which trick gets the same accuracy for fewer rollouts, on addition of one to eight digits by "
    "63 million parameters?"
  ),
  config="configs/long_columns.py",
  target=0.75,
  families={
    head: {name: _VARIANTS[name] for name in names} for head, names in _FAMILIES.items()
  },
)
