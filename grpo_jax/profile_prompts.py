"""How often does the policy a run starts from solve each of its training problems?

  python -m grpo_jax.profile_prompts --config=configs/quickstart.py --out=profile.json
  python -m grpo_jax.train --config=configs/quickstart.py --config.select=easy_to_hard \\
      --config.easy_to_hard.profile=profile.json

Problems, prompts, start weights and limits of length are the run's own: the same flags after
--config make the same ones. Samples are drawn at temperature 1, without filters (arXiv 2606.08854
names no temperature). Each is on the disk, in the folder profile.samples, as soon as it is judged;
after a kill the same command goes on where it stopped, and the file comes out the same.
"""

import contextlib
import pathlib
import sys

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from grpo_jax import cli, hosts
from grpo_jax.build import load_task, make_judges, make_model, make_sampler, start_folder
from grpo_jax.check import check
from grpo_jax.distribution import decoding
from grpo_jax.errors import UserError
from grpo_jax.evaluate import still_to_draw, write_judged
from grpo_jax.evaluation.samples import SampleLog, read_samples
from grpo_jax.evaluation.scores import Scores, tally
from grpo_jax.exam import Examiner
from grpo_jax.methods.profile import profile_text
from grpo_jax.model.qwen3 import Qwen3
from grpo_jax.randomness import Purpose
from grpo_jax.run.files import write_atomically
from grpo_jax.run.folder import RunFolder, open_run
from grpo_jax.run.human import human_count
from grpo_jax.sample import load
from grpo_jax.slots import measured_on
from grpo_jax.task import Prompts, Task
from grpo_jax.train import config_of_command


def profile_prompts(config: ConfigDict, out: str, samples: int) -> None:
  """Draws what is missing of `samples` samples a training problem; writes the file `out`.

  Raises:
    UserError: anything wrong with the config or the flags.
  """
  if not out.endswith(".json") or samples < 1:
    raise UserError(f"--out={out} --samples={samples}: a file *.json and at least 1")
  path = pathlib.Path(out).expanduser()
  config.easy_to_hard.profile = out  # a config that needs the file is the one to make it with
  layout = check(config)
  task = load_task(config)
  model = make_model(config, task, layout)
  with open_samples(path.with_suffix(".samples"), config, task) as run:
    folder = start_folder(config, task, model, run)
    samples_file = run.path / "samples.jsonl"
    draw(config, task, model, folder, samples, samples_file)
    if hosts.is_first():
      problems = [prompt.problem for prompt in task.training.prompts]
      scores = tally(read_samples(samples_file), problems, samples)
      write_atomically(path, profile_of(measured_on(config, task, folder), task.training, scores))
      print(f"{told(scores)}\nThe profile: {path}   every sample: {samples_file}")
    hosts.wait_for_all()


def open_samples(path: pathlib.Path, config: ConfigDict, task: Task) -> RunFolder:
  """The folder of the samples; it belongs to one policy and one set of problems for life."""
  whole = config.to_dict()
  kept = ("seed", "model", "tokenizer", "warm_start", "data", "more")
  settings = {key: whole[key] for key in kept}
  settings |= {
    "problems": task.training.problems.fingerprint,
    "max_new_tokens": config.rollout.max_new_tokens,
  }
  try:
    return open_run(path, settings, command=" ".join(sys.argv))
  except UserError as error:
    # The folder of a run is --workdir elsewhere.
    raise UserError(str(error).replace("--workdir", "--out")) from error


def draw(
  config: ConfigDict,
  task: Task,
  model: Qwen3,
  folder: pathlib.Path,
  samples: int,
  samples_file: pathlib.Path,
) -> None:
  """Adds to the file what is missing in it."""
  prompts, first = task.training.prompts, hosts.is_first()
  with SampleLog(samples_file) if first else contextlib.nullcontext() as log:
    asked, done = hosts.of_first(still_to_draw(samples_file, prompts, samples) if first else None)
    if not asked:
      return
    sampler = make_sampler(config, model)
    prepared = load(folder, model, sampler)
    with make_judges(config, task) as judges:
      examiner = Examiner(
        sampler,
        task.tokenizer,
        judges,
        task.training.problems,
        max_new_tokens=config.rollout.max_new_tokens,
      )
      how = decoding(1.0, 0, 1.0, task.tokenizer.size)
      judged = examiner(
        prepared, prompts, asked, seed=config.seed, how=how, purpose=Purpose.PROFILE
      )
      write_judged(judged, log, done=done, total=done + len(asked))


def profile_of(measured: dict, training: Prompts, scores: Scores) -> str:
  """The file of these samples. A problem whose prompt is too long was not asked: it has no right
  sample. Each prompt counts once, as if no kill had come between its samples."""
  right_P = np.zeros(len(training.problems), int)
  right_P[[prompt.problem for prompt in training.prompts]] = scores.right_NS.sum(axis=1)
  return profile_text(
    measured,
    samples=scores.right_NS.shape[1],
    rights=right_P.tolist(),
    prompt_tokens=sum(len(prompt.tokens) for prompt in training.prompts),
    generated_tokens=int(scores.length_NS.sum()),
  )


def told(scores: Scores) -> str:
  share_N = scores.right_NS.mean(axis=1)
  return (
    f"{len(share_N):,} problems: {np.mean(share_N == 0):.1%} never solved, "
    f"{np.mean(share_N == 1):.1%} always, {share_N.mean():.1%} of all samples right "
    f"({human_count(scores.length_NS.sum())} tokens generated)."
  )


# ------------------------------------------------------------------------------ command line


def main() -> None:
  out = flags.DEFINE_string("out", "", "The file to write, *.json.")
  samples = flags.DEFINE_integer("samples", 8, "Of each problem.")
  join = hosts.define_flags()
  config, _ = config_of_command()
  join()
  profile_prompts(config, out.value, samples.value)


if __name__ == "__main__":
  cli.run(main, when_stopped="stopped; the same command goes on where it stopped")
