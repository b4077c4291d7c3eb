"""Programs judged by asserts about their functions: who passes, and who cannot cheat.

The asserts run in another process than the program; each cheat here works where they share one.
"""

import pytest

from grpo_jax.verify import Outcome
from grpo_jax.verify.jailer import UNISOLATED, Limits
from grpo_jax.verify.programs import ProgramTests
from tests.verify.judging import judge

RIGHT, WRONG = Outcome.RIGHT, Outcome.WRONG
HASTY = Limits(cpu_s=1, wall_s=1.5, output_kb=64)

SUITE = """
def check(candidate):
    assert candidate([3, 1, 2]) == [1, 2, 3]
    assert candidate([]) == []
    assert all(a <= b for a, b in zip(candidate([2, 1]), candidate([2, 1])[1:]))
"""


@pytest.mark.parametrize(
  "program, tests, outcome",
  [
    ("def f(x): return sorted(x)", ProgramTests(code=SUITE, entry_point="f"), RIGHT),
    ("def f(x): return x", ProgramTests(code=SUITE, entry_point="f"), WRONG),
    ("def g(x): return sorted(x)", ProgramTests(code=SUITE, entry_point="f"), WRONG),
    ("def sum(a, b): return a * b", ProgramTests(code="assert sum(2, 3) == 6"), WRONG),
    ("def sum(a, b): return a * b",
     ProgramTests(code="assert sum(2, 3) == 6", entry_point="sum"), RIGHT),
  ],
  ids=["right", "wrong", "another name", "a built-in name", "a built-in name as entry point"],
)  # fmt: skip
def test_suites_of_a_function(program, tests, outcome, isolated):
  verdict = judge(program, tests, isolated)
  assert verdict.outcome is outcome, verdict


VALUES = """
import math
values = [None, True, -3, 10**40, -(10**40), 0.1, float("inf"), "\\ud800\\0", b"\\xff", 2j,
          (1, [2]), {1: (2,), (3,): None}, {1, "a"}, frozenset([1]), [], (), {}, set()]
for value in values:
    back = same(value)
    assert back == value and (type(back) is type(value) or value == frozenset([1]))
assert math.isnan(same(math.nan))
assert same(same) is not None and same(same)(3) == 3
assert add(1, b=2) == 3
"""
BEHAVIOUR = """
items = [3, 1]
assert sort_in_place(items) is None and items == [1, 3]
stack = Stack()
stack.push(4)
assert stack.pop() == 4 and len(stack) == 0 and stack.name == "s"
assert list(countdown(3)) == [3, 2, 1]
try:
    countdown(None).nothing
    assert False
except AttributeError:
    pass
try:
    fail("x")
except ValueError as error:
    assert str(error) == "bad x"
else:
    assert False
"""
PROGRAM = """
class Strange(ValueError): pass
class Stack:
  name = "s"
  def __init__(self): self.items = []
  def push(self, item): self.items.append(item)
  def pop(self): return self.items.pop()
  def __len__(self): return len(self.items)
def same(x): print("noise"); return x
def add(a, b): return a + b
def sort_in_place(x): x.sort()
def countdown(n):
  while n: yield n; n -= 1
def fail(x): raise Strange("bad " + x)
"""


@pytest.mark.parametrize("code", [VALUES, BEHAVIOUR], ids=["values", "behaviour"])
def test_asserts_see_a_program_as_if_it_were_theirs(code, isolated):
  verdict = judge(PROGRAM, ProgramTests(code=code), isolated)
  assert verdict.outcome is RIGHT, verdict


def test_a_reason_names_the_assert(isolated):
  tests = ProgramTests(code="assert f(1) == 1\nassert f(2) == 3, 'three'")
  verdict = judge("def f(x): return x", tests, isolated)
  assert verdict.reason == "line 2: assert f(2) == 3, 'three' (AssertionError: three)"
  assert "ZeroDivisionError" in judge("def f(x): return 1 / 0", tests, isolated).reason
  assert "not defined" in judge("def g(x): return x", tests, isolated).reason


@pytest.mark.parametrize("code", ["assert f(", "assert f(open) == 1", "math.sqrt(f(1))"])
def test_tests_that_cannot_be_run_say_nothing_about_the_program(code, isolated):
  verdict = judge("import math\ndef f(x): return 1", ProgramTests(code=code), isolated)
  assert verdict.outcome is Outcome.UNSCORED, verdict


def test_tests_may_print(isolated):
  tests = ProgramTests(code="print('{', end='', flush=True); assert f(1) == 1")
  assert judge("def f(x): return x", tests, isolated).outcome is RIGHT


