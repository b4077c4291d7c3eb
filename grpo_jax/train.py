"""START HERE. GRPO with rollout replay: set up, then the loop.

  python -m grpo_jax.train --config=configs/quickstart.py --workdir=runs/first

A step samples answers to some problems, verifies them, draws old rollouts from the replay store and
updates the model. Everything a run writes is in its folder; the same command goes on where it
stopped. Only this file, profile_prompts.py, check.py, build.py and slots.py see the config: below
them, functions take values.
"""

import dataclasses
import pathlib
import sys
import time

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from grpo_jax import backend, cli, hosts
from grpo_jax.agreement import require_agreement
from grpo_jax.buckets import bucket
from grpo_jax.build import Parts, build, load_task, make_judges, make_model, start_folder
from grpo_jax.check import check
from grpo_jax.collect import Fresh, rollout_entries
from grpo_jax.errors import UserError
from grpo_jax.guards import SECOND_GRADER
from grpo_jax.learner.state import TrainState, abstract_state, create_state
from grpo_jax.methods.decide import DecisionState
from grpo_jax.methods.profile import Profile
from grpo_jax.model.lora import abstract_trained, init_adapters, merged_policy, policy_params
from grpo_jax.model.qwen3 import Params, abstract_params
from grpo_jax.model.sharding import bytes_per_device, memory_of_device, most_held
from grpo_jax.model.weights import export_folder, load_params
from grpo_jax.randomness import Purpose, generator_for, key_for
from grpo_jax.replay.buffer import Buffer
from grpo_jax.run.alarms import Alarms
from grpo_jax.run.checkpoint import Checkpoints
from grpo_jax.run.config_record import Differences, difference_sentence, differences, write_method
from grpo_jax.run.cost import CostMeter
from grpo_jax.run.curves import draw_curves
from grpo_jax.run.folder import RunFolder, open_run
from grpo_jax.run.human import human_count, human_duration
from grpo_jax.run.memory import check_memory
from grpo_jax.run.metrics import MetricsLog, SilentLog, read_metrics
from grpo_jax.run.progress import Progress
from grpo_jax.run.rollout_log import write_rollouts
from grpo_jax.run.stop import Stop, StopRequested
from grpo_jax.run.summary import batch_sentence, memory_sentence, short_memory_warning
from grpo_jax.run.watchdog import Watchdog
from grpo_jax.sampling.memory import sampling_memory
from grpo_jax.task import Task
from grpo_jax.verify import VerifierPool

# A run may be prolonged, saved more often or made to say more; any other change is another run.
MAY_CHANGE = frozenset({"steps", "log", "checkpoint", "verifier", "audit"})


def train(config: ConfigDict, workdir: str) -> None:
  """Runs `config` in the folder `workdir`, from its last checkpoint if there is one."""
  layout = check(config)
  task = load_task(config)
  model = make_model(config, task, layout)
  settings = config.to_dict()
  del settings["grpo"]
  with (
    make_judges(config, task) as judges,  # first: without them nothing is to be left behind
    open_run(workdir, settings, MAY_CHANGE, " ".join(sys.argv)) as run,
  ):
    require_agreement(settings, task, run)
    changes = changes_of_grpo(config, settings)
    if hosts.is_first():
      write_method(run.method, config.method, changes)
    folder = start_folder(config, task, model, run)
    deadline = config.verifier.deadline_seconds
    with (
      VerifierPool(1, deadline, check=SECOND_GRADER) as second,
      open_checkpoints(config, run) as checkpoints,
    ):
      stop = Stop(config.checkpoint.deadline_seconds)
      parts = build(config, task, model, folder, judges, second, stop.check)
      introduce(config, task, parts, changes)
      snapshot = begin_or_resume(config, task, parts, folder, checkpoints)
      with stop:
        snapshot = loop(config, task, parts, snapshot, run, checkpoints, stop)
        save(checkpoints, snapshot, task, parts)  # if it was stopped; else it is saved already
        checkpoints.wait()
    if snapshot.step < config.steps:
      print(f"Stopped and saved after step {snapshot.step}; the same command goes on from there.")
      return
    policy = merged_policy(snapshot.state.params, parts.reference, parts.lora)
    export_folder(run.export, policy, folder)
    if hosts.is_first():
      conclude(run)
    hosts.wait_for_all()


