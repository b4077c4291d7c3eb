"""Whole runs: they learn, resume bit for bit, and refuse bad input before anything expensive."""

import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from configs import gsm8k, math, math_then_code, quickstart
from grpo_jax.distribution import decoding
from grpo_jax.errors import UserError
from grpo_jax.export import export_run
from grpo_jax.model.config import PUBLISHED, from_shape, read_config
from grpo_jax.model.qwen3 import Qwen3, abstract_params
from grpo_jax.model.sharding import make_layout
from grpo_jax.run.checkpoint import Checkpoints
from grpo_jax.run.metrics import read_metrics
from grpo_jax.sampling.sampler import Requests, Sampler
from grpo_jax.train import train

ROOT = pathlib.Path(__file__).resolve().parent.parent

# The two things of a run that clocks decide.
TIMED = ("perf/", "cost/device_seconds")


def tiny(**changes):
  """The quickstart, seconds long: sometimes right from the start, so that all of a step happens;
  replay draws from step 2 on."""
  config = quickstart.get_config("steps=6")
  config.warm_start.steps, config.warm_start.learning_rate = 120, 1e-2
  config.model.shape.update(hidden_size=32, intermediate_size=64, num_hidden_layers=2, head_dim=16)
  config.data.levels = config.eval.levels = (1,)
  config.data.limit, config.eval.limit = 48, 20
  config.rollout.problems, config.rollout.samples, config.rollout.slots = 4, 4, 8
  config.replay.capacity, config.replay.warmup_steps = 32, 1
  config.optimizer.microbatch_tokens = 64
  config.eval.every, config.checkpoint.every, config.log.rollouts_every = 3, 3, 2
  config.log.tensorboard = False
  config.update_from_flattened_dict(changes)
  return config


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
  """Warm starts are cached a machine; tests share one of their own."""
  folder = tmp_path_factory.getbasetemp() / "cache"
  monkeypatch.setenv("XDG_CACHE_HOME", str(folder))


def untimed(path) -> list[dict]:
  rows = read_metrics(path / "metrics.jsonl")
  return [{k: v for k, v in row.items() if not k.startswith(TIMED)} for row in rows]


def weights(path) -> dict[str, np.ndarray]:
  return safetensors.numpy.load_file(path / "export" / "model.safetensors")


