"""Fits of several models to the same data, side by side: each a process with its share of cores.

Small networks gain little from a second thread, so several of them are done sooner side by side,
and each ends bit for bit where it would have ended alone with as many threads. A process gets its
order as a line of JSON on its input and reports on its output. Its input stays open as long as
somebody waits for it: when that one ends, in whatever way, the fit is saved and ends, too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from likely import data as data_room
from likely import runs
from likely.devices import choose_device, cores
from likely.errors import LikelyError
from likely.models import entry
from likely.runs.checkpoint import Occupied
from likely.training.loop import fit
from likely.training.presets import fit_settings
from likely.training.run import Run

# A fit whose command has just been killed still saves its state.
PATIENCE_SECONDS = 30.0


@dataclasses.dataclass(frozen=True)
class Order:
    """A fit to be made by the presets of its model.

    Attributes:
        name: of the model, in the registry.
        request: how its data is loaded, {"name": ..., options}.
        directory: of the run.
        settings: of the fit that differ from the preset.
    """

    name: str
    request: Mapping[str, Any]
    directory: str
    settings: Mapping[str, Any]


class FitStopped(Exception):
    """A fit was stopped from outside; the message is its status."""


class SideBySide:
    """Fits that run beside this process while the block lasts; iteration gives those that are done.

    They begin in their order as far as there is room: `at_once` at a time, with `threads` each;
    `progress` is called with (name of the model, step, of how many). Leaving the block, in whatever
    way, lets the others save their state and end.
    """

    def __init__(
        self,
        orders: Sequence[Order],
        at_once: int,
        threads: int,
        progress: Callable[[str, float, float], None],
    ) -> None:
        self._waiting = list(orders)
        self._at_once, self._threads, self._progress = at_once, threads, progress
        self._running: dict[str, tuple[Order, subprocess.Popen[str]]] = {}
        self._messages: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()

    def __enter__(self) -> SideBySide:
        self._fill()
        return self

    def __exit__(self, *_: object) -> None:
        for _order, process in self._running.values():
            with contextlib.suppress(OSError):
                _input_of(process).close()
        for _order, process in self._running.values():
            process.wait()

    def __iter__(self) -> Iterator[Order]:
        """The fits as they finish.

        Raises:
            FitStopped: one was stopped by a signal.
            LikelyError: what a fit refuses.
        """
        while self._running:
            name, message = self._messages.get()
            if "step" in message:
                self._progress(name, message["step"], message["steps"])
                continue
            order, process = self._running.pop(name)
            with contextlib.suppress(OSError):
                _input_of(process).close()
            process.wait()
            if "error" in message:
                raise _kinds(LikelyError).get(message["error"], LikelyError)(message["text"])
            if "finished" not in message:
                raise LikelyError(
                    f"the fit of {name} ended with exit code {process.returncode}; run the same "
                    "command again to resume it"
                )
            if not message["finished"]:
                raise FitStopped(message["status"])
            self._fill()
            yield order

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._at_once:
            order = self._waiting.pop(0)
            place = str(Path(__file__).parents[2])  # this package and no other
            paths = os.pathsep.join(filter(None, (place, os.environ.get("PYTHONPATH"))))
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "likely.jobs.fits"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": str(self._threads), "PYTHONPATH": paths},
                start_new_session=True,  # Ctrl-C is for this process; it closes the inputs
            )
            self._running[order.name] = order, process
            stream = _input_of(process)
            stream.write(json.dumps(dataclasses.asdict(order)) + "\n")
            stream.flush()
            threading.Thread(target=self._listen, args=(order.name, process), daemon=True).start()

    def _listen(self, name: str, process: subprocess.Popen[str]) -> None:
        message: dict[str, Any] = {}
        assert process.stdout is not None
        for line in process.stdout:
            message = json.loads(line)
            if "step" in message:
                self._messages.put((name, message))
        self._messages.put((name, {} if "step" in message else message))


def room_for(count: int, device: str) -> tuple[int, int]:
    """(fits at a time, threads of each) for this many fits on this machine."""
    if choose_device(device).type != "cpu":
        return 1, cores.asked() or cores.usable()
    at_once = min(count, cores.usable())
    return at_once, cores.asked() or max(1, cores.idle() // at_once)


def main() -> None:
    """One fit: the order is a line of JSON on the input, the reports are lines on the output."""
    record = json.loads(sys.stdin.readline())

    def end_when_alone() -> None:
        while os.read(0, 4096):  # until nobody holds the other end of the input
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_when_alone, daemon=True).start()
    try:
        run = _fitted(Order(**record))
        _tell({"finished": run.finished, "status": run.status})
    except LikelyError as error:
        _tell({"error": type(error).__name__, "text": str(error)})


def _fitted(order: Order) -> Run:
    request = dict(order.request)
    train, _ = data_room.load(request.pop("name"), **request)
    settings = fit_settings(entry(order.name).settings, train, order.settings)
    model = runs.build(order.name, train.spec, seed=settings.seed)
    begun_with = runs.RunDirectory(order.directory).threads()
    if begun_with is not None:
        import torch

        torch.set_num_threads(begun_with)

    def progress(run: Run, record: dict[str, float]) -> None:
        _tell({"step": run.step, "steps": settings.steps})

    patience = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return fit(model, train, settings=settings, out=order.directory, progress=progress)
        except Occupied:
            if time.monotonic() > patience:
                raise
            time.sleep(0.5)


def _tell(message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more: the fit is about to be stopped
        print(json.dumps(message), flush=True)


def _input_of(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdin is not None
    return process.stdin


def _kinds(kind: type[LikelyError]) -> dict[str, type[LikelyError]]:
    """An error and all that are derived from it, by name."""
    return {kind.__name__: kind} | {
        name: subclass for each in kind.__subclasses__() for name, subclass in _kinds(each).items()
    }


if __name__ == "__main__":
    main()
