"""A Google Cloud in a folder: what tests/test_launch_tpu.py runs in place of `gcloud`.

The folder $STAND_IN_CLOUD holds calls.jsonl (every call), faults.json (what is to go wrong, used up
as it does), nodes/ and queued/ (states), vms/ (the disk of each VM: commands sent by ssh run there,
for real) and bucket/. Only what launch_tpu.sh uses is here; anything else is an error.
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

# What Google says, shortened to the words that tell one error from another.
ERRORS = {
  "quota": "ERROR: RESOURCE_EXHAUSTED: Quota limit 'TPUV5sLitepod' has been exceeded. Limit: 0",
  "capacity": 'ERROR: RESOURCE_EXHAUSTED: There is no more capacity in the zone "us-west4-a"',
  "permission": "ERROR: PERMISSION_DENIED: Permission 'tpu.nodes.create' denied on 'projects/p'",
  "api": "ERROR: PERMISSION_DENIED: Cloud TPU API has not been used in project 1 before",
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
  write("nodes", name, {"state": "READY", "type": flags["accelerator-type"], "workers": 1})
  (CLOUD / "vms" / name).mkdir(parents=True)


def create_queued(name: str, flags: dict) -> None:
  assert {"node-id", "runtime-version", "accelerator-type", "scopes", "async"} <= set(flags)
  states = ["WAITING_FOR_RESOURCES", "PROVISIONING"]
  write("queued", name, {"states": states, "type": flags["accelerator-type"]})


def describe_node(name: str, flags: dict) -> None:
  node = read("nodes", name)
  assert "state,acceleratorType" in flags["format"]
  print(node["state"], node["type"], node["workers"], sep="\t")


def describe_queued(name: str, flags: dict) -> None:
  """Each look finds the request one state further."""
  queued = read("queued", name)
  if queued["states"]:
    print(queued["states"].pop(0))
    write("queued", name, queued)
    return
  if not (CLOUD / "nodes" / name).exists():
    write("nodes", name, {"state": "READY", "type": queued["type"], "workers": 1})
    (CLOUD / "vms" / name).mkdir(parents=True)
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
  for pid in (CLOUD / "vms" / name).glob("grpo_jax_runs/*/job/pid"):
    with contextlib.suppress(ProcessLookupError):
      os.killpg(int(pid.read_text()), signal.SIGKILL)


# ------------------------------------------------------------------------------------------- ssh


def ssh(name: str, flags: dict) -> None:
  if read("nodes", name)["state"] != "READY":
    fail("ERROR: This TPU cannot be connected to")
  fault = next_fault(f"ssh {verb_of(flags['command'])}")
  if fault == "hang":
    time.sleep(60)
  if fault == "silent":
    return
  run = start_command(name, flags["command"])
  signal.signal(signal.SIGTERM, lambda *_: end_connection(run))
  if fault in ("preempt", "reboot"):
    wait_for(lambda: copied_step(name) >= 2)
    end_connection(run)
    end_machine(name, fault)
    fail("ERROR: [ssh] exited with return code [255].")
  if fault == "break":  # the connection does; gcloud then runs the same command again
    wait_for(lambda: copied_step(name) >= 2)
    time.sleep(0.5)
    end_connection(run)
    run = start_command(name, flags["command"])
  sys.exit(run.wait())


def verb_of(command: str) -> str:
  """`status`, `install`, `start` or `follow`; `unpack` is what brings the script there."""
  found = re.search(r"launch_tpu.sh worker (\w+)", command)
  return found[1] if found else "unpack"


def start_command(name: str, command: str) -> subprocess.Popen:
  home = CLOUD / "vms" / name
  environment = os.environ | {"HOME": str(home)}
  return subprocess.Popen(
    ["bash", "-c", command], cwd=home, env=environment, start_new_session=True
  )


def end_connection(run: subprocess.Popen) -> None:
  """Ends the command with its children, for one that lived on would keep the output open."""
  os.killpg(run.pid, signal.SIGKILL)


def end_machine(name: str, how: str) -> None:
  kill_job(name)
  if how == "preempt":
    shutil.rmtree(CLOUD / "vms" / name)
    write("nodes", name, read("nodes", name) | {"state": "PREEMPTED"})


def copied_step(name: str) -> int:
  """The step in the copy that is whole, 0 if there is none."""
  copies = CLOUD / "bucket" / "runs" / name
  if not (copies / "latest").exists():
    return 0
  path = copies / (copies / "latest").read_text().strip() / "step"
  return int(path.read_text() or 0) if path.exists() else 0


def wait_for(condition) -> None:
  deadline = time.monotonic() + 20
  while not condition():
    assert time.monotonic() < deadline, "the run did not get so far"
    time.sleep(0.05)


def scp(source: str, target: str, flags: dict) -> None:
  name, path = target.split(":")
  shutil.copy(source, CLOUD / "vms" / name / path)


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
    fail("ERROR: HTTPError 403: the VM does not have storage.objects.create access")
  paths = [local(place) for place in places]
  if verb == "cp":
    assert places[0] == "-"
    paths[1].parent.mkdir(parents=True, exist_ok=True)
    whole = paths[1].with_name("being-written")
    whole.write_text(sys.stdin.read())
    whole.replace(paths[1])  # objects in a bucket are never half written
  elif verb == "cat":
    print(paths[0].read_text(), end="")
  elif verb == "ls":
    print(*(f"{places[0]}{path.name}" for path in sorted(paths[0].iterdir())), sep="\n")
  else:
    assert verb == "rsync" and "--recursive" in args, args
    rsync(*paths, delete="--delete-unmatched-destination-objects" in args)


def local(place: str) -> pathlib.Path:
  """gs://bucket/a/b is bucket/a/b here; other paths are on the VM."""
  return CLOUD / place.removeprefix("gs://") if place.startswith("gs://") else pathlib.Path(place)


def rsync(source: pathlib.Path, target: pathlib.Path, delete: bool) -> None:
  """Files only: a bucket knows no empty folders."""
  files = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
  if delete and target.exists():
    for path in [path for path in target.rglob("*") if path.is_file()]:
      if path.relative_to(target) not in files:
        path.unlink()
  for file in files:
    (target / file).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source / file, target / file)


if __name__ == "__main__":
  main(sys.argv[1:])
