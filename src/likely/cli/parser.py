"""Command-line arguments: argparse with one-line errors.

A command is a module of this package with `COMMAND` and `run`. A choice is a second word
(`likely fit vae`, `likely data describe`) that decides which options there are, so every such pair
has a parser of its own, built when it is needed.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NoReturn, Protocol, cast

from likely.cli.output import rows, width, wrapped
from likely.errors import InvalidSetting, nearest
from likely.settings import OBJECTIVES

COMMANDS: dict[str, str] = {
    "fit": "fit a model to data; resumes where it was stopped",
    "sample": "draw images from a run into a PNG sheet or an array",
    "complete": "draw the rest of an image given any of its pixels, or a gap of a series",
    "colorize": "draw the colours of grey images",
    "upscale": "draw large images of small ones",
    "prior": "give the codes of a run a density: then it can be sampled",
    "encode": "encode the data of a run; reconstructions beside the inputs",
    "traverse": "draw what the code of a run says: units moved, codes by class",
    "arithmetic": "add and subtract mean codes: smiling woman - woman + man",
    "invert": "find the codes of real images; interpolate between them",
    "walk": "draw a closed loop through the codes, as an animation",
    "evaluate": "measure a run: nats, bits/dim, distances of its samples",
    "classify": "classify with few labels, from the encoder of a run",
    "clusters": "cluster and map the codes of a run's data, without labels",
    "score": "say which examples or stretches are odd under a run, and where",
    "forecast": "continue a series of a run's data, with quantiles",
    "verify": "check the likelihood of a run with independent code",
    "compress": "write images or series in the bits that a run says they hold",
    "decompress": "give them back, bit for bit",
    "compare": "compare runs, or fit one model of each kind and compare them",
    "data": "list, describe and check data sets",
    "models": "list the models and their settings",
    "mdp": "solve Markov decision processes, with certificates",
    "world": "learn a world from transitions, plan and act in it",
    "completion": "print the completion script of a shell",
}

# Those whose modules are in `likely.cli.queries`.
QUERIES = (
    "complete", "colorize", "upscale", "prior", "encode", "traverse", "arithmetic", "invert",
    "walk", "classify", "clusters", "score", "forecast", "compress", "decompress",
)  # fmt: skip

EXAMPLES = """\
examples:
  likely compare --data digits                 one model of each kind, compared
  likely fit vae --data digits --out runs/vae  fit one model
  likely sample runs/vae -n 64 -o samples.png  draw from it
  likely evaluate runs/vae --split test        nats and bits/dim, with errors
  likely mdp solve frozen-lake --discount 0.99
"""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=width())

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Lines as they are written, those that are too long wrapped."""
        return "\n".join(indent + wrapped(line) for line in text.splitlines())


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is an `InvalidSetting` that names the nearest valid option."""

    def __init__(self, prog: str, description: str, example: str, usage: str | None = None) -> None:
        text = f"examples:\n{example}"
        super().__init__(
            prog=prog,
            description=description,
            epilog=text,
            usage=usage,
            formatter_class=_Formatter,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
        )
        self._optionals.title = "options"

    def error(self, message: str) -> NoReturn:
        missing = re.fullmatch(r"the following arguments are required: (.*)", message)
        text = f"{missing[1]} is missing" if missing else re.sub(r"^argument ", "", message)
        raise InvalidSetting(f"{text}; see `{self.prog} --help`")

    def known(self) -> list[str]:
        """Every option."""
        return [option for action in self._actions for option in action.option_strings]

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The arguments, or an error; unknown options are looked for first."""
        known, before = self.known(), "an argument"
        for word in arguments:
            if word == "--":
                break
            name, *value = word.split("=", 1)
            if word.startswith("--") and name not in known:
                raise unknown("option", name, [k for k in known if k[:2] == "--"], self.prog)
            if not word or (name in known and value == [""]):
                self.error(f"{name or before} is empty, as an unset variable of the shell is")
            before = name if name in known else "an argument"
        options, extra = self.parse_known_args(arguments)
        if extra:
            word = next((word for word in extra if word.startswith("-")), extra[0])
            if word.startswith("-"):
                raise unknown("option", word, known, self.prog)
            self.error(f'"{word}" is one argument too many')
        return options


