"""The lexical stand-in for a judge of next pieces."""

import pytest

from grpo_jax.verify import Outcome
from grpo_jax.verify.segments import prediction, same_words

REFERENCE = "The cat sat down on the mat.\nThen it slept.\nNobody came."
RIGHT, WRONG, NONE = Outcome.RIGHT, Outcome.WRONG, Outcome.UNPARSEABLE


def tagged(text: str) -> str:
  return f"thoughts <|startofprediction|>{text}<|endofprediction|> more"


@pytest.mark.parametrize(
  ("text", "outcome"),
  [
    ("The cat sat down on the mat.", RIGHT),
    ("the CAT, sat down on the mat", RIGHT),
    ("The cat sat down", RIGHT),  # a beginning
    ("The cat sat down on the mat. Then it slept.", RIGHT),  # a longer one
    ("The cat sat down on a mat.", RIGHT),  # one word in seven
    ("The cat", WRONG),  # says too little
    ("The cat lay down by the fire.", WRONG),
    ("Then it slept.", WRONG),  # not the beginning
    (f"{REFERENCE} And so on, and so on, and so on.", WRONG),
    ("A feline took its seat upon the rug.", WRONG),  # a paraphrase: what this judge cannot see
    ("...", WRONG),
    ("", NONE),
  ],
)
def test_predictions(text, outcome):
  assert same_words(tagged(text), REFERENCE).outcome is outcome


@pytest.mark.parametrize(
  ("completion", "expected"),
  [
    ("no tags", None),
    ("<|startofprediction|>open", None),
    ("close<|endofprediction|>", None),
    (tagged(" a ") + tagged("b"), "b"),
    ("<|endofprediction|>x<|startofprediction|>", None),
  ],
)
def test_the_last_pair_of_tags_counts(completion, expected):
  assert prediction(completion) == expected