def loop(
  config: ConfigDict,
  task: Task,
  parts: Parts,
  start: "Snapshot",
  run: RunFolder,
  checkpoints: Checkpoints,
  stop: Stop,
) -> "Snapshot":
  """All remaining steps, or those until it is told to stop. Row `step` of the metrics tells of the
  policy after that many updates."""
  snapshot = start
  state, buffer, cost, deciding = start.state, start.buffer, start.cost, start.deciding
  prepared = prepare(parts, state)
  log = open_log(config, run, start.step)
  alarms = Alarms(
    mismatch=config.log.mismatch_alarm,
    audit=config.audit.alarm,
    stuck_steps=config.log.stuck_steps,
    max_bad_steps=config.log.max_bad_steps,
  )
  alarms.remember(rows_of_steps(run, start.step))
  watchdog = Watchdog(config.log.stall_seconds, run.stacks(jax.process_index()))
  with log, watchdog, Progress(config.steps, start.step) as progress:
    if start.step == 0:
      exam = parts.exam(prepared)
      log.write(0, exam | cost.as_metrics())
      progress.say(f"Before training: accuracy {exam['eval/accuracy']:.1%} on held-out problems.")

    for step in range(start.step + 1, config.steps + 1):
      if stop.requested_anywhere():
        break
      started = time.perf_counter()
      key = key_for(config.seed, Purpose.ROLLOUT, step)
      try:
        fresh, deciding = parts.collect(prepared, deciding, key, step)
      except StopRequested:
        break  # so far, nothing of the step before has been overwritten
      key = key_for(config.seed, Purpose.REPLAY, step)
      buffer, learned, replayed, of_replay = parts.recall(buffer, fresh, key, step)
      shuffle = generator_for(config.seed, Purpose.MINIBATCHES, step)
      del prepared  # the update may have the memory of the sampling weights
      updating = time.perf_counter()
      state, of_update = parts.update(
        state, parts.reference, learned, replayed, parts.how, shuffle
      )
      metrics = fresh.metrics | of_replay | of_update
      metrics |= fresh.audit.metrics() if fresh.audit else {}
      metrics["perf/update_seconds"] = time.perf_counter() - updating
      prepared = prepare(parts, state)
      if most := most_held(parts.model.layout):
        metrics["perf/most_memory_bytes"] = most

      # Costs are state of the run: by one clock.
      metrics["perf/step_seconds"] = hosts.of_first(time.perf_counter() - started)
      cost = add_cost(cost, parts, fresh, metrics)
      if is_time(step, config.eval.every, config.steps):
        metrics |= parts.exam(prepared)
      deciding, opened = parts.collect.decide.passed(deciding, step, metrics)
      if opened:
        progress.say(f"Step {step}: the next stage begins, with {opened:,} problems.")
      log.write(step, metrics | cost.as_metrics())
      show(progress, alarms, step, metrics, fresh.nonfinite)
      shows = step == 1 or is_time(step, config.log.rollouts_every, config.steps)
      if shows and hosts.is_first():
        entries = rollout_entries(fresh, task.training.problems, config.log.groups)
        write_rollouts(run.rollouts, step, entries)
      snapshot = Snapshot(step, state, buffer, cost, deciding)
      if is_time(step, config.checkpoint.every, config.steps):
        log.sync()
        save(checkpoints, snapshot, task, parts, metrics.get("eval/accuracy"))
        if hosts.is_first():
          draw_curves(run.metrics, run.curves, title(config))
      watchdog.beat()
  return snapshot


# ------------------------------------------------------------------------------ state of a run


