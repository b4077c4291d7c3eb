"""How are the compiled programs told? A table of what fits, one of where the bytes are, one of what
moves between chips.

A chip is fullest in one of its moments: while a program runs, it holds the program's arguments,
results, temporaries and code, and what waits for other programs. Bytes moved are those of the
collectives' results on one chip; weights are gathered, and gradients summed, in bfloat16.
"""

import collections

from experiments.tpu.cases import GIB, USABLE, Case

MIB = 2**20

# What is on a chip while a program runs, and is not among its arguments; of INSERT's, which are a
# layer's, all layers.
INSERT = "insert"
WAITING = {
  "prepare": ("optimizer", "replay store", "sampling weights"),
  "prefill": ("parameters", "optimizer", "replay store", "slots", "prompts"),
  INSERT: ("parameters", "optimizer", "replay store", "sampling weights", "slots", "prompts"),
  "decode": ("parameters", "optimizer", "replay store", "prompts"),
  "replay add": ("parameters", "optimizer", "sampling weights"),
  "replay draw": ("parameters", "optimizer", "sampling weights"),
  "assemble": ("parameters", "optimizer", "replay store"),
  "gradients": ("optimizer", "replay store"),
  "apply": ("replay store", "batch"),
}
# Programs that move the most, and how often their loop over data goes round.
LOOPS = {"decode": "a token", "gradients": "a microbatch"}


def render(kept: dict[str, dict]) -> str:
  """Markdown."""
  found = [(Case(**result["case"]), result) for result in kept.values()]
  parts = [
    "# Compiled for TPUs that were not there",
    provenance(kept),
    table(
      ("model", "chips", "mesh", "slots x tokens", "tokens of a microbatch, a chip", "fullest",
       "fits"),
      [fits_row(*pair) for pair in found],
    ),
    "## Where the bytes of a chip are (GiB)",
    table(
      ("", "parameters", "optimizer", "gradients", "sampling weights", "KV cache, slots",
       "prompts read", "replay store", "temporaries: decode", "update"),
      [bytes_row(*pair) for pair in found],
    ),
    "## What moves between chips (MiB)",
    table(
      ("", "", *COLUMNS, "largest"), [row for pair in found for row in moves_rows(*pair)]
    ),
  ]  # fmt: skip
  return "\n\n".join(parts) + "\n"


def provenance(kept: dict[str, dict]) -> str:
  versions = sorted({f"{n} {v}" for r in kept.values() for n, v in r["versions"].items()})
  told = " ".join(__doc__.partition("\n\n")[2].split())
  return f"`python -m experiments.compile_for_tpu`, {', '.join(versions)}. {told}"


def fits_row(case: Case, result: dict) -> list[str]:
  bytes_, moment = fullest(result)
  usable = USABLE[case.chip]
  return [
    name_of(case.model),
    f"{case.chip}-{case.chips}",
    f"fsdp {case.fsdp}, tensor {case.tensor}",
    f"{case.slots:,} x {case.row_tokens:,}",
    f"{case.microbatch_tokens:,}",
    f"{bytes_ / GIB:.1f} of {usable / GIB:.2f} GiB ({moment})",
    "yes" if bytes_ <= usable else "**no**",
  ]


def fullest(result: dict) -> tuple[float, str]:
  """Bytes of a chip's fullest moment, and the program that then runs; without end where the
  compiler found no room for a program alone."""
  programs, sizes = result["programs"], all_sizes(result)
  moments = [
    (own_bytes(name, program) + sum(sizes[waiting] for waiting in WAITING[name]), name)
    for name, program in programs.items()
  ]
  return max(moments)


def own_bytes(name: str, program: dict) -> float:
  """Those that are not waiting."""
  if "too_large" in program:
    return float("inf")
  arguments = program["arguments"] if name != INSERT else 0
  return arguments + sum(program[part] for part in ("results", "temporaries", "code"))


def all_sizes(result: dict) -> dict[str, float]:
  """Bytes by name of what lives longer than a program."""
  programs, sizes = result["programs"], dict(result["resident"])
  sizes["slots"] = programs["decode"].get("arguments", 0) - sizes["sampling weights"]
  sizes["prompts"] = programs["prefill"].get("results", 0)
  sizes["batch"] = programs["assemble"].get("results", 0)
  return sizes


def bytes_row(case: Case, result: dict) -> list[str]:
  sizes, programs = all_sizes(result), result["programs"]
  named = ("parameters", "optimizer", "gradients", "sampling weights", "slots", "prompts",
           "replay store")  # fmt: skip
  temporaries = [programs[name].get("temporaries", float("inf")) for name in LOOPS]
  return [title(case), *(f"{x / GIB:.2f}" for x in (*(sizes[n] for n in named), *temporaries))]


COLUMNS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")


def moves_rows(case: Case, result: dict) -> list[list[str]]:
  """Of decoding one token, and of learning from one microbatch. `count: MiB` of each kind."""
  rows = []
  for name, loop in LOOPS.items():
    moved = [c for c in result["programs"][name].get("collectives", ()) if c["depth"]]
    count, total = collections.Counter(), collections.Counter()
    for one in moved:
      count[one["kind"]] += one["times"]
      total[one["kind"]] += one["times"] * one["bytes"]
    cells = [f"{count[k]}: {total[k] / MIB:,.1f}" if count[k] else "" for k in COLUMNS]
    largest = max(moved, key=lambda one: one["bytes"], default=None)
    text = f"{largest['kind']} {largest['shape']}" if largest else ""
    rows.append([title(case), loop, *cells, text])
  return rows


def title(case: Case) -> str:
  return f"{name_of(case.model)}, {case.chip}-{case.chips}, {case.fsdp} x {case.tensor}"


def name_of(model: str) -> str:
  """A model's size, such as "0.6B" of "qwen3_0p6b"."""
  return model.removeprefix("qwen3_").replace("p", ".").upper()


def table(head, rows) -> str:
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)
