"""How far is the run? A bar on a terminal, a plain line now and then in a log file.

A bar redraws itself, which makes a log file unreadable, so only a terminal gets one.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import IO

from grpo_jax.run.human import human_count, human_duration


class Progress:
  """A context manager around the training loop; call `update` after each step."""

  def __init__(
    self,
    steps: int,
    first_step: int = 0,
    stream: IO[str] | None = None,
    every_seconds: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Watches steps `first_step` to `steps - 1`; a resumed run does not start at 0.

    stream: where to write, standard output by default. every_seconds: least time between two plain
    lines. clock: gives seconds; a test has its own.
    """
    stream = sys.stdout if stream is None else stream
    on_terminal = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    self._display = _Bar(stream) if on_terminal else _Lines(stream, every_seconds, clock)
    self._steps = steps
    self._clock = clock
    self._known: dict[str, float] = {}
    self._started = clock()
    self._first_update: tuple[int, float] | None = None

  def update(
    self,
    step: int,
    *,
    reward: float | None = None,
    accuracy: float | None = None,
    tokens_per_s: float | None = None,
  ) -> None:
    """Shows that `step`, counted from 0, is done; None keeps the value shown before."""
    news = {"reward": reward, "accuracy": accuracy, "tokens_per_s": tokens_per_s}
    self._known |= {name: value for name, value in news.items() if value is not None}
    done, now = step + 1, self._clock()
    if self._first_update is None:
      self._first_update = (done, now)
    facts = "  ".join([*self._values(), self._times(done, now)])
    self._display.show(done, self._steps, facts)

  def say(self, text: str) -> None:
    """Prints `text` on lines of its own, above the bar if there is one."""
    self._display.say(text)

  def _values(self) -> list[str]:
    """What is known of the last step, in words."""
    formats = {
      "reward": lambda reward: f"reward {reward:.3f}",
      "accuracy": lambda accuracy: f"accuracy {100 * accuracy:.1f}%",
      "tokens_per_s": lambda rate: f"{human_count(rate)} tokens/s",
    }
    return [tell(self._known[name]) for name, tell in formats.items() if name in self._known]

  def _times(self, done: int, now: float) -> str:
    """Time gone by, and the time left once a step without compilation has been seen."""
    gone = human_duration(now - self._started)
    first_done, first_now = self._first_update
    if done == first_done or done == self._steps:
      return gone
    left = (now - first_now) / (done - first_done) * (self._steps - done)
    return f"{gone}, {human_duration(left)} left"

  def __enter__(self) -> "Progress":
    self._display.start()
    return self

  def __exit__(self, *exception: object) -> None:
    self._display.stop()


class _Lines:
  """A plain line for the first and the last step, and at most every few seconds between."""

  def __init__(self, stream: IO[str], every_seconds: float, clock: Callable[[], float]):
    self._stream = stream
    self._every_seconds = every_seconds
    self._clock = clock
    self._next_line = -float("inf")
    self._unwritten = ""

  def start(self) -> None:
    """Nothing to set up."""

  def show(self, done: int, steps: int, facts: str) -> None:
    self._unwritten = f"step {done:>{len(str(steps))}}/{steps}  {facts}"
    if self._clock() >= self._next_line or done == steps:
      self._write_line()

  def say(self, text: str) -> None:
    self._stream.write(text + "\n")
    self._stream.flush()

  def stop(self) -> None:
    # A run that ends early, by an error or a signal, still tells how far it came.
    if self._unwritten:
      self._write_line()

  def _write_line(self) -> None:
    self.say(self._unwritten)
    self._unwritten = ""
    self._next_line = self._clock() + self._every_seconds


class _Bar:
  """Two lines that redraw themselves: the bar, and the facts below it."""

  def __init__(self, stream: IO[str]):
    from rich.console import Console
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn
    from rich.progress import Progress as RichProgress

    console = Console(file=stream)
    columns = ("step", MofNCompleteColumn(), BarColumn(bar_width=None), TaskProgressColumn())
    self._bar = RichProgress(*columns, console=console, expand=True)
    self._task = self._bar.add_task("", total=None)
    self._facts = ""
    self._live = Live(get_renderable=self._render, console=console, refresh_per_second=2)

  def _render(self):
    from rich.console import Group
    from rich.text import Text

    return Group(self._bar, Text(self._facts, no_wrap=True, overflow="ellipsis"))

  def start(self) -> None:
    self._live.start()

  def show(self, done: int, steps: int, facts: str) -> None:
    self._facts = facts
    self._bar.update(self._task, completed=done, total=steps)

  def say(self, text: str) -> None:
    self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

  def stop(self) -> None:
    self._live.stop()
