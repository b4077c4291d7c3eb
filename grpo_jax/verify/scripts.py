"""Does a text mix languages? Told by the scripts its words are written in.

SRPO (arXiv 2504.14286) punishes mixed-language output and does not say how it is found. Here the
words of each script are counted, and a text is mixed if more than one word in fifty is not in its
main script. Two languages in one script pass: this sees Chinese among English, not French.

What mathematics and programs borrow does not count: LaTeX commands, Greek letters, single Latin
letters and blocks of code stand in texts of every language.
"""

import collections
import re
import unicodedata

MOST_OTHERS = 0.02  # share of words outside the main script

_CODE = re.compile(r"```.*?(?:```|\Z)|\\[A-Za-z]+", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]+")
# Chinese and Japanese have no spaces: a letter is counted as a word.
_LETTERS_ARE_WORDS = frozenset({"CJK", "HIRAGANA", "KATAKANA"})
_ONE_LANGUAGE = {"HIRAGANA": "CJK", "KATAKANA": "CJK"}  # Japanese


def mixes_scripts(text: str, most_others: float = MOST_OTHERS) -> bool:
  """Whether more than this share of the words of a text is not in its most frequent script."""
  if text.isascii():
    return False
  counts = count_words(text)
  return sum(counts.values()) - max(counts.values(), default=0) > most_others * sum(counts.values())


def count_words(text: str) -> dict[str, int]:
  """Words by script: that of each word's first letter."""
  counts: collections.Counter[str] = collections.Counter()
  # NFKC: the letters of formulas that Unicode has signs for become plain ones.
  for run in _WORD.findall(_CODE.sub(" ", unicodedata.normalize("NFKC", text))):
    for word, script in _words(run):
      if script != "GREEK" and not (script == "LATIN" and len(word) == 1):
        counts[_ONE_LANGUAGE.get(script, script)] += 1
  return dict(counts)


def _words(run: str) -> list[tuple[str, str]]:
  """(word, script) of letters that stand together, perhaps of several scripts."""
  if run.isascii():
    return [(run, "LATIN")]
  words: list[tuple[str, str]] = []
  for letter in run:
    script = _script(letter)
    if words and words[-1][1] == script and script not in _LETTERS_ARE_WORDS:
      words[-1] = words[-1][0] + letter, script
    else:
      words.append((letter, script))
  return words


def _script(letter: str) -> str:
  """As Unicode names it: the first word of the letter's name."""
  return unicodedata.name(letter, "UNKNOWN").split(" ")[0].split("-")[0]
