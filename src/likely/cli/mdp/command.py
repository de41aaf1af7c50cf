"""The command `likely mdp`: solve, evaluate, compare, simulate, certify, list, animate.

`run(arguments)` is the whole command as a function; so is `python -m likely.cli.mdp.command`.
Reading the arguments imports nothing heavy, so `likely mdp --help` answers at once. Bad input is
one line on the error stream and exit code 2; files are written atomically.
"""

from __future__ import annotations

import argparse
import codecs
import io
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from likely.errors import InvalidSetting, LikelyError

WORLD_HELP = (
    "a built-in world (see `likely mdp list`), a Gymnasium name such as FrozenLake-v1, or a file: "
    "grid drawn in text (.txt, .grid), PRISM or Storm (.tra), Cassandra (.pomdp, .mdp), .npz"
)

POLICY_HELP = (
    '"uniform" (all actions equally likely), "optimal", the name of an action, or a file '
    "written by `likely mdp solve --out`"
)


class _Parser(argparse.ArgumentParser):
    """argparse, but a mistake is an exception instead of a usage text and an exit."""

    def error(self, message: str) -> NoReturn:
        raise InvalidSetting(f"{message}; see `{self.prog} --help`")


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f'expected a positive number, given "{text}"')
    return value


def _discount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0.0 < value <= 1.0:
        raise argparse.ArgumentTypeError(f'expected a discount in (0, 1], given "{text}"')
    return value


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'expected a whole number >= 1, given "{text}"')
    return int(text)


def _whole(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f'expected a whole number >= 0, given "{text}"')
    return int(text)


def _size(text: str) -> list[int]:
    words = text.split("x")
    if not all(word.isdigit() and int(word) >= 1 for word in words):
        raise argparse.ArgumentTypeError(
            f'expected whole numbers with x between, as 100x100, given "{text}"'
        )
    return [int(word) for word in words]


def _sweeps(text: str) -> list[int | None]:
    """Numbers of sweeps; None stands for "inf", the limit."""
    found: list[int | None] = []
    for word in text.split(","):
        if word.strip() in ("inf", "∞"):
            found.append(None)
        elif word.strip().isdigit():
            found.append(int(word))
        else:
            raise argparse.ArgumentTypeError(
                f'expected whole numbers and "inf" with commas between, given "{text}"'
            )
    return found


def _confidence(text: str) -> float:
    value = _positive(text)
    if value >= 1.0:
        raise argparse.ArgumentTypeError(f'expected a number between 0 and 1, given "{text}"')
    return value


def _add(
    commands: argparse._SubParsersAction[_Parser], name: str, about: str, example: str
) -> _Parser:
    return commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _world_options(parser: _Parser) -> None:
    parser.add_argument("world", metavar="WORLD", help=WORLD_HELP)
    parser.add_argument(
        "--discount",
        type=_discount,
        metavar="D",
        help="discount per step, in (0, 1] (default: that of the world)",
    )
    parser.add_argument(
        "--size", type=_size, metavar="NxN", help="size of a scalable built-in world, as 100x100"
    )
    parser.add_argument(
        "--seed",
        type=_whole,
        default=0,
        metavar="N",
        help="seed of random worlds and of simulation (default 0)",
    )
    files = parser.add_argument_group("files that need more")
    files.add_argument(
        "--reward",
        action="append",
        default=[],
        metavar="FILE",
        help="reward file of a .tra model (.rew, .srew, .trew); may be repeated",
    )
    files.add_argument("--labels", metavar="FILE", help="label file of a .tra model (.lab)")
    files.add_argument(
        "--target",
        metavar="LABEL",
        help="states that end the episode of a .tra model; without rewards, the "
        "value is the probability of reaching them",
    )
    files.add_argument(
        "--underlying",
        action="store_true",
        help="solve the underlying MDP of a partially observed .pomdp file",
    )
    files.add_argument("--property", metavar="NAME", help="question of a benchmark .npz model")


def _json_option(parser: _Parser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object for machines")


def _tolerance_option(parser: _Parser) -> None:
    parser.add_argument(
        "--tolerance",
        type=_positive,
        default=1e-6,
        metavar="T",
        help="largest error of any state's value, in units of reward (default 1e-6)",
    )


def _solving_options(parser: _Parser) -> None:
    _tolerance_option(parser)
    solving = parser.add_argument_group("how to solve")
    solving.add_argument(
        "--method",
        default="auto",
        metavar="NAME",
        help="method for the discounted criterion, as policy-iteration (default: auto)",
    )
    solving.add_argument(
        "--criterion",
        default="auto",
        metavar="NAME",
        help="discounted, total, reachability, average or finite-horizon; "
        "default: that of the file, else discounted below discount 1 "
        "and total at 1",
    )
    solving.add_argument(
        "--objective",
        choices=("max", "min"),
        help="maximise or minimise (default: as the file says, else max)",
    )
    solving.add_argument(
        "--horizon", type=_count, metavar="STEPS", help="number of steps of the finite horizon"
    )
    solving.add_argument(
        "--max-iterations",
        type=_count,
        metavar="N",
        help="stop after N iterations; the bounds hold nevertheless",
    )
    solving.add_argument(
        "--max-seconds",
        type=_positive,
        metavar="S",
        help="stop after S seconds; the bounds hold nevertheless",
    )
    solving.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="checkpoint file of a long solve, which resumes from it",
    )


