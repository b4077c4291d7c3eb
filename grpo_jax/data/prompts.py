"""Which problems fit the prompt length, and as which tokens?"""

import dataclasses
from collections.abc import Sequence

from grpo_jax.data import templates
from grpo_jax.data.problems import Problem
from grpo_jax.data.tokenizer import Tokenizer
from grpo_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Prompt:
  """A question ready for the model: the problem's index in its set, and the prompt's token ids."""

  problem: int
  tokens: tuple[int, ...]


def tokenize_prompts(
  problems: Sequence[Problem], tokenizer: Tokenizer, template: str, max_tokens: int
) -> tuple[list[Prompt], int]:
  """Renders and encodes every problem.

  Returns:
    The prompts of at most `max_tokens` tokens, in order, and how many were dropped as too long.
    (A cut prompt would be a different question under the old answer.)

  Raises:
    UserError: the template is unknown, or no prompt fits.
  """
  prompts = [
    Prompt(index, tuple(tokenizer.encode(templates.render(template, problem.question))))
    for index, problem in enumerate(problems)
  ]
  kept = [prompt for prompt in prompts if len(prompt.tokens) <= max_tokens]
  if not kept:
    shortest = min((len(prompt.tokens) for prompt in prompts), default=0)
    raise UserError(
      f"no prompt has at most {max_tokens} tokens; the shortest of {len(prompts)} has {shortest}"
    )
  return kept, len(prompts) - len(kept)
