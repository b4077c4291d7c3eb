"""Which collectives does a compiled program run, how often, and what do they move? Read from its
text, since XLA has no other way of telling.

A loop's body stands once in the text. Its trips are read from its condition where that compares
with a constant, as in a scan over layers. Other loops, over as many tokens or microbatches as the
data ask for, are open: what is inside them is counted for one trip.
"""

import collections
import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import Any

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {
  "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2,
  "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8,
}  # fmt: skip

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_TYPE = r"(\(.*?\)|\S+)"  # of one result or a tuple of them
_INSTRUCTION = re.compile(rf"^\s+(?:ROOT )?%?([\w.\-]+) = {_TYPE} ([\w\-]+)\((.*)$")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")
_CALLED = re.compile(
  r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_LIMIT = re.compile(r"constant\((\d+)\)")


@dataclasses.dataclass(frozen=True)
class Collective:
  """One in the text."""

  kind: str  # of KINDS
  shape: str  # of its largest result, as XLA writes it: bf16[1024,3072]
  bytes: int  # of all its results, on one device
  times: int  # trips of the counted loops around it
  depth: int  # open loops around it


@dataclasses.dataclass(frozen=True)
class _Instruction:
  name: str
  type: str
  opcode: str
  rest: str  # operands and attributes


def collectives(text: str) -> list[Collective]:
  """Of a whole compiled module. An asynchronous one, whose parts stand in several fusions, counts
  once."""
  entry, computations = _parsed(text)
  found: dict[Any, Collective] = {}
  for key, collective in _walk(computations, entry, times=1, depth=0):
    found.setdefault(key, collective)
  return list(found.values())


def summed(found: Iterable[Collective]) -> list[Collective]:
  """Those that differ in their times alone as one, in the order they were met."""
  times = collections.Counter()
  for one in found:
    times[dataclasses.replace(one, times=0)] += one.times
  return [dataclasses.replace(one, times=count) for one, count in times.items()]


def _parsed(text: str) -> tuple[str, dict[str, list[_Instruction]]]:
  """The name of the entry, and the instructions of every computation."""
  computations: dict[str, list[_Instruction]] = {}
  entry = name = ""
  for line in text.splitlines():
    if start := _COMPUTATION.match(line):
      name = start[2]
      computations[name] = []
      entry = name if start[1] else entry
    elif name and (parts := _INSTRUCTION.match(line)):
      computations[name].append(_Instruction(*parts.groups()))
  return entry, computations


def _walk(
  computations, name: str, times: int, depth: int, fused: bool = False
) -> Iterator[tuple[Any, Collective]]:
  """Collectives, and what each is known by: its place, or inside a fusion its channel."""
  for instruction in computations.get(name, ()):
    if kind := _kind(instruction.opcode, name):
      # What is scattered is the fusion's last result; the sum inside is never whole anywhere.
      told_by = instruction if instruction.opcode.startswith(kind) else computations[name][-1]
      shape, size = _moved(told_by)
      channel = re.search(r"channel_id=(\d+)", instruction.rest)
      place = channel[1] if fused and channel else f"{name}/{instruction.name}"
      yield (place, kind, shape), Collective(kind, shape, size, times, depth)
    trips, deeper = 1, 0
    if instruction.opcode == "while":
      limit = _trips(computations, instruction)
      trips, deeper = (limit, 0) if limit else (1, 1)
    for called in _called(instruction):
      fused = instruction.opcode == "fusion"
      yield from _walk(computations, called, times * trips, depth + deeper, fused)


def _kind(opcode: str, computation: str) -> str | None:
  """An asynchronous collective is told by its start; a TPU writes a sum that it scatters as an
  all-reduce with a slice of it, in a fusion of their own."""
  opcode = opcode.removesuffix("-start")
  if opcode == "all-reduce" and computation.startswith("all-reduce-scatter"):
    return "reduce-scatter"
  return opcode if opcode in KINDS else None


def _moved(instruction: _Instruction) -> tuple[str, int]:
  """The largest result and the bytes of all. A start returns its operand beside its result."""
  shapes = [(_bytes(*part), f"{part[0]}[{part[1]}]") for part in _SHAPE.findall(instruction.type)]
  largest, shape = max(shapes)
  started = instruction.opcode.endswith("-start")
  return shape, largest if started else sum(size for size, _ in shapes)


def _bytes(dtype: str, dimensions: str) -> int:
  size = BYTES[dtype]
  for dimension in filter(None, dimensions.split(",")):
    size *= int(dimension)
  return size


def _called(instruction: _Instruction) -> Iterable[str]:
  names = _CALLED.findall(instruction.rest)
  for branches in _BRANCHES.findall(instruction.rest):
    names += [branch.strip().lstrip("%") for branch in branches.split(",")]
  return names


def _trips(computations, loop: _Instruction) -> int | None:
  """The constant its counter is compared with; None: it ends by other means."""
  condition = computations[re.search(r"condition=%?([\w.\-]+)", loop.rest)[1]]
  named = {instruction.name: instruction for instruction in condition}
  root = condition[-1]
  if root.opcode != "compare" or "direction=LT" not in root.rest:
    return None
  operands = re.findall(r"%([\w.\-]+)", root.rest.split(")")[0])
  constants = [
    int(_LIMIT.search(f"constant({named[o].rest}")[1])
    for o in operands
    if o in named and named[o].opcode == "constant"
  ]
  return constants[0] if len(constants) == 1 else None
