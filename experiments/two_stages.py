"""Question: what do SRPO's two stages buy, sums first and then programs with them?

  python -m experiments.sweep experiments/two_stages.py
  python -m experiments.report experiments/two_stages.py --out=experiments/results

experiments/which_trick.py has `srpo` without them, for want of a second kind of problem. Here sums
of two and three digits are asked in two ways: worked out as in configs/columns.py, or as one-line
programs, which are run. All variants of a seed start from the same policy, which makes mistakes in
both. The task and its constants were fixed by looking at plain GRPO in one stage, and the rule is
from before any other run.
"""

from experiments.study import Study, Variant

MAKE = ("experiments.sums_and_programs", "--out={folder}/demonstrations.jsonl")
LEVELS = (2, 2, 3)
BOTH = {
  "tokenizer": "ascii",
  "steps": 48,
  "data.levels": LEVELS,
  "data.limit": 120,
  "data.max_prompt_tokens": 15,
  "more.source": "arithmetic_programs",
  "more.levels": LEVELS,
  "more.limit": 120,
  "eval.levels": LEVELS,
  "eval.limit": 80,
  "eval.samples": 4,
  "eval.every": 24,
  "eval_more.source": "arithmetic_programs",
  "eval_more.levels": LEVELS,
  "eval_more.limit": 80,
  "warm_start.demonstrations": "{folder}/demonstrations.jsonl",
  "warm_start.steps": 400,
  "warm_start.mistakes": 0.0,
  "rollout.problems": 8,
  "rollout.slots": 64,
  "rollout.max_new_tokens": 44,
  "optimizer.learning_rate": 4e-4,
}
# Sums alone in the first half of the steps; then half of what is asked is of either kind.
STAGES = BOTH | {"stages.switch": "share", "stages.share": 0.5}

STUDY = Study(
  question=(
    "Do SRPO's two stages, sums first and then sums and programs, teach more than both kinds from "
    "the first step?"
  ),
  rule=(
    "Stages help or harm if, after the same number of rollouts, the mean of held-out accuracy on "
    "sums and on programs differs from that of one stage with a 95 % interval over paired seeds "
    "that misses 0. If it does not, but sums or programs differ so, they give one for the other. "
    "Otherwise no difference is claimed."
  ),
  config="configs/columns.py",
  seeds=(0, 1, 2, 3, 4),
  target=0.6,
  baseline="srpo, one stage",
  families={
    "SRPO": {
      "srpo, one stage": Variant("srpo", BOTH, MAKE, about="both kinds from the first step"),
      "srpo, two stages": Variant("srpo+two_stages", STAGES, MAKE, about="sums first"),
    },
  },
)
