"""The accelerator's benchmark counts operations, not padding, and says what did not fit."""

import importlib
import pathlib
import sys

import pytest

EXPERIMENTS = pathlib.Path(__file__).resolve().parent.parent.parent / "experiments"
sys.path.insert(0, str(EXPERIMENTS))
bench = importlib.import_module("bench_accelerator")
cases = importlib.import_module("contenders.accelerator_cases")
report = importlib.import_module("contenders.accelerator_report")
update_report = importlib.import_module("contenders.update_report")


def found(rounds, device="NVIDIA H100 80GB HBM3"):
  return {
    "device": device, "product_flops": 500e12, "memory": 80e9, "jax": "1", "machine": "a host",
    "peak_bytes": 9e9, "rounds": rounds, "first": 1.0,
  }  # fmt: skip


def test_all_cases_of_a_length_train_on_the_same_tokens():
  for case in cases.CASES:
    assert case.microbatch_tokens >= case.length
    assert case.longest + case.prompt_tokens == case.length >= max(case.row_tokens)
    assert case.ragged or sum(case.row_tokens) == 32_768


def test_a_share_is_of_the_data_sheet_and_of_a_product():
  case = cases.CASES[0]
  rows = zip(case.row_tokens, case.completion_tokens, strict=True)
  seconds = update_report.operations(case.shape, rows) / 98.94e12
  text = report.render({"cases": {case.key: found([seconds])}})
  assert "| 99 | 10.0% | 19.8% |" in text
  assert "best is 10.0%: missed" in text
  assert "no data sheet" in report.render({"cases": {case.key: found([seconds], "abacus")}})


def test_what_does_not_fit_is_told_with_its_size():
  case = cases.CASES[0]
  assert "does not fit, it takes 9.00 GB" in report.sentence(case.key, found([]))
  assert "| does not fit |  |  |  | 9.00 GB |" in report.render({"cases": {case.key: found([])}})


def test_a_step_beyond_the_memory_loses_the_state_and_not_the_study(monkeypatch):
  case = cases.QUICK[0]

  def step(self, state, fresh):
    raise bench.jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

  monkeypatch.setattr(bench.Bench, "_step", step)
  measured, state = bench.Bench(case).run("a state")
  assert measured["rounds"] == [] and state is None


@pytest.mark.slow
def test_a_quick_look_ends_in_a_table_and_keeps_nothing(monkeypatch, capsys, tmp_path):
  monkeypatch.setattr(sys, "argv", ["bench_accelerator.py", "--quick"])
  monkeypatch.setattr(bench, "KEPT", tmp_path / "kept.json")
  monkeypatch.setattr(bench, "RESULTS", tmp_path)
  bench.main()
  assert "| tiny | 64, long tail | block | 128 |" in capsys.readouterr().out
  assert not list(tmp_path.iterdir())
