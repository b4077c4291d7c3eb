"""Tiny random Qwen3 models written by transformers itself: the reference for parity tests."""

import pathlib

import pytest


def write_model(folder: pathlib.Path, *, seed: int = 0, dtype: str = "float32", shard: str = "5GB",
                std: float = 0.2, **shape):
  """Saves a random model with transformers and returns it; its norms' scales are random too."""
  torch = pytest.importorskip("torch", reason="parity is checked against transformers on torch")
  import transformers

  defaults = {
    "vocab_size": 128,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_theta": 5e6, "rope_type": "default"},
    "eos_token_id": None,
    "pad_token_id": 0,
  }
  torch.manual_seed(seed)
  model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**(defaults | shape)))
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      if name.endswith("norm.weight"):
        parameter.uniform_(0.5, 1.5)
      else:
        parameter.normal_(std=std)
  model = model.to(getattr(torch, dtype)).eval()
  model.save_pretrained(folder, max_shard_size=shard)
  return model
