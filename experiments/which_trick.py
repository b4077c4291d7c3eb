"""Question: which trick gets the same accuracy for fewer rollouts?

  python -m experiments.sweep experiments/which_trick.py --jobs=2
  python -m experiments.report experiments/which_trick.py --out=experiments/results

The task is configs/columns.py, fixed by looking at plain GRPO alone. Constants of papers that count
steps of runs longer than this one's 60 are scaled to it here, once, before the first run of any
method but GRPO; every other constant is its row's in configs/methods.py. SRL and RLPT ask for
something else, next steps and next sentences, for which this task has no words: they are in
experiments/steps_and_text.py. What SRPO's stages buy is asked in experiments/two_stages.py.
"""

from experiments.study import Study, Variant

PROFILE = ("grpo_jax.profile_prompts", "--out={folder}/profile.json")
PROFILED = {"easy_to_hard.profile": "{folder}/profile.json"}
# A warm-up of 20 steps becomes 6 of 60; half of all problems are candidates.
DOPR = {"most_uncertain.warmup_steps": 6, "most_uncertain.candidates": 160}
# 128 is sixteen times the paper's group; so is this.
COBA = {"by_capability.most": 64}
# Clips of a sequence's ratio are for updates that move log-probs by 1e-4; ours move them by 1e-2.
GSPO = {"loss.clip_low": 0.03, "loss.clip_high": 0.04}
# 500 steps are longer than the run: half the age that the hard limit allows.
SOFT = {"replay.decay": 5.0, "replay.max_age": 30}
# Capacity is the only limit of age: the ten steps of the hard one.
FIFO = {"replay.capacity": 1280, "replay.warmup_steps": 0}
# Its supervised start is the task's own.
START = {"warm_start.epochs": 0.0, "warm_start.learning_rate": 3e-3}
# Rows that draw from their first step on: the task's warm-up is for the others.
AT_ONCE = {"replay.warmup_steps": 0}

STUDY = Study(
  question=(
    "Which trick gets the same accuracy for fewer rollouts, on addition of one to five digits?"
  ),
  rule=(
    "A variant helps if its accuracy at GRPO's number of rollouts is above GRPO's with a 95 % "
    "interval over paired seeds that misses 0, and surely so if that holds after Holm's adjustment "
    "over all variants. Otherwise no difference is claimed."
  ),
  config="configs/columns.py",
  seeds=(0, 1, 2, 3, 4),
  target=0.35,
  families={
    "GRPO": {
      "grpo": Variant("grpo"),
      "filter": Variant(
        "grpo",
        {"keep": "mixed_groups"},
        about="GRPO on groups with a signal alone: APER's filter without its replay",
      ),
    },
    "Replay": {
      "aper": Variant("aper", about="the paper's replay: |A|^0.5, at most 10 steps old"),
      "fifo": Variant("fifo", FIFO, about="by chance, without a filter"),
      "repo": Variant("repo", AT_ONCE, about="past answers to the step's problems, as many again"),
      "rlep": Variant("rlep", AT_ONCE, about="two old successes join a problem's group"),
      "exgrpo": Variant("exgrpo", about="one old success a problem, its weight shaped"),
      "dots_replay": Variant("dots_replay", AT_ONCE, about="whole groups, half of a batch"),
    },
    "APER by parts": {
      "aper, age 1": Variant("aper", {"replay.max_age": 1}),
      "aper, age 3": Variant("aper", {"replay.max_age": 3}),
      "aper, age 30": Variant("aper", {"replay.max_age": 30}),
      "aper, whole groups": Variant("aper+by_query"),
      "aper, by spread": Variant("aper+by_spread"),
      "aper, by chance": Variant("aper+by_chance"),
      "aper, pool": Variant("aper+pool"),
    },
    "Which problems, how often": {
      "history": Variant("history_resampling", about="always right in an epoch: dropped"),
      "coba": Variant("coba", COBA),
      "dopr": Variant("dopr", DOPR, about="our reading: one problem a step"),
      "dapo": Variant("dapo", about="asks again until a whole batch has a signal"),
      "srpo": Variant("srpo", about="history, 1 and 0 as rewards, a penalty for lack of form"),
      "prepo": Variant("prepo", about="prompts by perplexity, rollouts weighed by entropy"),
      "sgpo": Variant("sgpo", PROFILED, PROFILE, about="8 samples a problem are spent before"),
    },
    "Losses and advantages": {
      "dr_grpo": Variant("dr_grpo"),
      "rloo": Variant("rloo"),
      "reinforce_pp": Variant("reinforce_pp", about="advantages by the batch's spread"),
      "bnpo": Variant("bnpo"),
      "gspo": Variant("gspo", GSPO),
      "cispo": Variant("cispo"),
      "minirl": Variant("minirl"),
      "ibro": Variant("ibro"),
      "tis": Variant("tis"),
      "icepop": Variant("icepop"),
      "tailor": Variant("tailor", START, about="KL to the start, which is everybody's here"),
    },
    "Pairs": {
      "aper + history": Variant("aper+history_resampling"),
      "aper + sgpo": Variant("aper+sgpo", PROFILED, PROFILE),
      "aper + coba": Variant("aper+coba", COBA),
      "aper + soft age": Variant("aper+age_decay", SOFT, about="priorities fall to 1/e in 5 steps"),
      "aper + coba, by share": Variant(
        "aper+coba+by_share", COBA, about="|A| as a share of the most it can be in its group"
      ),
      "aper + tis_replayed": Variant(
        "aper+tis_replayed", about="replayed rows by truncated importance weights"
      ),
      "aper + refreshed": Variant(
        "aper+refreshed", about="advantages set anew when a problem is asked again"
      ),
    },
  },
)
