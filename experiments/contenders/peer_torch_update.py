"""The contender torch: transformers' Qwen3, a PPO-clip step as it is usually written, fused AdamW.

Every microbatch is padded to the longest row of the batch and has the logits of all its positions.
"""

import importlib.metadata

import torch
import transformers

from contenders.protocol import Setup, serve
from contenders.update_work import ADAMW, CLIP, MAX_GRAD_NORM, Batch, Step, UpdateWork, timed


def load(setup: Setup) -> tuple[Step, dict]:
  """A model with random weights and its optimizer."""
  torch.set_num_threads(setup.threads)
  torch.manual_seed(0)
  config = transformers.Qwen3Config(
    **setup.shape, attn_implementation="sdpa", dtype=setup.dtype, use_cache=False
  )
  model = transformers.Qwen3ForCausalLM(config).to(getattr(torch, setup.dtype)).train()
  optimizer = torch.optim.AdamW(
    model.parameters(),
    lr=ADAMW["learning_rate"],
    betas=(ADAMW["b1"], ADAMW["b2"]),
    weight_decay=ADAMW["weight_decay"],
    fused=True,
  )

  def step(work: UpdateWork, batch: Batch) -> float:
    total = 0.0
    for first in range(0, len(batch.advantage_R), work.microbatch_rows):
      loss = microbatch_loss(model, batch, slice(first, first + work.microbatch_rows))
      loss.backward()
      total += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total

  versions = {name: importlib.metadata.version(name) for name in ("transformers", "torch")}
  return step, {"versions": versions}


def microbatch_loss(model, batch: Batch, rows: slice) -> torch.Tensor:
  """These rows' part of the mean over all tokens of the batch."""
  longest = batch.mask_RC.sum(axis=1).max()
  prompt_BP = torch.from_numpy(batch.prompt_RP[rows]).long()
  completion_BC = torch.from_numpy(batch.completion_RC[rows, :longest]).long()
  mask_BC = torch.from_numpy(batch.mask_RC[rows, :longest])
  behaviour_BC = torch.from_numpy(batch.behaviour_RC[rows, :longest])
  advantage_B1 = torch.from_numpy(batch.advantage_R[rows])[:, None]

  tokens_BT = torch.cat([prompt_BP, completion_BC], dim=1)
  attended_BT = torch.cat([torch.ones_like(prompt_BP), mask_BC.long()], dim=1)
  logits_BTV = model(tokens_BT, attention_mask=attended_BT).logits
  log_probs_BTV = torch.log_softmax(logits_BTV, dim=-1)
  # The logits at t are of token t + 1.
  first = prompt_BP.shape[1] - 1
  logp_BC = log_probs_BTV[:, first:-1].gather(-1, completion_BC[..., None]).squeeze(-1)

  ratio_BC = torch.exp(logp_BC - behaviour_BC)
  clipped_BC = torch.clamp(ratio_BC, 1 - CLIP, 1 + CLIP)
  loss_BC = -torch.minimum(ratio_BC * advantage_B1, clipped_BC * advantage_B1)
  return (loss_BC * mask_BC).sum() / int(batch.mask_RC.sum())


if __name__ == "__main__":
  serve(load, UpdateWork, timed)
