"""A study's runs are made once each, whatever happens to some of them; a stand-in trains."""

import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from experiments import sweep
from experiments.study import ROOT, Study, Variant, all_runs, load_study
from grpo_jax.errors import UserError

# Trains in three steps, each noted in its folder, and goes on from those it finds there. Method
# `slow` waits after a step until it may go on.
STAND_IN = """
import os, pathlib, sys, time
folder = pathlib.Path(next(a for a in sys.argv if a.startswith("--workdir=")).split("=")[1])
steps = folder / "steps"
print("arguments", *sys.argv[1:])
print("cores", len(os.sched_getaffinity(0)))
if "method=broken" in sys.argv[1] and not (folder / "repaired").exists():
  sys.exit("error: this method cannot be trained")
while (done := len(steps.read_text()) if steps.exists() else 0) < 3:
  steps.open("a").write(str(done))
  while "method=slow" in sys.argv[1] and not (folder / "go").exists():
    time.sleep(0.02)
  if "method=stopped" in sys.argv[1]:
    sys.exit(0)
(folder / "export").mkdir(exist_ok=True)
"""

STUDY = """
from experiments.study import Study, Variant
STUDY = Study(
  question="?", rule="!", config="configs/none.py", seeds=(0, 1), target=0.5, baseline="plain",
  families={"a": {"plain": Variant("grpo", {"steps": 3})}, "b": {"other": Variant("METHOD")}},
)
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
  """Writes a study whose second variant has a method; its trainer is the stand-in."""
  package = tmp_path / "stand_in"
  package.mkdir()
  (package / "stand_in_train.py").write_text(textwrap.dedent(STAND_IN))
  monkeypatch.setenv("PYTHONPATH", f"{package}:{ROOT}")
  monkeypatch.setattr("experiments.study.TRAINER", "stand_in_train")

  def write(method="grpo") -> Path:
    path = tmp_path / "small.py"
    path.write_text(STUDY.replace("METHOD", method))
    return path

  return write


def run(path, tmp_path, *more):
  return sweep.main([str(path), f"--runs={tmp_path / 'runs'}", *more])


def steps(tmp_path) -> dict[str, str]:
  return {str(p.parent.relative_to(tmp_path / "runs")): p.read_text()
          for p in sorted((tmp_path / "runs").rglob("steps"))}  # fmt: skip


def test_every_variant_and_seed_is_run_once_and_then_skipped(study, tmp_path, capsys):
  every = {f"{name}/seed_{seed}": "012" for name in ("plain", "other") for seed in (0, 1)}
  assert run(study(), tmp_path, "--jobs=2") == 0
  assert steps(tmp_path) == every
  for file in (tmp_path / "runs").rglob("steps"):
    file.unlink()
  assert run(study(), tmp_path) == 0
  assert not steps(tmp_path)  # nothing ran again
  assert "4 runs, 4 of them finished" in capsys.readouterr().out


def test_the_trainer_gets_method_seed_overrides_and_one_share_of_the_cores(study, tmp_path):
  run(study(), tmp_path, "--only=plain", f"--jobs={os.cpu_count()}")
  log = (tmp_path / "runs/plain/seed_1/log.txt").read_text()
  assert "--config=configs/none.py:method=grpo,seed=1 --config.steps=3 --workdir=" in log
  assert "cores 1" in log
  run(study(), tmp_path, "--only=other", "--seeds=1")
  assert [p.name for p in (tmp_path / "runs/other").iterdir()] == ["seed_1"]


def test_a_run_that_fails_is_told_and_the_others_go_on(study, tmp_path, capsys):
  assert run(study("broken"), tmp_path) == 1
  assert set(steps(tmp_path)) == {"plain/seed_0", "plain/seed_1"}
  told = capsys.readouterr().out
  assert "2 runs FAILED" in told
  assert "other, seed 1: exit code 1" in told
  assert "  | error: this method cannot be trained" in told
  for seed in (0, 1):
    (tmp_path / f"runs/other/seed_{seed}/repaired").touch()
  assert run(study("broken"), tmp_path) == 0


def test_a_run_that_a_signal_stopped_is_not_finished_and_goes_on(study, tmp_path, capsys):
  path = study("stopped")
  assert run(path, tmp_path, "--only=other", "--seeds=0") == 1
  assert "other, seed 0: stopped before its last step" in capsys.readouterr().out
  steps = tmp_path / "runs" / "other" / "seed_0" / "steps"
  assert steps.read_text() == "0"
  for _ in range(2):
    run(path, tmp_path, "--only=other", "--seeds=0")
  assert steps.read_text() == "012"


def test_a_finished_run_of_another_command_is_refused(study, tmp_path):
  run(study(), tmp_path)
  with pytest.raises(UserError, match="finished by another command"):
    run(study("aper"), tmp_path)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_sweep_goes_on_where_it_stopped(study, tmp_path, end):
  path = study("slow")
  program = (
    "import sys; import experiments.study as s; s.TRAINER = 'stand_in_train';"
    "from experiments import sweep; sys.exit(sweep.main(sys.argv[1:]))"
  )
  arguments = [str(path), f"--runs={tmp_path / 'runs'}", "--only=other"]
  process = subprocess.Popen(
    [sys.executable, "-c", program, *arguments],
    cwd=ROOT,
    start_new_session=True,
    # A shell in the background ignores SIGINT, and so would everything it starts.
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
  )
  deadline = time.monotonic() + 60
  while not steps(tmp_path) and time.monotonic() < deadline:
    time.sleep(0.02)
  os.killpg(process.pid, end)
  process.wait(timeout=60)
  for seed in ("seed_0", "seed_1"):
    folder = tmp_path / "runs/other" / seed
    assert not (folder / "finished.json").exists()
    folder.mkdir(exist_ok=True)
    (folder / "go").touch()
  assert run(path, tmp_path, "--only=other") == 0
  assert steps(tmp_path) == {"other/seed_0": "012", "other/seed_1": "012"}


def test_printed_commands_are_those_that_would_run(study, tmp_path, capsys):
  assert run(study(), tmp_path, "--print-commands") == 0
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 4
  assert not (tmp_path / "runs").exists()
  folder = tmp_path / "runs/other/seed_1"
  config = "--config=configs/none.py:method=grpo,seed=1"
  assert f"python -m stand_in_train {config} --workdir={folder}" in lines


def test_what_runs_first_shares_the_config_and_knows_the_folder():
  variant = Variant("sgpo", {"a.profile": "{folder}/p.json"}, first=("measure", "--out={folder}/p"))
  study = Study("", "", "c.py", {"": {"grpo": Variant("grpo"), "easy": variant}}, (3,), 0.5)
  (run,) = [run for run in all_runs(study, Path("/runs")) if run.name.startswith("easy")]
  shared = "--config=c.py:method=sgpo,seed=3 --config.a.profile=/runs/easy/seed_3/p.json"
  assert [shlex.join(command) for command in run.commands] == [
    f"-m measure --out=/runs/easy/seed_3/p {shared}",
    f"-m grpo_jax.train {shared} --workdir=/runs/easy/seed_3",
  ]


def test_two_runs_that_start_together_are_of_two_variants():
  variants = {name: Variant("grpo") for name in ("grpo", "b", "c")}
  study = Study("", "", "c.py", {"": variants}, (0, 1, 2), 0.5)
  order = [run.name.replace(", seed ", "") for run in all_runs(study, Path("/runs"))]
  assert order == ["grpo0", "b0", "grpo1", "grpo2", "c0", "b1", "b2", "c1", "c2"]


@pytest.mark.parametrize(
  ("jobs", "shares"),
  [(1, [{0, 1, 2}]), (2, [{0, 2}, {1}]), (3, [{0}, {1}, {2}]), (4, [{0}, {1}, {2}, {0}])],
)
def test_cores_are_dealt_out(jobs, shares):
  assert sweep.core_shares([0, 1, 2], jobs) == shares


@pytest.mark.parametrize(
  ("arguments", "told"),
  [
    (["{path}", "--only=nothing"], "nothing: no such variant; known: plain; other"),
    (["{path}", "--seeds=7"], "7: no such seed; known: 0, 1"),
    (["{path}", "--jobs=0"], "--jobs is 0"),
    (["missing.py"], "no such study"),
  ],
)
def test_what_is_wrong_is_said(study, arguments, told):
  path = study()
  with pytest.raises(UserError, match=told):
    sweep.main([argument.format(path=path) for argument in arguments])


def test_a_file_that_is_no_study_is_refused(tmp_path):
  (tmp_path / "empty.py").write_text("")
  with pytest.raises(UserError, match="sets no STUDY"):
    load_study(str(tmp_path / "empty.py"))
