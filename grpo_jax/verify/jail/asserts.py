"""Do the asserts hold? Runs test code here and the program elsewhere.

To the tests, the program's functions are stand-ins whose calls go to the program's process and
whose results come back as plain values (`wire`). What a program does to its own process - exit,
patch `builtins`, hunt for the tests - is therefore nothing to these.
"""

import builtins
import json
import os
import select
import sys
import time
import types
from collections.abc import Iterator

from .wire import decode, encode

_FILE = "tests.py"
_PYTHONS = {*dir(builtins), *sys.stdlib_module_names}


class NoAnswerError(Exception):
  """The program's process gave none."""


class UnsendableError(Exception):
  """The tests pass what cannot be sent; says nothing about the program."""


class Link:
  """Asks a program's process.

  Args:
    requests, replies: ends of the pipes to it and from it.
    deadline: by time.monotonic(), for all that is ever asked.
    max_bytes: of one reply.
  """

  def __init__(self, requests: int, replies: int, deadline: float, max_bytes: int):
    self._requests, self._replies = requests, replies
    self._deadline, self._max_bytes = deadline, max_bytes
    self._received = b""
    self.failure: Exception | None = None  # the first, which stands even if the tests caught it

  def ask(self, do: str, **request: object) -> dict:
    """The reply, with `value` decoded.

    Raises:
      Exception: what the program raised, as its nearest built-in type.
      NoAnswerError, UnsendableError: see there.
    """
    try:
      reply = self._exchange({"do": do} | request)
    except (NoAnswerError, UnsendableError) as error:
      self.failure = self.failure or error
      raise
    if "error" in reply:
      raise _error(*reply["error"])
    return reply

  def encode(self, value: object) -> object:
    try:
      return encode(value, _number)
    except UnsendableError as error:
      self.failure = self.failure or error
      raise

  def _exchange(self, request: dict) -> dict:
    try:
      self._send(json.dumps(request).encode() + b"\n")
      reply = json.loads(self._line())
      if "error" in reply:
        return {"error": [str(part) for part in reply["error"]]}
      return {key: decode(data, lambda number: Remote(self, number)) for key, data in reply.items()}
    except OSError:
      raise NoAnswerError("the program ended its process") from None
    except (ValueError, TypeError, AttributeError, RecursionError):
      raise NoAnswerError("the program answered nonsense") from None

  def _send(self, data: bytes) -> None:
    while data:
      data = data[os.write(self._requests, data) :]

  def _line(self) -> bytes:
    while b"\n" not in self._received:
      left = self._deadline - time.monotonic()
      if left <= 0 or not select.select([self._replies], [], [], left)[0]:
        raise NoAnswerError("the program did not answer in time")
      chunk = os.read(self._replies, 1 << 16)
      if not chunk:
        raise NoAnswerError("the program ended its process")
      self._received += chunk
      if len(self._received) > self._max_bytes:
        raise NoAnswerError("a result that is too large")
    line, _, self._received = self._received.partition(b"\n")
    return line


class Remote:
  """Stands for an object of the program's that is no plain value; equal only to itself."""

  def __init__(self, link: Link, number: int):
    self._link, self._number = link, number

  def __call__(self, *positional: object, **named: object) -> object:
    link, sent = self._link, list(positional)
    reply = link.ask(
      "call", number=self._number, positional=link.encode(sent), named=link.encode(named)
    )
    for ours, theirs in zip(positional, reply["positional"], strict=False):
      _take_over(ours, theirs)
    return reply["value"]

  def __getattr__(self, name: str) -> object:
    return self._link.ask("attribute", number=self._number, name=name)["value"]

  def __iter__(self) -> Iterator:
    return iter(self._link.ask("items", number=self._number)["value"])

  def __len__(self) -> int:
    try:
      return self.__getattr__("__len__")()
    except AttributeError as error:
      raise TypeError(str(error)) from None  # as Python has it; list() relies on that

  def __bool__(self) -> bool:
    return True

  def __getitem__(self, key: object) -> object:
    return self.__getattr__("__getitem__")(key)


def run_tests(code: str, entry_point: str | None, link: Link) -> dict:
  """Runs test code against the program behind `link`.

  A name that the tests use is the program's if it is not Python's: a program that defines `sorted`
  or `math` changes nothing for the tests. Only the entry point may have such a name.

  Returns:
    {"passed": True}, or {"passed": False or None, "reason": ...}; None: the tests themselves fail.
  """
  try:
    compiled = compile(code, _FILE, "exec")
  except (SyntaxError, ValueError) as error:
    return {"passed": None, "reason": f"the tests cannot be run: {error}"}
  names = _names(compiled) - _PYTHONS | ({entry_point} if entry_point else set())
  try:
    _run(compiled, entry_point, link, sorted(names))
  except BaseException as error:
    return _failure(link.failure or error, code)
  return _failure(link.failure, code) if link.failure else {"passed": True}


def _run(compiled: types.CodeType, entry_point: str | None, link: Link, names: list[str]) -> None:
  defined = link.ask("load", names=names)["value"]
  namespace = {name: defined[name] for name in names if name in defined}  # and no other: forged
  namespace["__name__"] = "tests"
  if entry_point and entry_point not in namespace:
    raise NameError(f"the program does not define {entry_point!r}")
  function = namespace.get(entry_point)
  exec(compiled, namespace)
  if entry_point and isinstance(namespace.get("check"), types.FunctionType):
    namespace["check"](function)


def _names(code: types.CodeType) -> set[str]:
  inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
  return set(code.co_names).union(*map(_names, inner))


def _failure(error: BaseException, code: str) -> dict:
  what = str(error) if isinstance(error, NoAnswerError) else f"{type(error).__name__}: {error}"
  line = _line_number(error)
  if line:
    what = f"line {line}: {code.splitlines()[line - 1].strip()[:200]} ({what.rstrip(': ')})"
  not_imported = isinstance(error, NameError) and error.name in sys.stdlib_module_names
  if not_imported or isinstance(error, UnsendableError):
    return {"passed": None, "reason": what}
  return {"passed": False, "reason": what}


def _line_number(error: BaseException) -> int | None:
  line, trace = None, error.__traceback__
  while trace:
    if trace.tb_frame.f_code.co_filename == _FILE:
      line = trace.tb_lineno
    trace = trace.tb_next
  return line


def _error(name: str, text: str) -> BaseException:
  kind = getattr(builtins, name, None)
  if isinstance(kind, type) and issubclass(kind, Exception):
    with_text = kind.__new__(kind)
    with_text.args = (text,)
    return with_text
  return RuntimeError(f"{name}: {text}")


def _number(value: object) -> int:
  if isinstance(value, Remote):
    return value._number
  kind = type(value).__name__
  raise UnsendableError(f"the tests pass a {kind}, which cannot be sent to the program")


def _take_over(ours: object, theirs: object) -> None:
  """Does to an argument of the tests' what the program did to its copy."""
  if type(ours) is list and type(theirs) is list:
    ours[:] = theirs
  elif type(ours) is type(theirs) and isinstance(ours, (dict, set)):
    ours.clear()
    ours.update(theirs)
