"""What is done to a run, each from its own folder; in the end it must be the unbroken run."""

import contextlib
import dataclasses
import os
import pathlib
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

from experiments.chaos.runs import (
  ROLLOUTS,
  Ended,
  command,
  differences,
  environment,
  rows,
  run,
  start,
)

STEPS = 12


@dataclasses.dataclass(frozen=True)
class Outcome:
  """A line of the tally: what was done, how often, what came of it, and whether that is right."""

  done: str
  times: int
  came: str
  right: bool


def unbroken(folder: pathlib.Path, steps: int) -> Ended:
  return _require(run(command(folder, steps)), 0)


def killed_in_each_phase(work: pathlib.Path, wanted: pathlib.Path) -> list[Outcome]:
  """One run, killed in one phase after the other, each a step further on."""
  folder, outcomes = work / "phases", []
  moments = {
    "start_folder": 0, "sample": 1, "verify": 2, "update": 3, "replay_add": 3, "exam": 4,
    "metrics_row": 5, "checkpoint_write": 6, "before_manifest": 6, "in_manifest": 8,
    "before_rename": 8, "removal": 9, "export": STEPS,
  }  # fmt: skip
  for name, step in moments.items():
    ended = run(command(folder, STEPS, f"{name}@{step}", "--config.checkpoint.keep=1"))
    died = ended.code == -signal.SIGKILL
    outcomes.append(Outcome(f"SIGKILL: {name}, step {step}", 1, _told(ended), died))
  return [*outcomes, _finished(folder, wanted, "all of these in one run")]


