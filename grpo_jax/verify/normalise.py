"""One spelling for one meaning: what LaTeX, Unicode and plain notation write in many ways.

`normalise` rewrites text without reading it as mathematics; nothing here can change a value. Two
answers whose normal forms are equal are the same answer, whatever they mean.
"""

import ast
import re

_UNICODE = {
  "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ",
  "π": r"\pi ", "√": r"\sqrt ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ",
  "≈": r"\approx ", "∈": r"\in ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ",
  "±": r"\pm ", "∓": r"\mp ", "°": r"\degree ", "ℝ": r"\mathbb{R}", "²": "^{2}", "³": "^{3}",
  "½": "(1/2)", "¼": "(1/4)", "¾": "(3/4)", "⅓": "(1/3)", "⅔": "(2/3)", "θ": r"\theta ",
  "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "⁄": "/", "％": "%", "，": ",", "（": "(",
  "）": ")", "£": "$", "€": "$", "’": "'", "\u00a0": " ", "\u202f": " ", "\u2009": " ",
}  # fmt: skip
_UNICODE_TABLE = str.maketrans(_UNICODE)

# Commands that are written for the one on the left; "" marks those that change looks only.
_COMMANDS = {
  r"\frac": "dfrac tfrac cfrac nicefrac sfrac",
  r"\binom": "dbinom tbinom",
  r"\text": "textbf textit textrm textsf texttt textnormal mbox hbox mathrm operatorname",
  "": "left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr rm bf it "
      "displaystyle textstyle limits nolimits tiny small large Large mathbf mathit mathsf mathcal "
      "bm boldsymbol underline vec hat dot widehat overrightarrow overleftrightarrow angle "
      "triangle",
  " ": "quad qquad",
  "<=": "le leq leqslant leqq",
  ">=": "ge geq geqslant geqq",
  "<": "lt",
  ">": "gt",
  "!=": "ne neq",
  "≈": "approx simeq thickapprox sim",
  "|": "lvert rvert vert mid",
  r"\{": "lbrace",
  r"\}": "rbrace",
  r"\emptyset": "varnothing O",
  r"\setminus": "smallsetminus backslash",
  r"\text{or}": "lor vee",
  r"\text{and}": "land wedge",
  "...": "dots ldots cdots",
}  # fmt: skip
_COMMAND = re.compile(r"\\([A-Za-z]+)\*?")
_COMMAND_FORMS = {old: new for new, olds in _COMMANDS.items() for old in olds.split()}

_UNIT = r"\\text\s*\{[^{}]*\}"
# Applied in this order, after the commands: patterns of notation with the same meaning.
_REWRITES = [
  (re.compile(pattern), replacement)
  for pattern, replacement in [
    # Invisible and coloured parts, accents over letters, labels such as `Answer:`.
    (r"\\[hv]?phantom\s*(?:\{[^{}]*\}|.)|\\(?:text)?color\s*\{\w*\}|\\hspace\s*\{[^{}]*\}", ""),
    (r"\\(?:bar|overline)(?=\s*\{?\s*[A-Za-z])", ""),
    (r"\{\s*\}", ""),
    (r"\\text\s*(?![\s{])", ""),
    (r"^\s*(?:\\text\s*\{[^{}]*:\s*\}|[A-Za-z][A-Za-z ]{2,30}:)", ""),
    # Words: functions in upright type, units in fractions and with exponents.
    (r"\\text\s*\{\s*((?:arc)?(?:sin|cos|tan)h?|cot|sec|csc|ln|log|exp)\s*\}", r"\\\1 "),
    (r"(\\text\s*\{[^{}]*)\{([^{}]*)\}", r"\1\2"),
    (rf"\\frac\s*\{{\s*({_UNIT})\s*\}}\s*\{{\s*({_UNIT}\S{{0,4}})\s*\}}", r"\1/\2"),
    # Digits: thousands by `{,}`, `,\!`, `\,` or a space; only whole groups of three are joined.
    (r"(?<=\d)\{,\}\s*(?=\d)|(?<=\d),\s*\\!\s*(?=\d)", r"\\,"),
    (r"(?<=\d)(?:\\[,!;: ]|[~ ])\s*(?=\d{3}(?!\d))", r"\\,"),
    (r"(?<![\d,.])\d{1,3}(?:\\,\d{3})+(?!\d)", lambda found: found[0].replace("\\,", "")),
    # Operators and sets.
    (r"\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\}|\\degree(?![A-Za-z]))", r"\\degree "),
    (r"\{([^{}]+)\\choose(?![A-Za-z])([^{}]+)\}", r"\\binom{\1}{\2}"),
    (r"\\\{\s*[a-z](?:\s*\\in\s*\\mathbb\s*\{?R\}?)?\s*[|:]([^{}|]+)\\\}", r"\1"),
    (r"\\not\s*=", "!="),
    (r"\\%", "%"),
    (r"\*\*", "^"),
    (r"\\[,!;: ]|~|&nbsp;|\s+", " "),
  ]
]
_DELIMITER_DOT = re.compile(r"\\(?:left|right)\s*\.")
_ROW = re.compile(r"\\\\\s*(?:\[[^\]]{0,12}\])?")
_DOLLARS = re.compile(r"\\?\$|\\[()\[\]]")
_ENDS = re.compile(r"^[\s,;:]+|[\s.,;:]+$")
_EMPHASIS = re.compile(r"\*\*(.+)\*\*", re.DOTALL)
_ROW_MARK = "\x00"  # stands for the row separator while single backslashes are rewritten


def normalise(text: str) -> str:
  """The normal form of an answer; empty if nothing is left of it."""
  text = text.replace(_ROW_MARK, "\ufffd").translate(_UNICODE_TABLE).strip()
  emphasised = _EMPHASIS.fullmatch(text)
  text = emphasised[1] if emphasised else text
  text = _DELIMITER_DOT.sub("", _DOLLARS.sub("", _ROW.sub(_ROW_MARK, text)))
  text = _COMMAND.sub(lambda found: _COMMAND_FORMS.get(found[1], found[0]), text)
  for pattern, replacement in _REWRITES:
    text = pattern.sub(replacement, text)
  return _ENDS.sub("", text).replace(_ROW_MARK, r" \\ ")


def squeeze(normal: str) -> str:
  """A normal form without the spaces and braces that carry no meaning, to compare as text."""
  return re.sub(r"\\text(?![A-Za-z])|[\s{}]", "", normal)


_WORDS = re.compile(r"[A-Za-z](?:[A-Za-z' .,;:]|-(?=[A-Za-z]))*")
_SHORT_ANSWERS = {"yes", "no", "y", "n"}


def words(normal: str) -> str | None:
  """The words of an answer in words, lower case and without punctuation; None for mathematics."""
  plain = re.sub(r"\\text(?![A-Za-z])|[{}]", " ", normal).strip()
  if not _WORDS.fullmatch(plain):
    return None
  found = re.findall(r"[a-z']+", plain.lower())
  if any(len(word) == 1 and word not in "ai" for word in found) and found[0] not in _SHORT_ANSWERS:
    return None
  has_word = any(len(word) >= 3 for word in found) or found[0] in _SHORT_ANSWERS
  return " ".join(found) if has_word else None


def gold_alternatives(gold: str) -> list[str]:
  """The gold answers that a gold text offers: `['a', 'b']` (Minerva) offers any of several."""
  gold = gold.strip()
  if not (gold.startswith("['") or gold.startswith('["')):
    return [gold] if gold else []
  try:
    items = ast.literal_eval(gold)
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    return [gold]
  return list(dict.fromkeys(str(item).strip() for item in items if str(item).strip()))
