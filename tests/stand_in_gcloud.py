"""A Google Cloud in a folder: what tests/test_launch_tpu.py runs in place of `gcloud`.

The folder $STAND_IN_CLOUD holds calls.jsonl (every call), faults.json (what is to go wrong, used up
as it does), nodes/ and queued/ (states), vms/NAME/w-0, w-1, ... (the disk of each VM: commands sent
by ssh run there, for real) and bucket/. Only what launch_tpu.sh uses is here; anything else is an
error.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

CLOUD = pathlib.Path(os.environ["STAND_IN_CLOUD"])
WORKERS = {"v4-16": 2}  # of other types 1

# What Google says, shortened to the words that tell one error from another.
ERRORS = {
  "quota": "ERROR: RESOURCE_EXHAUSTED: Quota limit 'TPUV5sLitepod' has been exceeded. Limit: 0",
  "capacity": 'ERROR: RESOURCE_EXHAUSTED: There is no more capacity in the zone "us-west4-a"',
  "permission": "ERROR: PERMISSION_DENIED: Permission 'tpu.nodes.create' denied on 'projects/p'",
  "api": "ERROR: PERMISSION_DENIED: Cloud TPU API has not been used in project 1 before",
  "unreachable": "ssh: connect to host 10.0.0.2 port 22: Connection timed out",
  "login": "ERROR: You do not currently have an active account. Run: gcloud auth login",
}


def main(args: list[str]) -> None:
  with (CLOUD / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps(args) + "\n")
  if args[0] == "storage":
    storage(args[1], [arg for arg in args[2:] if not arg.startswith("--")], args)
    return
  assert args[:2] == ["compute", "tpus"], args
  flags = dict(arg[2:].partition("=")[::2] for arg in args if arg.startswith("--"))
  assert {"project", "zone", "quiet"} <= set(flags), args
  group, verb, *names = [arg for arg in args[2:] if not arg.startswith("--")]
  TPUS[group, verb](*names, flags)


def fail(error: str, code: int = 1) -> None:
  print(ERRORS.get(error, error), file=sys.stderr)
  sys.exit(code)


def next_fault(name: str) -> str | None:
  """The next thing that is to go wrong at `name`, if any; it does so once."""
  path = CLOUD / "faults.json"
  faults = json.loads(path.read_text()) if path.exists() else {}
  queue = faults.get(name, [])
  fault = queue.pop(0) if queue else None
  path.write_text(json.dumps(faults))
  return fault


# ------------------------------------------------------------------------------------------- VMs


def read(kind: str, name: str) -> dict:
  path = CLOUD / kind / name
  if not path.exists():
    fail(f"ERROR: NOT_FOUND: Resource '{name}' was not found")
  return json.loads(path.read_text())


def write(kind: str, name: str, record: dict) -> None:
  (CLOUD / kind).mkdir(exist_ok=True)
  (CLOUD / kind / name).write_text(json.dumps(record))


def create_node(name: str, flags: dict) -> None:
  if fault := next_fault("create"):
    fail(fault)
  assert {"version", "accelerator-type", "scopes"} <= set(flags)
  start_node(name, flags["accelerator-type"])


def start_node(name: str, kind: str) -> None:
  workers = WORKERS.get(kind, 1)
  write("nodes", name, {"state": "READY", "type": kind, "workers": workers})
  for worker in range(workers):
    home(name, worker).mkdir(parents=True)


def home(name: str, worker: int) -> pathlib.Path:
  return CLOUD / "vms" / name / f"w-{worker}"


def create_queued(name: str, flags: dict) -> None:
  assert {"node-id", "runtime-version", "accelerator-type", "scopes", "async"} <= set(flags)
  states = ["WAITING_FOR_RESOURCES", "PROVISIONING"]
  write("queued", name, {"states": states, "type": flags["accelerator-type"]})


def describe_node(name: str, flags: dict) -> None:
  node = read("nodes", name)
  assert "state,acceleratorType" in flags["format"]
  if "looks" in node:  # Google notices later that a VM has gone down
    node["looks"] -= 1
    write("nodes", name, node)
    if not node["looks"]:
      end_machine(name, "preempt")
  print(node["state"], node["type"], node["workers"], sep="\t")


def describe_queued(name: str, flags: dict) -> None:
  """Each look finds the request one state further."""
  queued = read("queued", name)
  if queued["states"]:
    print(queued["states"].pop(0))
    write("queued", name, queued)
    return
  if not (CLOUD / "nodes" / name).exists():
    start_node(name, queued["type"])
  print("SUSPENDED" if read("nodes", name)["state"] == "PREEMPTED" else "ACTIVE")


def delete_node(name: str, flags: dict) -> None:
  read("nodes", name)
  kill_job(name)
  shutil.rmtree(CLOUD / "vms" / name, ignore_errors=True)
  (CLOUD / "nodes" / name).unlink()


def delete_queued(name: str, flags: dict) -> None:
  read("queued", name)
  assert "force" in flags, "a queued resource with a VM is not deleted without --force"
  if (CLOUD / "nodes" / name).exists():
    delete_node(name, flags)
  (CLOUD / "queued" / name).unlink()


def kill_job(name: str) -> None:
  """What the end of a machine is to a job: all its processes at once."""
  for pid in (CLOUD / "vms" / name).glob("*/grpo_jax_runs/*/job/pid"):
    with contextlib.suppress(ProcessLookupError):
      os.killpg(int(pid.read_text()), signal.SIGKILL)


# ------------------------------------------------------------------------------------------- ssh


def ssh(name: str, flags: dict) -> None:
  node = read("nodes", name)
  if node["state"] != "READY":
    fail("ERROR: This TPU cannot be connected to")
  workers = range(node["workers"]) if flags["worker"] == "all" else [int(flags["worker"])]
  fault = next_fault(f"ssh {verb_of(flags['command'])}")
  if fault == "hang":
    time.sleep(60)
  if fault == "silent":
    return
  if fault == "unreachable":
    workers = workers[:-1]
  runs: list[subprocess.Popen] = []
  asked_to_end: list[bool] = []  # a run that is started and not yet in the list would live on
  signal.signal(signal.SIGTERM, lambda *_: asked_to_end.append(True))
  for worker in workers:
    runs.append(start_command(name, worker, flags["command"]))  # noqa: PERF401
  signal.signal(signal.SIGTERM, lambda *_: end_all(runs))
  if asked_to_end:
    end_all(runs)
  if fault in ("preempt", "late preempt", "reboot", "break"):
    wait_for(lambda: saved_step(name) >= 2)
    time.sleep(1)  # until the line of the second step has come through
    end_connection(runs[0])
  if fault in ("preempt", "late preempt", "reboot"):
    end_machine(name, fault)
    fail("ERROR: [ssh] exited with return code [255].")
  if fault == "break":  # the connection does; gcloud then runs the same command again
    runs[:] = [start_command(name, workers[0], flags["command"])]
  code = max([run.wait() for run in runs], default=0)
  if fault == "unreachable":
    fail(fault, 255)
  sys.exit(code)


def verb_of(command: str) -> str:
  """`status`, `install`, `start` or `follow`; `unpack` is what brings the script there."""
  found = re.search(r"launch_tpu.sh worker (\w+)", command)
  return found[1] if found else "unpack"


def start_command(name: str, worker: int, command: str) -> subprocess.Popen:
  disk = home(name, worker)
  environment = os.environ | {"HOME": str(disk)}
  return subprocess.Popen(
    ["bash", "-c", command], cwd=disk, env=environment, start_new_session=True
  )


def end_all(runs: list[subprocess.Popen]) -> None:
  for run in runs:
    end_connection(run)
  sys.exit(143)


def end_connection(run: subprocess.Popen) -> None:
  """Ends the command with its children, for one that lived on would keep the output open."""
  os.killpg(run.pid, signal.SIGKILL)


def end_machine(name: str, how: str) -> None:
  kill_job(name)
  if how == "preempt":
    shutil.rmtree(CLOUD / "vms" / name)
    write("nodes", name, {"state": "PREEMPTED", "type": "gone", "workers": 0})
  if how == "late preempt":
    write("nodes", name, read("nodes", name) | {"looks": 3})


def saved_step(name: str) -> int:
  """The step that the bucket holds, 0 if there is none."""
  path = CLOUD / "bucket" / "runs" / name / "step"
  return int(path.read_text()) if path.exists() else 0


def wait_for(condition) -> None:
  deadline = time.monotonic() + 20
  while not condition():
    assert time.monotonic() < deadline, "the run did not get so far"
    time.sleep(0.05)


def scp(source: str, target: str, flags: dict) -> None:
  name, path = target.split(":")
  for worker in range(read("nodes", name)["workers"]):
    shutil.copy(source, home(name, worker) / path)


TPUS = {
  ("tpu-vm", "create"): create_node,
  ("tpu-vm", "describe"): describe_node,
  ("tpu-vm", "delete"): delete_node,
  ("tpu-vm", "ssh"): ssh,
  ("tpu-vm", "scp"): scp,
  ("queued-resources", "create"): create_queued,
  ("queued-resources", "describe"): describe_queued,
  ("queued-resources", "delete"): delete_queued,
}


# --------------------------------------------------------------------------------------- buckets


def storage(verb: str, places: list[str], args: list[str]) -> None:
  if next_fault(f"storage {verb}"):
    fail("ERROR: HTTPError 403: the VM does not have storage.objects.list access")
  assert verb == "rsync" and "--recursive" in args, args
  source, target = places
  shutil.copytree(CLOUD / source.removeprefix("gs://"), target, dirs_exist_ok=True)


if __name__ == "__main__":
  main(sys.argv[1:])