def killed_at_random(
  work: pathlib.Path, wanted: pathlib.Path, steps: int, kills: int, seed: int = 0
) -> list[Outcome]:
  """One run, killed at moments that nobody chose; and then to its end."""
  folder, chance = work / "random", random.Random(seed)
  alive, at = 0, []
  while len(at) < kills:
    process = start(command(folder, steps))
    with _reaped(process):
      if chance.random() < 0.2:
        time.sleep(chance.uniform(0, 8))  # somewhere in the start
      else:
        _wait_for(process, f"/{steps}  ")
        more = chance.randint(0, 2 * steps // kills)
        _wait_for_row(process, folder, min(steps, _progress(folder)[0] + more))
        time.sleep(chance.uniform(0, 0.3))
      alive += process.poll() is None
      process.kill()
      process.communicate()
    at.append(_progress(folder))
    if at[-1][1] == steps:
      break
  came = "steps in the metrics and in the newest checkpoint at death: " + ", ".join(
    f"{row}/{saved}" for row, saved in at
  )
  line = Outcome("SIGKILL at a random moment", len(at), came, alive == len(at) >= kills)
  return [line, _finished(folder, wanted, "all of these in one run", steps)]


def asked_to_stop(work: pathlib.Path, wanted: pathlib.Path) -> list[Outcome]:
  """SIGTERM and Ctrl-C once: saved, exit code 0. Twice, or too late: at once, and nothing lost."""
  folder, outcomes = work / "stopped", []
  soon = "--config.checkpoint.deadline_seconds=1"
  cases = [
    ("SIGTERM", [signal.SIGTERM], 0, ""),
    ("SIGINT", [signal.SIGINT], 0, ""),
    ("SIGTERM twice in a step that hangs", [signal.SIGTERM] * 2, 143, "hang@9"),
    ("SIGTERM in a step that hangs, deadline 1 s", [signal.SIGTERM], 1, "hang@9"),
    ("SIGTERM", [signal.SIGTERM], 0, ""),
  ]
  for name, signals, code, fault in cases:
    more = [soon] if "deadline" in name else []
    process = start(command(folder, STEPS, fault, *more))
    with _reaped(process):
      _wait_for(process, "hanging" if fault else f"/{STEPS}  ")
      began = time.monotonic()
      for number in signals:
        process.send_signal(number)
        time.sleep(0.2)
      stdout, stderr = process.communicate(timeout=120)
    seconds = time.monotonic() - began
    ended = Ended(process.returncode, stdout, stderr)
    came = f"{_told(ended)} after {seconds:.1f} s; {_last_line(ended)}"
    outcomes.append(Outcome(name, 1, came, ended.code == code))
  return [*outcomes, _finished(folder, wanted, "all of these in one run")]


def verifier_workers(work: pathlib.Path, wanted: pathlib.Path) -> list[Outcome]:
  """Workers die, and workers stop answering."""
  folder = work / "killed-workers"
  with _attacked(command(folder, STEPS), signal.SIGKILL) as (process, hits):
    stdout, stderr = process.communicate(timeout=600)
  ended = Ended(process.returncode, stdout, stderr)
  equal = differences(folder, wanted, STEPS) if ended.code == 0 else ["it did not end"]
  dead = Outcome(
    "SIGKILL to a verifier's worker", len(hits), f"{_told(ended)}; {_same(equal)}", not equal
  )
  folder = work / "stopped-workers"
  deadline = "--config.verifier.deadline_seconds=3"
  with _attacked(command(folder, STEPS, "", deadline), signal.SIGSTOP) as (process, hits):
    stdout, stderr = process.communicate(timeout=600)
  ended = Ended(process.returncode, stdout, stderr)
  unscored = round(sum(row.get("reward/unscored", 0) for row in rows(folder)) * ROLLOUTS)
  came = f"{_told(ended)}; {unscored} of {ROLLOUTS * STEPS} answers without a verdict"
  right = ended.code == 0 and unscored <= len(hits)
  return [dead, Outcome("SIGSTOP to a verifier's worker", len(hits), came, right)]


def damaged(work: pathlib.Path, wanted: pathlib.Path) -> list[Outcome]:
  """Files of the newest checkpoint are spoilt between two starts."""
  folder, outcomes = work / "damaged", []

  def largest(path: pathlib.Path) -> pathlib.Path:
    return max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)

  def flip(path: pathlib.Path) -> None:
    data = bytearray(largest(path).read_bytes())
    data[len(data) // 2] ^= 1
    largest(path).write_bytes(data)

  def foreign(path: pathlib.Path) -> None:
    shutil.rmtree(path)
    shutil.copytree(work / "foreign" / "checkpoints" / "2", path)

  ways: dict[str, Callable[[pathlib.Path], None]] = {
    "a flipped bit": flip,
    "half a file": lambda path: os.truncate(largest(path), largest(path).stat().st_size // 2),
    "zero bytes": lambda path: os.truncate(largest(path), 0),
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "the checkpoint of another seed": foreign,
  }
  _require(run(command(work / "foreign", 2, "", "--config.seed=1")), 0)
  _require(run(command(folder, 4)), 0)
  for done, way in ways.items():
    way(folder / "checkpoints" / "4")
    ended = run(command(folder, 4))
    told = [line for line in ended.stderr.splitlines() if "is passed over: " in line]
    came = told[0].partition("is passed over: ")[2] if told else "no warning"
    saved = (folder / "checkpoints" / "4" / "manifest.json").exists()
    outcomes.append(Outcome(done, 1, came, ended.code == 0 and bool(told) and saved))
  return [*outcomes, _finished(folder, wanted, "all of these in one run")]


def disk(work: pathlib.Path, wanted: pathlib.Path) -> list[Outcome]:
  """A file system of its own that is full, or read-only; then in order again."""
  folder, log = work / "disk", work / "disk.log"
  folder.mkdir()
  half, whole = (" ".join(map(_quoted, command(folder / "run", n))) for n in (4, STEPS))
  script = f"""
    mount -t tmpfs -o size=64m none {folder} || exit 77
    {half} || exit 78
    dd if=/dev/zero of={folder}/filler bs=1M count=64 2>/dev/null
    truncate -s -100K {folder}/filler
    {whole} 2>{log}.full; echo full $?
    rm {folder}/filler
    mount -o remount,ro {folder}; {whole} 2>{log}.readonly; echo readonly $?
    mount -o remount,rw {folder}; {whole} || exit 79
    cp -r {folder}/run {work}/disk-run
  """
  done = subprocess.run(
    ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
    env=environment(), capture_output=True, text=True, timeout=600,
    cwd=pathlib.Path(__file__).resolve().parents[2],
  )  # fmt: skip
  if done.returncode in (1, 77):
    return [Outcome("a full or read-only disk", 0, "not tried: no user namespaces here", True)]
  assert done.returncode != 78, done.stderr[-2000:]
  outcomes = []
  for name, told in (("full", "the disk is full"), ("readonly", "read-only")):
    line = pathlib.Path(f"{log}.{name}").read_text().strip().splitlines()[-1]
    right = f"{name} 2\n" in done.stdout and line.startswith("error: ") and told in line
    outcomes.append(Outcome(f"disk {name}", 1, line[:200], right))
  told = differences(work / "disk-run", wanted, STEPS) if done.returncode == 0 else ["no end"]
  return [*outcomes, Outcome("gone on from there", 1, _same(told), not told)]


def spoilt_numbers(work: pathlib.Path, wanted: pathlib.Path) -> list[Outcome]:
  folder = work / "nan"
  ended = run(command(folder, STEPS, "nan_weights@6"))
  right = ended.code == 2 and "weights are no longer finite" in ended.stderr
  weights = Outcome("NaN in the weights, step 6", 1, f"{_told(ended)}; {_last_line(ended)}", right)
  rewards = run(command(work / "nan-rewards", STEPS, "nan_rewards@6"))
  spoilt = [row for row in rows(work / "nan-rewards") if None in _essential(row)]
  came = f"{_told(rewards)}; {len(spoilt)} steps without a finite loss, reward and norm"
  return [
    weights,
    _finished(folder, wanted, "gone on from there"),
    Outcome("NaN in three rewards, step 6", 1, came, rewards.code == 0 and not spoilt),
  ]


def hanging(work: pathlib.Path, wanted: pathlib.Path) -> list[Outcome]:
  folder = work / "hanging"
  ended = run(command(folder, STEPS, "hang@6", "--config.log.stall_seconds=20"))
  stacks = (folder / "stacks-0.txt").read_text() if (folder / "stacks-0.txt").exists() else ""
  right = ended.code == 70 and "in loop" in stacks and "in loop" in ended.stderr
  came = f"{_told(ended)}; {stacks.count('Thread 0x')} stacks in stacks-0.txt and on stderr"
  hung = Outcome("a step that never ends, stall_seconds=20", 1, came, right)
  return [hung, _finished(folder, wanted, "gone on from there")]


# ------------------------------------------------------------------------------------ small verbs


def _finished(folder: pathlib.Path, wanted: pathlib.Path, of: str, steps: int = STEPS) -> Outcome:
  ended = run(command(folder, steps, "", "--config.checkpoint.keep=2"))
  told = differences(folder, wanted, steps) if ended.code == 0 else [_last_line(ended)]
  return Outcome(of, 1, _same(told), not told)


def _same(told: list[str]) -> str:
  return f"NOT the unbroken run: {'; '.join(told[:3])}" if told else "the unbroken run, bit for bit"


def _told(ended: Ended) -> str:
  if ended.code < 0:
    return f"died of {signal.Signals(-ended.code).name}"
  return f"exit code {ended.code}"


def _last_line(ended: Ended) -> str:
  lines = (ended.stdout.strip().splitlines() or [""]) + ended.stderr.strip().splitlines()
  return lines[-1][:150] if lines else ""


def _require(ended: Ended, code: int) -> Ended:
  assert ended.code == code, ended.stderr[-2000:]
  return ended


def _essential(row: dict) -> list:
  return [row[name] for name in ("train/loss", "reward/mean", "train/param_norm") if name in row]


def _progress(folder: pathlib.Path) -> tuple[int, int]:
  """The last step in the metrics, and in the newest checkpoint; -1: none."""
  file, saved = folder / "metrics.jsonl", folder / "checkpoints"
  steps = [int(path.name) for path in saved.glob("[0-9]*")] if saved.is_dir() else []
  written = file.read_text().count("\n") - 1 if file.exists() else -1
  return written, max(steps, default=-1)


def _wait_for(process: subprocess.Popen, words: str) -> None:
  """Reads its output up to a line with these words, or to its end."""
  for line in process.stdout:
    if words in line:
      return


def _wait_for_row(process: subprocess.Popen, folder: pathlib.Path, step: int) -> None:
  while _progress(folder)[0] < step and process.poll() is None:
    time.sleep(0.002)


def _quoted(word: str) -> str:
  return "'" + word.replace("'", "'\\''") + "'"


@contextlib.contextmanager
def _reaped(process: subprocess.Popen) -> Iterator[None]:
  try:
    yield
  finally:
    process.kill()
    process.wait()


@contextlib.contextmanager
def _attacked(
  command: list[str], number: signal.Signals
) -> Iterator[tuple[subprocess.Popen, list[int]]]:
  """The run, and the workers that have been sent the signal: one every few seconds, so that the
  one that comes after it is not hit with the same answer in its hands."""
  process, hits, over = start(command), [], threading.Event()

  def attack() -> None:
    while not over.wait(3.0):
      workers = set(_workers(process.pid)) - set(hits)
      if workers:
        hits.append(min(workers))
        with contextlib.suppress(ProcessLookupError):
          os.kill(hits[-1], number)

  attacker = threading.Thread(target=attack)
  with _reaped(process):
    attacker.start()
    try:
      yield process, hits
    finally:
      over.set()
      attacker.join()


def _workers(parent: int) -> list[int]:
  found = []
  for path in pathlib.Path("/proc").glob("[0-9]*"):
    with contextlib.suppress(OSError):
      ppid = int(path.joinpath("stat").read_text().rpartition(")")[2].split()[1])
      if ppid == parent and b"verify.child" in path.joinpath("cmdline").read_bytes():
        found.append(int(path.name))
  return found
