"""Question: is what two stages buy SRPO's, or does plain GRPO gain and lose the same?

  python -m experiments.sweep experiments/two_stages_of_grpo.py
  python -m experiments.report experiments/two_stages_of_grpo.py --out=experiments/results

The task, constants, seeds and rule of experiments/two_stages.py; rewards are GRPO's, for answers
alone. Written after that study's table was known and before any of these runs but the one seed of
`grpo, one stage` by which the task was fixed.
"""

import dataclasses

from experiments import two_stages
from experiments.study import Variant

STUDY = dataclasses.replace(
  two_stages.STUDY,
  question=(
    "Do two stages, sums first and then sums and programs, teach plain GRPO more than both kinds "
    "from the first step?"
  ),
  baseline="grpo, one stage",
  families={
    "GRPO": {
      "grpo, one stage": Variant(
        "grpo", two_stages.BOTH, two_stages.MAKE, about="both kinds from the first step"
      ),
      "grpo, two stages": Variant(
        "grpo+two_stages", two_stages.STAGES, two_stages.MAKE, about="sums first"
      ),
    },
  },
)
