"""The pages about MDPs show pictures that exist and commands that the command understands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from likely.mdp import gridtext, worlds
from likely.mdp.command import parser as mdp_parser

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("mdp*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (DOCS / target).is_file(), target
    for example in re.findall(r"`(examples/[\w./]+)`", text):
        assert (DOCS.parent / example).is_file(), example


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_understood(page: Path) -> None:
    lines = re.findall(r"^\$ likely mdp (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    for line in lines:
        mdp_parser().parse_args(shlex.split(line, comments=True))


def test_every_world_is_in_the_table() -> None:
    text = (DOCS / "mdp-worlds.md").read_text(encoding="utf-8")
    for name in worlds.names():
        assert f"`{name}`" in text


def test_the_grid_in_the_page_is_the_maze() -> None:
    text = (DOCS / "mdp-worlds.md").read_text(encoding="utf-8")
    drawn = re.search(r"```text\n(; Russell.*?)```", text, re.DOTALL)
    assert drawn is not None
    mdp = gridtext.from_grid(drawn[1])
    built = worlds.build("maze-4x3").mdp
    assert (mdp.indices == built.indices).all()
    assert (mdp.reward == built.reward).all()


def test_every_picture_is_shown_and_small() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    pictures = list((DOCS / "pictures").glob("mdp-*"))
    assert pictures
    for picture in pictures:
        assert picture.name in text
        assert picture.stat().st_size < 400_000