@pytest.mark.parametrize("devices", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(
  tmp_path, devices, monkeypatch, capsys
):
  """Parameters, optimizer, replay store, data cursor and costs: all of it is state."""
  sounding = {"log.mismatch_alarm": 1e-12}  # at every step, and told when it begins
  some = jax.devices()[:devices]
  monkeypatch.setattr(jax, "devices", lambda: some)
  straight, broken = tmp_path / "straight", tmp_path / "broken"
  train(tiny(**sounding), str(straight))
  train(tiny(**sounding, steps=3), str(broken))
  assert max(row["step"] for row in untimed(broken)) == 3
  train(tiny(**sounding), str(broken))
  assert capsys.readouterr().out.count("sampler and trainer disagree") == 2

  assert untimed(broken) == untimed(straight)
  for name, value in weights(straight).items():
    np.testing.assert_array_equal(weights(broken)[name], value, err_msg=name)
  drawn = [row["replay/drawn"] for row in untimed(straight)[1:]]
  assert drawn[0] == 0
  assert sum(drawn) > 0, "a run that never replayed shows nothing about the store"
  assert [row["step"] for row in untimed(straight)] == list(range(7))


def test_a_run_leaves_everything_a_reader_needs(tmp_path):
  run = tmp_path / "run"
  train(tiny(**{"log.tensorboard": True}), str(run))
  rows = read_metrics(run / "metrics.jsonl")
  assert [row["step"] for row in rows] == list(range(7))
  assert [row["step"] for row in rows if "eval/accuracy" in row] == [0, 3, 6]
  for key in ("reward/mean", "cost/rollouts", "cost/generated_tokens"):
    assert all(row[key] is not None for row in rows[1:])
  assert rows[-1]["cost/rollouts"] == 6 * 16
  assert json.loads((run / "config.json").read_text())["replay"]["capacity"] == 32
  differs = json.loads((run / "method.json").read_text())["differs_from_grpo"]
  assert differs["replay.ratio"] == {"grpo": 0.0, "here": 0.5}
  assert set(differs) == {"keep", "replay.ratio", "replay.warmup_steps"}
  assert list((run / "tensorboard").iterdir())
  assert (run / "curves.png").stat().st_size > 10_000
  text = (run / "rollouts" / "step_000002.txt").read_text()
  assert "reward" in text
  assert "advantage" in text
  assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["3", "6"]
  for file in ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json"):
    assert (run / "export" / file).is_file()


def test_the_export_gives_transformers_the_trained_policy(tmp_path):
  """The run's last checkpoint, decoded greedily by us, and its export, by transformers alone."""
  torch = pytest.importorskip("torch")
  import transformers

  run = tmp_path / "run"
  train(tiny(steps=2), str(run))
  shape, _ = read_config(run / "export")
  model = Qwen3(shape, make_layout(data=1, fsdp=-1))
  wanted = {"state": {"params": abstract_params(model)}}
  with Checkpoints(run / "checkpoints", keep_last=None) as checkpoints:
    _, arrays = checkpoints.restore_part(wanted)
  tokenizer = transformers.AutoTokenizer.from_pretrained(run / "export")
  prompts = [tokenizer(q, add_special_tokens=False)["input_ids"] for q in ("3+4=", "9+8=")]
  sampler = Sampler(model, slots=8)
  asked = Requests(
    [np.array(p, np.int32) for p in prompts], np.arange(2), np.full(2, 12), jax.random.split(
      jax.random.key(0), 2),
  )  # fmt: skip
  greedy = decoding(0.0, 0, 1.0, len(tokenizer))
  eos = np.array([tokenizer.eos_token_id], np.int32)
  ours = {}
  for part in sampler.stream(sampler.prepare(arrays["state"]["params"]), asked, greedy, eos):
    ours |= zip(part.rollout_F.tolist(), map(list, part.tokens), strict=True)

  reference = transformers.AutoModelForCausalLM.from_pretrained(run / "export")
  for row, prompt in enumerate(prompts):
    out = reference.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=12)
    assert out[0, len(prompt) :].tolist() == ours[row]


def test_any_checkpoint_can_be_exported_later(tmp_path):
  run, out = tmp_path / "run", tmp_path / "out"
  train(tiny(), str(run))
  export_run(run, str(out), None, "")
  for path in (run / "export").iterdir():
    assert (out / path.name).read_bytes() == path.read_bytes(), path.name
  export_run(run, str(tmp_path / "earlier"), 3, "bfloat16")
  accuracy = {row["step"]: row.get("eval/accuracy") for row in read_metrics(run / "metrics.jsonl")}
  export_run(run, str(tmp_path / "best"), None, "", best=True)
  best = max((6, 3), key=accuracy.get)
  export_run(run, str(tmp_path / "named"), best, "")
  files = [tmp_path / name / "model.safetensors" for name in ("best", "named")]
  assert files[0].read_bytes() == files[1].read_bytes()
  earlier = safetensors.numpy.load_file(tmp_path / "earlier" / "model.safetensors")
  assert {str(value.dtype) for value in earlier.values()} == {"bfloat16"}
  for bad, named in [
    ((run, str(out), None, ""), "not empty"),
    ((run, str(tmp_path / "x"), 5, ""), "there are 3, 6"),
    ((tmp_path, "", None, ""), "not the folder of a run"),
  ]:
    with pytest.raises(UserError, match=named):
      export_run(*bad)


