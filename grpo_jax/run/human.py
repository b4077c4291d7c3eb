"""How is a number written for a person: bytes, counts, shares and durations."""

_THOUSANDS = ("", "k", "M", "G", "T", "P", "E")


def human_bytes(count: float) -> str:
  """Bytes in decimal units (1 MB is 10^6 bytes): `3.2 MB`."""
  number, unit = _scaled(count)
  return f"{number} {unit}B" if unit else f"{number} bytes"


def human_count(count: float) -> str:
  """A count in three significant digits: `512`, `1.28k`, `3.05M`."""
  number, unit = _scaled(count)
  return number + unit


def human_duration(seconds: float) -> str:
  """A duration in its two largest units: `0.4 s`, `42 s`, `3 min 05 s`, `2 h 07 min`."""
  if seconds < 9.95:
    return f"{seconds:.1f} s"
  whole = round(seconds)
  if whole < 60:
    return f"{whole} s"
  if whole < 3600:
    return f"{whole // 60} min {whole % 60:02d} s"
  if whole < 86400:
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
  return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def _scaled(count: float) -> tuple[str, str]:
  """`count` as three significant digits and the letter of its power of a thousand."""
  power = 0
  # 999.5 would print as 1000, which is 1.00 of the next unit.
  while abs(count) >= 999.5 and power < len(_THOUSANDS) - 1:
    count /= 1000
    power += 1
  if power == 0 and count == int(count):
    return str(int(count)), ""
  digits = 2 if abs(count) < 9.995 else 1 if abs(count) < 99.95 else 0
  return f"{count:.{digits}f}", _THOUSANDS[power]
