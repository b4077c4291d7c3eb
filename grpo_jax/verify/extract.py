"""Where is the answer in a completion?

The last closed `\\boxed{...}` after `</think>`; without one there, the last one anywhere; without
any box, the last line `#### answer` (GSM8K). Nothing else counts: a reward for "the last number"
is a reward for writing many numbers.
"""

import re

MAX_ANSWER_CHARS = 2000  # longer boxes are not answers; reading them is what attacks hope for
_TAIL_CHARS = 200_000  # how far from the end an answer is looked for

_BOX_NAMES = (r"\boxed", r"\fbox")
_OPENING = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_HASHES = re.compile(r"^[ \t]*####[ \t]*(\S[^\n]{0,200})$", re.MULTILINE)


class AnswerTooLongError(ValueError):
  """The last box holds more than MAX_ANSWER_CHARS characters."""


def extract_answer(completion: str) -> str | None:
  """Returns the text of the final answer, None if there is none.

  Raises:
    AnswerTooLongError: the last box is too long to be an answer.
  """
  tail = completion[-_TAIL_CHARS:]
  after_thinking = tail.rfind("</think>") + 1
  answer = last_box(tail, after_thinking)
  if answer is None and after_thinking:
    answer = last_box(tail, 0)
  if answer is None:
    answer = _last_hashes(tail)
  return answer


def last_box(text: str, begin: int = 0) -> str | None:
  """Content of the last closed box that starts at or after `begin`."""
  end = len(text)
  while (start := max(text.rfind(name, begin, end) for name in _BOX_NAMES)) >= 0:
    opening = _OPENING.match(text, start)
    content = _closed(text, opening.end()) if opening else None
    if content is not None:
      return content
    end = start
  return None


def _closed(text: str, start: int) -> str | None:
  """Text from `start` to the brace that closes the one before `start`; None if none closes it."""
  depth = 1
  for match in _BRACE.finditer(text, start, start + MAX_ANSWER_CHARS + 1):
    depth += {"{": 1, "}": -1}.get(match.group(), 0)
    if depth == 0:
      return text[start : match.start()]
  if len(text) - start > MAX_ANSWER_CHARS:
    raise AnswerTooLongError
  return None


def _last_hashes(text: str) -> str | None:
  found = _HASHES.findall(text)
  return found[-1].strip() if found else None
