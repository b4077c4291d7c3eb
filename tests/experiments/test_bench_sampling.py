"""The benchmark times what it says: equal work, in turn, and ratios the right way round."""

import argparse
import dataclasses
import importlib
import pathlib
import sys
import types

import pytest

EXPERIMENTS = pathlib.Path(__file__).resolve().parent.parent.parent / "experiments"
sys.path.insert(0, str(EXPERIMENTS))
bench = importlib.import_module("bench_sampling")
cases = importlib.import_module("contenders.cases")
ours = importlib.import_module("contenders.ours")
protocol = importlib.import_module("contenders.protocol")
report = importlib.import_module("contenders.report")

TINY = dataclasses.replace(
  cases.TOY, vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, head_dim=8
)
SETUP = protocol.Setup(dataclasses.asdict(TINY), "float32", threads=1)
OPTIONS = argparse.Namespace(tunix=None, quick=False, burst=None)
UNEVEN = cases.Case("uneven", 2, (3, 1, 2, 5), 6, rounds=2, prompt_tokens=4, group=2, slots=2)

SERVE = """
from contenders.protocol import serve
def load(setup):
  print("a library that chats")
  return (lambda work: [[7] * setup.threads for _ in work.rows]), {"versions": {}}
serve(load)
"""


def worker(program, tmp_path, threads=9):
  setup = dataclasses.replace(SETUP, threads=threads)
  return protocol.Worker([sys.executable, "-c", program], setup, tmp_path / "log")


def test_what_a_library_prints_is_not_taken_for_an_answer(tmp_path):
  process = worker(SERVE, tmp_path)
  try:
    answer = process.ask(UNEVEN.work(TINY.vocab_size, 0))
  finally:
    process.close()
  assert answer["tokens"] == 11 and 0 < answer["seconds"] < 1
  assert answer["peak_bytes"] > 2**20
  assert "chats" in (tmp_path / "log").read_text()


def test_peak_memory_is_the_worker_s_own_not_its_parent_s(tmp_path):
  """rusage counts what the process held before exec: the driver's copy of the bandwidth arrays."""
  ballast = bytearray(2**28)
  process = worker(SERVE, tmp_path)
  try:
    assert process.ask(UNEVEN.work(TINY.vocab_size, 0))["peak_bytes"] < len(ballast)
  finally:
    process.close()


def test_a_completion_that_ends_early_is_an_error_not_a_fast_round(tmp_path):
  process = worker(SERVE, tmp_path, threads=4)
  try:
    with pytest.raises(protocol.WorkerError, match=r"4, 4, 4, 4.*wanted"):
      process.ask(UNEVEN.work(TINY.vocab_size, 0))
  finally:
    process.close()


def test_a_worker_that_cannot_start_says_why(tmp_path):
  with pytest.raises(protocol.WorkerError, match="No module named 'tunyx'"):
    worker("import tunyx", tmp_path)


def test_a_worker_that_was_killed_is_not_quoted(tmp_path):
  """What it last said, a warning of some library, is not why."""
  with pytest.raises(protocol.WorkerError, match=r"^it was killed, as Linux does when memory"):
    worker("import os, sys; print('a warning', file=sys.stderr); os.kill(os.getpid(), 9)", tmp_path)


def test_ours_samples_each_rollout_to_its_own_length():
  sample, about = ours.load(SETUP)
  completions = sample(UNEVEN.work(TINY.vocab_size, 0))
  assert [len(completion) for completion in completions] == [3, 1, 2, 5]
  assert about["prepare_seconds"] > 0 and "jax" in about["versions"]


class Recorder:
  """A worker that takes a second and may fail at a turn."""

  about = types.MappingProxyType({"versions": {}})

  def __init__(self, name, turns, fails_at=None):
    self.name, self.turns, self.fails_at = name, turns, fails_at

  def ask(self, work):
    self.turns.append((self.name, work.seed))
    if work.seed == self.fails_at:
      raise protocol.WorkerError("out of memory")
    return {"seconds": 1.0, "tokens": sum(work.new_tokens), "peak_bytes": 1}

  def close(self):
    self.turns.append((self.name, "closed"))


def measured(monkeypatch, fails_at):
  turns = []

  def start(name, section, options, log):
    if name == "c":
      raise protocol.WorkerError("not installed")
    return Recorder(name, turns, fails_at if name == "b" else None)

  monkeypatch.setattr(bench, "start", start)
  section = cases.Section("title", TINY, ("a", "b", "c"), (UNEVEN,))
  return bench.measure(section, OPTIONS), turns


def test_contenders_take_turns_and_are_closed(monkeypatch):
  found, turns = measured(monkeypatch, fails_at=None)
  in_turn = [(name, turn) for turn in range(3) for name in "ab"]
  assert turns == [*in_turn, ("b", "closed"), ("a", "closed")]
  assert found["cases"]["uneven"]["a"]["rounds"] == [1.0, 1.0]
  assert found["left_out"] == {"c": "not installed"}


def test_one_that_fails_is_left_out_and_the_others_go_on(monkeypatch):
  found, _ = measured(monkeypatch, fails_at=1)
  assert list(found["cases"]["uneven"]) == ["a"]
  assert found["left_out"]["b"] == "uneven: out of memory"


def test_lengths_have_a_long_tail_and_are_the_same_for_everybody():
  lengths = cases.long_tailed(64, 512)
  assert lengths == cases.long_tailed(64, 512)
  assert sum(lengths) / 64 == pytest.approx(128, rel=0.05)
  assert min(lengths) >= 1 and 2.5 * 128 < max(lengths) <= 512


def timing(tokens, rounds):
  return {"tokens": tokens, "first": 9.0, "rounds": rounds, "peak_bytes": 10**9}


def kept(of_case, **more):
  return {"cases": of_case, "about": {}, "left_out": {}, "machine": "m", "command": "c", **more}


def test_a_ratio_above_one_says_that_ours_is_faster():
  section = kept({"B=1": {
    cases.OURS: timing(100, [1.0, 1.0, 2.0]), cases.TUNIX: timing(100, [2.0, 3.0, 2.0])
  }}, left_out={cases.TRANSFORMERS: "no torch"})  # fmt: skip
  text = report.render({"sections": {"toy": section}})
  assert "| B=1 | 100 | 50 | 2.00 (1.00 to 3.00) |" in text
  assert "transformers fp32 left out: no torch" in text


def test_prefill_cancels_from_the_share_of_bandwidth():
  """Prefill of 5 s, then 0.1 s a token: 2.4 GB a step of a machine of 48 GB/s is half of it."""
  runs = {
    cases.SHORT: {cases.OURS: timing(16, [5 + 1.6])},
    cases.LONG: {cases.OURS: timing(64, [5 + 6.4])},
  }
  bandwidth = {"read": 20e9, "copy": 10 * report.step_bytes("float32", 104) * 2}
  machine = kept({}, bandwidth=bandwidth)
  text = report.render({"sections": {"real": kept(runs), "machine": machine}})
  assert "| grpo_jax fp32 | 100.0 | 2.41 GB | 24.1 | 50% |" in text


def test_growth_is_drawn(tmp_path):
  growth = kept({
    f"{name}={value}": {cases.OURS: timing(10, [1.0, 2.0])} for name in "ab" for value in (1, 2)
  })  # fmt: skip
  report.draw(growth, tmp_path / "growth.png")
  assert (tmp_path / "growth.png").stat().st_size > 1000


def test_an_unknown_section_is_named(monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["bench_sampling.py", "--only=toy,typo"])
  with pytest.raises(SystemExit):
    bench.parse()
  assert "no section typo; known: toy," in capsys.readouterr().err
