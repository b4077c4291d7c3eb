"""Question: how fast does an accelerator take optimizer steps of Qwen3, and in how much memory?

  python experiments/bench_accelerator.py                   # 0.6B, 1.7B and 4B; minutes on one GPU
  python experiments/bench_accelerator.py --only=qwen3_0p6b # some of them; the others are kept
  python experiments/bench_accelerator.py --quick           # a tiny model anywhere, nothing is kept
  python experiments/bench_accelerator.py --render          # the table again, from what is kept

Random weights, PPO-clip, AdamW. All programs are compiled first, side by side, and their memory is
asked of the compiler; then one after the other is run, and told of if it does not fit. Writes
experiments/results/accelerator.{json,md}. Cases are in contenders/accelerator_cases.py.
"""

import argparse
import concurrent.futures
import json
import pathlib
import time

import jax
import numpy as np
from contenders import accelerator_report
from contenders.accelerator_cases import CASES, QUICK, Case, batch_of
from contenders.machine import describe
from contenders.ours_update import PPO_CLIP, rollouts
from contenders.update_work import ADAMW, MAX_GRAD_NORM
from contenders.xla import product_flops

from grpo_jax import backend
from grpo_jax.distribution import decoding
from grpo_jax.learner.optimizer import make_optimizer
from grpo_jax.learner.state import TrainState, abstract_state, create_state
from grpo_jax.learner.update import Update
from grpo_jax.model.qwen3 import Qwen3, abstract_params, init_params
from grpo_jax.model.sharding import bytes_per_device, make_layout, memory_of_device
from grpo_jax.randomness import Purpose, key_for
from grpo_jax.records import Rollouts

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
KEPT = RESULTS / "accelerator.json"
COMPILERS = 6  # programs compiled side by side
LARGE_PRODUCT = (8192, 8192, 8192)


def main() -> None:
  options = parse()
  if options.render:
    keep(json.loads(KEPT.read_text()))
    return
  backend.configure()
  cases = QUICK if options.quick else [case for case in CASES if case.model in options.only]
  kept = {"cases": {}} if options.quick or not KEPT.exists() else json.loads(KEPT.read_text())
  device = jax.devices()[0]
  product = (256, 256, 256) if options.quick else LARGE_PRODUCT
  about = {
    "device": device.device_kind,
    "memory": memory_of_device(make_layout(devices=[device])),
    "product_flops": product_flops(product, "bfloat16"),
    "machine": describe(),
    "jax": jax.__version__,
  }
  print(f"{about['device']}: {about['product_flops'] / 1e12:.0f} Tflop/s in products", flush=True)
  benches = [Bench(case) for case in cases]
  with concurrent.futures.ThreadPoolExecutor(COMPILERS) as pool:
    list(pool.map(Bench.compile, benches))
  state = None
  for before, bench in zip([None, *benches], benches, strict=False):
    if state is None or not before.shares_state(bench):
      del state  # its memory is needed for the next
      state = bench.start()
    found, state = bench.run(state)
    found |= about
    kept["cases"][bench.case.key] = found
    print(accelerator_report.sentence(bench.case.key, found), flush=True)
    if not options.quick:
      keep(kept)
  print(accelerator_report.render(kept))


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--quick", action="store_true", help="a tiny model, nothing kept")
  parser.add_argument("--render", action="store_true", help="only write the table again")
  models = list(dict.fromkeys(case.model for case in CASES))
  parser.add_argument("--only", help=f"some of {','.join(models)}")
  options = parser.parse_args()
  options.only = options.only.split(",") if options.only else models
  unknown = sorted(set(options.only) - set(models))
  if unknown:
    parser.error(f"--only: no model {', '.join(unknown)}; known: {', '.join(models)}")
  return options


class Bench:
  """One case, on the first device."""

  def __init__(self, case: Case):
    self.case = case
    layout = make_layout(devices=jax.devices()[:1])
    self._model = Qwen3(case.shape, layout, dtype=np.dtype("bfloat16"), remat=case.remat)
    self._optimizer = make_optimizer(
      **ADAMW, warmup_steps=0, max_grad_norm=MAX_GRAD_NORM, momentum_dtype=case.momentum_dtype
    )
    self._update = Update(
      self._model,
      self._optimizer,
      PPO_CLIP,
      microbatch_tokens=case.microbatch_tokens,
      max_completion_tokens=case.longest,
    )
    self._how = decoding(1.0, 0, 1.0, case.shape.vocab_size)
    self._peak: int | None = None

  def compile(self) -> None:
    """Fills the cache of compiled programs with the gradient's, and asks what memory it takes."""
    state, fresh = self._abstract()
    lengths_R = np.array(self.case.row_tokens)
    programs = self._update.lower(state, None, fresh, None, self._how, length_R=lengths_R)
    del programs["assemble"]
    peaks = {
      name: lowered.compile().memory_analysis().peak_memory_in_bytes
      for name, lowered in programs.items()
    }
    # Gradients are formed beside the moments, which they do not take.
    moments = bytes_per_device(state.opt_state)
    self._peak = max(peaks.pop("apply"), max(peaks.values()) + moments)

  def shares_state(self, other: "Bench") -> bool:
    return (self.case.model, self.case.momentum_dtype) == (
      other.case.model, other.case.momentum_dtype
    )  # fmt: skip

  def start(self) -> TrainState:
    params = init_params(self._model, key_for(0, Purpose.INIT))
    return jax.block_until_ready(create_state(params, self._optimizer, self._model.layout))

  def run(self, state: TrainState) -> tuple[dict, TrainState | None]:
    """Seconds of each step after the first, and the most memory by the compiler's count; and the
    state, which is lost where a step does not fit."""
    found = {"peak_bytes": self._peak, "first": None, "rounds": []}
    try:
      for turn in range(self.case.rounds + 1):
        fresh = rollouts(batch_of(self.case, turn))
        started = time.perf_counter()
        state, found["loss"] = self._step(state, fresh)
        seconds = time.perf_counter() - started
        if turn:
          found["rounds"].append(seconds)
        else:
          found["first"] = seconds
    except jax.errors.JaxRuntimeError as error:
      if "RESOURCE_EXHAUSTED" not in str(error):
        raise
      found["rounds"], state = [], None
    return found, state

  def _step(self, state: TrainState, fresh: Rollouts) -> tuple[TrainState, float]:
    shuffle = np.random.default_rng(0)
    state, metrics = self._update(state, None, fresh, None, self._how, shuffle)
    return jax.block_until_ready(state), metrics["train/loss"]

  def _abstract(self) -> tuple[TrainState, Rollouts]:
    model = self._model
    state = abstract_state(abstract_params(model), self._optimizer, model.layout)
    as_shape = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    return state, jax.tree.map(as_shape, rollouts(batch_of(self.case, 0)))


def keep(kept: dict) -> None:
  """Writes what is known so far."""
  RESULTS.mkdir(parents=True, exist_ok=True)
  KEPT.write_text(json.dumps(kept, indent=1) + "\n")
  (RESULTS / "accelerator.md").write_text(accelerator_report.render(kept))


if __name__ == "__main__":
  main()
