"""The update's benchmark gives everybody the same work and tells who did it better."""

import argparse
import dataclasses
import importlib
import math
import pathlib
import sys
import types

import numpy as np
import pytest

from configs import quickstart
from grpo_jax.task import open_tokenizer

EXPERIMENTS = pathlib.Path(__file__).resolve().parent.parent.parent / "experiments"
sys.path.insert(0, str(EXPERIMENTS))
bench = importlib.import_module("bench_update")
cases = importlib.import_module("contenders.update_cases")
memory = importlib.import_module("contenders.memory")
ours = importlib.import_module("contenders.ours_update")
ours_replay = importlib.import_module("contenders.ours_replay")
protocol = importlib.import_module("contenders.protocol")
replay_work = importlib.import_module("contenders.replay_work")
report = importlib.import_module("contenders.update_report")
update_work = importlib.import_module("contenders.update_work")

TINY = dataclasses.replace(
  cases.TOY, vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, head_dim=8
)
SETUP = protocol.Setup(dataclasses.asdict(TINY), "float32", threads=1)
RAGGED = cases.UpdateCase("ragged", TINY, (3, 1, 8, 5, 2), 8, 2, rounds=2, prompt_tokens=4)
OPTIONS = argparse.Namespace(tunix=None, flashbax=None, quick=False)


def test_a_batch_has_the_lengths_asked_for_and_no_padding_id_inside():
  work = RAGGED.work(0)
  batch = update_work.draw(work)
  assert work.trained_tokens == 5 * 4 + 19
  assert batch.mask_RC.sum(axis=1).tolist() == [3, 1, 8, 5, 2]
  assert (batch.completion_RC[batch.mask_RC] != update_work.PAD).all()
  assert (batch.completion_RC[~batch.mask_RC] == update_work.PAD).all()
  assert (batch.prompt_RP != update_work.PAD).all()


@pytest.mark.parametrize("name", ["ours_update", "peer_torch_update"])
def test_everybody_minimises_the_same_loss(name, monkeypatch):
  """Over parameters so small that all ids are equally likely, it can be worked out by hand."""
  module = importlib.import_module(f"contenders.{name}")
  if name == "ours_update":
    monkeypatch.setattr(module.jax, "clear_caches", lambda: None)  # other tests live off them
  shape = dataclasses.asdict(dataclasses.replace(TINY, initializer_range=1e-9))
  step, about = module.load(dataclasses.replace(SETUP, shape=shape))
  batch = update_work.draw(RAGGED.work(0))
  ratio_RC = np.exp(-math.log(64) - batch.behaviour_RC)
  advantage_R1 = batch.advantage_R[:, None]
  gain_RC = np.minimum(ratio_RC * advantage_R1, np.clip(ratio_RC, 0.8, 1.2) * advantage_R1)
  assert step(RAGGED.work(0), batch) == pytest.approx(-gain_RC[batch.mask_RC].mean(), rel=1e-4)
  assert about["versions"]


def test_a_step_that_diverged_is_an_error_not_a_fast_round():
  with pytest.raises(protocol.WorkerError, match="the loss is nan"):
    update_work.timed(lambda work, batch: math.nan, RAGGED.work(0))


@pytest.mark.skipif(not memory.FORGET.exists(), reason="the system keeps no peak to forget")
def test_memory_of_a_step_is_what_it_needed_beyond_what_was_held():
  """An earlier, larger step must not count; rusage would never forget it."""
  np.ones(2**26)
  kept = np.ones(2**23)
  measured = update_work.timed(lambda work, batch: np.ones(2**24).mean(), RAGGED.work(0))
  above = measured["peak_bytes"] - measured["before_bytes"]
  assert 0.9 * 2**27 < above < 1.5 * 2**27
  assert measured["before_bytes"] > kept.nbytes


def test_our_store_gives_what_it_is_asked_for_and_holds_on_past_the_age_limit():
  recall, _ = ours_replay.load(SETUP)
  for step in range(replay_work.MAX_AGE + 3):
    work = replay_work.ReplayWork(capacity=64, length=4, fresh=16, drawn=8, step=step)
    assert replay_work.timed(recall, work)["seconds"] > 0


def test_a_store_that_draws_too_few_is_an_error():
  work = replay_work.ReplayWork(capacity=64, length=4, fresh=16, drawn=8, step=0)
  with pytest.raises(protocol.WorkerError, match="7 rollouts were drawn, wanted 8"):
    replay_work.timed(lambda work, fresh: lambda: 7, work)


class Recorder:
  """A worker that takes a second."""

  about = types.MappingProxyType({"versions": {}})

  def __init__(self, name, turns):
    self.name, self.turns = name, turns

  def ask(self, work):
    self.turns.append((self.name, work.seed))
    return {"seconds": 1.0, "tokens": work.trained_tokens}

  def close(self):
    self.turns.append((self.name, "closed"))


