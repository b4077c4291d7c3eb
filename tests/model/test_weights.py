"""Weights go in and out of Hugging Face folders unchanged, and a wrong folder is named."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from grpo_jax.errors import UserError
from grpo_jax.model.config import from_huggingface, read_config
from grpo_jax.model.qwen3 import Qwen3, abstract_params
from grpo_jax.model.sharding import make_layout
from grpo_jax.model.weights import check_folder, export_folder, load_params, tensor_table
from tests.model.huggingface import write_model


def abstract(folder, mesh=None):
  """Parameters of the folder's config, on one device unless a mesh is given."""
  config, _ = read_config(folder)
  layout = make_layout(*mesh) if mesh else make_layout(devices=jax.devices()[:1])
  return abstract_params(Qwen3(config, layout))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_round_trip_is_equal_to_the_last_byte(tmp_path, dtype, tied):
  """Files and all: config, generation config and tokenizer are carried along."""
  there, back = tmp_path / "there", tmp_path / "back"
  write_model(there, dtype=dtype, tie_word_embeddings=tied)
  (there / "tokenizer_config.json").write_text('{"any": "thing"}')
  (there / "chat_template.jinja").write_text("{{ messages }}")
  (there / "pytorch_model.bin").write_bytes(b"weights of another format stay behind")
  export_folder(back, load_params(there, abstract(there)), there)
  assert {p.name for p in back.iterdir()} == {p.name for p in there.iterdir()} - {
    "pytorch_model.bin"
  }
  for path in back.iterdir():
    assert path.read_bytes() == (there / path.name).read_bytes(), path.name


def test_transformers_loads_the_export_and_gives_the_same_logits(tmp_path):
  torch = pytest.importorskip("torch")
  import transformers

  reference = write_model(tmp_path / "there")
  export_folder(tmp_path / "back", load_params(tmp_path / "there", abstract(tmp_path / "there")),
                tmp_path / "there")  # fmt: skip
  loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
  tokens = torch.arange(12)[None]
  with torch.no_grad():
    assert torch.equal(loaded(tokens).logits, reference(tokens).logits)


def test_a_sharded_index_gives_the_same_weights(tmp_path):
  write_model(tmp_path / "one")
  write_model(tmp_path / "many", shard="40KB")
  assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
  one = load_params(tmp_path / "one", abstract(tmp_path / "one"))
  many = load_params(tmp_path / "many", abstract(tmp_path / "many"))
  jax.tree.map(np.testing.assert_array_equal, one, many)


def test_large_exports_are_split_and_indexed(tmp_path, monkeypatch):
  write_model(tmp_path / "there")
  params = load_params(tmp_path / "there", abstract(tmp_path / "there"))
  monkeypatch.setattr("grpo_jax.model.weights.MAX_FILE_BYTES", 100_000)
  export_folder(tmp_path / "back", params, tmp_path / "there")
  files = sorted(p.name for p in (tmp_path / "back").glob("*.safetensors"))
  assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
  index = json.loads((tmp_path / "back" / "model.safetensors.index.json").read_text())
  assert index["metadata"]["total_size"] == sum(leaf.nbytes for leaf in jax.tree.leaves(params))
  again = load_params(tmp_path / "back", abstract(tmp_path / "back"))
  jax.tree.map(np.testing.assert_array_equal, params, again)


def test_each_device_gets_its_own_shard(tmp_path):
  write_model(tmp_path)
  alone = load_params(tmp_path, abstract(tmp_path))
  spread = load_params(tmp_path, abstract(tmp_path, mesh=(2, 2, 2)))
  kernel = spread["layers"]["attention"]["query"]["kernel"]
  assert kernel.addressable_shards[0].data.size == kernel.size // 4
  jax.tree.map(np.testing.assert_array_equal, alone, spread)