@dataclasses.dataclass(frozen=True)
class Snapshot:
  """Everything that is state after `step` steps: saved together, restored together."""

  step: int
  state: TrainState
  buffer: Buffer | None
  cost: CostMeter
  deciding: DecisionState  # the data cursor, and all evidence on problems

  def arrays(self) -> dict:
    return {"state": self.state, "replay": self.buffer}

  def host(self, task: Task, parts: Parts) -> dict:
    of_adapters = {"start": parts.start} if parts.lora else {}
    of_profile = {"profile": identity(parts.profile)} if parts.profile else {}
    return of_adapters | of_profile | {
      "cost": self.cost.to_dict(),
      "deciding": self.deciding.to_dict(),
      "problems": task.training.problems.fingerprint,
    }


def open_log(config: ConfigDict, run: RunFolder, step: int) -> MetricsLog | SilentLog:
  """The record of a run that has done `step` steps."""
  if not hosts.is_first():
    return SilentLog()
  return MetricsLog(
    run.metrics,
    run.tensorboard if config.log.tensorboard else None,
    start_step=step + 1 if step else 0,
  )


def rows_of_steps(run: RunFolder, done: int) -> list[dict]:
  """The record of the steps that a run has done."""
  return [row for row in read_metrics(run.metrics) if 0 < row["step"] <= done] if done else []


def open_checkpoints(config: ConfigDict, run: RunFolder) -> Checkpoints:
  return Checkpoints(
    run.checkpoints,
    config.checkpoint.keep,
    keep_best=config.checkpoint.keep_best,
    keep_every=config.checkpoint.keep_every,
    run=run.identity,
  )


def save(
  checkpoints: Checkpoints,
  snapshot: Snapshot,
  task: Task,
  parts: Parts,
  accuracy: float | None = None,
) -> None:
  checkpoints.save(snapshot.step, snapshot.arrays(), snapshot.host(task, parts), accuracy)


def begin_or_resume(
  config: ConfigDict, task: Task, parts: Parts, folder: pathlib.Path, checkpoints: Checkpoints
) -> Snapshot:
  """The state of the newest checkpoint, or that of the start policy.

  Raises:
    UserError: the checkpoint was made with other training problems or beside other weights, or does
      not fit this config.
  """
  params, replay = abstract_trained(abstract_params(parts.model), parts.lora), parts.recall.replay
  if checkpoints.latest_step() is None:
    first = first_params(config, parts, folder, params)
    state = create_state(first, parts.optimizer, parts.model.layout)
    buffer = replay.create() if replay else None
    deciding = parts.collect.decide.start(len(task.training.prompts))
    return Snapshot(0, state, buffer, first_cost(parts), deciding)
  state = abstract_state(params, parts.optimizer, parts.model.layout)
  buffer = replay.abstract() if replay else None
  step, arrays, host = checkpoints.restore({"state": state, "replay": buffer})
  if host["problems"] != task.training.problems.fingerprint:
    raise UserError(
      f"the training problems ({task.training.problems.name}) are not those of the checkpoint of "
      f"step {step}: the data files changed; restore them or choose another --workdir"
    )
  if host.get("start", "") != parts.start:
    raise UserError(
      f"the weights in {folder} are not those whose adapters the checkpoint of step {step} holds: "
      "restore them or choose another --workdir"
    )
  if host.get("profile", "") != identity(parts.profile):
    raise UserError(
      f"config.easy_to_hard.profile {config.easy_to_hard.profile} is not the file that the "
      f"checkpoint of step {step} was planned by: restore it or choose another --workdir"
    )
  print(f"Going on from the checkpoint of step {step}.")
  cost = CostMeter.from_dict(host["cost"])
  deciding = DecisionState.from_dict(host["deciding"])
  return Snapshot(step, arrays["state"], arrays["replay"], cost, deciding)


def first_params(
  config: ConfigDict, parts: Parts, folder: pathlib.Path, abstract: Params
) -> Params:
  """What is trained, before the first step."""
  if parts.lora:
    return init_adapters(abstract, key_for(config.seed, Purpose.INIT))
  return load_params(folder, abstract)


