"""Runs only in the child process of `symbolic`, since it imports SymPy."""

import math_verify


def agrees(answer: str, gold: str) -> bool:
  """Whether math-verify takes `answer` for `gold`. Unbounded: whoever calls must be killable."""
  return math_verify.verify(_parse(gold), _parse(answer), timeout_seconds=None)


def _parse(text: str) -> list:
  return math_verify.parse(
    rf"\boxed{{{text}}}",
    extraction_config=[math_verify.LatexExtractionConfig(boxed_match_priority=0)],
    fallback_mode="no_fallback",
    parsing_timeout=None,  # its timeouts are alarms, which would end here and not our deadline
  )
