"""Is this still the same experiment? The resolved configuration, and what may change in it.

A resume under other settings would leave results that nobody could explain, so every key must have
its old value, except those that only say how long or how loudly to run.
"""

import hashlib
import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from grpo_jax.errors import UserError
from grpo_jax.run.files import write_atomically

_SHOWN_DIFFERENCES = 5
_ABSENT = object()

# Dotted key -> (value there, value here).
Differences = dict[str, tuple[Any, Any]]


def settle_config(
  path: pathlib.Path, config: Mapping[str, Any], may_change: frozenset[str]
) -> None:
  """Writes `config` to the file `path`, or holds it against the one that is there.

  config: nested mappings of JSON values. may_change: dotted keys (`steps`) or sections (`log`) that
  may differ from the file, which then takes the new values.
  Raises UserError naming every other key that differs, or a value that JSON cannot hold.
  """
  config = _json_values(config)
  text = json.dumps(config, indent=2, sort_keys=True) + "\n"
  if not path.exists():
    write_atomically(path, text)
    return
  before, now = dict(flat(_read_config(path))), dict(flat(config))
  differing = [key for key in sorted(before | now) if not _same(key, before, now)]
  refused = [key for key in differing if not _allowed(key, may_change)]
  if refused:
    raise UserError(
      f"{path.parent} holds a run with another config: {_told(refused, before, now)}; "
      "choose another --workdir, or give these keys their old values"
    )
  if differing:
    write_atomically(path, text)


def fingerprint(config: Mapping[str, Any], may_change: frozenset[str]) -> str:
  """Names what must not change of a run: the same for every start of it."""
  fixed = {key: v for key, v in flat(_json_values(config)) if not _allowed(key, may_change)}
  return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:16]


def differences(config: Mapping[str, Any], reference: Mapping[str, Any]) -> Differences:
  """Dotted keys of `reference` that have another value in `config`: (reference, config)."""
  here, there = dict(flat(_json_values(config))), json.loads(json.dumps(reference))
  return {key: (there[key], here.get(key)) for key in there if not _same(key, there, here)}


def difference_sentence(changes: Differences) -> str:
  """`keep mixed_groups (everything); replay.ratio 0.5 (0.0)`."""
  return "; ".join(f"{key} {_plain(here)} ({_plain(was)})" for key, (was, here) in changes.items())


def write_method(path: pathlib.Path, method: str, changes: Differences) -> None:
  """The same for other programs."""
  told = {key: {"grpo": was, "here": here} for key, (was, here) in changes.items()}
  record = {"method": method, "differs_from_grpo": told}
  write_atomically(path, json.dumps(record, indent=2) + "\n")


def _plain(value: Any) -> str:
  return value if isinstance(value, str) else _short(value)


def _told(keys: list[str], before: Mapping, now: Mapping) -> str:
  """`lr was 0.1, now 0.2`, for the first few keys."""
  told = [
    f"{key} was {_short(before.get(key, _ABSENT))}, now {_short(now.get(key, _ABSENT))}"
    for key in keys[:_SHOWN_DIFFERENCES]
  ]
  if len(keys) > len(told):
    told.append(f"and {len(keys) - len(told)} more keys")
  return "; ".join(told)


def _short(value: Any) -> str:
  if value is _ABSENT:
    return "(absent)"
  text = json.dumps(value, ensure_ascii=False)
  return text if len(text) <= 60 else text[:57] + "..."


def _same(key: str, before: Mapping, now: Mapping) -> bool:
  there, here = before.get(key, _ABSENT), now.get(key, _ABSENT)
  # NaN is not equal to itself.
  return there == here or (_is_nan(there) and _is_nan(here))


def _is_nan(value: Any) -> bool:
  return isinstance(value, float) and math.isnan(value)


def _allowed(key: str, may_change: frozenset[str]) -> bool:
  """Whether the key itself, or a section it lies in, is among `may_change`."""
  parts = key.split(".")
  return any(".".join(parts[:length]) in may_change for length in range(1, len(parts) + 1))


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
  """The leaves of nested mappings with their dotted keys; an empty mapping is a leaf."""
  for key, value in tree.items():
    if isinstance(value, Mapping) and value:
      yield from flat(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", value


def _json_values(config: Mapping[str, Any]) -> dict:
  """`config` as JSON would give it back: tuples as lists, every key a text."""
  for key, value in flat(config):
    try:
      json.dumps(value)
    except (TypeError, ValueError):
      raise UserError(
        f"config key {key}: {value!r} is not a number, text, true, false, null or a list of them"
      ) from None
  return json.loads(json.dumps(config))


def _read_config(path: pathlib.Path) -> dict:
  try:
    config = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise UserError(f"cannot read {path} ({error}); choose another --workdir") from error
  if not isinstance(config, dict):
    raise UserError(f"{path}: not a configuration (expected an object); choose another --workdir")
  return config