@pytest.mark.parametrize("task", ["gsm8k", pytest.param("math", marks=pytest.mark.slow)])
def test_real_problems_with_the_real_tokenizer(tmp_path, shared, task):
  """A few true steps of the configs for real Qwen3 folders, on random weights."""
  module, training, held_out = {
    "gsm8k": (gsm8k, "gsm8k", "gsm8k"), "math": (math, "math", "math500"),
  }[task]  # fmt: skip
  config = module.get_config("shrunk=true")
  config.tokenizer = str(shared / "tokenizers" / "qwen3")
  config.data.path, config.eval.path = (str(shared / "data" / d) for d in (training, held_out))
  config.keep = "everything"  # random weights are never right: a filter would leave nothing
  train(config, str(tmp_path / "run"))
  rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
  assert [row["step"] for row in rows] == [0, 1, 2, 3]
  assert rows[-1]["cost/rollouts"] == 3 * 16
  assert all(row["reward/unscored"] == 0 for row in rows[1:])
  assert all(row["train/abs_dlogp_max_fresh"] < 1e-4 for row in rows[1:])


def test_a_shrunk_run_has_few_steps_unless_it_says_how_many():
  assert gsm8k.get_config("shrunk=true").steps == 3
  assert math_then_code.get_config("shrunk=true").steps == 6
  assert gsm8k.get_config("steps=50,shrunk=true").steps == 50


def test_a_published_shape_needs_no_weights():
  config = gsm8k.get_config("shape=qwen3_0p6b")
  assert from_shape(config.model.shape, vocab_size=0) == PUBLISHED["qwen3_0p6b"]
  with pytest.raises(UserError, match="shape=qwen4: known: qwen3_0p6b"):
    gsm8k.get_config("shape=qwen4")


BAD = {
  "no problems": ({"data.limit": 0}, "count is 0"),
  "a level that does not exist": ({"data.levels": (9,)}, "level 9"),
  "batches that do not divide": ({"rollout.problems": 3, "rollout.samples": 3}, "8 devices"),
  "decoding that does not divide": ({"rollout.slots": 12}, "16 would"),
  "a store that does not divide": ({"replay.capacity": 31}, "32 would"),
  "a mesh that does not fit": ({"mesh.tensor": 3}, "does not fit 8 device"),
  "a vocabulary that does not split": ({"mesh.tensor": 4, "mesh.fsdp": 2}, "vocab_size=18"),
  "a filter that does not exist": ({"keep": "best"}, "mixed_groups"),
  "a policy that does not exist": ({"model.remat": "all"}, "none, elementwise, block, offload"),
  "a momentum that does not exist": ({"optimizer.momentum_dtype": "int8"}, "float32, bfloat16"),
  "rows that fit no microbatch": ({"optimizer.microbatch_tokens": 31}, "32 would do"),
  "a type that does not exist": ({"model.dtype": "float16"}, "bfloat16"),
  "an unknown template": ({"data.template": "boxd"}, "base_boxed"),
  "a data set that is not there": ({"data.source": "gsm8k", "data.path": "/nowhere"}, "/nowhere"),
  "an unknown source": ({"data.source": "gsm9k"}, "'gsm8k'"),
  "weights that are not there": (
    {"model.folder": "/nowhere", "warm_start.steps": 0}, "/nowhere/config.json",
  ),
  "a tokenizer that is not there": ({"tokenizer": "/nowhere"}, "/nowhere"),
  "nothing to decode": ({"rollout.max_new_tokens": 0}, "max_new_tokens is 0"),
  "prompts longer than the limit": ({"data.max_prompt_tokens": 2}, "shortest"),
  "no checkpoint kept": ({"checkpoint.keep": 0}, "checkpoint.keep is 0"),
  "the best of checkpoints without accuracy": (
    {"checkpoint.keep_best": 1, "checkpoint.every": 2}, "multiple of eval.every",
  ),
  "checkpoints kept that are not made": ({"checkpoint.keep_every": 5}, "of checkpoint.every"),
}


@pytest.mark.parametrize(("changes", "named"), BAD.values(), ids=BAD)
def test_bad_input_is_one_clear_line_and_leaves_nothing(tmp_path, changes, named):
  with pytest.raises(UserError, match=named) as caught:
    train(tiny(**changes), str(tmp_path / "run"))
  assert "\n" not in str(caught.value)
  assert not (tmp_path / "run").exists()


