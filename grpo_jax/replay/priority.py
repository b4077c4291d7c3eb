"""How likely is a stored rollout to be drawn, and does it come alone or with its whole group?

What is drawn, a rollout or all rollouts of one group, is drawn with probability proportional to
(priority x exp(-age / decay))^alpha, without replacement, by Gumbel top-k. The own choice of
arXiv 2606.04560 is rollouts by |A|; "group_spread" and "uniform" are what it compares with.

"normalised_advantage" is ours, for groups of uneven sizes. With k of G right, the |A| of a right
rollout is sqrt((G - k) / k): it reaches sqrt(G - 1), so that by |A| the one right answer among 32
is drawn before the one among 4 for the size of its group alone. Divided by that bound both count
1. The size is stored with each rollout, since the store may not hold the whole group; a rank over
the store would be bounded as well, but rewards of two values leave few different |A| to rank, and
one rollout's priority would hang on all others.

"likelihood" is the geometric mean of a completion's token probabilities when it was sampled: the
lower its entropy, the higher. Others draw for a problem of their own past answers: `problems`
"asked" leaves in the draw what answers a problem of this step, `most` bounds how many come of one.
"""

import dataclasses
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from grpo_jax.errors import UserError
from grpo_jax.records import Rollouts

PRIORITY_EPSILON = 1e-6
LEVELS = ("rollout", "query")
PROBLEMS = ("any", "asked")
ADVANTAGES = ("birth", "refreshed", "drawn")


@dataclasses.dataclass(frozen=True)
class Draw:
  """What a draw prefers.

  Attributes:
    level: "rollout"; or "query": groups, of which as many are drawn as fit whole.
    priority: a name of PRIORITIES; of a group, the mean over its rollouts.
    decay: steps after which a priority has fallen to 1/e (arXiv 2604.16918); 0: never.
    problems: "any"; or "asked": those of this step.
    most: rollouts of one problem in a draw, its best by priority and chance; 0: no limit.
    advantage: "birth"; "refreshed": set anew when its problem is asked; "drawn": among what is
      drawn of its problem (asked.py).
  """

  level: str = "rollout"
  priority: str = "advantage"
  decay: float = 0.0
  problems: str = "any"
  most: int = 0
  advantage: str = "birth"

  def __post_init__(self):
    tables = {
      "level": LEVELS, "priority": PRIORITIES, "problems": PROBLEMS, "advantage": ADVANTAGES,
    }  # fmt: skip
    for key, known in tables.items():
      if getattr(self, key) not in known:
        value = getattr(self, key)
        raise UserError(f"config.replay.{key} is {value!r}; known: {', '.join(known)}")
    if not self.decay >= 0:
      raise UserError(f"config.replay.decay is {self.decay}; it must be 0 or above")
    if not self.most >= 0:
      raise UserError(f"config.replay.most is {self.most}; it must be 0 or above")
    if self.most and self.level == "query":
      raise UserError(
        f"config.replay.most is {self.most}, a number of single rollouts, but config.replay.level "
        "is 'query', so that groups are drawn whole: set 0, or level 'rollout'"
      )


@flax.struct.dataclass
class Pool:
  """What a draw looks at, of C rollouts."""

  advantage_C: jax.Array
  reward_C: jax.Array
  group_C: jax.Array
  birth_C: jax.Array
  group_size_C: jax.Array
  problem_C: jax.Array
  mean_logp_C: jax.Array  # of a completion's tokens, when they were sampled
  open_C: jax.Array  # bool; False: not there to be drawn


def pool_of(rollouts: Rollouts, open_C: jax.Array) -> Pool:
  samples = rollouts.samples
  return Pool(
    advantage_C=rollouts.advantage_R,
    reward_C=rollouts.reward_R,
    group_C=rollouts.group_R,
    birth_C=rollouts.birth_R,
    group_size_C=rollouts.group_size_R,
    problem_C=rollouts.problem_R,
    # Whole rows of tokens are read where a priority needs them; else this is never computed.
    mean_logp_C=samples.behaviour_logp_RT.sum(axis=1) / jnp.maximum(samples.completion_len_R, 1),
    open_C=open_C,
  )


def joined(*pools: Pool) -> Pool:
  """One pool, in this order."""
  return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *pools)


