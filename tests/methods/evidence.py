"""Verdicts written down by hand, for tests of decisions."""

import numpy as np

from grpo_jax.methods.ledger import Evidence, Ledger, empty_ledger


def groups(*verdicts: str, entropy: float = 1.0) -> Evidence:
  """One text a group: '1' right, '0' wrong, '?' without a verdict."""
  text = "".join(verdicts)
  return Evidence(
    group_R=np.repeat(np.arange(len(verdicts)), [len(group) for group in verdicts]),
    right_R=np.array([letter == "1" for letter in text], bool),
    scored_R=np.array([letter != "?" for letter in text], bool),
    entropy=entropy,
  )


def ledger_of(*verdicts: str, window: int = 1) -> Ledger:
  """Each problem visited once with these verdicts; '' for one never visited."""
  ledger = empty_ledger(len(verdicts), window)
  places = [place for place, group in enumerate(verdicts) if group]
  return ledger.recorded(np.array(places, int), groups(*filter(None, verdicts)), step=1)


def streams(epoch: int) -> np.random.Generator:
  return np.random.Generator(np.random.PCG64(epoch))
