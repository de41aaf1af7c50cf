"""How far a fit is: a bar in a terminal or a notebook, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import time
from typing import Any

from likely.files.inline import Shown, fragment
from likely.runs.view import Viewed

LINE_SECONDS = 10.0


def watched() -> bool:
    """Whether somebody looks on: the errors go to a terminal, or this is a notebook."""
    return _notebook() or sys.stderr.isatty()


def duration(seconds: float) -> str:
    """A duration in words: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def bar_with(console: Any, *texts: str) -> Any:
    """A bar of rich: what is being done, how far it is, these texts, and the time left."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    left = (TimeRemainingColumn(compact=True), TextColumn("left"))
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), *map(TextColumn, texts))
    return Progress(*columns, *left, console=console, expand=True, transient=True)


class FitProgress:
    """Told of a fit's records, it shows steps, losses and the time left.

    Args:
        title: what is being fitted.
        steps: how many steps the fit takes.
    """

    def __init__(self, title: str, steps: int) -> None:
        self._title, self._steps = title, steps
        self._validation: dict[str, float] = {}
        self._last_line = time.monotonic()
        self._first: tuple[int, float] | None = None  # step and time of the first record
        self._bar: Any = None  # of rich, which takes a tenth of a second to import
        self._task: Any = None
        self._cell: Any = None  # of a notebook
        self._leads = os.environ.get("RANK", "0") == "0"

    def __enter__(self) -> FitProgress:
        if self._leads and not _notebook() and sys.stderr.isatty():
            from rich.console import Console

            texts = "{task.completed:.0f}/{task.total:.0f}", "{task.fields[losses]}"
            self._bar = bar_with(Console(stderr=True), *texts)
            self._task = self._bar.add_task(self._title, total=self._steps, losses="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.stop()

    def __call__(self, run: Viewed, record: dict[str, float]) -> None:
        """What `likely.fit` calls at every log record."""
        step, now = int(record["step"]), time.monotonic()
        self._first = self._first or (step, now)
        if "validation" in record:
            self._validation = {"validation": record["validation"]}
        record.update(self._validation)
        with contextlib.suppress(OSError):  # closed: the fit is about to be told so
            self._tell(step, now, str(record), "validation" in record)

    def _tell(self, step: int, now: float, losses: str, validated: bool) -> None:
        if not self._leads:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=step, losses=losses)
            return
        text = f"step {step} of {self._steps}: {losses}{self._left(step, now)}"
        if _notebook():
            self._show(step, text)
        elif now - self._last_line >= LINE_SECONDS or validated or step == self._steps:
            self._last_line = now
            print(text, file=sys.stderr, flush=True)

    def _show(self, step: int, text: str) -> None:
        """The bar of a notebook, drawn again in its place."""
        text = f"{self._title}: {text}"
        bar = f'<progress value="{step}" max="{self._steps}" style="width: 30%"></progress>'
        shown = Shown(text, fragment(f"<p>{bar} {text.replace('<', '&lt;')}</p>"))
        if self._cell is None:
            display = importlib.import_module("IPython.display").display
            self._cell = display(shown, display_id=True)
        else:
            self._cell.update(shown)

    def _left(self, step: int, now: float) -> str:
        first, began = self._first or (step, now)
        if step <= first or step >= self._steps:
            return ""
        return f", {duration((now - began) / (step - first) * (self._steps - step))} left"


def _notebook() -> bool:
    """Whether a notebook's kernel runs this."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"
