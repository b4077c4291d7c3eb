"""The command that scores a model folder: training's own number, whatever interrupts it."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from grpo_jax import evaluate as evaluate_module
from grpo_jax.data.arithmetic import arithmetic_problems
from grpo_jax.errors import UserError
from grpo_jax.evaluate import Request, evaluate
from grpo_jax.evaluation.samples import read_samples
from grpo_jax.run.metrics import read_metrics
from grpo_jax.train import train
from tests.test_hosts import by_flags, ends, say, started
from tests.test_train import tiny

ROOT = pathlib.Path(__file__).resolve().parent.parent
SAMPLES = 4
all_devices = jax.devices


def use_devices(patch: pytest.MonkeyPatch, count: int) -> None:
  patch.setattr(jax, "devices", lambda: all_devices()[:count])


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
  """One is enough for most of what is tested here, and compiles fastest."""
  use_devices(monkeypatch, 1)


def config_of_run():
  return tiny(**{"steps": 1, "eval.samples": SAMPLES, "eval.split": "train"})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A run of one step, and its held-out problems as a file."""
  folder = tmp_path_factory.mktemp("trained")
  config = config_of_run()
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    use_devices(patch, 1)
    train(config, str(folder / "run"))
  held_out = arithmetic_problems(
    count=config.eval.limit, levels=config.eval.levels, seed=config.seed, split=config.eval.split
  )
  rows = [{"problem": problem.question, "answer": problem.answer} for problem in held_out]
  (folder / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  return folder


@pytest.fixture
def request_for(trained, tmp_path):
  """request_for(**changes): the evaluation that training does, on the exported folder."""

  def make(**changes) -> Request:
    config = config_of_run()
    of_training = {
      "folder": str(trained / "run" / "export"),
      "benchmark": "jsonl",
      "path": str(trained / "held_out.jsonl"),
      "out": str(tmp_path / "result"),
      "template": "plain",
      "samples": SAMPLES,
      "temperature": config.eval.temperature,
      "top_p": config.eval.top_p,
      "top_k": config.eval.top_k,
      "max_new_tokens": config.rollout.max_new_tokens,
      "seed": config.seed,
      "slots": 16,
    }
    return Request(**of_training | changes)

  return make


def lines(folder) -> list[str]:
  return sorted((pathlib.Path(folder) / "samples.jsonl").read_text().splitlines())


def test_the_exported_folder_scores_what_training_said(trained, request_for):
  """Same code, same noise: not nearly the same number, the same."""
  row = read_metrics(trained / "run" / "metrics.jsonl")[-1]
  of_training = {k.removeprefix("eval/"): v for k, v in row.items() if k.startswith("eval/")}
  assert 0.2 < of_training["accuracy"] < 0.9, "a model always or never right shows nothing"
  assert {"accuracy", "accuracy_stderr", "pass_at_4", "maj_at_4"} <= set(of_training)
  metrics = evaluate(request_for())
  assert metrics == pytest.approx(of_training, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize(("devices", "slots"), [(1, 3), (8, 8)])
def test_devices_and_slots_change_no_sample(request_for, tmp_path, monkeypatch, devices, slots):
  """80 samples do not fill the last round of slots: padding must be in no number."""
  whole = evaluate(request_for(out=str(tmp_path / "whole"), temperature=1.3))
  use_devices(monkeypatch, devices)
  parts = evaluate(request_for(out=str(tmp_path / "parts"), temperature=1.3, slots=slots))
  assert lines(tmp_path / "parts") == lines(tmp_path / "whole")
  assert parts == pytest.approx(whole, rel=0, nan_ok=True)
  assert len(lines(tmp_path / "parts")) == 20 * SAMPLES


@pytest.mark.slow
def test_two_processes_write_the_samples_of_one(request_for, tmp_path):
  whole = evaluate(request_for(out=str(tmp_path / "whole"), temperature=1.3))
  shared = dataclasses.asdict(request_for(out=str(tmp_path / "shared"), temperature=1.3))
  given = [f"--{name}={value}" for name, value in shared.items() if value not in ("", None)]
  with started(tmp_path, by_flags(2), 1, ["grpo_jax.evaluate", *given]) as running:
    assert ends(running) == [0, 0], say(tmp_path, 0)
  assert lines(tmp_path / "shared") == lines(tmp_path / "whole")
  summary = json.loads((tmp_path / "shared" / "summary.json").read_text())
  assert summary["metrics"]["accuracy"] == whole["accuracy"]


def test_an_interrupted_evaluation_goes_on_and_samples_nothing_twice(
  request_for, tmp_path, capsys
):
  request = request_for(temperature=1.3)
  whole = evaluate(request)
  expected = lines(request.out)
  samples_file = pathlib.Path(request.out) / "samples.jsonl"
  content = samples_file.read_bytes()
  kept = content.split(b"\n")[:31]
  samples_file.write_bytes(b"\n".join(kept[:30]) + b"\n" + kept[30][:25])
  (pathlib.Path(request.out) / "summary.json").unlink()
  capsys.readouterr()

  assert evaluate(request) == pytest.approx(whole, rel=0, nan_ok=True)
  assert "50 samples to draw, 30 are there" in capsys.readouterr().out
  assert samples_file.read_bytes().startswith(b"\n".join(kept[:30]) + b"\n")
  assert lines(request.out) == expected

  again = evaluate(request_for(temperature=1.3, slots=8))
  assert again == pytest.approx(whole, rel=0, nan_ok=True)
  assert "0 samples to draw, 80 are there" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("change", "named"),
  [
    ({"samples": 5}, "decoding.samples was 4, now 5"),
    ({"seed": 1}, "seed was 0, now 1"),
    ({"template": "base_boxed"}, "template was \"plain\", now \"base_boxed\""),
    ({"limit": 10}, "problems.count was 20, now 10"),
  ],
)
def test_other_settings_in_the_same_folder_are_refused(
  request_for, tmp_path, monkeypatch, change, named
):
  request = request_for(limit=0)
  plan = evaluate_module.make_plan(request)
  with evaluate_module._open_results(request.out, plan.settings):
    pass
  # The template's letters are not in the tokenizer of the tiny model.
  monkeypatch.setattr(
    evaluate_module, "tokenize_prompts", lambda problems, *rest: (plan.prompts, 0)
  )
  with pytest.raises(UserError) as refused:
    evaluate(request_for(**change))
  assert named in str(refused.value)
  assert "--out" in str(refused.value)
  assert "--workdir" not in str(refused.value)


def test_the_summary_says_every_setting(request_for, trained):
  metrics = evaluate(request_for(limit=3, samples=1, temperature=0.0))
  summary = json.loads((pathlib.Path(request_for().out) / "summary.json").read_text())
  assert summary["metrics"]["accuracy"] == metrics["accuracy"]
  assert summary["metrics"]["accuracy_stderr_samples"] is None, "one sample has no spread"
  settings = summary["settings"]
  assert settings["decoding"]["max_new_tokens"] == config_of_run().rollout.max_new_tokens
  assert settings["problems"]["count"] == 3
  assert len(settings["model"]["fingerprint"]) == 64
  changed = trained / "changed"
  if not changed.exists():
    changed.mkdir()
    for path in (trained / "run" / "export").iterdir():
      (changed / path.name).write_bytes(path.read_bytes())
    weights = changed / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
  assert evaluate_module.fingerprint(changed) != settings["model"]["fingerprint"]


def test_greedy_answers_are_those_of_transformers(request_for, trained):
  torch = pytest.importorskip("torch")
  import transformers

  request = request_for(samples=1, temperature=0.0, top_p=1.0)
  evaluate(request)
  tokenizer = transformers.AutoTokenizer.from_pretrained(request.folder)
  model = transformers.AutoModelForCausalLM.from_pretrained(request.folder)
  questions = [
    json.loads(line)["problem"] for line in pathlib.Path(request.path).read_text().splitlines()
  ]
  texts = {}
  for number, question in enumerate(questions):
    ids = tokenizer(question, add_special_tokens=False, return_tensors="pt")["input_ids"]
    out = model.generate(
      ids, attention_mask=torch.ones_like(ids), do_sample=False,
      max_new_tokens=request.max_new_tokens,
    )  # fmt: skip
    texts[number] = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
  samples = read_samples(pathlib.Path(request.out) / "samples.jsonl")
  ours = {sample.problem: sample.completion for sample in samples}
  assert ours == texts
  assert len(set(ours.values())) > 1


@pytest.mark.parametrize(
  ("change", "named"),
  [
    ({"folder": ""}, "--folder is missing"),
    ({"folder": "nowhere"}, "nowhere/config.json: no such file"),
    ({"benchmark": "math50"}, "no benchmark 'math50', did you mean 'math500'"),
    ({"path": "nowhere.jsonl"}, "nowhere.jsonl: no such file"),
    ({"benchmark": "aime24"}, "20 problems, but aime24 has 30; --benchmark=jsonl takes any"),
    ({"template": "plane"}, "did you mean 'plain'"),
    ({"preset": "gredy"}, "no preset 'gredy', did you mean 'greedy'"),
    ({"samples": 0}, "--samples=0"),
    ({"temperature": -1.0}, "--temperature=-1.0"),
    ({"temperature": float("nan")}, "--temperature=nan"),
    ({"top_p": 0.0}, "--top_p=0.0"),
    ({"temperature": 0.0}, "4 times the same answer"),
    ({"max_new_tokens": 10**6}, "--max_new_tokens=1000000: it must be at least 1 and at most"),
    ({"slots": 12}, "--slots=12: .* 16 would"),
    ({"slots": 0}, "--slots=0"),
    ({"tensor": 3}, "tensor=3"),
    ({"limit": -1}, "--limit=-1"),
  ],
)
def test_bad_input_is_named_before_weights_are_read(request_for, monkeypatch, change, named):
  def never(*arguments):
    raise AssertionError("weights were read")

  monkeypatch.setattr(evaluate_module, "load_params", never)
  use_devices(monkeypatch, 8)
  with pytest.raises(UserError, match=named):
    evaluate(request_for(**change))


def test_a_preset_that_wants_more_tokens_than_the_model_has_is_cut_and_says_so(
  request_for, capsys
):
  plan = evaluate_module.make_plan(request_for(max_new_tokens=None, preset="deepscaler"))
  longest = max(len(prompt.tokens) for prompt in plan.prompts)
  room = plan.model.config.max_position_embeddings - longest
  assert plan.preset.max_new_tokens == min(32768, room)
  assert (room < 32768) == ("the model has no more" in capsys.readouterr().out)


def test_two_results_are_compared_from_the_command_line(request_for, tmp_path):
  """And needs nothing else: neither model nor problems."""
  cold, hot = str(tmp_path / "cold"), str(tmp_path / "hot")
  first = evaluate(request_for(out=cold))
  second = evaluate(request_for(out=hot, temperature=3.0))
  command = [sys.executable, "-m", "grpo_jax.evaluate"]
  done = subprocess.run(
    [*command, f"--compare={cold},{hot}"], cwd=ROOT, capture_output=True, text=True, check=True
  )
  assert "NOT THE SAME: decoding" in done.stdout
  assert f"B - A: {100 * (second['accuracy'] - first['accuracy']):+.1f} points" in done.stdout
  assert "alpha 1, beta 3, gamma 5" in done.stdout
  failed = subprocess.run([*command, f"--compare={cold}"], cwd=ROOT, capture_output=True, text=True)
  assert failed.returncode == 2
  assert failed.stderr.count("\n") == 1
  assert "name two result folders" in failed.stderr


def test_every_line_of_a_result_can_be_checked_by_hand(request_for):
  request = request_for(limit=5)
  metrics = evaluate(request)
  samples = list(read_samples(pathlib.Path(request.out) / "samples.jsonl"))
  assert sorted(sample.place for sample in samples) == [(p, s) for p in range(5) for s in range(4)]
  right = [sample.verdict == "right" for sample in samples]
  assert metrics["accuracy"] == np.mean(right)
  for sample in samples:
    assert (sample.finish == "length") <= (sample.length == request.max_new_tokens)
    if sample.verdict == "right":
      assert sample.answer == sample.gold
