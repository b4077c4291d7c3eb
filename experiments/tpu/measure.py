"""What does the TPU compiler say of the programs that sample and learn? No TPU is needed.

The programs are those that a run with the case's config jits, lowered from shapes over the devices
of a described topology. Bytes are of one chip: the compiler's own analysis of each program, and
beside it, from shapes, what lives on the chip meanwhile.
"""

import dataclasses
import os
import time

import jax
import numpy as np
from jax.experimental import topologies

from experiments.tpu.cases import Case
from experiments.tpu.hlo import collectives, summed
from grpo_jax.buckets import bucket
from grpo_jax.build import make_sampler, make_update, optimizer_of
from grpo_jax.distribution import decoding
from grpo_jax.learner.state import abstract_state
from grpo_jax.model.config import PUBLISHED, Qwen3Config
from grpo_jax.model.qwen3 import Qwen3, abstract_params
from grpo_jax.model.sharding import Layout, bytes_per_device, check_divisible, make_layout
from grpo_jax.records import Rollouts, abstract_rollouts
from grpo_jax.replay.buffer import Replay
from grpo_jax.slots import make_replay

# What libtpu asks of the machine it runs on, answered for a machine without a TPU.
ENVIRONMENT = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_ACCELERATOR_TYPE": "v5litepod-8",
}


def devices_of(topology: str) -> list[jax.Device]:
  """Devices to compile for, of a topology such as "v5e:2x4"."""
  for name, value in ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  return list(topologies.get_topology_desc(topology, platform="tpu").devices)


def measure(case: Case, shape: Qwen3Config | None = None) -> dict:
  """Bytes that live through a step, and each program's bytes, collectives and compile time.

  Args:
    shape: of the model; None: the published one of the case's name.
  """
  config, shape = case.config(), shape or PUBLISHED[case.model]
  layout = make_layout(**config.mesh, devices=devices_of(case.topology_name))
  check_divisible(shape, layout)
  model = Qwen3(shape, layout, dtype=np.dtype(config.model.dtype), remat=config.model.remat)
  optimizer = optimizer_of(config)
  state = abstract_state(abstract_params(model), optimizer, layout)
  how = jax.eval_shape(lambda: decoding(1.0, 0, 1.0, shape.vocab_size))
  replay = make_replay(config, layout)

  sampler, update = make_sampler(config, model), make_update(config, model, optimizer)
  prompt, longest = bucket(case.prompt_tokens), bucket(case.row_tokens)
  lowered = sampler.lower(state.params, how, prompt_length=prompt, length=longest)
  rollouts = config.rollout.problems * config.rollout.samples
  fresh, old = (rows_of(case, layout, n) for n in (rollouts, rollouts // 2))
  lowered |= update.lower(state, None, fresh, old, how)
  lowered |= replay_programs(replay, fresh)
  return {
    "case": dataclasses.asdict(case),
    "layers": shape.num_hidden_layers,
    "resident": {
      "parameters": bytes_per_device(state.params),
      "optimizer": bytes_per_device(state.opt_state),
      "gradients": bytes_per_device(state.params),
      "replay store": bytes_per_device(replay.abstract()),
      "sampling weights": bytes_per_device(sampler.prepared),
    },
    "programs": {name: compiled(name, program) for name, program in lowered.items()},
  }


def rows_of(case: Case, layout: Layout, rows: int) -> Rollouts:
  """Rollouts as they reach the update."""

  def split(leaf):
    sharding = layout.sharding("batch", *(None for _ in leaf.shape[1:]))
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  return jax.tree.map(split, abstract_rollouts(rows, case.row_tokens))


def replay_programs(replay: Replay, fresh: Rollouts) -> dict[str, jax.stages.Lowered]:
  store, key = replay.abstract(), jax.eval_shape(lambda: jax.random.key(0))
  return {
    "replay add": replay.add.lower(store, fresh),
    "replay draw": replay.draw.lower(store, key, 1, 0.5),
  }


def compiled(name: str, lowered: jax.stages.Lowered) -> dict:
  """Bytes on one chip, collectives, and the seconds it took; what is wrong where it takes more
  than a chip has."""
  started = time.perf_counter()
  try:
    program = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    return {"too_large": str(error)}
  seconds = time.perf_counter() - started
  seen = program.memory_analysis()
  print(f"  {name}: {seconds:.0f} s", flush=True)
  arguments, code = seen.argument_size_in_bytes, seen.generated_code_size_in_bytes
  results = seen.output_size_in_bytes - seen.alias_size_in_bytes
  return {
    "seconds": seconds,
    "arguments": arguments,
    "results": results,
    "code": code,
    # Not temp_size_in_bytes, which adds up what never lives together: by it programs would not fit
    # that the compiler, which refuses what does not, lets through.
    "temporaries": max(0, seen.peak_memory_in_bytes - arguments - results - code),
    "collectives": [
      dataclasses.asdict(found) for found in summed(collectives(program.as_text()))
    ],
  }