def scores(pool: Pool, key: jax.Array, size: jax.Array, alpha: jax.Array, how: Draw) -> jax.Array:
  """float32 [C]: the `size` largest, without those of -inf, are a draw of (at most) that size."""
  priority_C = PRIORITIES[how.priority](pool)
  noise_C = jax.random.gumbel(key, priority_C.shape)
  if how.level == "query":
    group_C = _groups(pool)
    priority_C, noise_C = _mean(priority_C, group_C, pool.open_C), noise_C[group_C]
  logit_C = jnp.log(priority_C + PRIORITY_EPSILON)
  if how.decay:
    # Of all ages only differences matter.
    newest = jnp.max(jnp.where(pool.open_C, pool.birth_C, 0))
    logit_C += (pool.birth_C - newest) / how.decay
  score_C = jnp.where(pool.open_C, alpha * logit_C + noise_C, -jnp.inf)
  if how.most:
    score_C = jnp.where(_rank_in_problem(score_C, pool) < how.most, score_C, -jnp.inf)
  if how.level == "query":
    score_C = jnp.where(_fit_whole(score_C, group_C, pool.open_C, size), score_C, -jnp.inf)
  return score_C


def _groups(pool: Pool) -> jax.Array:
  """int32 [C]: rollouts of one birth and group have one number."""
  order_C = jnp.lexsort((pool.group_C, pool.birth_C))
  birth_C, group_C = pool.birth_C[order_C], pool.group_C[order_C]
  first_C = (birth_C != jnp.roll(birth_C, 1)) | (group_C != jnp.roll(group_C, 1))
  number_C = jnp.cumsum(first_C.at[0].set(True)) - 1
  return jnp.zeros_like(number_C).at[order_C].set(number_C)


def _rank_in_problem(score_C: jax.Array, pool: Pool) -> jax.Array:
  """int32 [C]: how many rollouts of its problem are before this one."""
  order_C = jnp.lexsort((-score_C, pool.problem_C))
  problem_C = pool.problem_C[order_C]
  rank_C = jnp.arange(len(problem_C)) - jnp.searchsorted(problem_C, problem_C)
  return jnp.zeros_like(rank_C).at[order_C].set(rank_C)


def _fit_whole(
  score_C: jax.Array, group_C: jax.Array, open_C: jax.Array, size: jax.Array
) -> jax.Array:
  """bool [C]: rollouts of the best groups that have at most `size` rollouts together."""
  count_G = _sum(open_C.astype(jnp.int32), group_C)
  score_G = jax.ops.segment_max(score_C, group_C, len(group_C))
  order_G = jnp.argsort(-score_G)
  fits_G = jnp.cumsum(count_G[order_G]) <= size
  taken_G = jnp.zeros_like(fits_G).at[order_G].set(fits_G)
  return taken_G[group_C]


def _group_spread(pool: Pool) -> jax.Array:
  """The standard deviation of the rewards of a rollout's group, as far as it is stored."""
  group_C = _groups(pool)
  centred_C = pool.reward_C - _mean(pool.reward_C, group_C, pool.open_C)
  return jnp.sqrt(_mean(centred_C**2, group_C, pool.open_C))


def _normalised(pool: Pool) -> jax.Array:
  """|A| as a share of the most it can be in a group of this size."""
  return jnp.abs(pool.advantage_C) / jnp.sqrt(jnp.maximum(pool.group_size_C - 1, 1))


PRIORITIES: dict[str, Callable[[Pool], jax.Array]] = {
  "advantage": lambda pool: jnp.abs(pool.advantage_C),
  "normalised_advantage": _normalised,
  "group_spread": _group_spread,
  "likelihood": lambda pool: jnp.exp(pool.mean_logp_C),
  "uniform": lambda pool: jnp.ones_like(pool.advantage_C),
}
BY_ADVANTAGE = Draw()


def _mean(values_C: jax.Array, group_C: jax.Array, open_C: jax.Array) -> jax.Array:
  """Over the open rollouts of each one's group; 0 where there is none."""
  total_G = _sum(jnp.where(open_C, values_C, 0), group_C)
  count_G = _sum(open_C.astype(values_C.dtype), group_C)
  return (total_G / jnp.maximum(count_G, 1))[group_C]


def _sum(values_C: jax.Array, group_C: jax.Array) -> jax.Array:
  """Over each group, by its number, [C]; 0 of numbers that no group has."""
  return jax.ops.segment_sum(values_C, group_C, len(group_C))
