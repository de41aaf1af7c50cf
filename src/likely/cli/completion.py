"""`likely completion SHELL`: the completion script, for commands, options and fixed words."""

from __future__ import annotations

import argparse

from likely.cli.output import say, say_json
from likely.cli.parser import COMMANDS, Command, Parser, build, module_of

SHELLS = {
    "bash": "put it in ~/.local/share/bash-completion/completions/likely",
    "zsh": "put it in a folder of $fpath, as _likely",
    "fish": "put it in ~/.config/fish/completions/likely.fish",
    "tcsh": "source it in ~/.tcshrc",
}
EXAMPLE = """\
  likely completion bash > ~/.local/share/bash-completion/completions/likely
  likely completion fish > ~/.config/fish/completions/likely.fish
"""


def _about(parser: Parser, shell: str | None) -> None:
    parser.description = f"Print the completion script of {shell}: {SHELLS[shell or 'bash']}."


COMMAND = Command(EXAMPLE, choices=lambda: SHELLS, configure=_about)


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    script = shtab.complete(tree(), options.choice)
    if options.json:
        say_json({"shell": options.choice, "script": script})
    else:
        say(script)
    return 0


def tree() -> argparse.ArgumentParser:
    """Every parser of the command, as one."""
    root = argparse.ArgumentParser(prog="likely", allow_abbrev=False)
    root.add_argument("-V", "--version", action="store_true", help="the version")
    commands = root.add_subparsers(dest="command")
    for name, summary in COMMANDS.items():
        words = module_of(name).COMMAND.choices()
        if not words:
            _mount(commands, name, summary, build(name))
            continue
        parent = commands.add_parser(name, help=summary)
        children = parent.add_subparsers(dest="choice")
        for word, about in words.items():
            _mount(children, word, about, build(name, word))
    return root


def _mount(
    where: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    about: str,
    parser: argparse.ArgumentParser,
) -> None:
    """Use an existing parser instead of a new one."""
    where.add_parser(name, help=about.replace("%", "%%"))
    where.choices[name] = parser
