"""The process of one program: runs it as if it were started from a file.

What the program prints and how it ends are all that anyone learns of it, so there is nothing here
to be forged: neither the tests nor what they expect is in this process.
"""

import builtins
import sys
import types


def load(path: str, name: str) -> types.ModuleType:
  """Runs the program in the file `path` as the module `name`, and returns that."""
  sys.path.pop(0)  # this package's: a program's imports are the standard library
  sys.argv = [path]
  builtins.exit = builtins.quit = sys.exit  # which `site` provides elsewhere
  module = sys.modules[name] = types.ModuleType(name)
  with open(path, "rb") as file:
    exec(compile(file.read(), path, "exec"), vars(module))
  return module


def main() -> None:
  load(sys.argv[1], "__main__")