def first_cost(parts: Parts) -> CostMeter:
  """What it took to plan the run."""
  if parts.profile is None:
    return CostMeter()
  return CostMeter().profiled(
    parameters=parts.model.config.num_params,
    rollouts=parts.profile.samples * len(parts.collect.prompts),
    prompt_tokens=parts.profile.prompt_tokens,
    generated_tokens=parts.profile.generated_tokens,
  )


def identity(profile: Profile | None) -> str:
  return profile.identity if profile else ""


# ------------------------------------------------------------------------------ small verbs


def prepare(parts: Parts, state: TrainState) -> Params:
  """The policy as the sampler takes it."""
  return parts.sampler.prepare(policy_params(state.params, parts.reference, parts.lora))


def add_cost(
  cost: CostMeter, parts: Parts, fresh: Fresh, metrics: dict[str, float]
) -> CostMeter:
  """What this step's sampling, training and time add."""
  parameters = parts.model.config.num_params
  answers = fresh.answers
  first_of_group = np.unique(answers.group_R, return_index=True)[1]
  cost = cost.sampled(
    parameters=parameters,
    rollouts=len(answers.texts),
    prompt_tokens=answers.samples.prompt_len_R[first_of_group].sum(),
    generated_tokens=answers.samples.completion_len_R.sum(),
    probe_tokens=fresh.probe_tokens,
  )
  cost = cost.trained(
    parameters=parameters,
    trained_tokens=metrics["train/row_tokens_fresh"] + metrics["train/row_tokens_replay"],
    replayed_tokens=metrics["train/row_tokens_replay"],
  )
  return cost.elapsed(seconds=metrics["perf/step_seconds"], devices=parts.model.layout.mesh.size)


def show(
  progress: Progress, alarms: Alarms, step: int, metrics: dict[str, float], nonfinite: str
) -> None:
  for text in alarms.begun(metrics):
    progress.say(f"ALARM at step {step}: {text}.")
  if nonfinite:
    progress.say(f"Step {step}: no finite logits in {nonfinite}.")
  alarms.stop_if_hopeless(step)
  progress.update(
    step - 1,
    reward=metrics["reward/mean"],
    accuracy=metrics.get("eval/accuracy"),
    tokens_per_s=metrics["perf/tokens_per_second"],
  )


def is_time(step: int, every: int, last: int) -> bool:
  return step % every == 0 or step == last


def title(config: ConfigDict) -> str:
  return f"{config.method} on {config.data.source}, seed {config.seed}"


def changes_of_grpo(config: ConfigDict, settings: dict) -> Differences:
  """By key, what plain GRPO has and what this run has: by its method's rows, or set by hand. Where
  nothing is replayed, what only replay reads is no difference."""
  replays = bool(config.replay.ratio)
  grpo = {key: value for key, value in config.grpo if replays or not key.startswith("replay.")}
  return differences(settings, grpo)


def introduce(config: ConfigDict, task: Task, parts: Parts, changes: Differences) -> None:
  """Says in a few plain sentences what this run is."""
  shape, layout = parts.model.config, parts.model.layout
  kind = jax.devices()[0].platform
  print(
    f"Qwen3 of {human_count(shape.num_params)} parameters ({shape.num_hidden_layers} layers, "
    f"hidden {shape.hidden_size}) on {layout.mesh.size} {kind} device(s); method {config.method}."
  )
  if changes:
    print(f"What differs from plain GRPO: {difference_sentence(changes)}.")
  held_out = [("held out", prompts) for prompts in task.examined().values()]
  for name, prompts in (("to learn from", task.training), *held_out):
    dropped = f", {prompts.dropped:,} longer ones dropped" if prompts.dropped else ""
    print(
      f"{len(prompts.prompts):,} problems {name} ({prompts.problems.name}, prompts of at most "
      f"{config.data.max_prompt_tokens} tokens{dropped})."
    )
  replayed = round(config.replay.ratio * config.rollout.problems * config.rollout.samples)
  print(
    batch_sentence(
      problems=config.rollout.problems,
      samples=config.rollout.samples,
      replayed=replayed,
      optimizer_steps=config.optimizer.epochs * config.optimizer.minibatches,
      microbatch_tokens=config.optimizer.microbatch_tokens,
    )
  )
  if config.replay.ratio and config.replay.problems == "asked":
    warning = short_memory_warning(
      training_problems=len(task.training.prompts),
      problems=config.rollout.problems,
      samples=config.rollout.samples,
      capacity=config.replay.capacity,
      max_age=config.replay.max_age,
    )
    if warning:
      print(warning)
  print(memory_sentence(*memory(config, parts)))


