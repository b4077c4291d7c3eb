"""Question: does what the tricks buy on a tiny model hold for one of 63 million parameters?

  python -m experiments.sweep experiments/which_trick_larger.py --jobs=1       # on a GPU
  python -m experiments.report experiments/which_trick_larger.py --out=experiments/results

Not run yet: it needs a GPU for some hours, and one run at a time, since each compiles for a minute.
The task is configs/long_columns.py, of which only the start was looked at. Constants are those of
experiments/which_trick.py, whose runs are as many steps long.
"""

from experiments.study import Study, Variant

STUDY = Study(
  question=(
    "Which trick gets the same accuracy for fewer rollouts, on addition of one to eight digits by "
    "63 million parameters?"
  ),
  rule=(
    "A variant helps if its accuracy at GRPO's number of rollouts is above GRPO's with a 95 % "
    "interval over paired seeds that misses 0, and surely so if that holds after Holm's adjustment "
    "over all variants. Otherwise no difference is claimed."
  ),
  config="configs/long_columns.py",
  seeds=(0, 1, 2, 3, 4),
  target=0.5,
  families={
    "GRPO": {
      "grpo": Variant("grpo"),
      "filter": Variant("grpo", {"keep": "mixed_groups"}, about="APER's filter without its replay"),
    },
    "Replay and choice": {
      "aper": Variant("aper", about="the paper's replay: |A|^0.5, at most 10 steps old"),
      "history": Variant("history_resampling", about="always right in an epoch: dropped"),
      "dapo": Variant("dapo", about="asks again until a whole batch has a signal"),
      "coba": Variant("coba", {"by_capability.most": 64}),
    },
    "Pairs": {
      "aper + history": Variant("aper+history_resampling"),
      "aper + coba": Variant("aper+coba", {"by_capability.most": 64}),
    },
  },
)
