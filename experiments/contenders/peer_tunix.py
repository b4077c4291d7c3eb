"""The contender google-tunix: its vanilla Sampler and its Qwen3, in an environment of its own.

It decodes every row until the last one ends, over a cache as long as the longest completion there
might have been. Two things are in its favour: ids pass through without a tokenizer, and no
log-probabilities are asked for, which ours always returns.
"""

import functools
import importlib.metadata

import jax
import jax.numpy as jnp
from flax import nnx
from tunix.generate import sampler as tunix_sampler
from tunix.models.qwen3 import model as tunix_qwen3

from contenders.protocol import Sample, Setup, Work, serve


class Ids:
  """Stands in for a tokenizer: what it encodes are ids already; no id ends or pads anything."""

  def encode(self, ids: list[int]) -> list[int]:
    return list(ids)

  def decode(self, ids: list[int]) -> list[int]:
    return ids

  def bos_id(self) -> int:
    return 0  # tunix adds none then

  def eos_id(self) -> int:
    return -1

  def pad_id(self) -> int:
    return -1


def load(setup: Setup) -> tuple[Sample, dict]:
  """A model with random weights and a sampler for each size of cache."""
  model = random_model(setup)
  config = model.config

  @functools.cache
  def sampler(cache_size: int) -> tunix_sampler.Sampler:
    cache = tunix_sampler.CacheConfig(
      cache_size, config.num_layers, config.num_kv_heads, config.head_dim
    )
    return tunix_sampler.Sampler(model, Ids(), cache)

  def sample(work: Work) -> list:
    prompt_length = max(map(len, work.prompts))
    generate = sampler(prompt_length + work.longest)
    output = generate(
      work.rows,
      max_generation_steps=max(work.new_tokens),
      max_prompt_length=prompt_length,
      temperature=1.0,
      top_p=work.top_p,
      seed=work.seed,
    )
    return output.tokens

  versions = {"tunix": importlib.metadata.version("google-tunix"), "jax": jax.__version__}
  return sample, {"versions": versions}


def random_model(setup: Setup) -> tunix_qwen3.Qwen3:
  """tunix starts its feed-forward weights at zero; here they are as random as the others."""
  shape, dtype = setup.shape, jnp.dtype(setup.dtype)
  config = tunix_qwen3.ModelConfig(
    num_layers=shape["num_hidden_layers"],
    vocab_size=shape["vocab_size"],
    embed_dim=shape["hidden_size"],
    hidden_dim=shape["intermediate_size"],
    num_heads=shape["num_attention_heads"],
    num_kv_heads=shape["num_key_value_heads"],
    head_dim=shape["head_dim"],
    rope_theta=int(shape["rope_theta"]),
    norm_eps=shape["rms_norm_eps"],
    use_tied_embedding=shape["tie_word_embeddings"],
    dtype=dtype,
    param_dtype=dtype,
  )
  model = tunix_qwen3.Qwen3(config, rngs=nnx.Rngs(0))
  for index, layer in enumerate(model.layers):
    for place, part in enumerate((layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj)):
      key = jax.random.fold_in(jax.random.key(index), place)
      size = part.kernel.value.shape
      part.kernel.value = shape["initializer_range"] * jax.random.normal(key, size, dtype)
  return model


if __name__ == "__main__":
  serve(load)
