"""What is read from compiled programs, and that the programs of a run compile for a TPU."""

import dataclasses
import importlib.util

import pytest

from experiments.tpu import report
from experiments.tpu.cases import CASES, GIB, Case
from experiments.tpu.hlo import Collective, collectives, summed
from experiments.tpu.measure import measure
from grpo_jax.model.config import PUBLISHED

TEXT = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%async_part (p: bf16[2,8]) -> bf16[16,8] {
  %p = bf16[2,8]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %gathered = bf16[16,8]{1,0:T(8,128)(2,1)S(1)} all-gather(%p), channel_id=5, dimensions={0}
}

%all-reduce-scatter.3 (q: f32[32,8]) -> f32[4,8] {
  %q = f32[32,8]{1,0} parameter(0)
  %whole = f32[32,8]{1,0:T(8,128)} all-reduce(%q), channel_id=9, to_apply=%add
  ROOT %own = f32[4,8]{1,0} dynamic-slice(%whole, %q), dynamic_slice_sizes={4,8}
}

%layer_cond (c: (s32[], bf16[2,8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(28)
  %c = (s32[]{:T(128)}, bf16[2,8]{1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%c), index=0
  ROOT %less = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

%layer_body (l: (s32[], bf16[2,8])) -> (s32[], bf16[2,8]) {
  %l = (s32[]{:T(128)}, bf16[2,8]{1,0}) parameter(0)
  %x = bf16[2,8]{1,0} get-tuple-element(%l), index=1
  %scattered = bf16[4,4]{1,0} reduce-scatter(%x), channel_id=8, dimensions={1}, to_apply=%add
  %begin = bf16[16,8]{1,0} fusion(%x), kind=kCustom, calls=%async_part
  %end = bf16[16,8]{1,0} fusion(%x), kind=kCustom, calls=%async_part
  %turn = (bf16[2,8]{1,0}, bf16[2,8]{1,0}, u32[]{:S(2)}) collective-permute-start(%x), channel_id=6
  ROOT %out = (s32[]{:T(128)}, bf16[2,8]{1,0}) tuple(%l, %x)
}

%until_done (d: (pred[], s32[])) -> pred[] {
  %d = (pred[], s32[]) parameter(0)
  %done = pred[] get-tuple-element(%d), index=0
  %anyone = u32[]{:T(128)} all-reduce(%done), channel_id=7, to_apply=%add
  ROOT %on = pred[] convert(%anyone)
}

%token (t: (pred[], s32[])) -> (pred[], s32[]) {
  %t = (pred[], s32[]) parameter(0)
  %layers = (s32[]{:T(128)}, bf16[2,8]{1,0}) while(%t), condition=%layer_cond, body=%layer_body
  ROOT %same = (pred[], s32[]) tuple(%t, %t)
}

ENTRY %main (p0: f32[4], p1: (pred[], s32[])) -> f32[4] {
  %p0 = f32[4]{0} parameter(0)
  %p1 = (pred[], s32[]) parameter(1)
  %tokens = (pred[], s32[]) while(%p1), condition=%until_done, body=%token
  %part = f32[4,8]{1,0} fusion(%p0), kind=kCustom, calls=%all-reduce-scatter.3
  ROOT %both = (f32[4]{0}, f32[]) all-reduce(%p0, %p0), channel_id=1, to_apply=%add
}
"""

IN_THE_TEXT = [
  Collective("all-reduce", "u32[]", 4, times=1, depth=1),  # whether anybody goes on, a token
  Collective("all-gather", "bf16[16,8]", 256, times=28, depth=1),  # its parts counted once
  Collective("collective-permute", "bf16[2,8]", 32, times=28, depth=1),
  Collective("reduce-scatter", "bf16[4,4]", 32, times=28, depth=1),
  Collective("reduce-scatter", "f32[4,8]", 128, times=1, depth=0),
  Collective("all-reduce", "f32[4]", 20, times=1, depth=0),
]


def test_collectives_are_counted_through_loops_and_fusions():
  assert sorted(collectives(TEXT), key=str) == sorted(IN_THE_TEXT, key=str)


def test_collectives_alike_are_told_as_one():
  one, other = IN_THE_TEXT[:2]
  assert summed([one, other, one]) == [dataclasses.replace(one, times=2), other]


def program(**bytes_):
  parts = dict.fromkeys(("arguments", "results", "temporaries", "code"), 0) | bytes_
  moved = [dataclasses.asdict(one) for one in IN_THE_TEXT]
  return {"seconds": 1.0, "collectives": moved, **parts}


def result(decode: dict) -> dict:
  """A chip with 1 GiB each of parameters, optimizer and sampling weights, and small programs."""
  programs = dict.fromkeys(report.WAITING, program(arguments=GIB)) | {"decode": decode}
  held = ("parameters", "optimizer", "gradients", "replay store", "sampling weights")
  return {
    "case": dataclasses.asdict(CASES[0]),
    "versions": {"jax": "1"},
    "resident": dict.fromkeys(held, GIB),
    "programs": programs,
  }


def test_a_chip_is_fullest_where_arguments_and_what_waits_are_most():
  found = result(program(arguments=9 * GIB, temporaries=2 * GIB))
  # State and store wait while the sampler decodes; while prompts are read, 8 GiB of slots do too.
  assert report.fullest(found) == (14 * GIB, "decode")
  assert report.all_sizes(found)["slots"] == 8 * GIB


def test_prompts_go_into_slots_a_layer_at_a_time_while_all_layers_wait():
  found = result(program(arguments=9 * GIB))
  found["programs"]["insert"] = program(arguments=GIB, temporaries=3 * GIB)
  assert report.fullest(found) == (15 * GIB, "insert")


def test_a_program_without_room_does_not_fit_anywhere():
  found = result({"too_large": "RESOURCE_EXHAUSTED"})
  row = report.fits_row(CASES[0], found)
  assert row[-1] == "**no**"
  assert "0.6B" in report.render({"one": found})


def test_cases_have_names_of_their_own_and_divide():
  assert len({case.key for case in CASES}) == len(CASES)
  for case in CASES:
    assert case.fsdp * case.tensor == case.chips
    assert case.slots % case.fsdp == 0
    assert PUBLISHED[case.model].num_key_value_heads % case.tensor == 0


TINY = dataclasses.replace(
  PUBLISHED["qwen3_0p6b"],
  vocab_size=2048,
  hidden_size=256,
  intermediate_size=512,
  num_hidden_layers=2,
  num_attention_heads=4,
  num_key_value_heads=2,
)


@pytest.mark.slow
@pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None,
  reason="compiling for a TPU needs its compiler: pip install -e '.[tpu]'",
)
def test_the_programs_of_a_run_compile_for_a_tpu_and_move_no_weights_while_decoding():
  case = Case(
    "tiny", "v5e", (2, 4), fsdp=4, tensor=2, slots=8, microbatch_tokens=256, prompt_tokens=128,
    new_tokens=128,
  )  # fmt: skip
  found = measure(case, TINY) | {"versions": {}}
  assert set(found["programs"]) == set(report.WAITING)
  smallest = 2 * TINY.hidden_size * 2 * TINY.head_dim // 2  # bytes of the keys' matrix on a chip
  moved = found["programs"]["decode"]["collectives"]
  assert moved and all(one["bytes"] < smallest for one in moved if one["depth"])
  # Weights are gathered, and their gradients summed, in bfloat16; so are not states at the head.
  states = f"f32[1,{case.microbatch_tokens},{TINY.hidden_size}]"
  inside = [one for one in found["programs"]["gradients"]["collectives"] if one["depth"]]
  large = {one["shape"] for one in inside if one["bytes"] > smallest}
  assert {shape for shape in large if shape.startswith("f32")} <= {states}
  assert report.fullest(found)[0] < GIB