def memory(config: ConfigDict, parts: Parts) -> tuple[dict[str, int], dict[str, str]]:
  """Bytes on each device of what lives through a step, and a note on some of them.

  Raises:
    UserError: more than a device has.
  """
  params = abstract_trained(abstract_params(parts.model), parts.lora)
  state = abstract_state(params, parts.optimizer, parts.model.layout)
  slots = config.rollout.slots
  length = bucket(config.data.max_prompt_tokens + config.rollout.max_new_tokens)
  sizes = {
    "adapters" if parts.lora else "parameters": bytes_per_device(params),
    "optimizer": bytes_per_device(state.opt_state),
    "gradients": bytes_per_device(params),
  }
  sizes |= sampling_memory(parts.model, parts.sampler, slots=slots, length=length)
  notes = {"KV cache": f"{slots:,} slots x at most {length:,} tokens"}
  if parts.reference is not None:
    name = "frozen parameters" if parts.lora else "KL reference"
    sizes[name] = bytes_per_device(parts.reference)
  if parts.recall.replay is not None:
    sizes["replay store"] = bytes_per_device(parts.recall.replay.abstract())
    notes["replay store"] = f"{config.replay.capacity:,} rollouts"
  layout = parts.model.layout
  check_memory(
    sizes,
    limit=memory_of_device(layout),
    slots=slots,
    length=length,
    multiple=layout.batch_shards,
    key="rollout.slots",
  )
  return sizes, notes


def conclude(run: RunFolder) -> None:
  """The last lines: what was learned and where to look."""
  rows = read_metrics(run.metrics)
  exams = [row for row in rows if "eval/accuracy" in row]
  first, last = exams[0], exams[-1]
  print(
    f"Accuracy on held-out problems: {first['eval/accuracy']:.1%} before, "
    f"{last['eval/accuracy']:.1%} after {last['step']} steps "
    f"({human_count(last['cost/rollouts'])} rollouts, "
    f"{human_count(last['cost/generated_tokens'])} tokens generated, "
    f"{human_count(last['cost/trained_tokens'])} trained on, "
    f"{human_duration(last['cost/device_seconds'])} of device time)."
  )
  print(f"Curves: {run.curves}   rollouts to read: {run.rollouts}")
  print(f"Every number: {run.metrics}   model for transformers: {run.export}")


# ------------------------------------------------------------------------------ command line

def config_of_command() -> tuple[ConfigDict, pathlib.Path]:
  """Reads the command line: the config, and the file it comes from. A command's own flags are
  defined before."""
  config_flags.DEFINE_config_file(
    "config", None, "A file of configs/; any key of it: --config.section.key=value."
  )
  cli.parse()
  if not flags.FLAGS["config"].present:
    raise UserError("--config is missing; try --config=configs/quickstart.py")
  file = config_flags.get_config_filename(flags.FLAGS["config"])
  path = pathlib.Path(file.partition(":")[0])
  if not path.is_file():
    raise UserError(f"--config={path}: no such file; try --config=configs/quickstart.py")
  backend.configure()
  return flags.FLAGS.config, path


def main() -> None:
  workdir = flags.DEFINE_string(
    "workdir", "", "The run's folder; default: runs/ and the config file's name."
  )
  join = hosts.define_flags()
  config, path = config_of_command()
  join()
  train(config, workdir.value or f"runs/{path.stem}")


if __name__ == "__main__":
  cli.run(main, when_stopped="stopped; the same command goes on from the last checkpoint")
