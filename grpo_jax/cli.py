"""How every command reads its flags and how it fails: one clear line and exit code 2."""

import logging as logs
import re
import sys
import textwrap
import traceback
from collections.abc import Callable

from absl import flags, logging

from grpo_jax import hosts
from grpo_jax.errors import UserError
from grpo_jax.run.rollout_log import printable

HELP = ("-h", "-help", "--help")
WIDTH = 100  # of a help page


def run(main: Callable[[], None], *, when_stopped: str = "stopped") -> None:
  """Calls `main`, which defines its flags and calls `parse`; turns bad input into one line on
  stderr.

  Exits with 2 on bad input (flags, configs, files), whatever was wrong about it.
  """
  # Libraries log at length below errors; what a user should read, we print.
  logging.set_verbosity(logging.ERROR)
  # Of a save that failed, asyncio would tell again, at length and after the last line.
  logs.getLogger("asyncio").setLevel(logs.CRITICAL)
  try:
    main()
  except (UserError, flags.Error) as error:
    # What an error quotes may come from a file, and must not give orders to a terminal.
    print(f"error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
    hosts.leave(2)
    sys.exit(2)
  except KeyboardInterrupt:
    print(f"\n{when_stopped}", file=sys.stderr)
    hosts.leave(130)
    sys.exit(130)
  except Exception:
    traceback.print_exc()
    hosts.leave(1)
    sys.exit(1)


def parse() -> None:
  """Reads the command line into the flags defined so far. Asked for help, tells about the command
  and them, and exits with 0.

  Raises:
    UserError: something that is no flag, or a config key that does not exist.
    flags.Error: an unknown flag or a value of another type.
  """
  if any(word in HELP for word in sys.argv[1:]):
    print(_help_page(sys.modules["__main__"].__doc__))
    sys.exit(0)
  try:
    rest = flags.FLAGS(sys.argv)[1:]
  except ModuleNotFoundError as error:
    raise UserError(f"{error}; start from the folder that holds configs/") from error
  except (KeyError, AttributeError) as error:
    # A ConfigDict names the unknown key first, then perhaps the nearest one.
    told = str(error)
    key, nearest = re.search(r"\w+", told), re.search(r'mean "(\w+)"', told)
    suggestion = f"; did you mean {nearest[1]!r}?" if nearest else ""
    raise UserError(f"unknown config key {key[0] if key else told!r}{suggestion}") from error
  if rest:
    raise UserError(f"unexpected argument {rest[0]!r}; options are written --name=value")


def _help_page(about: str) -> str:
  """What a command is, its flags with their defaults, and how configs are changed."""
  ours = [
    flag
    for module, defined in flags.FLAGS.flags_by_module_dict().items()
    if module == sys.argv[0] or module.startswith("grpo_jax")  # libraries have some, too
    for flag in defined
  ]
  parts = [about.strip(), "", "Flags, with what they are if they are not given:", ""]
  for flag in ours:
    parts.append(f"  --{flag.name}" + ("" if flag.default in (None, "") else f"={flag.default}"))
    indent = " " * 6
    parts += textwrap.wrap(flag.help, WIDTH, initial_indent=indent, subsequent_indent=indent)
  if "config" in flags.FLAGS:
    parts += ["", "Any key of the config: --config.section.key=value; configs/base.py lists them."]
  return "\n".join(parts)
