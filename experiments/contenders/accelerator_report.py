"""How are optimizer steps on an accelerator told? A line a case, and a table.

Operations are counted as in update_report.py: the model's own, of real tokens.
"""

import statistics

from contenders.accelerator_cases import CASES, QUICK, Case
from contenders.report import table
from contenders.update_report import operations
from grpo_jax.run.human import human_bytes

GOAL = 0.45
# Dense bfloat16 operations a second by the vendor's data sheet, by jax's device_kind.
DATASHEET = {
  "NVIDIA A100-SXM4-80GB": 312e12,
  "NVIDIA H100 80GB HBM3": 989.4e12,
  "NVIDIA H200": 989.4e12,
  "TPU v4": 275e12,
  "TPU v5 lite": 197e12,
  "TPU v5": 459e12,
  "TPU v6 lite": 918e12,
}
LEGEND = """\
Optimizer steps of PPO-clip and AdamW in bfloat16 with float32 parameters, from token ids on the
host to new parameters; random weights, prompts of 128 tokens, 32,768 tokens a step (of a long
tail: 48 rows). Medians over rounds after a first step; in brackets the range. Operations are the
model's own on real tokens, `6 N t + 6 L H h t (t + 1) + 6 D V c` summed over rows. MFU is their
rate by that of the vendor's data sheet; beside it, by that of one product of two 8192 x 8192
bfloat16 matrices on the same device. Memory: the compiler's count of the program that takes most,
with the optimizer's moments beside it. `remat`: what of a block's forward pass the backward pass
computes again."""


def sentence(key: str, found: dict) -> str:
  """A line for the one who waits."""
  if not found["rounds"]:
    return f"{key}: does not fit, it takes {human_bytes(found['peak_bytes'])}"
  return (
    f"{key}: {_speed(key, found):,.0f} tokens/s, {_rate(key, found) / 1e12:.0f} Tflop/s, "
    f"{human_bytes(found['peak_bytes'])}, first step {found['first']:.0f} s"
  )


def render(kept: dict) -> str:
  """All kept cases as Markdown."""
  rows = []
  for case in (*CASES, *QUICK):
    if case.key not in kept["cases"]:
      continue
    found = kept["cases"][case.key]
    lengths = f"{case.length:,}" + (", long tail" if case.ragged else "")
    row = [case.model, lengths, case.remat, f"{case.microbatch_tokens:,}"]
    if found["rounds"]:
      seconds = [1e3 * s for s in found["rounds"]]
      row += [
        f"{_speed(case.key, found):,.0f}",
        f"{_rate(case.key, found) / 1e12:,.0f}",
        _share(_rate(case.key, found), DATASHEET.get(found["device"])),
        _share(_rate(case.key, found), found["product_flops"]),
        human_bytes(found["peak_bytes"]),
        f"{statistics.median(seconds):,.0f} ({min(seconds):,.0f} to {max(seconds):,.0f})",
      ]
    else:
      row += ["does not fit", "", "", "", human_bytes(found["peak_bytes"]), ""]
    rows.append(row)
  heads = [
    "", "tokens of a row", "`remat`", "of a microbatch", "trained tokens/s", "Tflop/s",
    "MFU", "of a product", "memory", "ms a step",
  ]  # fmt: skip
  devices = sorted(
    f"{f['device']} ({f['product_flops'] / 1e12:,.0f} Tflop/s in products, "
    f"{human_bytes(f['memory'])} for XLA), {f['machine']}, jax {f['jax']}"
    for f in kept["cases"].values()
  )
  return "\n\n".join([
    "# The update on an accelerator",
    "`python experiments/bench_accelerator.py`  \n" + "; ".join(dict.fromkeys(devices)),
    LEGEND,
    _verdict(kept),
    table(heads, rows),
  ]) + "\n"  # fmt: skip


def _speed(key: str, found: dict) -> float:
  return sum(_case(key).row_tokens) / statistics.median(found["rounds"])


def _rate(key: str, found: dict) -> float:
  """The model's operations a second."""
  case = _case(key)
  rows = zip(case.row_tokens, case.completion_tokens, strict=True)
  return operations(case.shape, rows) / statistics.median(found["rounds"])


def _share(rate: float, of: float | None) -> str:
  return f"{rate / of:.1%}" if of else ""


def _verdict(kept: dict) -> str:
  """The goal beside the best figure, where there is a data sheet."""
  shares = [
    _rate(key, found) / DATASHEET[found["device"]]
    for key, found in kept["cases"].items()
    if found["rounds"] and found["device"] in DATASHEET
  ]
  goal = f"Goal: MFU of at least {GOAL:.0%}"
  if not shares:
    return f"{goal}; of this device we know no data sheet."
  return f"{goal}; the best is {max(shares):.1%}: {'reached' if max(shares) >= GOAL else 'missed'}."


def _case(key: str) -> Case:
  return next(case for case in (*CASES, *QUICK) if case.key == key)
