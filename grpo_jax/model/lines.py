"""Rows of different lengths laid end to end: what is computed token by token computes no padding.

Each device lays its b rows of a microbatch into a line of its own. The model runs on lines, and
takes rows apart, padded to one length, only where tokens of a row meet: in attention, whose kernels
so know nothing of lines, and in which no row can see another.

Letters beside those of qwen3.py: S devices a batch is split over, which are its lines; N tokens of
a line; P places of its rows, b x T.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from grpo_jax.model.sharding import Layout


@flax.struct.dataclass
class Lines:
  """Which token of a line is which of its rows. Both ways are gathers, and so are their gradients:
  each is the other's transpose. Devices that share a line each have some of its heads, and move
  them for themselves."""

  place_SN: jax.Array  # int32, into P; P behind the last row
  token_SP: jax.Array  # int32, into N; N behind the end of a row
  layout: Layout = flax.struct.field(pytree_node=False)

  def joined(self, x_BT: jax.Array, names: tuple[str, ...] = ()) -> jax.Array:
    """[B, T, ...] to [S, N, ...]; zeros behind the last row. `names`: of the axes behind these two,
    as in sharding.RULES."""

    def of_lines(x_bT, place_sN, token_sP):
      x_sP = x_bT.reshape(len(place_sN), -1, *x_bT.shape[2:])
      return _moved(x_sP, place_sN, token_sP)

    return self._on_each_device(of_lines, names)(x_BT, self.place_SN, self.token_SP)

  def apart(self, x_SN: jax.Array, rows: int, names: tuple[str, ...] = ()) -> jax.Array:
    """[S, N, ...] to [B, T, ...] with B = `rows`; zeros behind the end of a row."""
    rows_of_line = rows // len(self.place_SN)

    def of_lines(x_sN, place_sN, token_sP):
      x_sP = _moved(x_sN, token_sP, place_sN)
      return x_sP.reshape(len(x_sN) * rows_of_line, -1, *x_sN.shape[2:])

    return self._on_each_device(of_lines, names)(x_SN, self.place_SN, self.token_SP)

  def _on_each_device(self, function: Callable, names: tuple[str, ...]) -> Callable:
    """Left to the compiler, heads that are split would be gathered, and summed, whole."""
    if self.layout.mesh.size == 1:
      return function
    split, by_line = self.layout.spec("batch", None, *names), self.layout.spec("batch", None)
    return jax.shard_map(
      function,
      mesh=self.layout.mesh,
      in_specs=(split, by_line, by_line),
      out_specs=split,
      check_vma=False,  # a gradient written by hand does not say over which axes it varies
    )


def lay_end_to_end(length_B: jax.Array, longest: int, layout: Layout, tokens: int) -> Lines:
  """
  Args:
    length_B: tokens of each row; those of a line's rows are `tokens` at most, which nobody checks.
    longest: T, tokens a row is padded to.
    layout: its `batch_shards` are the lines, S, which divide B; a line has neighbours in B.
    tokens: N.
  """
  length_Sb = length_B.reshape(layout.batch_shards, -1)
  end_Sb = jnp.cumsum(length_Sb, axis=1)
  start_Sb = end_Sb - length_Sb
  rows = length_Sb.shape[1]

  index_N = jnp.arange(tokens)
  row_SN = jnp.sum(end_Sb[:, None] <= index_N[:, None], axis=-1)  # `rows` behind the last
  start_SN = jnp.take_along_axis(start_Sb, row_SN, axis=1, mode="clip")
  place_SN = jnp.where(row_SN < rows, row_SN * longest + index_N - start_SN, rows * longest)

  index_T = jnp.arange(longest)
  is_token_SbT = index_T < length_Sb[:, :, None]
  token_SbT = jnp.where(is_token_SbT, start_Sb[:, :, None] + index_T, tokens)
  return Lines(place_SN, token_SbT.reshape(len(length_Sb), -1), layout)


@jax.custom_vjp
def _moved(x_SI: jax.Array, to_SJ: jax.Array, back_SI: jax.Array) -> jax.Array:
  """x[s, to[s, j]], whatever axes follow, and 0 where that is out of range. `back_SI` is its
  inverse, without which the gradient would be a scatter."""
  index = to_SJ.reshape(*to_SJ.shape, *(1 for _ in x_SI.shape[2:]))
  return jnp.take_along_axis(x_SI, index, axis=1, mode="fill", fill_value=0)


_moved.defvjp(
  lambda x_SI, to_SJ, back_SI: (_moved(x_SI, to_SJ, back_SI), (to_SJ, back_SI)),
  lambda saved, d_SJ: (_moved(d_SJ, *reversed(saved)), None, None),
)
