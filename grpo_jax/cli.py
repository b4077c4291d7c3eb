"""How every command reads its flags and how it fails: one clear line and exit code 2."""

import logging as logs
import re
import sys
import traceback
from collections.abc import Callable

from absl import app, flags, logging

from grpo_jax import hosts
from grpo_jax.errors import UserError
from grpo_jax.run.rollout_log import printable


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
  """Reads the command line into the flags defined so far. Asked for `--help`, it tells about the
  command and its flags, and exits with 0.

  Raises:
    UserError: something that is no flag, or a config key that does not exist.
    flags.Error: an unknown flag or a value of another type.
  """
  if {"-h", "--help"} & set(sys.argv[1:]):
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
      if module.startswith("grpo_jax"):  # and not of libraries
        for flag in defined:
          flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)
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
