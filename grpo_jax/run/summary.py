"""What will this run do? The plain sentences printed before its first step.

"Batch size" means five things in this field (problems, rollouts, replayed rollouts, rows of one
microbatch, updates), so a run says in words what its numbers come to.
"""

from collections.abc import Mapping

from grpo_jax.run.human import human_bytes


def batch_sentence(
  *, problems: int, samples: int, replayed: int, optimizer_steps: int, microbatch_tokens: int
) -> str:
  """What one step trains on.

  problems: fresh problems of a step; samples: rollouts of each; replayed: most rollouts drawn from
  the replay store; optimizer_steps: of one step; microbatch_tokens: of one forward and backward
  pass on each device.
  """
  fresh = problems * samples
  replay = f", + up to {replayed:,} replayed" if replayed else ""
  return (
    f"Each step: {_plural(problems, 'problem')} x {_plural(samples, 'sample')} = "
    f"{_plural(fresh, 'rollout')}{replay}, "
    f"{_plural(optimizer_steps, 'optimizer step')}, microbatches of {microbatch_tokens:,} tokens."
  )


def short_memory_warning(
  *, training_problems: int, problems: int, samples: int, capacity: int, max_age: int
) -> str:
  """What is wrong with a store from which only the problems of a step are drawn, if it has lost a
  problem's rollouts when that is asked again: "" if it has not.

  training_problems: of an epoch; problems, samples: of a step; capacity: rollouts the store keeps;
  max_age: steps it keeps them.
  """
  steps = -(-training_problems // problems)
  remembered = min(max_age, capacity // (problems * samples))
  if remembered >= steps:
    return ""
  return (
    f"WARNING: only old rollouts of the problems a step asks are drawn, and a problem comes again "
    f"after {_plural(steps, 'step')}, when the store keeps the last {remembered:,} at most: little "
    "or nothing will be replayed; raise replay.capacity and replay.max_age, or learn from fewer "
    "problems."
  )


def memory_sentence(sizes: Mapping[str, int], notes: Mapping[str, str] | None = None) -> str:
  """What one device must hold.

  sizes: bytes by name, in the order to be told; notes: by the same names, what to say in brackets.
  """
  notes = notes or {}
  parts = [
    f"{name} {human_bytes(size)}" + (f" ({notes[name]})" if name in notes else "")
    for name, size in sizes.items()
  ]
  total = human_bytes(sum(sizes.values()))
  return f"Memory on each device: {', '.join(parts)}; {total} in all."


def _plural(count: int, one: str, many: str | None = None) -> str:
  return f"{count:,} {one if count == 1 else many or one + 's'}"
