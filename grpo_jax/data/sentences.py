"""Where does a sentence end? At the end of its line, or before the next one begins.

Formulas are not cut: a full stop or a line end inside of `$...$`, `$$...$$`, `\\[...\\]` or an
environment ends nothing. Nothing is learned or downloaded; where the rules are unsure, two
sentences stay one.
"""

import collections
import re

# At most 2,000 characters long, so that what is never closed costs no more than that.
_FORMULA = re.compile(
  r"\$\$.{,2000}?\$\$|\\\[.{,2000}?\\\]|\\begin\{([a-z]+\*?)\}.{,2000}?\\end\{\1\}|\$[^$\n]{1,2000}\$",
  re.DOTALL,
)
# A mark, what closes, and space before what can begin a sentence; or a line end.
_END = re.compile(r"""[.!?]["')\]]*\s+(?=["'(\[]*[A-Z$\\])|\n\s*""")
_ABBREVIATED = re.compile(r"\b(?:[A-Z]|e\.g|i\.e|cf|vs|etc|Mr|Mrs|Ms|Dr|Prof|St|Fig|Eq|No)\.\Z")


def sentences(text: str) -> list[str]:
  """The sentences of a text in order, without the space between them; none is empty."""
  formulas = collections.deque(match.span() for match in _FORMULA.finditer(text))
  cuts = [0]
  for match in _END.finditer(text):
    start = match.start()
    while formulas and formulas[0][1] <= start:
      formulas.popleft()
    in_formula = formulas and formulas[0][0] <= start
    if not in_formula and not _ABBREVIATED.search(text[max(0, start - 8) : start + 1]):
      cuts.append(match.end())
  pieces = (text[a:b].strip() for a, b in zip(cuts, [*cuts[1:], None], strict=True))
  return [piece for piece in pieces if piece]
