"""SIGINT, SIGTERM and SIGHUP as a request to stop after the current step."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

# SIGHUP comes when a terminal is closed; Windows has none.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


def exit_code(status: str) -> int:
    """What a command that was stopped returns, as a shell would: 128 and the signal's number."""
    named = (number for number in SIGNALS if number.name in status)
    return 128 + next(named, signal.SIGINT)


class StopRequests:
    """A context in which these signals are noted instead of ending the process.

    A hangup that is ignored already (`nohup likely fit ...`) stays ignored.

    A second SIGINT raises KeyboardInterrupt at once: the last checkpoint is then what is kept.

    Attributes:
        signal: the number of the signal that came, or 0.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._handlers: dict[int, Any] = {}

    @property
    def name(self) -> str:
        """The signal's name, or where the request came from."""
        return signal.Signals(self.signal).name if self.signal else "another process of the team"

    def __enter__(self) -> StopRequests:
        try:
            for number in SIGNALS:
                hangup = number not in (signal.SIGINT, signal.SIGTERM)
                if not (hangup and signal.getsignal(number) is signal.SIG_IGN):
                    self._handlers[number] = signal.signal(number, self._note)
        except ValueError:
            # Not the main thread (a notebook's worker): signals go to whoever runs there.
            self._handlers = {}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.signal = number

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
