"""A bar for a person at a terminal, few plain lines for a log file."""

import io

import pytest

from grpo_jax.run.progress import Progress


class Clock:
  """A clock that a test moves."""

  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


class Terminal(io.StringIO):
  def isatty(self):
    return True


def run_steps(steps, seconds_each, first_step=0):
  """The plain output of a run whose steps take `seconds_each`."""
  stream, clock = io.StringIO(), Clock()
  with Progress(steps, first_step, stream, clock=clock) as progress:
    for step in range(first_step, steps):
      clock.now += seconds_each
      progress.update(step, reward=0.5, tokens_per_s=1280)
  return stream.getvalue().splitlines()


def test_a_log_file_gets_the_first_and_last_step_and_few_between():
  lines = run_steps(steps=100, seconds_each=0.5)
  assert [line.split()[1] for line in lines] == [f"{n}/100" for n in (1, 21, 41, 61, 81, 100)]
  assert not any("\x1b" in line or "\r" in line for line in lines)


@pytest.mark.parametrize(
  ("line", "text"),
  [
    (0, "step   1/100  reward 0.500  1.28k tokens/s  20 s"),
    (1, "step   2/100  reward 0.500  1.28k tokens/s  40 s, 32 min 40 s left"),
    (-1, "step 100/100  reward 0.500  1.28k tokens/s  33 min 20 s"),
  ],
)
def test_what_a_line_says(line, text):
  assert run_steps(steps=100, seconds_each=20)[line] == text


def test_the_time_left_leaves_out_the_first_step_which_compiles():
  stream, clock = io.StringIO(), Clock()
  with Progress(11, stream=stream, every_seconds=0, clock=clock) as progress:
    clock.now += 600
    progress.update(0)
    clock.now += 2
    progress.update(1)
  assert stream.getvalue().splitlines()[1] == "step  2/11  10 min 02 s, 18 s left"


def test_a_resumed_run_reckons_with_its_own_steps_only():
  assert run_steps(steps=100, seconds_each=20, first_step=90)[1].endswith("40 s, 2 min 40 s left")


def test_the_last_accuracy_stays_until_the_next():
  stream, clock = io.StringIO(), Clock()
  with Progress(3, stream=stream, every_seconds=0, clock=clock) as progress:
    progress.update(0, reward=0.0, accuracy=0.3125)
    progress.update(1, reward=0.25)
  assert "reward 0.250  accuracy 31.2%" in stream.getvalue().splitlines()[-1]


def test_a_run_that_fails_tells_how_far_it_came():
  stream = io.StringIO()
  with pytest.raises(KeyboardInterrupt), Progress(100, stream=stream, clock=Clock()) as progress:
    for step in range(3):
      progress.update(step)
    raise KeyboardInterrupt
  assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["1/100", "3/100"]


def test_say_is_a_plain_line_in_a_log_file():
  stream = io.StringIO()
  with Progress(1, stream=stream) as progress:
    progress.say("[bold]saved[/bold]")
  assert stream.getvalue() == "[bold]saved[/bold]\n"


def test_a_terminal_gets_a_bar_and_say_stands_above_it(monkeypatch):
  monkeypatch.setenv("TERM", "xterm")
  stream = Terminal()
  with Progress(4, stream=stream) as progress:
    progress.update(0, reward=0.5)
    progress.say("[1/2] saved /tmp/x")
    progress.update(3, reward=0.75)
  text = stream.getvalue()
  assert "4/4" in text and "reward 0.750" in text
  assert text.index("[1/2] saved /tmp/x") < text.rindex("4/4")


def test_a_dumb_terminal_gets_lines(monkeypatch):
  monkeypatch.setenv("TERM", "dumb")
  stream = Terminal()
  with Progress(4, stream=stream) as progress:
    progress.update(0, reward=0.5)
  assert stream.getvalue().startswith("step 1/4  reward 0.500")
