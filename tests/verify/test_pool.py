"""The pool: whatever a check does, every completion gets its own verdict, and nothing is left."""

import os
import signal
import subprocess
import sys
import time

import pytest

from grpo_jax.verify import Outcome, VerifierPool

CHECK = "tests.verify.checks:misbehave"
BAD = ["hang", "sleep", "crash", "memory", "raise", "power that no signal interrupts"]


def pool(**settings) -> VerifierPool:
  return VerifierPool(**{"check": CHECK, "deadline_s": 0.5, **settings})


def test_verdicts_come_in_the_order_of_the_completions():
  answers = [str(number) for number in range(300)]
  golds = [answer if int(answer) % 3 else "other" for answer in answers]
  with VerifierPool() as verifiers:
    verdicts = verifiers.verify_all([rf"\boxed{{{answer}}}" for answer in answers], golds)
    counters = verifiers.counters
  assert [verdict.answer for verdict in verdicts] == answers
  assert [bool(verdict) for verdict in verdicts] == [bool(n % 3) for n in range(300)]
  assert (counters.graded, counters.unscored, counters.restarts) == (300, 0, 0)
  assert len(counters.seconds) == 300


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_check_is_unscored_and_its_neighbours_are_not(bad):
  completions = ["1", "2", bad, "4", bad, "6"]
  with pool(workers=1) as verifiers:
    verdicts = verifiers.verify_all(completions, ["1", "2", bad, "4", bad, "x"])
    counters = verifiers.counters
  assert [verdict.outcome.value for verdict in verdicts] == [
    "right", "right", "unscored", "right", "unscored", "wrong",
  ]  # fmt: skip
  assert verdicts[2].reason
  assert (counters.graded, counters.unscored) == (6, 2)
  assert counters.restarts == {"memory": 0, "raise": 0, "crash": 4}.get(bad, 2)


def test_a_right_answer_behind_sixteen_attacks_still_scores():
  """In one published pool nine answers behind eight hanging ones were all scored zero."""
  completions = [BAD[number % 3] for number in range(16)] + ["right"]
  with pool(deadline_s=0.3) as verifiers:
    verdicts = verifiers.verify_all(completions, ["right"] * 17)
  assert [verdict.outcome for verdict in verdicts[:16]] == [Outcome.UNSCORED] * 16
  assert verdicts[16].outcome is Outcome.RIGHT


def test_a_worker_killed_from_outside_costs_no_answer_its_verdict():
  answers = [str(number) for number in range(60)]
  with pool(workers=1, deadline_s=30) as verifiers:
    verdicts = verifiers.submit_all([*answers, "slow"], [*answers, "slow"])
    assert verdicts[59].result(timeout=30)
    (worker,) = _children(os.getpid(), CHECK)
    os.kill(worker, signal.SIGKILL)
    outcomes = [verdict.result(timeout=30).outcome for verdict in verdicts]
    counters = verifiers.counters
  assert outcomes == [Outcome.RIGHT] * 61
  assert (counters.unscored, counters.restarts) == (0, 1)


def test_submit_gives_a_future():
  with pool() as verifiers:
    futures = [verifiers.submit(text, "a") for text in ("a", "crash", "b")]
    outcomes = [future.result(timeout=30).outcome.value for future in futures]
  assert outcomes == ["right", "unscored", "wrong"]


def test_what_a_check_prints_is_no_reply():
  with pool() as verifiers:
    assert verifiers.submit("print", "print").result(timeout=30)


def test_workers_have_no_jax_and_no_environment():
  os.environ["SECRET_OF_THE_PARENT"] = "1"
  with pool() as verifiers:
    modules = verifiers.submit("modules", "").result(timeout=30).answer.split(",")
    environment = verifiers.submit("environment", "").result(timeout=30).answer.split(",")
  assert not {"jax", "numpy", "sympy", "pebble"} & set(modules)
  assert "SECRET_OF_THE_PARENT" not in environment


def test_as_many_golds_as_completions():
  with pool() as verifiers, pytest.raises(ValueError, match="zip"):
    verifiers.verify_all(["1", "2"], ["1"])


def test_close_leaves_no_process_even_while_checks_hang():
  verifiers = pool(deadline_s=100)
  hanging = [verifiers.submit("hang", "") for _ in range(5)]
  assert verifiers.submit("1", "1") and _eventually(lambda: len(_children(os.getpid())) >= 2)
  start = time.monotonic()
  verifiers.close()
  assert time.monotonic() - start < 2
  assert not _children(os.getpid(), "tests.verify.checks")
  assert {future.result().outcome for future in hanging} == {Outcome.UNSCORED}
  with pytest.raises(RuntimeError, match="closed"):
    verifiers.submit("1", "1")


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_workers_leave_when_their_parent_is_killed(sent):
  script = (
    "import time\n"
    "from grpo_jax.verify import VerifierPool\n"
    f"pool = VerifierPool(check={CHECK!r}, deadline_s=100)\n"
    "pool.verify_all(['1'] * 100, ['1'] * 100)\n"
    "futures = [pool.submit('hang', '') for _ in range(4)]\n"
    "print('ready', flush=True)\n"
    "time.sleep(100)\n"
  )
  parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
  assert parent.stdout.readline() == b"ready\n"
  workers = _children(parent.pid)
  assert len(workers) == 2
  parent.send_signal(sent)
  parent.wait()
  parent.stdout.close()
  assert _eventually(lambda: not any(map(_runs, workers)))


def _children(parent: int, named: str = "") -> list[int]:
  listed = subprocess.run(["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True)
  rows = (line.split(None, 2) for line in listed.stdout.splitlines()[1:])
  return [int(pid) for pid, ppid, args in rows if int(ppid) == parent and named in args
          and "ps -ww" not in args]  # fmt: skip


def _runs(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  return True


def _eventually(condition, seconds: float = 10.0) -> bool:
  end = time.monotonic() + seconds
  while time.monotonic() < end:
    if condition():
      return True
    time.sleep(0.05)
  return False
