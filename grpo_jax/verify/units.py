"""Which words after a value are units, and which of them name the same one."""

import re

# Spellings of one unit, the first of them its name here. Units missing here are any other word.
_SPELLINGS = """
  mm millimeter millimeters millimetre millimetres
  cm centimeter centimeters centimetre centimetres cms
  m meter meters metre metres
  km kilometer kilometers kilometre kilometres kms
  in inch inches
  ft foot feet
  yd yard yards
  mi mile miles
  mg milligram milligrams
  g gram grams
  kg kilogram kilograms kgs
  lb pound pounds lbs
  oz ounce ounces
  ml milliliter milliliters
  l liter liters litre litres
  s second seconds sec secs
  min minute minutes mins
  h hour hours hr hrs
  day days
  week weeks
  month months
  year years yr yrs
  cent cents
  dollar dollars usd
  mph
  rad radian radians
  unit units
  am
  pm
"""
_CANONICAL = {
  word: line.split()[0] for line in _SPELLINGS.strip().splitlines() for word in line.split()
}
BARE_UNITS = {word for word in _CANONICAL if len(word) in (2, 3)} - {"in"}

MULTIPLIERS = {
  "dozen": 12,
  "hundred": 10**2,
  "thousand": 10**3,
  "million": 10**6,
  "billion": 10**9,
  "trillion": 10**12,
}
# Words that change a value or take it back, so never its unit.
_NO_UNITS = (
  "plus minus times over divided squared cubed half third quarter point not no never except wrong "
  "incorrect false zero one two three four five six seven eight nine ten"
)
NO_UNITS = frozenset(_NO_UNITS.split())


def same_unit(unit: str, other: str) -> bool:
  """False only for two different units that we know: `5 km` is not `5 m`."""
  ours, theirs = _known(unit), _known(other)
  return ours is None or theirs is None or ours == theirs


def _known(unit: str) -> tuple[str, ...] | None:
  """Canonical factors of a unit, None if one of its words is no unit that we know."""
  spelled = unit.replace(".", "").replace("square ", "^2 ").replace("cubic ", "^3 ")
  spelled = re.sub(r"\b(?:sq|squared)\b", "^2", re.sub(r"\bper\b", "/", spelled))
  parts = re.findall(r"[a-z]+|\^-?\d+|/", spelled)
  named = [_CANONICAL.get(part, "" if part.isalpha() else part) for part in parts]
  return tuple(sorted(named)) if named and all(named) else None