def test_a_folder_of_another_config_is_refused(tmp_path):
  train(tiny(steps=2), str(tmp_path))
  with pytest.raises(UserError, match="seed was 0, now 1"):
    train(tiny(steps=2, seed=1), str(tmp_path))


def test_changed_training_problems_are_refused(tmp_path):
  """Indices in the ledger and the store would mean other problems."""
  data = tmp_path / "data"
  data.mkdir()
  lines = [json.dumps({"question": f"{i}+1=", "answer": str(i + 1)}) for i in range(8)]
  (data / "train.jsonl").write_text("\n".join(lines))
  changes = {
    "data.source": "jsonl", "data.path": str(data), "data.limit": 0, "warm_start.steps": 0,
  }  # fmt: skip
  train(tiny(steps=3, **changes), str(tmp_path / "run"))
  (data / "train.jsonl").write_text("\n".join(reversed(lines)))
  with pytest.raises(UserError, match="not those of the checkpoint"):
    train(tiny(steps=4, **changes), str(tmp_path / "run"))


def test_a_broken_data_line_is_named(tmp_path):
  file = tmp_path / "problems.jsonl"
  file.write_text('{"question": "1+1=", "answer": "2"}\n{"question": "1+2=", \n')
  changes = {"data.source": "jsonl", "data.path": str(file), "warm_start.steps": 0}
  with pytest.raises(UserError, match=r"problems\.jsonl.*2"):
    train(tiny(**changes), str(tmp_path / "run"))


@pytest.mark.parametrize(
  ("argument", "named"),
  [
    ("--config.modle.folder=x", "did you mean 'model'"),
    ("--config.model.foldr=x", "did you mean 'folder'"),
    ("--config=configs/quickstart.py:method=aprr", "'aper'"),
    ("--config=configs/quickstart.py:stepz=5", "'steps'"),
    ("--config=configs/quickstat.py", "quickstat.py"),
    ("--config.steps=many", "many"),
    ("quickstart", "--name=value"),
  ],
)
def test_a_wrong_command_line_exits_with_two(tmp_path, argument, named):
  """As a shell sees it: one line on stderr and exit code 2."""
  command = [sys.executable, "-m", "grpo_jax.train", f"--workdir={tmp_path / 'run'}"]
  if not argument.startswith("--config="):
    command.append("--config=configs/quickstart.py")
  done = subprocess.run([*command, argument], cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 2, done.stderr
  assert named in done.stderr
  assert len(done.stderr.strip().splitlines()) == 1, done.stderr
  assert not (tmp_path / "run").exists()


def test_a_second_process_in_one_folder_is_refused(tmp_path):
  from grpo_jax.run.folder import open_run

  with open_run(tmp_path / "run", tiny().to_dict()), pytest.raises(UserError, match="in use"):
    train(tiny(), str(tmp_path / "run"))


def test_a_finished_run_says_so_and_changes_nothing(tmp_path, capsys):
  run = tmp_path / "run"
  train(tiny(steps=2), str(run))
  before = (run / "metrics.jsonl").read_bytes()
  train(tiny(steps=2), str(run))
  assert (run / "metrics.jsonl").read_bytes() == before
  assert "Accuracy on held-out problems" in capsys.readouterr().out


@pytest.mark.slow
def test_the_quickstart_learns(tmp_path):
  """The promise of the README: from below 40 % to above 80 % on held-out problems."""
  run = tmp_path / "run"
  command = [sys.executable, "-m", "grpo_jax.train", "--config=configs/quickstart.py"]
  subprocess.run([*command, f"--workdir={run}"], cwd=ROOT, check=True)
  accuracy = [row["eval/accuracy"] for row in read_metrics(run / "metrics.jsonl")
              if "eval/accuracy" in row]  # fmt: skip
  assert accuracy[0] < 0.4
  assert accuracy[-1] > 0.8
  shutil.rmtree(run)