def unknown(what: str, name: str, valid: Iterable[str], prog: str) -> InvalidSetting:
    """The error for a name that is not there: the nearest valid one and where to look."""
    valid = list(valid)
    hint = nearest(name, valid)
    if hint.startswith("valid:") and len(valid) > 12:
        return InvalidSetting(f'unknown {what} "{name}"; see `{prog} --help`')
    return InvalidSetting(f'unknown {what} "{name}": {hint}; see `{prog} --help`')


# An option: metavar, converter or words, default, help. Defaults stand in brackets.
Option = tuple[str, Callable[[str], Any] | Collection[str] | None, Any, str]
UNSET = argparse.SUPPRESS  # as a default: the name is not there


@dataclasses.dataclass(frozen=True)
class Argument:
    """A positional argument.

    Attributes:
        name: in the options.
        metavar: in the help.
        about: one line for the help.
        optional: None where it is left out.
    """

    name: str
    metavar: str
    about: str
    optional: bool = False


@dataclasses.dataclass(frozen=True)
class Command:
    """What a module of this package declares as COMMAND.

    Attributes:
        example: lines for the end of the help.
        options: by their names; see `add_options`.
        about: how the help begins, or the docstring of the module, whose first line is left out;
            the line in `COMMANDS` where empty.
        of_run: whether it takes RUN, a directory that `likely fit` wrote, and --device.
        argument: the positional argument, after RUN.
        choices: gives the second words with a line each; none where empty.
        default: the second word where none is given.
        configure: adds, to the parser of a second word, what the fields above cannot say.
    """

    example: str
    options: Mapping[str, Option] = dataclasses.field(default_factory=dict)
    about: str | None = ""
    of_run: bool = False
    argument: Argument | None = None
    choices: Callable[[], Mapping[str, str]] = dict
    default: str | None = None
    configure: Callable[[Parser, str | None], None] | None = None


class Module(Protocol):
    """What a module of this package offers."""

    COMMAND: Command

    def run(self, options: argparse.Namespace) -> int:
        """Run the command; returns the exit code."""


class Words(list[str]):
    """Names of a registry; "module:name" is one of another package."""

    def __contains__(self, word: object) -> bool:
        return ":" in str(word) or super().__contains__(word)


def one_of(words: Collection[str]) -> Callable[[str], str]:
    """A converter for argparse that takes these words and names the nearest to any other."""

    def convert(text: str) -> str:
        if text not in words:
            raise argparse.ArgumentTypeError(f'"{text}" is not known: {nearest(text, words)}')
        return text

    return convert


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """A converter for argparse that takes whole numbers from `least` on, up to `most`."""
    expected = f">= {least}" if most is None else f"from {least} to {most}"

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f'expected a whole number {expected}, given "{text}"')
        return value

    return convert


