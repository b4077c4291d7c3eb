"""What shape of Qwen3? Read from a Hugging Face `config.json`, or one of the published sizes.

Fields carry the names of `config.json`, so a folder, a preset and a `--config` override all speak
the same language. Nothing is derived that the file states: head_dim is not hidden / heads in
Qwen3 0.6B, 4B and 32B, and rope_theta differs between releases of the same size.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from grpo_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Qwen3Config:
  """Shape and constants of one dense Qwen3."""

  vocab_size: int  # V, rows of the embedding; may exceed the tokenizer's ids
  hidden_size: int  # D
  intermediate_size: int  # F
  num_hidden_layers: int  # L
  num_attention_heads: int  # H
  num_key_value_heads: int  # K
  head_dim: int  # h
  rope_theta: float
  rms_norm_eps: float = 1e-6
  tie_word_embeddings: bool = True
  max_position_embeddings: int = 32768
  initializer_range: float = 0.02  # std of fresh weights

  def __post_init__(self):
    if self.num_attention_heads % self.num_key_value_heads:
      raise UserError(
        f"model: num_attention_heads={self.num_attention_heads} must be a multiple of "
        f"num_key_value_heads={self.num_key_value_heads}"
      )
    if self.head_dim % 2:
      raise UserError(f"model: head_dim={self.head_dim} must be even (rotary pairs)")

  @property
  def num_params(self) -> int:
    """Stored parameters; tied embeddings count once."""
    d, h = self.hidden_size, self.head_dim
    attention = d * h * 2 * (self.num_attention_heads + self.num_key_value_heads) + 2 * h
    block = attention + 3 * d * self.intermediate_size + 2 * d
    embeddings = self.vocab_size * d * (1 if self.tie_word_embeddings else 2)
    return self.num_hidden_layers * block + embeddings + d

  def to_huggingface(self, dtype: str) -> dict[str, Any]:
    """The `config.json` of this shape, with rope_theta where old and new readers look for it."""
    return {
      "architectures": ["Qwen3ForCausalLM"],
      "model_type": "qwen3",
      **dataclasses.asdict(self),
      "rope_parameters": {"rope_theta": self.rope_theta, "rope_type": "default"},
      "rope_scaling": None,
      "attention_bias": False,
      "hidden_act": "silu",
      "use_sliding_window": False,
      "dtype": dtype,
    }


def from_huggingface(raw: Mapping[str, Any], *, where: str = "config.json") -> Qwen3Config:
  """Reads the dictionary of a `config.json`, old style (`rope_theta`) or new (`rope_parameters`).

  Args:
    raw: the parsed file.
    where: its name, for error messages.

  Raises:
    UserError: another architecture, a missing key, or a feature no dense Qwen3 uses.
  """
  if raw.get("model_type") != "qwen3":
    raise UserError(f"{where}: model_type is {raw.get('model_type')!r}, expected 'qwen3' (dense)")
  rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
  unsupported = {
    "rope_type": rope.get("rope_type", rope.get("type", "default")) != "default",
    "attention_bias": bool(raw.get("attention_bias")),
    "use_sliding_window": bool(raw.get("use_sliding_window")),
    "hidden_act": raw.get("hidden_act", "silu") != "silu",
  }
  for key, found in unsupported.items():
    if found:
      raise UserError(f"{where}: {key} is set to something no dense Qwen3 release uses")

  values = {"rope_theta": rope.get("rope_theta"), **raw}
  fields = dataclasses.fields(Qwen3Config)
  required = {f.name for f in fields if f.default is dataclasses.MISSING}
  missing = sorted(name for name in required if values.get(name) is None)
  if missing:
    raise UserError(f"{where}: missing {', '.join(missing)}")
  return Qwen3Config(**{f.name: values[f.name] for f in fields if f.name in values})


def from_shape(shape: Mapping[str, Any], *, vocab_size: int) -> Qwen3Config:
  """A model from scratch, from some fields of Qwen3Config.

  Args:
    shape: fields by name; may name vocab_size too.
    vocab_size: what it is otherwise.

  Raises:
    UserError: an unknown or a missing field.
  """
  fields = dataclasses.fields(Qwen3Config)
  values = {"vocab_size": vocab_size, **shape}
  unknown = sorted(values.keys() - {f.name for f in fields})
  required = [f.name for f in fields if f.default is dataclasses.MISSING]
  missing = [name for name in required if name not in values]
  if unknown or missing:
    problem = f"unknown {unknown}" if unknown else f"missing {missing}"
    raise UserError(f"config.model.shape: {problem}; known: {', '.join(f.name for f in fields)}")
  return Qwen3Config(**values)


def read_config(folder: str | pathlib.Path) -> tuple[Qwen3Config, dict[str, Any]]:
  """Reads `folder/config.json`; returns the shape and the raw dictionary (to be carried along)."""
  path = pathlib.Path(folder) / "config.json"
  try:
    raw = json.loads(path.read_text())
  except FileNotFoundError:
    raise UserError(f"{path}: no such file; expected the folder of a Hugging Face Qwen3") from None
  except (OSError, ValueError) as error:
    raise UserError(f"{path}: not readable as JSON ({error})") from None
  return from_huggingface(raw, where=str(path)), raw


def _published(hidden, intermediate, layers, heads, *, tied) -> Qwen3Config:
  return Qwen3Config(
    vocab_size=151936,
    hidden_size=hidden,
    intermediate_size=intermediate,
    num_hidden_layers=layers,
    num_attention_heads=heads,
    num_key_value_heads=8,
    head_dim=128,
    rope_theta=1e6,
    tie_word_embeddings=tied,
  )


PUBLISHED = {
  "qwen3_0p6b": _published(1024, 3072, 28, 16, tied=True),
  "qwen3_1p7b": _published(2048, 6144, 28, 16, tied=True),
  "qwen3_4b": _published(2560, 9728, 36, 32, tied=True),
  "qwen3_8b": _published(4096, 12288, 36, 32, tied=False),
  "qwen3_14b": _published(5120, 17408, 40, 40, tied=False),
  "qwen3_32b": _published(5120, 25600, 64, 64, tied=False),
}
