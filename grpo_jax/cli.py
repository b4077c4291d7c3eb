"""How every command reads its flags and how it fails: one clear line and exit code 2."""

import sys
from collections.abc import Callable

from absl import flags, logging

from grpo_jax.errors import UserError


def run(main: Callable[[], None]) -> None:
  """Parses the command line, calls `main`, and turns bad input into one line on stderr.

  Exits with 2 on bad input (flags, configs, files), whatever was wrong about it.
  """
  # Libraries log at length below warnings; what a user should read, we print.
  logging.set_verbosity(logging.ERROR)
  try:
    rest = flags.FLAGS(sys.argv)[1:]
    if rest:
      raise UserError(f"unexpected argument {rest[0]!r}; options are written --name=value")
    main()
  except UserError as error:
    sys.exit(_fail(str(error)))
  except flags.Error as error:
    sys.exit(_fail(str(error)))
  except KeyboardInterrupt:
    print("\nstopped; the same command goes on from the last checkpoint", file=sys.stderr)
    sys.exit(130)


def _fail(message: str) -> int:
  print(f"error: {' '.join(message.split())}", file=sys.stderr)
  return 2
