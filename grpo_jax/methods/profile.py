"""How often does the start policy solve each problem? A file of success rates, measured once.

  {"problems": "<fingerprint of the problem set>", "samples": 8, "rights": [0, 3, 8, ...]}

`rights` has one count a problem, in the order of the set; the fingerprint refuses a file that was
measured on other problems, where the counts would mean nothing.
"""

import json
import pathlib

import numpy as np

from grpo_jax.errors import UserError


def load_profile(path: str, *, fingerprint: str, size: int) -> np.ndarray:
  """float [size]: share of right samples of each problem.

  Args:
    path: of the JSON file.
    fingerprint: of the problem set it must have been measured on.
    size: problems in that set.

  Raises:
    UserError: names the file and what is wrong with it.
  """
  try:
    values = json.loads(pathlib.Path(path).expanduser().read_text())
  except (OSError, ValueError) as error:
    raise UserError(f"cannot read the profile {path}: {error}") from None
  missing = {"problems", "samples", "rights"} - set(values if isinstance(values, dict) else ())
  if missing:
    raise UserError(f"the profile {path} lacks {', '.join(sorted(missing))}")
  if values["problems"] != fingerprint:
    raise UserError(
      f"the profile {path} was measured on other problems (fingerprint {values['problems']!s:.12}, "
      f"the training set's is {fingerprint:.12}): measure it again"
    )
  return _shares(path, values["samples"], values["rights"], size)


def _shares(path: str, samples: object, rights: object, size: int) -> np.ndarray:
  if type(samples) is not int or samples < 1:
    raise UserError(f"the profile {path}: samples is {samples!r}; expected a number above 0")
  if not isinstance(rights, list) or len(rights) != size:
    count = len(rights) if isinstance(rights, list) else "no list"
    raise UserError(f"the profile {path}: rights has {count} entries; there are {size} problems")
  for problem, right in enumerate(rights):
    if type(right) is not int or not 0 <= right <= samples:
      raise UserError(
        f"the profile {path}: rights[{problem}] is {right!r}; expected 0 to {samples}"
      )
  return np.array(rights) / samples