# ------------------------------------------------------------------------------ cheating

FORGE = """
import json, os
def f(x):
  for fd in range(3, 64):
    try: os.write(fd, b'{FORGED}' + b'\\n')
    except OSError: pass
"""
CHEATS = {
  "exit before the asserts": "import sys; sys.exit(0)",
  "exit hard": "import os; os._exit(0)",
  "exit when called": "def f(x): exit(0)",
  "exit hard when called": "import os\ndef f(x): os._exit(0)",
  "equal to everything": "class A:\n  def __eq__(self, other): return True\n"
  "  __ne__ = lambda self, other: False\ndef f(x): return A()",
  "a list equal to everything": "class A(list):\n  def __eq__(self, other): return True\n"
  "def f(x): return A([x])",
  "an int equal to everything": "class A(int):\n  def __eq__(self, other): return True\n"
  "def f(x): return A(0)",
  "says that all is well": "print('passed', 'ok', 'True', 'all asserts hold', 'exit code 0')",
  "patched builtins": "import builtins\n"
  "builtins.AssertionError = type('A', (), {})\nbuiltins.all = lambda x: True\n"
  "builtins.compile = builtins.exec = lambda *a: None\ndef f(x): return None",
  "spoofed sorted": "def sorted(x): return 'same'\ndef f(x): return None",
  "raises what is not an Exception": "def f(x): raise SystemExit(0)",
  "raises KeyboardInterrupt": "def f(x): raise KeyboardInterrupt",
  "nonsense": FORGE.replace("FORGED", "}{"),
  "a number as a reply": FORGE.replace("{FORGED}", "5"),
  "deep nonsense": FORGE.replace("b'{FORGED}'", "b'[' * 60_000"),
  "a reply without a value": FORGE.replace("FORGED", ""),
  "a report": FORGE.replace("FORGED", '"nonce": null, "ended": {"passed": true, "why": null}'),
  "hunts for the tests": """
    import gc, sys
    def f(x):
      for frame in sys._current_frames().values():
        while frame:
          for value in frame.f_locals.values():
            if isinstance(value, str) and 'assert' in value: return [1, 2]
          frame = frame.f_back
      found = [o for o in gc.get_objects() if isinstance(o, dict) and 'nonce' in o]
      return [1, 2] if found else None
  """,
  "sleeps": "import time; time.sleep(60)",
  "spins when called": "def f(x):\n  while True: pass",
  "a huge result": "def f(x): return 'x' * 10_000_000",
  "an endless result": "import itertools\ndef f(x): return itertools.count()",
  "kills all it can": "import os\ndef f(x): os.kill(-1, 9)",
  "kills its parent": "import os\ndef f(x):\n"
  "  for signal in range(1, 32): os.kill(os.getppid(), signal)",
}  # fmt: skip
STRICT = ProgramTests(code="assert sorted(f([2, 1])) == [1, 2]\nassert list(f([5, 4])) == [4, 5]")


@pytest.mark.parametrize("name", CHEATS)
def test_cheats_are_wrong(name, isolated):
  verdict = judge(CHEATS[name], STRICT, isolated, HASTY)
  assert verdict.outcome is WRONG, verdict


SAFE_UNISOLATED = ["exit hard", "an int equal to everything", "patched builtins", "sleeps"]


@pytest.mark.parametrize("name", SAFE_UNISOLATED)
def test_cheats_are_wrong_without_isolation(name):
  verdict = judge(CHEATS[name], STRICT, UNISOLATED, HASTY)
  assert verdict.outcome is WRONG, verdict


def test_a_forged_reply_gives_the_tests_no_names_they_did_not_ask_for(isolated):
  """One that replaced `any` or `__builtins__` would decide what the asserts mean."""
  forger = """
    import json, os, time
    me = {"reference": 0}
    replies = [{"value": {"dict": [["any", me], ["f", me]]}}]
    replies += [{"value": value, "positional": []} for value in ([0], True, True)]
    for fd in range(3, 64):
      try: os.write(fd, "".join(json.dumps(reply) + "\\n" for reply in replies).encode())
      except OSError: pass
    time.sleep(9)
  """
  verdict = judge(forger, ProgramTests(code="assert any(f(3))"), isolated)
  assert verdict.outcome is WRONG and "AssertionError" in verdict.reason, verdict


def test_no_bare_except_of_a_test_takes_silence_for_an_answer(isolated):
  tests = ProgramTests(code="try: f(1)\nexcept: pass")
  assert judge("import os\ndef f(x): os._exit(0)", tests, isolated).outcome is WRONG
  assert judge("def f(x): raise ValueError", tests, isolated).outcome is RIGHT
