"""Plain text as problems whose answer is its next piece (RLPT, arXiv 2509.19249).

A text is cut into sentences s_1 .. s_n, short ones dropped. From the second on each is asked for
once, the two kinds in turn:

  ASR  s_i from the sentences before it
  MSR  s_i from the sentences before it and s_(i+1)

The objective is E_ASR[r] + lambda E_MSR[r], lambda below 1 and not published: 0.5 here. The answer
is s_i and what follows it, a sentence a line, since a prediction that goes on after s_i is right as
well; who judges is `verify.segments`, or whoever is named. The paper cuts with NLTK; we, by rules.
"""

from collections.abc import Iterator

from grpo_jax.data.problems import Problem
from grpo_jax.data.sentences import sentences

MIDDLE_WEIGHT = 0.5  # lambda
LEAST_WORDS = 3  # of a sentence
MOST_BEFORE = 40  # sentences shown: a text of n would else become n^2 / 2
FOLLOWING = 3  # sentences of an answer

_FORM = "between <|startofprediction|> and <|endofprediction|>"
_ASK_NEXT = f"How does this text go on? Think first; then write what comes next {_FORM}."
_ASK_MIDDLE = f"What stands in place of [...]? Think first; then write it {_FORM}."


def segment_problems(text: str) -> Iterator[Problem]:
  """The problems of one text, in its order; none if it has fewer than two sentences."""
  kept = [" ".join(one.split()) for one in sentences(text) if len(one.split()) >= LEAST_WORDS]
  for i in range(1, len(kept)):
    before, wanted = kept[max(0, i - MOST_BEFORE) : i], kept[i : i + FOLLOWING]
    middle = i % 2 == 0 and len(wanted) > 1
    shown = [*before, "[...]", wanted[1]] if middle else before
    yield Problem(
      question="\n".join([*shown, "", _ASK_MIDDLE if middle else _ASK_NEXT]),
      answer="\n".join(wanted),
      solution=f"<|startofprediction|>{wanted[0]}<|endofprediction|>",
      judge="segment",
      weight=MIDDLE_WEIGHT if middle else 1.0,
    )
