"""What flows through a step: rollouts, on one flat axis R, from the sampler to the update.

Groups may be uneven, so a group is a number in `group_R`, never a reshape. A row of tokens is
packed from index 0: prompt, completion, padding; masks come from the two lengths, never from
comparing ids with the pad id (which, in Qwen3, is a real end of text).
"""

import enum

import flax.struct
import jax
import jax.numpy as jnp


class Finish(enum.IntEnum):
  """Why a completion ended."""

  EOS = 0  # an end-of-sequence id was sampled; it is the completion's last token
  LENGTH = 1  # the row's token limit was reached
  NONFINITE = 2  # the logits of the next token were NaN or infinite: nothing could be drawn


@flax.struct.dataclass
class Samples:
  """What the sampler returns: R completions of N prompts."""

  tokens_RT: jax.Array  # int32, prompt ++ completion ++ padding
  prompt_len_R: jax.Array  # int32
  completion_len_R: jax.Array  # int32, the end-of-sequence id included
  behaviour_logp_RT: jax.Array  # float32, of the distribution sampled from; 0 off the completion
  finish_R: jax.Array  # int32, of Finish


@flax.struct.dataclass
class Rollouts:
  """Scored samples. Advantages and behaviour log-probs are frozen here, at birth.

  `weight_R` is how much a rollout counts in the loss; rows of weight 0 (filtered, unscored, or not
  drawn from replay) take part in nothing, so a batch keeps its static shape whatever survives.
  """

  samples: Samples
  reward_R: jax.Array  # float32
  advantage_R: jax.Array  # float32, relative to the complete fresh group
  weight_R: jax.Array  # float32
  group_R: jax.Array  # int32, unique within a birth step
  problem_R: jax.Array  # int32, index in the data set
  birth_R: jax.Array  # int32, the step that sampled it
  group_size_R: jax.Array  # int32, rollouts the advantage is relative to, itself among them

  @property
  def size(self) -> int:
    return self.reward_R.shape[0]


def completion_mask(samples: Samples) -> jax.Array:
  """bool [R, T], True on the sampled tokens."""
  index_1T = jnp.arange(samples.tokens_RT.shape[1])[None, :]
  start_R1 = samples.prompt_len_R[:, None]
  return (index_1T >= start_R1) & (index_1T < start_R1 + samples.completion_len_R[:, None])


def take_rows(rollouts: Rollouts, index: jax.Array) -> Rollouts:
  """The rows at `index`, in its order."""
  return jax.tree.map(lambda leaf: leaf[index], rollouts)


def abstract_rollouts(rows: int, length: int) -> Rollouts:
  """Shapes and dtypes of `rows` rollouts of `length` tokens."""

  def of_row(dtype, *rest):
    return jax.ShapeDtypeStruct((rows, *rest), dtype)

  int_R, float_R = of_row(jnp.int32), of_row(jnp.float32)
  samples = Samples(
    tokens_RT=of_row(jnp.int32, length),
    prompt_len_R=int_R,
    completion_len_R=int_R,
    behaviour_logp_RT=of_row(jnp.float32, length),
    finish_R=int_R,
  )
  return Rollouts(samples, float_R, float_R, float_R, int_R, int_R, int_R, int_R)