def number(expected: str, valid: Callable[[float], bool]) -> Callable[[str], float]:
    """A converter for argparse that takes numbers that are `valid`; `expected` says which."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not valid(value):
            raise argparse.ArgumentTypeError(f'expected {expected}, given "{text}"')
        return value

    return convert


positive = number("a number above 0", lambda value: 0 < value < float("inf"))


def add_options(group: argparse._ActionsContainer, options: Mapping[str, Option]) -> None:
    """Add options by their names, as "--out" or "-o --out".

    The default False makes a switch, () an option that may be repeated, and ... one that must be
    given. A word in brackets, as "[FILE]", may be left out: the value is "" then.
    """
    for names, (metavar, convert, default, about) in options.items():
        flags = names.split()
        words = None if convert is None or callable(convert) else convert
        kind = convert if callable(convert) else one_of(words) if words else str
        if default is False:
            group.add_argument(*flags, action="store_true", default=False, help=about)
        elif default == ():
            group.add_argument(
                *flags, action="append", default=[], metavar=metavar, help=about, type=kind,
                choices=words,
            )  # fmt: skip
        else:
            may_be_bare: dict[str, Any] = (
                {"nargs": "?", "const": ""} if metavar.startswith("[") else {}
            )
            group.add_argument(
                *flags, metavar=metavar.strip("[]"), help=about, choices=words, type=kind,
                **may_be_bare,
                **({"required": True} if default is ... else {"default": default}),
            )  # fmt: skip


def device_option(parser: Parser) -> None:
    """Commands that compute take --device."""
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps (auto)"
    )


JSON: dict[str, Option] = {
    "--json": ("", None, False, "one JSON document on stdout; progress stays on stderr"),
}


def module_of(name: str) -> Module:
    """The module of a command."""
    room = "likely.cli.queries" if name in QUERIES else "likely.cli"
    return cast("Module", importlib.import_module(f"{room}.{name}"))


def build(name: str, choice: str | None = None) -> Parser:
    """The parser of a command, or of one of its choices."""
    command = module_of(name).COMMAND
    prog = f"likely {name}" + (f" {choice}" if choice else "")
    choices = command.choices()
    summary = choices[choice] if choice else COMMANDS[name]
    about = re.sub(r"^`likely .*\n", "", command.about or "").strip()
    parser = Parser(prog, about or _sentence(summary), command.example)
    if choices and not choice:
        # The heads of their summaries; the options come with the choice.
        parser.usage = f"likely {name} {_word(name)} [options]"
        listed = rows(choices.items())
        parser.description = f"{_sentence(summary)}\n\n{_word(name).lower()}s:\n{listed}".rstrip()
        more = f"{parser.prog} {next(iter(choices))} --help"
        parser.epilog = f"{parser.epilog}\n\nThe options of each: `{more}`"
    else:
        if command.of_run:
            parser.add_argument(
                "run", metavar="RUN", help="directory that `likely fit --out` wrote"
            )
            device_option(parser)
        if command.argument is not None:
            nargs: dict[str, Any] = {"nargs": "?", "default": None}
            parser.add_argument(
                command.argument.name,
                metavar=command.argument.metavar,
                help=command.argument.about,
                **(nargs if command.argument.optional else {}),
            )
        add_options(parser, command.options)
        if command.configure is not None:
            command.configure(parser, choice)
        add_options(parser, JSON)
    return parser


def parse(name: str, arguments: list[str]) -> tuple[Module, argparse.Namespace]:
    """Read the arguments of a command."""
    module = module_of(name)
    command = module.COMMAND
    _import_objective(arguments)
    choices = command.choices()
    if not choices:
        return module, build(name).read(arguments)
    word = arguments[0] if arguments else None
    if word in choices:
        options = build(name, word).read(arguments[1:])
        options.choice = word
        return module, options
    prog = f"likely {name}"
    if word is not None and not word.startswith("-"):
        raise unknown(_word(name).lower(), word, choices, prog)
    if any(flag in arguments for flag in ("-h", "--help")):
        build(name).read(["--help"])
    if command.default is None:
        if word is not None and word.startswith("--"):
            # The nearest option of any choice, where no choice has it.
            option = word.split("=", 1)[0]
            known = {option for choice in choices for option in build(name, choice).known()}
            if option not in known:
                raise unknown("option", option, known, prog)
        example = command.example.strip().splitlines()[0]
        raise InvalidSetting(
            f"the {_word(name).lower()} comes first, as `{example}`; valid: {', '.join(choices)}"
        )
    options = build(name, command.default).read(arguments)
    options.choice = command.default
    return module, options


def _import_objective(arguments: list[str]) -> None:
    """Import what `--objective module:name` names: its settings are options, too."""
    words = [part for word in arguments for part in word.split("=", 1)]
    for option, value in itertools.pairwise(words):
        if option == "--objective" and ":" in value:
            OBJECTIVES.entry(value)


def overview() -> str:
    """The help of `likely` itself."""
    return (
        "usage: likely COMMAND [options]\n\n"
        "Learn p(x) from data, ask it questions; solve Markov decision processes. Every\n"
        "number says how it relates to the truth: = exact, <= bound, ~ approximate.\n\n"
        f"commands:\n{rows(COMMANDS.items())}\n"
        "options:\n  -h, --help     this text; `likely COMMAND --help` for one command\n"
        f"  -V, --version  the version\n\n{EXAMPLES}"
    )


def _word(name: str) -> str:
    """What the second word of a command is called."""
    return {"fit": "MODEL", "completion": "SHELL"}.get(name, "ACTION")


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}" + ("" if text.endswith(".") else ".")
