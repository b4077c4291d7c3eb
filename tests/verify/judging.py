"""What the tests of judged programs share: small limits, and running a program under them."""

import textwrap
import time

import pytest

from grpo_jax.verify import Verdict
from grpo_jax.verify.jailer import UNISOLATED, Isolation, Limits, probe
from grpo_jax.verify.programs import ProgramTests, judge_program

LIMITS = Limits(cpu_s=1, wall_s=3.0, memory_mb=256, processes=4, file_mb=1, output_kb=64)
ECHO = ProgramTests(pairs=(("", "ok"),))  # passed by whoever prints ok


@pytest.fixture(params=["isolated", "unisolated"])
def isolation(request) -> Isolation:
  """Both ways of running a program, the first where this kernel allows it."""
  return _walls() if request.param == "isolated" else UNISOLATED


@pytest.fixture
def isolated() -> Isolation:
  return _walls()


def judge(
  program: str, tests: ProgramTests, isolation: Isolation, limits: Limits = LIMITS
) -> Verdict:
  return judge_program(textwrap.dedent(program), tests, limits, isolation)


def eventually(condition, seconds: float = 10.0) -> bool:
  end = time.monotonic() + seconds
  while time.monotonic() < end:
    if condition():
      return True
    time.sleep(0.05)
  return False


def _walls() -> Isolation:
  found = probe()
  if not found.isolated:
    pytest.skip(f"this kernel allows no isolation: {found.refusal}")
  return found
