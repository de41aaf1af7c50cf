"""The command `likely`: one small module a subcommand, imported when it is asked for.

`main` is the whole command as a function of its arguments. Bad input is one line on the error
stream and exit code 2; an interrupt is 130; anything else that goes wrong is a defect and keeps
its traceback. Nothing here imports torch or numpy before a subcommand starts to work, so help
answers at once.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence

from likely.cli.output import fail, open_streams, plain_letters, plain_warnings, silence
from likely.cli.parser import COMMANDS, overview, parse, unknown
from likely.errors import LikelyError, Unanswerable

__all__ = ["main"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `likely ARGUMENTS`.

    Args:
        argv: the arguments; those of the process when None.

    Returns:
        The exit code: 0, 1 (a proof failed), 2 (bad input), 129 (SIGHUP), 130 (SIGINT) or
        143 (SIGTERM).
    """
    with open_streams():
        return _main(list(sys.argv[1:] if argv is None else argv))


def _main(arguments: list[str]) -> int:
    try:
        with plain_warnings(), plain_letters():
            code = _run(arguments)
        sys.stdout.flush()
    except LikelyError as error:
        return fail(error, "cannot be answered" if isinstance(error, Unanswerable) else "error")
    except (BrokenPipeError, SystemExit):  # which rich makes of it
        silence()  # the reader of our output has gone, as `| head` does
        return 0
    except OSError as error:
        if error.filename is not None or error.errno not in _NO_ROOM:
            raise
        silence()  # stdout is a file, and its disk is full
        return fail(OSError(f"cannot write the output: {error.strerror}; make room"), "error")
    except KeyboardInterrupt as stop:
        from likely.training.stopping import exit_code

        print(f"likely: {str(stop) or 'interrupted'}", file=sys.stderr)
        return exit_code(str(stop))
    return code


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview(), end="")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name in ("-V", "--version"):
        from likely import __version__

        print(f"likely {__version__}")
        return 0
    if name not in COMMANDS:
        if name.startswith("-"):
            raise unknown("option", name, ("--help", "--version"), "likely")
        raise unknown("command", name, COMMANDS, "likely")
    try:
        module, options = parse(name, rest)
    except SystemExit as done:  # --help has printed its text
        return int(done.code or 0)
    return module.run(options)
