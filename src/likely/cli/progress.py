"""Progress on stderr: a bar in a terminal, occasional lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from likely.cli.output import leads, note
from likely.training.progress import duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

LINE_SECONDS = 10.0


def console() -> Console:
    """On stderr, made when it is needed: rich takes a tenth of a second to import."""
    from rich.console import Console

    return Console(stderr=True, quiet=not leads())


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
    """Stages one after another: the one that runs as a bar, the done ones as lines."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = console()
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=None),
            TextColumn("{task.percentage:.0f} %"), TimeRemainingColumn(compact=True),
            TextColumn("left"), console=self._console, expand=True, transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._stage = ""
        self._began = time.monotonic()

    def __enter__(self) -> StageProgress:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._end_stage()
            if self._console.is_terminal:
                self._bar.stop()

    def __call__(self, stage: str, done: float, total: float) -> None:
        """What a job calls: what is being done, how much of it, of how much."""
        with contextlib.suppress(OSError):  # the terminal was closed
            self._show(stage, done, total)

    def _show(self, stage: str, done: float, total: float) -> None:
        if stage != self._stage:
            self._end_stage()
            self._stage, self._began = stage, time.monotonic()
            self._task = self._bar.add_task(stage, total=total)
        assert self._task is not None
        self._bar.update(self._task, completed=done, total=total)

    def _end_stage(self) -> None:
        if self._task is None:
            return
        self._bar.remove_task(self._task)
        note(f"{self._stage}: {duration(time.monotonic() - self._began)}")
        self._task = None
