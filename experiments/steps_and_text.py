"""Question: do rewards for next steps or next sentences teach to solve whole problems?

  python -m experiments.sweep experiments/steps_and_text.py
  python -m experiments.report experiments/steps_and_text.py --out=experiments/results

SRL and RLPT, which experiments/which_trick.py cannot ask. The task is configs/worked_sums.py, whose
files each run makes for its seed. All variants start from the same policy, which knows the three
forms; whatever one is rewarded for, the answers of whole held-out sums are judged. The task, its
constants and this rule were fixed by looking at plain GRPO, and at the start policy's rewards for a
step and a sentence. Learning rates are one for all: those of the papers are for models of billions.
"""

from experiments.study import Study, Variant

MAKE = ("experiments.worked_sums", "--out={folder}/sums")
SUMS = {
  "tokenizer": "{folder}/sums/tokenizer",
  "warm_start.demonstrations": "{folder}/sums/demonstrations.jsonl",
  "data.path": "{folder}/sums",
  "eval.path": "{folder}/sums",
}
TEXTS = SUMS | {"data.path": "{folder}/sums/texts"}
# Whole sums join in the middle of the run, as many as there are steps or sentences: from then on
# half of what is asked is of either kind.
THEN_BOTH = {"stages.switch": "share", "more.source": "jsonl", "more.path": "{folder}/sums"}

STUDY = Study(
  question=(
    "Rewarded for the next step (SRL) or the next sentence (RLPT) of worked sums, does a policy "
    "learn to solve whole sums, and sooner than by rewards for their answers (GRPO)?"
  ),
  rule=(
    "A signal carries over if held-out accuracy at its end is above that of its start with a 95 % "
    "interval over paired seeds that misses 0. It is better or worse than GRPO if its accuracy at "
    "GRPO's number of rollouts differs from GRPO's with such an interval, and surely so if that "
    "holds after Holm's adjustment. Otherwise no difference is claimed."
  ),
  config="configs/worked_sums.py",
  seeds=(0, 1, 2, 3, 4),
  target=0.6,
  families={
    "Answers": {
      "grpo": Variant("grpo", SUMS, MAKE, about="reward for the answer of a whole sum"),
      "filter": Variant(
        "grpo", SUMS | {"keep": "mixed_groups"}, MAKE, about="groups with a signal alone, as in SRL"
      ),
    },
    "Parts": {
      "srl": Variant("srl", SUMS, MAKE, about="the next line, by similarity to the expert's"),
      "rlpt": Variant("rlpt", TEXTS, MAKE, about="the next sentence, right or wrong by its words"),
    },
    "Parts, then answers too": {
      "srl, then both": Variant(
        "srl+two_stages", SUMS | THEN_BOTH | {"data.limit": 160}, MAKE, about="480 steps, 480 sums"
      ),
      "rlpt, then both": Variant(
        "rlpt+two_stages",
        TEXTS | THEN_BOTH | {"data.limit": 480},
        MAKE,
        about="480 sentences, 480 sums",
      ),
    },
  },
)