def parser() -> _Parser:
    parser = _Parser(
        prog="likely mdp",
        description="Dynamic programming on Markov decision processes, with certificates.",
        epilog="example:\n  likely mdp solve frozen-lake --discount 0.99 --tolerance 1e-6",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True

    solve = _add(
        commands,
        "solve",
        "find an optimal policy and bounds on its value",
        "  likely mdp solve frozen-lake --discount 0.99 --plot lake.png",
    )
    _world_options(solve)
    _solving_options(solve)
    solve.add_argument("--out", metavar="FILE", help="write the solution (.npz or .json)")
    solve.add_argument("--plot", metavar="FILE", help="draw value and policy (.png, .pdf, .svg)")
    _json_option(solve)

    evaluate = _add(
        commands,
        "evaluate",
        "find the value of a policy",
        "  likely mdp evaluate small-gridworld --policy uniform "
        "--sweeps 0,1,2,3,10,inf --plot figure.png",
    )
    _world_options(evaluate)
    _solving_options(evaluate)
    evaluate.add_argument(
        "--policy", default="uniform", metavar="POLICY", help=f"{POLICY_HELP} (default uniform)"
    )
    evaluate.add_argument(
        "--by",
        default="direct",
        metavar="NAME",
        help="direct, sweeps, gauss-seidel, gmres or bicgstab (default direct)",
    )
    evaluate.add_argument(
        "--sweeps",
        type=_sweeps,
        metavar="K,K,..",
        help="show the iterates after these numbers of synchronous sweeps from 0, with "
        'the greedy policy of each; "inf" is the limit',
    )
    evaluate.add_argument("--plot", metavar="FILE", help="draw it (.png, .pdf, .svg)")
    _json_option(evaluate)

    methods = _add(
        commands,
        "methods",
        "compare how the methods converge",
        "  likely mdp methods frozen-lake-8x8 --plot methods.png",
    )
    _world_options(methods)
    _tolerance_option(methods)
    methods.add_argument("--methods", metavar="NAME,..", help="which; default: all that apply")
    methods.add_argument(
        "--plot", metavar="FILE", help="error bound against backups and seconds (.png, .pdf, .svg)"
    )
    _json_option(methods)

    simulate = _add(
        commands,
        "simulate",
        "play episodes and report returns with intervals",
        "  likely mdp simulate frozen-lake --policy optimal --episodes 10000",
    )
    _world_options(simulate)
    _solving_options(simulate)
    simulate.add_argument(
        "--policy", default="optimal", metavar="POLICY", help=f"{POLICY_HELP} (default optimal)"
    )
    simulate.add_argument(
        "--episodes", type=_count, default=10_000, metavar="N", help="how many (default 10000)"
    )
    simulate.add_argument(
        "--start",
        type=_whole,
        metavar="STATE",
        help="number of the first state (default: the start of the world)",
    )
    simulate.add_argument(
        "--max-steps",
        type=_count,
        default=100_000,
        metavar="N",
        help="longest episode, in steps (default 100000)",
    )
    simulate.add_argument(
        "--confidence",
        type=_confidence,
        default=0.95,
        metavar="C",
        help="confidence of the interval, between 0 and 1 (default 0.95)",
    )
    _json_option(simulate)

    certify = _add(
        commands,
        "certify",
        "bound the error of a given value by one backup",
        "  likely mdp certify frozen-lake --value solution.npz",
    )
    _world_options(certify)
    certify.add_argument(
        "--value",
        required=True,
        metavar="FILE",
        help='.npz or .json with "value" [states], as `solve --out` writes',
    )
    _json_option(certify)

    listing = _add(commands, "list", "list the built-in worlds", "  likely mdp list")
    _json_option(listing)

    animate = _add(
        commands,
        "animate",
        "draw the sweeps of value iteration as an animated GIF",
        "  likely mdp animate frozen-lake-8x8 --out sweeps.gif --frames 40",
    )
    _world_options(animate)
    animate.add_argument("--out", required=True, metavar="FILE", help="the .gif to write")
    animate.add_argument(
        "--frames",
        type=_count,
        default=30,
        metavar="N",
        help="number of frames; the first sweeps are shown one by one (default 30)",
    )
    animate.add_argument(
        "--fps", type=_positive, default=4.0, metavar="F", help="frames per second (default 4)"
    )
    _solving_options(animate)
    animate.add_argument(
        "--policy", metavar="POLICY", help="show policy evaluation of this policy instead"
    )
    _json_option(animate)
    return parser


# What a terminal that cannot show a character gets instead.
_PLAIN = {"↑": "^", "→": ">", "↓": "v", "←": "<", "█": "#", "∞": "inf", "·": "."}


def _plain_letters(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter, "?") for letter in letters), error.end


def run(arguments: Sequence[str]) -> int:
    """Run `likely mdp ARGUMENTS`; returns the exit code: 0, or 2 for bad input.

    Args:
        arguments: what follows `likely mdp`.
    """
    try:
        given = parser().parse_args(list(arguments))
    except LikelyError as error:
        print(f"likely mdp: {error}", file=sys.stderr)
        return 2
    except SystemExit as done:  # --help has printed its text
        return int(done.code or 0)
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error("likely.plain", _plain_letters)
        sys.stdout.reconfigure(errors="likely.plain")
    from likely.cli.mdp import actions

    doing: dict[str, Callable[[argparse.Namespace], None]] = actions.COMMANDS
    try:
        doing[given.command](given)
    except LikelyError as error:
        print(f"likely mdp {given.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"likely mdp {given.command}: interrupted; nothing was written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0  # the reader of our output has gone, as `| head` does
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