@pytest.mark.parametrize("together", [True, False])
def test_contenders_take_turns_unless_memory_holds_one_alone(monkeypatch, together):
  turns = []

  def start(case, name, options, log):
    if name == cases.TUNIX:
      raise protocol.WorkerError("not installed")
    return Recorder(name, turns)

  monkeypatch.setattr(bench, "start", start)
  case = dataclasses.replace(RAGGED, together=together)
  found = bench.measure("ragged", case, OPTIONS)
  a, b = cases.OURS, cases.TORCH
  if together:
    assert turns == [(n, i) for i in range(3) for n in (a, b)] + [(b, "closed"), (a, "closed")]
  else:
    assert turns == [(n, i) for n in (a, b, b, a) for i in (0, 1, 2, "closed")], "there and back"
  rounds = [1.0] * (2 if together else 4)
  assert found["timings"][a] == {"first": 1.0, "rounds": rounds, "tokens": 39}
  assert found["left_out"] == {cases.TUNIX: "not installed"}


def test_a_peer_without_its_interpreter_is_left_out_with_the_reason(tmp_path):
  with pytest.raises(protocol.WorkerError, match="no --tunix=PYTHON was given"):
    bench.start(RAGGED, cases.TUNIX, OPTIONS, tmp_path / "log")


def test_few_lengths_have_the_same_long_tail():
  assert cases.spread(4, 128) == (12, 23, 39, 76)
  assert np.mean(cases.spread(1000, 10**6)) == pytest.approx(
    10**6 * 0.235 * math.exp(0.8**2 / 2), rel=0.1
  )


def test_the_quickstart_case_is_the_quickstart():
  config, case = quickstart.get_config("method=aper"), cases.CASES["quickstart"]
  size = open_tokenizer(config.tokenizer, "").size
  rows = config.rollout.problems * config.rollout.samples
  drawn = round(rows * config.replay.ratio)
  store = cases.CASES["replay_quickstart"]
  assert case.shape == type(case.shape)(**config.model.shape, vocab_size=size)
  assert len(case.completion_tokens) == rows + drawn
  assert (case.prompt_tokens, case.longest) == (
    config.data.max_prompt_tokens, config.rollout.max_new_tokens
  )  # fmt: skip
  assert (store.capacity, store.length, store.fresh, store.drawn) == (
    config.replay.capacity, case.prompt_tokens + case.longest, rows, drawn
  )  # fmt: skip


# ------------------------------------------------------------------------------ report


def update(seconds, above, flops=1e9):
  return {
    "tokens": 1000, "first": 9.0, "rounds": seconds, "loss": -0.1, "before_bytes": 10**9,
    "peak_bytes": 10**9 + above, "matmul_flops": {"2x2x2": flops, "1x1x1": 1.0},
  }  # fmt: skip


def kept(timings, **more):
  about = {cases.OURS: {"versions": {"jax": "1"}}}
  return {
    "timings": timings, "about": about, "left_out": {}, "machine": "m", "command": "c", **more
  }  # fmt: skip


def test_goals_are_against_the_better_of_the_others():
  flops = report.model_flops(cases.CASES["real"]) * 1.6
  real = kept({
    cases.OURS: update([1.0, 1.0, 2.0], 10**8, flops),
    cases.TUNIX: update([4.0, 4.0, 4.0], 5 * 10**8),
    cases.TORCH: update([1.4, 1.4, 1.4], 10**9),
  })  # fmt: skip
  lines = report.render({"sections": {"real": real}}).splitlines()
  assert "| trained tokens/s >= 1.5 x the better | real | 1.40 x | missed |" in lines
  assert "| memory of a step <= 0.5 x the better | real | 0.20 x | reached |" in lines
  assert "| share of the matmul peak >= 50% | real | 62% | reached |" in lines
  assert any("| tunix | 250 | 4.00 (2.00 to 4.00) | 16% | 500 MB |" in line for line in lines)


def test_the_store_s_share_is_of_its_own_update():
  sections = {
    "quickstart": kept({cases.OURS: update([0.5, 0.5], 10**6)}),
    "replay_quickstart": kept({
      cases.OURS: {"first": 1.0, "rounds": [0.001, 0.001, 0.009], "peak_bytes": 10**8},
      cases.FLASHBAX: {"first": 1.0, "rounds": [0.003, 0.003, 0.003], "peak_bytes": 10**8},
    }),
    "replay_large": kept({}, left_out={cases.FLASHBAX: "no flashbax"}),
  }  # fmt: skip
  text = report.render({"sections": sections})
  assert "| replay's share of a step < 1% | replay_quickstart | 0.20% | reached |" in text
  assert "| replay_large | nothing to compare with |" in text
  assert "| flashbax | 3.00 | 3.00 (0.33 to 3.00) |" in text
  assert "- flashbax left out: no flashbax" in text


def test_operations_are_counted_as_the_formula_says():
  case = dataclasses.replace(RAGGED, completion_tokens=(2,), prompt_tokens=3)
  parameters = TINY.num_params - 64 * 16
  attention = 1 * 8 * 8 * 5 * 6  # one layer, 8 heads of 8, a row of 5
  assert report.model_flops(case) == 6 * (parameters * 5 + attention + 64 * 16 * 2)


def test_the_picture_is_drawn_with_some_cases_missing(tmp_path):
  sections = {"toy": kept({cases.OURS: update([1.0], 10**6), cases.TORCH: update([2.0], 10**6)})}
  report.draw({"sections": sections}, tmp_path / "update.png")
  assert (tmp_path / "update.png").stat().st_size > 1000


def test_an_unknown_case_is_named(monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["bench_update.py", "--only=toy,typo"])
  with pytest.raises(SystemExit):
    bench.parse()
  assert "no case typo; known: quickstart, toy," in capsys.readouterr().err
