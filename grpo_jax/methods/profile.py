"""How often does the start policy solve each problem? A file of counts, measured once by
profile_prompts.py.

  {"problems": "<fingerprint>", "weights": "<fingerprint>", "template": "plain",
   "max_new_tokens": 26, "samples": 8, "rights": [0, 3, 8, ...],
   "prompt_tokens": 60, "generated_tokens": 1500}

`rights` has one count a problem, in the order of the set. What it was measured on stands before it:
of other problems or of another policy the counts would mean nothing, and are refused.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping

import numpy as np

from grpo_jax.errors import UserError

NUMBERS = ("samples", "rights", "prompt_tokens", "generated_tokens")


@dataclasses.dataclass(frozen=True)
class Profile:
  """What a file says."""

  share_P: np.ndarray  # float, right samples of each problem; 0 where the prompt was too long
  samples: int  # of each problem
  prompt_tokens: int  # what it took, each prompt once
  generated_tokens: int
  identity: str  # sha256 of the file

  @property
  def tokens(self) -> int:
    return self.prompt_tokens + self.generated_tokens


def load_profile(path: str, *, measured_on: Mapping[str, str | int], size: int) -> Profile:
  """Reads and checks a file.

  Args:
    path: of the JSON file.
    measured_on: what it must have been measured on, by the names in the file.
    size: problems in the set.

  Raises:
    UserError: names the file and what is wrong with it.
  """
  try:
    content = pathlib.Path(path).expanduser().read_bytes()
    values = json.loads(content)
  except (OSError, ValueError) as error:
    raise UserError(f"cannot read the profile {path}: {error}") from None
  missing = {*measured_on, *NUMBERS} - set(values if isinstance(values, dict) else ())
  if missing:
    raise UserError(f"the profile {path} lacks {', '.join(sorted(missing))}")
  for name, here in measured_on.items():
    if values[name] != here:
      raise UserError(
        f"the profile {path} was measured on other {name} ({values[name]!s:.12}, this run has "
        f"{here!s:.12}): measure it again"
      )
  samples, *tokens = (_count(path, name, values[name]) for name in NUMBERS if name != "rights")
  share_P = _shares(path, samples, values["rights"], size)
  return Profile(share_P, samples, *tokens, hashlib.sha256(content).hexdigest())


def profile_text(
  measured_on: Mapping[str, str | int],
  *,
  samples: int,
  rights: list[int],
  prompt_tokens: int,
  generated_tokens: int,
) -> str:
  """The content of a file that `load_profile` reads."""
  numbers = (samples, rights, prompt_tokens, generated_tokens)
  return json.dumps({**measured_on, **dict(zip(NUMBERS, numbers, strict=True))}) + "\n"


def _count(path: str, name: str, value: object) -> int:
  if type(value) is not int or value < 1:
    raise UserError(f"the profile {path}: {name} is {value!r}; expected a number above 0")
  return value


def _shares(path: str, samples: int, rights: object, size: int) -> np.ndarray:
  if not isinstance(rights, list) or len(rights) != size:
    count = len(rights) if isinstance(rights, list) else "no list"
    raise UserError(f"the profile {path}: rights has {count} entries; there are {size} problems")
  for problem, right in enumerate(rights):
    if type(right) is not int or not 0 <= right <= samples:
      raise UserError(
        f"the profile {path}: rights[{problem}] is {right!r}; expected 0 to {samples}"
      )
  return np.array(rights) / samples