def test_another_dtype_is_written_into_the_config_too(tmp_path):
  write_model(tmp_path / "there")
  params = load_params(tmp_path / "there", abstract(tmp_path / "there"))
  export_folder(tmp_path / "back", params, tmp_path / "there", "bfloat16")
  stored = safetensors.numpy.load_file(tmp_path / "back" / "model.safetensors")
  assert {str(value.dtype) for value in stored.values()} == {"bfloat16"}
  assert json.loads((tmp_path / "back" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_tied_head_that_is_stored_is_ignored(tmp_path):
  """The Hub's 0.6B holds lm_head.weight although it is tied."""
  write_model(tmp_path)
  file = tmp_path / "model.safetensors"
  stored = safetensors.numpy.load_file(file)
  stored["lm_head.weight"] = np.full_like(stored["model.embed_tokens.weight"], 7.0)
  safetensors.numpy.save_file(stored, file)
  assert "head" not in load_params(tmp_path, abstract(tmp_path))


def damage(folder, what):
  file = folder / "model.safetensors"
  stored = safetensors.numpy.load_file(file)
  name = "model.layers.1.mlp.up_proj.weight"
  if what == "missing tensor":
    del stored[name]
  elif what == "wrong shape":
    stored[name] = np.ascontiguousarray(stored[name].T)
  elif what == "unknown tensor":
    stored["model.layers.0.mlp.gate.weight"] = stored[name]
  safetensors.numpy.save_file(stored, file)
  if what == "cut file":
    file.write_bytes(file.read_bytes()[:-10])
  elif what == "no file":
    file.unlink()


@pytest.mark.parametrize(
  ("what", "named"),
  [
    ("missing tensor", r"model\.layers\.1\.mlp\.up_proj\.weight is missing"),
    ("wrong shape", r"up_proj\.weight has shape \[48, 96\], config\.json implies \[96, 48\]"),
    ("unknown tensor", r"model\.layers\.0\.mlp\.gate\.weight belongs to no Qwen3"),
    ("cut file", r"model\.safetensors: not a readable"),
    ("no file", "no weights; expected model.safetensors"),
  ],
)
def test_a_wrong_folder_is_named(tmp_path, what, named):
  write_model(tmp_path)
  damage(tmp_path, what)
  with pytest.raises(UserError, match=named):
    check_folder(tmp_path, abstract(tmp_path))


def test_a_shard_that_is_not_there_is_named(tmp_path):
  write_model(tmp_path, shard="40KB")
  victim = sorted(tmp_path.glob("*.safetensors"))[1]
  victim.unlink()
  with pytest.raises(UserError, match=victim.name):
    check_folder(tmp_path, abstract(tmp_path))


HUB = {  # the keys of Qwen3-0.6B as published, rope_theta on the top level
  "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072,
  "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
  "rope_theta": 1000000, "rope_scaling": None, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
  "torch_dtype": "bfloat16", "attention_bias": False,
}  # fmt: skip


def test_old_and_new_configs_say_the_same():
  new = {k: v for k, v in HUB.items() if k not in ("rope_theta", "rope_scaling")}
  new["rope_parameters"] = {"rope_theta": 1000000, "rope_type": "default"}
  assert from_huggingface(HUB) == from_huggingface(new)
  assert from_huggingface(HUB).head_dim == 128  # not hidden_size / heads = 64


@pytest.mark.parametrize(
  ("change", "named"),
  [
    ({"model_type": "qwen3_moe"}, "qwen3_moe"),
    ({"rope_theta": None}, "rope_theta"),
    ({"head_dim": None}, "head_dim"),
    ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_type"),
    ({"attention_bias": True}, "attention_bias"),
    ({"num_key_value_heads": 3}, "num_key_value_heads=3"),
  ],
)
def test_a_config_we_cannot_follow_is_refused(change, named):
  with pytest.raises(UserError, match=named):
    from_huggingface(HUB | change)


def test_what_we_write_from_scratch_is_read_back(tmp_path):
  write_model(tmp_path)
  config, _ = read_config(tmp_path)
  (tmp_path / "config.json").write_text(json.dumps(config.to_huggingface("float32")))
  assert read_config(tmp_path)[0] == config
  transformers = pytest.importorskip("transformers")
  theirs = transformers.AutoConfig.from_pretrained(tmp_path)
  assert theirs.rope_parameters["rope_theta"] == config.rope_theta


def test_the_table_covers_every_parameter_once(tmp_path):
  write_model(tmp_path, tie_word_embeddings=False)
  params = abstract(tmp_path)
  table = tensor_table(params)
  assert len({t.name for t in table}) == len(table)
  sizes = sum(int(np.prod(t.theirs)) for t in table)
  assert sizes == sum(leaf.size for leaf in jax.tree.leaves(params))
