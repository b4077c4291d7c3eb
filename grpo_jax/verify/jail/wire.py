"""How values cross between tests and a program: as JSON of plain values, and references to others.

Whoever decodes gets exact built-in types or a reference, nothing with behaviour of the sender's:
no `__eq__` that is always true, no `int` that is not one.
"""

from collections.abc import Callable

_LARGEST = 1 << 62  # larger integers go as hexadecimal digits, which Python reads at any length


def encode(value: object, refer: Callable[[object], int]) -> object:
  """Returns what JSON can hold; `refer` numbers what is not a plain value, or raises."""
  match value:
    case None | bool() | str() | float():
      return value
    case int():
      return value if -_LARGEST < value < _LARGEST else {"int": hex(value)}
    case list():
      return [encode(item, refer) for item in value]
    case tuple():
      return {"tuple": [encode(item, refer) for item in value]}
    case set() | frozenset():
      return {"set": [encode(item, refer) for item in value]}
    case dict():
      return {"dict": [[encode(key, refer), encode(item, refer)] for key, item in value.items()]}
    case bytes() | bytearray():
      return {"bytes": value.hex()}
    case complex():
      return {"complex": [value.real, value.imag]}
  return {"reference": refer(value)}


def decode(data: object, resolve: Callable[[int], object]) -> object:
  """The value that `encode` was given; `resolve` takes the numbers of `refer`.

  Raises:
    ValueError, TypeError: `encode` does not write that.
  """
  if isinstance(data, list):
    return [decode(item, resolve) for item in data]
  if not isinstance(data, dict):
    return data
  ((kind, content),) = data.items()
  match kind:
    case "int":
      return int(content, 16)
    case "tuple":
      return tuple(decode(item, resolve) for item in content)
    case "set":
      return {decode(item, resolve) for item in content}
    case "dict":
      return {decode(key, resolve): decode(item, resolve) for key, item in content}
    case "bytes":
      return bytes.fromhex(content)
    case "complex":
      return complex(*content)
    case "reference":
      return resolve(content)
  raise ValueError(f"no value is written as {kind!r}")
