"""Is a prediction how the text goes on? The embedded judge of RLPT (arXiv 2509.19249).

The paper asks a generative model whether the prediction means what a beginning of the reference
means. `same_words` does not: it compares words, so that a run needs no second model. It is for
tests and for text whose wording is fixed; it will refuse every paraphrase.

Another judge is a function of one's own, named in `config.reward.segment_judge` as `module:name`:

  def judge(completion: str, reference: str) -> Verdict

It gets the whole completion (`prediction` takes out what counts) and the reference, a sentence a
line, the first one asked for. It is code that runs as whoever started the run, but in the worker
processes of the verifier: ended after `config.verifier.deadline_seconds`, with 900 MB of memory and
no environment variables. A judge that asks a model on a server is such a function, with as many
questions open at once as there are `config.verifier.workers`. A Verdict may carry a score.
"""

import difflib
import re

from grpo_jax.verify.verdict import Outcome, Verdict

BEGIN, END = "<|startofprediction|>", "<|endofprediction|>"
ALIKE = 0.8  # share of words that must match
LEAST_SHARE = 0.5  # of the first sentence's words that a prediction must have

_WORD = re.compile(r"\w+")


def prediction(completion: str) -> str | None:
  """What stands between the last pair of tags; None without one, or if there is nothing in it."""
  before, closed, _ = completion.rpartition(END)
  _, opened, inside = before.rpartition(BEGIN)
  return inside.strip() or None if closed and opened else None


def same_words(completion: str, reference: str) -> Verdict:
  """RIGHT if the prediction's words are, but for one in five, those the reference begins with, and
  no fewer than half of its first sentence has."""
  predicted = prediction(completion)
  if predicted is None:
    return Verdict(Outcome.UNPARSEABLE, None, "no prediction between the tags")
  ours, theirs = words(predicted), words(reference)
  if len(ours) < LEAST_SHARE * len(words(reference.partition("\n")[0])):
    return Verdict(Outcome.WRONG, predicted, "too short to tell")
  theirs = theirs[: len(ours)]
  alike = difflib.SequenceMatcher(None, ours[: 2 * len(theirs)], theirs, autojunk=False).ratio()
  # One that goes on after the reference has ended is no beginning of it.
  right = bool(ours) and alike >= ALIKE and len(ours) <= len(theirs) / ALIKE
  outcome = Outcome.RIGHT if right else Outcome.WRONG
  return Verdict(outcome, predicted, f"{alike:.0%} of the words")


def words(text: str) -> list[str]:
  """Words without case and punctuation."""
  return _WORD.findall(text.casefold())
