"""The process of a program whose functions are called by tests that run elsewhere.

Reads requests and writes replies as lines of JSON. The program may take over this process in any
way; all it can gain is to give other answers to what it is asked.
"""

import builtins
import json
import os
import sys

from .inside import load
from .wire import decode, encode


class Server:
  """Answers requests about one program's names and objects."""

  def __init__(self, path: str):
    self._path = path
    self._objects: list[object] = []  # by the number that the tests know them by

  def answer(self, request: dict) -> dict:
    try:
      return getattr(self, request.pop("do"))(**request)
    except BaseException as error:  # also exit(): the program's end is the program's failure
      return {"error": [_builtin_name(error), str(error)[:500]]}

  def load(self, names: list[str]) -> dict:
    """Runs the program; the value of those of `names` that it defines."""
    defined = vars(load(self._path, "program"))
    return {"value": self._encode({name: defined[name] for name in names if name in defined})}

  def call(self, number: int, positional: object, named: object) -> dict:
    """Also returns the arguments, for functions that work in place."""
    positional, named = self._decode(positional), self._decode(named)
    value = self._objects[number](*positional, **named)
    return {"value": self._encode(value), "positional": self._encode(positional)}

  def attribute(self, number: int, name: str) -> dict:
    return {"value": self._encode(getattr(self._objects[number], name))}

  def items(self, number: int) -> dict:
    return {"value": self._encode(list(self._objects[number]))}

  def _encode(self, value: object) -> object:
    return encode(value, self._refer)

  def _decode(self, data: object) -> object:
    return decode(data, self._objects.__getitem__)

  def _refer(self, value: object) -> int:
    self._objects.append(value)
    return len(self._objects) - 1


def _builtin_name(error: BaseException) -> str:
  """The nearest type of `error` that tests can know."""
  return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == builtins.__name__)


def main() -> None:
  path, requests, replies = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
  server = Server(path)
  with os.fdopen(requests) as lines, os.fdopen(replies, "w", buffering=1) as out:
    for line in lines:
      out.write(json.dumps(server.answer(json.loads(line))) + "\n")
