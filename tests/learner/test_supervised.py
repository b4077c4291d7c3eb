"""Learning from demonstrations: the gradient does not depend on how its rows are shared out."""

import jax
import numpy as np
import optax

from grpo_jax.distribution import decoding
from grpo_jax.learner.state import create_state
from grpo_jax.learner.supervised import make_supervised_step, pack_demonstrations
from grpo_jax.model.config import Qwen3Config
from grpo_jax.model.qwen3 import Qwen3, init_params
from grpo_jax.model.sharding import make_layout

SHAPE = Qwen3Config(
  vocab_size=19, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
  num_key_value_heads=1, head_dim=8, rope_theta=1e4,
)  # fmt: skip


def test_parts_change_nothing_but_memory():
  """Rows of different lengths, so that a mean of means would be another number."""
  model = Qwen3(SHAPE, make_layout(devices=jax.devices()[:2]))
  rng = np.random.default_rng(0)
  pairs = [(rng.integers(0, 17, 3).tolist(), rng.integers(0, 17, 1 + n).tolist()) for n in range(8)]
  rows, how = pack_demonstrations(pairs, 12), decoding(1.0, 0, 1.0, 17)
  learned = {}
  for parts in (1, 4):
    optimizer = optax.sgd(1.0)
    state = create_state(init_params(model, jax.random.key(0)), optimizer, model.layout)
    state, loss = make_supervised_step(model, optimizer, parts)(state, rows, how)
    learned[parts] = jax.device_get((loss, state.params))
  jax.tree.map(
    lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6), learned[1], learned[4]
  )
