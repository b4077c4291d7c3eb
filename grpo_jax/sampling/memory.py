"""How much memory does sampling take? From shapes alone, before any of it is taken."""

from grpo_jax.model.qwen3 import Qwen3, cache_bytes_per_device
from grpo_jax.model.sharding import bytes_per_device
from grpo_jax.sampling.sampler import Sampler

# Float32 arrays of slots x vocabulary that exist at once while a token is drawn, as XLA compiles
# it: logits, and for top-k and top-p their order and masses.
LOGITS_COPIES = 4


def sampling_memory(
  model: Qwen3, sampler: Sampler, *, slots: int, length: int
) -> dict[str, int]:
  """Bytes on each device at the peak of decoding, with a cache of `length` tokens."""
  shards = model.layout.batch_shards * model.layout.mesh.shape["tensor"]
  return {
    "sampling weights": bytes_per_device(sampler.prepared),
    "KV cache": cache_bytes_per_device(model, slots, length),
    "logits": LOGITS_COPIES * 4 * slots * model.config.vocab_size // shards,
  }
