"""Progress on stderr: a bar in a terminal, occasional lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from likely.cli.output import leads, note
from likely.training.progress import bar_with, duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Task, TaskID

STAGE_SECONDS = 5.0  # between lines where there is no terminal


def console() -> Console:
    """On stderr, made when it is needed: rich takes a tenth of a second to import."""
    from rich.console import Console

    return Console(stderr=True, quiet=not leads())


def settle(resumed: int | None = None) -> None:
    """Choose the threads of this process, as `settle_threads`, and say so where they are few."""
    from likely.devices import settle_threads

    said = settle_threads(resumed)
    if said:
        note(said)


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """A spinner with the time spent, while something without steps is done."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    screen = console()
    if not screen.is_terminal:
        note(f"{what} ...")
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True) as bar:
        bar.add_task(what, total=None)
        yield


@contextlib.contextmanager
def loading() -> Iterator[Callable[[str, int, int | None], None]]:
    """What `likely.data.load` calls while it downloads or decodes."""
    with contextlib.ExitStack() as stack:
        bars: dict[str, Callable[[int, int | None], None]] = {}

        def show(what: str, done: int, total: int | None) -> None:
            if what not in bars:
                bars[what] = stack.enter_context(counting(what))
            bars[what](done, total)

        yield show


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar for work that counts: called with (done, of how many, or None)."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    screen = console()
    if not screen.is_terminal:
        note(f"{what} ...")
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    with Progress(*columns, TimeRemainingColumn(), console=screen, transient=True) as bar:
        task = bar.add_task(what, total=None)

        def show(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        yield show


class StageProgress:
    """Stages of a job: those that run as bars, the done ones as lines."""

    def __init__(self) -> None:
        self._console = console()
        self._bar = bar_with(self._console, "{task.percentage:.0f} %")
        self._stages: dict[str, tuple[TaskID, float]] = {}  # and when each began
        self._last_line = time.monotonic()

    def __enter__(self) -> StageProgress:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            for stage in list(self._stages):
                self._end(stage)
            if self._console.is_terminal:
                self._bar.stop()

    def __call__(self, stage: str, done: float, total: float) -> None:
        """What a job calls: what is being done, how much of it, of how much."""
        with contextlib.suppress(OSError):  # the terminal was closed
            self._show(stage, done, total)

    def _show(self, stage: str, done: float, total: float) -> None:
        if stage not in self._stages:
            self._stages[stage] = self._bar.add_task(stage, total=total), time.monotonic()
        self._bar.update(self._stages[stage][0], completed=done, total=total)
        if done >= total:
            self._end(stage)
        elif not self._console.is_terminal and time.monotonic() - self._last_line >= STAGE_SECONDS:
            self._last_line = time.monotonic()
            note("; ".join(map(self._words, self._bar.tasks)))

    def _words(self, task: Task) -> str:
        if not task.total or task.total == 1:
            return f"{task.description} ..."
        left = task.time_remaining
        ending = "" if left is None else f", {duration(left)} left"
        return f"{task.description}: {task.completed:.0f} of {task.total:.0f}{ending}"

    def _end(self, stage: str) -> None:
        task, began = self._stages.pop(stage)
        self._bar.remove_task(task)
        note(f"{stage}: {duration(time.monotonic() - began)}")
