"""The same verdict wherever `verify` runs: several peers scored zero off the main thread."""

import concurrent.futures
import json
import multiprocessing
import pathlib
import subprocess
import sys
import time

import pytest

from grpo_jax.verify import Verdict, VerifierPool, verify

PAIRS = [
  (r"\boxed{\frac12}", "0.5"),
  (r"\boxed{\sqrt{8}}", r"2\sqrt{2}"),
  (r"\boxed{\sin(2x)}", r"2\sin x\cos x"),
  (r"\boxed{\frac13}", "0.5"),
  (r"\boxed{9^{9^{9^9}}}", "2"),
  (r"\boxed{x>2}", r"(2,\infty)"),
  (r"\boxed{2}", r"\sum_{n=0}^{\infty} \frac{1}{2^n}"),  # asks the child
  (r"\boxed{3}", r"\int_0^2 x \, dx"),
  ("no box", "2"),
]


def verify_all() -> list[Verdict]:
  return [verify(*pair) for pair in PAIRS]


def _send_verdicts(connection) -> None:
  connection.send(verify_all())


@pytest.fixture(scope="module")
def expected() -> list[Verdict]:
  verify(*PAIRS[6])  # a busy machine may take the deadline to start the child
  verdicts = verify_all()
  assert [verdict.outcome.value for verdict in verdicts] == [
    "right", "right", "right", "wrong", "wrong", "right", "right", "wrong", "unparseable",
  ]  # fmt: skip
  return verdicts


def test_in_other_threads(expected):
  with concurrent.futures.ThreadPoolExecutor(4) as threads:
    results = [threads.submit(verify_all) for _ in range(4)]
    assert [result.result() for result in results] == [expected] * 4


def test_in_the_workers_of_a_pool(expected):
  with VerifierPool(workers=2) as pool:
    assert pool.verify_all(*zip(*PAIRS, strict=True)) == expected


@pytest.mark.parametrize("daemon", [False, True])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_in_child_processes(method, daemon):
  """In an interpreter of its own: to fork one in which JAX has threads may hang it."""
  script = f"from {__name__} import child_agrees; child_agrees({method!r}, {daemon})"
  root = pathlib.Path(__file__).resolve().parents[2]
  subprocess.run([sys.executable, "-c", script], cwd=root, check=True, timeout=120)


def child_agrees(method: str, daemon: bool) -> None:
  expected = verify_all()
  context = multiprocessing.get_context(method)
  receiver, sender = context.Pipe(duplex=False)
  process = context.Process(target=_send_verdicts, args=(sender,), daemon=daemon)
  process.start()
  assert receiver.poll(60)
  assert receiver.recv() == expected
  process.join()
  assert verify_all() == expected  # the parent's own child still answers the parent


def test_an_alarm_of_the_caller_survives():
  """math-verify cancels it: a training loop's own watchdog never fired."""
  script = (
    "import signal\n"
    "from grpo_jax.verify import verify\n"
    "signal.alarm(100)\n"
    r"verify(r'\boxed{2}', r'\sum_{n=0}^{\infty} \frac{1}{2^n}')" + "\n"
    "print(signal.alarm(0) > 50)\n"
  )
  assert subprocess.check_output([sys.executable, "-c", script]) == b"True\n"


def test_the_import_is_light():
  script = (
    "import sys, time, json\n"
    "start = time.process_time()\n"
    "import grpo_jax.verify\n"
    "print(json.dumps([time.process_time() - start, sorted(sys.modules)]))\n"
  )
  seconds, modules = json.loads(subprocess.check_output([sys.executable, "-c", script]))
  assert seconds < 0.2
  assert not {"jax", "numpy", "sympy", "mpmath", "math_verify"} & set(modules)


def test_a_hostile_check_leaves_the_next_one_its_answer():
  """The child of the symbolic check is replaced after a check that it did not survive."""
  start = time.perf_counter()
  bomb = verify(r"\boxed{\sum_{k=1}^{10^9} k^k}", r"\int_0^2 x \, dx")
  assert bomb.outcome.value == "unscored"
  assert time.perf_counter() - start < 10
  assert verify(r"\boxed{2}", r"\int_0^2 x \, dx")
