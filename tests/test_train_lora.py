"""Whole runs with adapters: little is saved, it resumes bit for bit, and exports a plain model."""

import dataclasses
import io
import json
import pathlib
import re
import shutil
from contextlib import redirect_stdout

import jax
import numpy as np
import pytest
import safetensors.numpy

from grpo_jax.errors import UserError
from grpo_jax.export import export_run
from grpo_jax.model.config import read_config
from grpo_jax.model.lora import LoRA, abstract_trained, policy_params
from grpo_jax.model.qwen3 import Qwen3, abstract_params
from grpo_jax.model.sharding import make_layout
from grpo_jax.model.weights import load_params
from grpo_jax.run.checkpoint import Checkpoints
from grpo_jax.train import train
from tests.test_train import tiny, untimed, weights

OURS = LoRA(rank=4, alpha=8.0, targets=("query", "value", "down"))


def with_adapters(**changes):
  """The tiny run of test_train, with replay and KL to the base."""
  of_model = {f"model.lora_{key}": value for key, value in dataclasses.asdict(OURS).items()}
  others = {"optimizer.learning_rate": 1e-2, "loss.kl_coef": 1e-3}
  return tiny(**(of_model | others | changes))


@dataclasses.dataclass(frozen=True)
class Runs:
  straight: pathlib.Path  # 6 steps at once
  broken: pathlib.Path  # 3 steps, then a second start
  said: str  # by the first start


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
  folder, said = tmp_path_factory.mktemp("lora"), io.StringIO()
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    with redirect_stdout(said):
      train(with_adapters(), str(folder / "straight"))
    train(with_adapters(steps=3), str(folder / "broken"))
    train(with_adapters(), str(folder / "broken"))
  return Runs(folder / "straight", folder / "broken", said.getvalue())


def saved_policy(run: pathlib.Path):
  """The model of a run and the parameters of its last checkpoint, adapters beside the base."""
  shape, _ = read_config(run / "start")
  model = Qwen3(shape, make_layout(data=1, fsdp=-1))
  abstract = abstract_params(model)
  with Checkpoints(run / "checkpoints", keep_last=None) as checkpoints:
    wanted = {"state": {"params": abstract_trained(abstract, OURS)}}
    _, arrays = checkpoints.restore_part(wanted)
  adapters = arrays["state"]["params"]
  return model, policy_params(adapters, load_params(run / "start", abstract), OURS), adapters


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(runs):
  assert untimed(runs.broken) == untimed(runs.straight)
  for name, value in weights(runs.straight).items():
    np.testing.assert_array_equal(weights(runs.broken)[name], value, err_msg=name)
  assert sum(row["replay/drawn"] for row in untimed(runs.straight)[1:]) > 0


def test_sampling_and_training_are_the_same_policy(runs):
  """The sampler has merged weights, the update adapters; and KL is measured to the base."""
  rows = untimed(runs.straight)[1:]
  assert all(row["train/mismatch"] < 1e-4 for row in rows)
  assert rows[0]["train/kl_reference_fresh"] < 1e-8
  assert rows[-1]["train/kl_reference_fresh"] > 1e-4


def test_a_checkpoint_holds_adapters_and_nothing_of_the_base(runs):
  """Parameters and two moments, in float32, of three matrices in two layers."""
  facts = runs.straight / "checkpoints" / "6" / "state.json"
  saved = json.loads(facts.read_text())
  of_state = [path for path in saved["shapes"] if path.startswith("state.")]
  assert sum("lora_a" in path for path in of_state) == 3 * 3
  assert sum("lora_b" in path for path in of_state) == 3 * 3
  assert not any("kernel" in path or "embedding" in path for path in of_state)
  assert len(saved["host"]["start"]) == 64


def test_only_targets_change(runs):
  before = safetensors.numpy.load_file(runs.straight / "start" / "model.safetensors")
  after = weights(runs.straight)
  changed = {name for name, value in before.items() if (value != after[name]).any()}
  assert {re.sub(r".*\.\d+\.(.*)\.weight", r"\1", name) for name in changed} == {
    "self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj",
  }  # fmt: skip


def test_the_export_is_a_plain_model_that_gives_our_logits(runs):
  """transformers, which knows nothing of adapters, against the base with adapters beside it."""
  torch = pytest.importorskip("torch")
  import transformers

  model, policy, _ = saved_policy(runs.straight)
  reference = transformers.AutoModelForCausalLM.from_pretrained(runs.straight / "export")
  tokens = np.random.default_rng(0).integers(3, model.config.vocab_size, (8, 9)).astype(np.int32)
  positions = np.broadcast_to(np.arange(9, dtype=np.int32), tokens.shape)

  @jax.jit
  def forward(policy):
    hidden, _ = model.apply({"params": policy}, tokens, positions)
    return model.apply({"params": policy}, hidden, method="logits")

  with torch.no_grad():
    theirs = reference(torch.tensor(tokens, dtype=torch.long)).logits.numpy()
  np.testing.assert_allclose(np.asarray(forward(policy)), theirs, atol=1e-4)


def test_any_checkpoint_can_be_exported_later(runs, tmp_path):
  export_run(runs.straight, str(tmp_path / "last"), None, "")
  for path in (runs.straight / "export").iterdir():
    assert (tmp_path / "last" / path.name).read_bytes() == path.read_bytes(), path.name
  export_run(runs.straight, str(tmp_path / "earlier"), 3, "")
  earlier = safetensors.numpy.load_file(tmp_path / "earlier" / "model.safetensors")
  assert any((earlier[name] != value).any() for name, value in weights(runs.straight).items())


def test_adapters_are_not_put_beside_other_weights(runs, tmp_path):
  """A start folder that changed between two starts: its shapes fit, its numbers do not."""
  run = tmp_path / "run"
  shutil.copytree(runs.broken, run)
  file = run / "start" / "model.safetensors"
  stored = safetensors.numpy.load_file(file)
  stored["model.norm.weight"] = stored["model.norm.weight"] + 1
  safetensors.numpy.save_file(stored, file, metadata={"format": "pt"})
  with pytest.raises(UserError, match="not those whose adapters the checkpoint of step 6 holds"):
    train(with_adapters(steps=7), str(run))


def test_what_lora_saves_is_told(runs):
  (told,) = re.findall(r"Memory on each device: .*", runs.said)
  assert re.match(r"Memory on each device: adapters .*, optimizer .*, gradients .*", told)
  assert "frozen parameters" in told
  assert "KL reference" not in told


def test_another_rank_is_another_run(runs):
  with pytest.raises(UserError, match=r"model\.lora_rank was 4, now 8"):
    train(with_adapters(**{"model.lora_rank": 8}), str(runs.broken))


BAD = {
  "a rank below zero": ({"model.lora_rank": -1}, "lora_rank is -1"),
  "an unknown matrix": ({"model.lora_targets": ("quary",)}, "did you mean 'query'"),
}


@pytest.mark.parametrize(("changes", "named"), BAD.values(), ids=BAD)
def test_bad_input_is_one_clear_line_and_leaves_nothing(tmp_path, changes, named):
  with pytest.raises(UserError, match=named):
    train(with_adapters(**changes), str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()
