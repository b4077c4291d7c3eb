"""Is there room for what a run wants to hold? Refused, with numbers, before any of it is taken."""

from collections.abc import Mapping

from grpo_jax.errors import UserError
from grpo_jax.run.human import human_bytes

GROW_WITH_SLOTS = ("KV cache", "logits")


def check_memory(
  sizes: Mapping[str, int], *, limit: int, slots: int, length: int, multiple: int, key: str
) -> None:
  """Refuses more decode slots than the memory holds.

  Args:
    sizes: bytes on each device by name; those of GROW_WITH_SLOTS are for all `slots`.
    limit: bytes a device has.
    slots, length: of the KV cache.
    multiple: slots come in multiples of it.
    key: what the user sets the slots by.

  Raises:
    UserError: says the numbers and the largest setting that fits.
  """
  total = sum(sizes.values())
  if total <= limit:
    return
  of_slots = sum(sizes[name] for name in GROW_WITH_SLOTS)
  numbers = (
    f"{key}={slots}: a KV cache of {slots:,} slots x {length:,} tokens takes "
    f"{human_bytes(sizes['KV cache'])} on each device and all else "
    f"{human_bytes(total - sizes['KV cache'])}, but a device has {human_bytes(limit)}"
  )
  fit = int(slots * (limit - total + of_slots) / of_slots) // multiple * multiple
  if fit > 0:
    raise UserError(f"{numbers}; {key}={fit} fits")
  raise UserError(
    f"{numbers}; not even {multiple} would fit: split the model over more devices, or sample "
    "shorter completions"
  )
