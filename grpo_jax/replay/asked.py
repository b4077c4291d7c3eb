"""What does a step say about stored rollouts? New worth for those whose problem came round again.

A stored advantage is relative to what the policy could do at its birth. When its problem is asked
again, the new group tells for nothing what it can do now: the stored rollout gets the advantage it
would have as one more member of that group, its reward, behaviour log-probs and birth as they were.
No paper read does this; one that replays single successes beside fresh rollouts (arXiv 2510.02245)
takes advantages over the mixed group, which for one replayed rollout is this number.

Why a member and not (reward - mean) / std of the new group: where the new rewards are all equal, a
stored rollout with another one would be divided by zero. As a member it is worth +-sqrt(G), and one
with the same reward 0: it has nothing to teach any more and leaves the store, as groups without
variance never enter it.

Priorities follow, as far as they are made of advantages: a success of a problem that has become
easy is drawn less, one of a problem that is failed again more. The group's size becomes that of the
new group with the rollout.

RePO (arXiv 2506.09340) looks the other way: what is drawn of a problem is a group of its own.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from grpo_jax.records import Rollouts

# (reward - mean, rollouts, variance) of one rollout and a group without it -> its advantage in it
Newcomer = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
NO_PROBLEM = np.iinfo(np.int32).max


@flax.struct.dataclass
class Asked:
  """The problems of a step in ascending order, padded with NO_PROBLEM to N, and the rewards that
  all of a problem's rollouts of the step had, however many groups they make."""

  problem_N: np.ndarray | jax.Array  # int32
  count_N: np.ndarray | jax.Array  # float32, scored rollouts
  mean_N: np.ndarray | jax.Array  # float32
  variance_N: np.ndarray | jax.Array  # float32


def asked_of(problem_R: np.ndarray, reward_R: np.ndarray, most: int) -> Asked:
  """Of all rollouts of a step; NaN where one is not scored. `most` problems at most."""
  problems = np.unique(problem_R)
  problem_N = np.full(most, NO_PROBLEM, np.int32)
  problem_N[: len(problems)] = problems
  count_N, mean_N, variance_N = np.zeros((3, most), np.float32)
  for n, problem in enumerate(problems):
    reward_S = reward_R[(problem_R == problem) & np.isfinite(reward_R)]
    count_N[n] = len(reward_S)
    if len(reward_S):
      # The mean of equal numbers may differ from them in its last bit.
      mean_N[n] = reward_S.mean() if np.ptp(reward_S) else reward_S[0]
      variance_N[n] = reward_S.var() if np.ptp(reward_S) else 0
  return Asked(problem_N, count_N, mean_N, variance_N)


def places(problem_C: jax.Array, asked: Asked) -> tuple[jax.Array, jax.Array]:
  """Where each rollout's problem stands among those asked, and bool [C], whether it does."""
  problem_N = jnp.asarray(asked.problem_N)
  place_C = jnp.minimum(jnp.searchsorted(problem_N, problem_C), len(problem_N) - 1)
  return place_C, problem_N[place_C] == problem_C


def revalued(
  rollouts: Rollouts, open_C: jax.Array, asked: Asked, newcomer: Newcomer
) -> tuple[Rollouts, jax.Array, jax.Array]:
  """The rollouts with new advantages where there are any; which are still worth something, of
  those open before; and which had their advantage set anew."""
  place_C, found_C = places(rollouts.problem_R, asked)
  count_C, mean_C, variance_C = (
    jnp.asarray(of_N)[place_C] for of_N in (asked.count_N, asked.mean_N, asked.variance_N)
  )
  new_C = open_C & found_C & (count_C > 0)
  advantage_C = newcomer(rollouts.reward_R - mean_C, jnp.maximum(count_C, 1), variance_C)
  size_C = count_C.astype(jnp.int32) + 1
  rollouts = rollouts.replace(
    advantage_R=jnp.where(new_C, advantage_C, rollouts.advantage_R),
    group_size_R=jnp.where(new_C, size_C, rollouts.group_size_R),
  )
  return rollouts, open_C & ~(new_C & (advantage_C == 0)), new_C


def among_drawn(rows: Rollouts, drawn_M: jax.Array, newcomer: Newcomer) -> jax.Array:
  """float32 [M]: the advantage each drawn rollout has in the group of those drawn of its problem;
  0 where it is the only one."""
  same_MM = (rows.problem_R[:, None] == rows.problem_R[None, :]) & drawn_M[None, :]
  same_MM &= ~jnp.eye(len(drawn_M), dtype=bool)
  count_M = jnp.sum(same_MM, axis=1)

  def mean(values_MM):
    return jnp.sum(jnp.where(same_MM, values_MM, 0), axis=1) / jnp.maximum(count_M, 1)

  delta_M = mean(rows.reward_R[:, None] - rows.reward_R[None, :])
  variance_M = mean(jnp.square(rows.reward_R[None, :] - (rows.reward_R - delta_M)[:, None]))
  return newcomer(delta_M, count_M, variance_M)
