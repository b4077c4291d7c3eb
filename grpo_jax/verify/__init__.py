"""Is the answer of a completion right? The rule-based reward, and nothing of JAX.

  extract      where the answer is: the last box
  normalise    one spelling for one meaning
  tokens, parser, expression, units   from text to a tree, bounded in length and depth
  values, numeric                     are two expressions equal for all values of their variables
  scalars, matrices, relations, realset, equivalence   are two answers equal, of whatever kind
  symbolic     math-verify in a child process, for gold answers that we do not read
  verifier     verify(): all of this for one completion
  second_opinion  math-verify on its own, to audit rewards
  child, pool  many completions at once, in processes that may hang, crash or be killed
  programs     does a program pass its tests? jailer, jail: where it can do no harm meanwhile
  steps        how near is a step to the expert's?   segments   is this how a text goes on?
  judges       each completion judged as its problem asks
  scripts      does a text mix languages?

No answer is ever evaluated as code; programs run only in `jail`. Every step has a bound on its
size.
"""

from grpo_jax.verify.judges import Judges
from grpo_jax.verify.pool import VerifierPool
from grpo_jax.verify.verdict import Outcome, Verdict
from grpo_jax.verify.verifier import verify

__all__ = ["Judges", "Outcome", "Verdict", "VerifierPool", "verify"]
