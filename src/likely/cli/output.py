"""Output of the command: results on stdout, progress and errors on stderr."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import io
import json
import os
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any


def leads() -> bool:
    """Whether this is rank 0 (or the only process)."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str = "") -> None:
    """A line of the answer."""
    if leads():
        print(text)


def note(text: str) -> None:
    """A line about the work, on stderr."""
    if leads():
        # A terminal that was closed must not end the work before it is saved.
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr, flush=True)


def say_json(document: Any) -> None:
    """The one JSON document of a command; NaN is refused."""
    if leads():
        ascii_only = not (sys.stdout.encoding or "utf-8").lower().startswith("utf")
        print(json.dumps(document, indent=2, allow_nan=False, ensure_ascii=ascii_only))


def answer(options: argparse.Namespace, record: Any, *lines: str) -> int:
    """The end of a command that succeeded: its document with --json, else its lines; 0."""
    if options.json:
        say_json(record)
    else:
        for line in lines:
            say(line)
    return 0


def aligned(lines: Sequence[Sequence[str]], *, left: int = 0) -> list[str]:
    """Cells in columns: the first `left` of them flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(size) if place < left else cell.rjust(size)
            for place, (cell, size) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]


def fail(error: BaseException, word: str) -> int:
    """One line on stderr; the exit code for bad input."""
    note(f"likely: {word}: {' '.join(str(error).split())}")
    return 2


def width() -> int:
    """Columns to write in: those of the terminal, at most 100."""
    return min(100, shutil.get_terminal_size((80, 24)).columns)


def rows(pairs: Iterable[tuple[str, str]], indent: int = 2) -> str:
    """Names and texts in two columns, the texts wrapped."""
    pairs = list(pairs)
    left = max((len(name) for name, _ in pairs), default=0)
    hanging = " " * (indent + left + 2)
    lines = []
    for name, text in pairs:
        first = f"{' ' * indent}{name:<{left}}  "
        wrapped = textwrap.TextWrapper(
            width() - 1, first, hanging, break_long_words=False, break_on_hyphens=False
        ).wrap(text)
        lines.extend(wrapped or [first.rstrip()])
    return "".join(line + "\n" for line in lines)


def wrapped(text: str) -> str:
    """A sentence in lines of the terminal's width."""
    if len(text) < width():
        return text
    return textwrap.fill(text, width() - 1, break_long_words=False, break_on_hyphens=False)


def silence() -> None:
    """Send what is left of stdout nowhere, so that the interpreter's last flush is quiet too."""
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)


# What a terminal that cannot show a character gets instead.
_PLAIN = dict(zip("↑→↓←█·≈×", "^>v<#.~x", strict=True))
_PLAIN |= {"∞": "inf", "≤": "<=", "≥": ">=", "±": "+-"}


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter, "?") for letter in letters), error.end


@contextlib.contextmanager
def open_streams() -> Iterator[None]:
    """A stream that the caller has closed, as `2>&-` does, leads nowhere.

    Python has None in its place, and `print(..., file=None)` writes to stdout.
    """
    with contextlib.ExitStack() as stack:
        for stream, redirect in (
            (sys.stdout, contextlib.redirect_stdout),
            (sys.stderr, contextlib.redirect_stderr),
        ):
            if stream is None:
                nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
                stack.enter_context(redirect(nowhere))
        yield


@contextlib.contextmanager
def plain_letters() -> Iterator[None]:
    """Signs that stdout cannot encode are written in ASCII."""
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper):
        yield
        return
    codecs.register_error("likely.plain", _plain)
    before = stream.errors
    stream.reconfigure(errors="likely.plain")
    try:
        yield
    finally:
        stream.reconfigure(errors=before)


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings as lines for a person: no file name, no source line."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        note(f"likely: warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
