"""What would another grader say? math-verify, reading the whole completion in its own way.

It shares nothing with `verifier`: it finds the answer itself, also outside a box, and compares with
SymPy. As a reward it would be slow and lenient; as a second opinion on some rewards it finds what
only the first one takes for right. For worker processes: its timeouts are alarms of the main
thread, and what it needs in memory is not bounded.
"""

import math_verify

from grpo_jax.verify.verdict import Outcome, Verdict


def verify(completion: str, gold: str) -> Verdict:
  """Whether math-verify, used as it documents itself, takes the completion for right."""
  right = math_verify.verify(math_verify.parse(rf"\boxed{{{gold}}}"), math_verify.parse(completion))
  return Verdict(Outcome.RIGHT if right else Outcome.WRONG, None, "math-verify")
