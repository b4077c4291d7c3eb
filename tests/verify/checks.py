"""Checks that misbehave, for workers of a pool: `hang`, `crash` and so on are what to answer."""

import os
import sys
import time

from grpo_jax.verify import Outcome, Verdict


def long_enough(completion: str, reference: str) -> Verdict:
  """A judge of next pieces, for tests of naming one."""
  return Verdict(Outcome.WRONG, completion, "by length", min(1.0, len(completion) / 100))


def misbehave(completion: str, gold: str) -> Verdict:
  """Does what the completion says; any other text is its own answer."""
  match completion:
    case "hang":
      while True:
        pass
    case "sleep":
      time.sleep(1000)
    case "slow":
      time.sleep(1)
    case "crash":
      os._exit(1)
    case "memory":
      return Verdict(Outcome.RIGHT, str(len(bytearray(1 << 34))), "")
    case "raise":
      raise ValueError("on purpose")
    case "power that no signal interrupts":
      return Verdict(Outcome.RIGHT, str(9**9**9), "")
    case "half":
      return Verdict(Outcome.WRONG, "", "", 0.5)
    case "print":
      print("this is not a reply")
    case "modules":
      return Verdict(Outcome.RIGHT, ",".join(sys.modules), "")
    case "environment":
      return Verdict(Outcome.RIGHT, ",".join(os.environ), "")
  return Verdict(Outcome.RIGHT if completion == gold else Outcome.WRONG, completion, "")
