"""The contender transformers: `generate` on torch, with its key-value cache and sdpa attention.

It decodes every row until the last one ends.
"""

import importlib.metadata

import torch
import transformers

from contenders.protocol import Sample, Setup, Work, serve


def load(setup: Setup) -> tuple[Sample, dict]:
  """A model with random weights."""
  torch.set_num_threads(setup.threads)
  torch.manual_seed(0)
  config = transformers.Qwen3Config(
    **setup.shape, attn_implementation="sdpa", dtype=setup.dtype
  )
  model = transformers.Qwen3ForCausalLM(config).to(getattr(torch, setup.dtype)).eval()

  def sample(work: Work) -> list[list[int]]:
    torch.manual_seed(work.seed)
    prompt_BP = torch.tensor(work.rows)
    settings = transformers.GenerationConfig(
      do_sample=True,
      temperature=1.0,
      top_k=0,
      top_p=work.top_p,
      max_new_tokens=max(work.new_tokens),
      eos_token_id=None,
      pad_token_id=0,
      use_cache=True,
    )
    attended_BP = torch.ones_like(prompt_BP)
    rows = model.generate(prompt_BP, attention_mask=attended_BP, generation_config=settings)
    return rows[:, prompt_BP.shape[1] :].tolist()

  versions = {name: importlib.metadata.version(name) for name in ("transformers", "torch")}
  return sample, {"versions": versions}


if __name__ == "__main__":
  serve(load)
