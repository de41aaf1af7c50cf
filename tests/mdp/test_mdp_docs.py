"""The pages about MDPs show pictures that exist and commands that the command understands."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from likely import mdp
from likely.cli import main
from likely.cli.parser import parse
from likely.mdp import worlds
from likely.mdp.worlds import gridtext

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
        parse("mdp", shlex.split(line, comments=True))


def test_every_world_is_in_the_table() -> None:
    text = (DOCS / "mdp-worlds.md").read_text(encoding="utf-8")
    for name in worlds.names():
        assert f"`{name}`" in text


def test_the_grid_in_the_page_is_the_maze() -> None:
    text = (DOCS / "mdp-worlds.md").read_text(encoding="utf-8")
    drawn = re.search(r"```text\n(; Russell.*?)```", text, re.DOTALL)
    assert drawn is not None
    read = gridtext.from_grid(drawn[1])
    built = worlds.build("maze-4x3").mdp
    assert (read.indices == built.indices).all()
    assert (read.reward == built.reward).all()


def test_every_picture_is_shown_and_small() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    pictures = list((DOCS / "pictures").glob("mdp-*"))
    assert pictures
    for picture in pictures:
        assert picture.name in text
        assert picture.stat().st_size < 400_000


def test_the_row_function_in_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DOCS / "mdp-methods.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(import numpy.*?)```", text, re.DOTALL)
    assert code is not None
    module = tmp_path / "ring_of_the_page.py"  # numba's cache needs a file
    module.write_text(code[1])
    monkeypatch.syspath_prepend(str(tmp_path))
    ring = importlib.import_module("ring_of_the_page").ring
    assert mdp.solve(ring).converged


def _shown(page: Path) -> list[tuple[list[list[str]], list[str]]]:
    """Of each console block with output: the words of its `likely` calls, and what they print."""
    blocks = []
    for block in re.findall(r"^```console\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        lines = block.splitlines()
        calls = [shlex.split(line, comments=True)[2:] for line in lines if line.startswith("$ ")]
        shown = [line.rstrip() for line in lines if line and not line.startswith("$ ")]
        if shown:
            blocks.append((calls, shown))
    return blocks


def test_the_page_shows_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Line by line, in this order; three dots stand for anything."""
    monkeypatch.chdir(tmp_path)
    blocks = _shown(DOCS / "mdp-command.md")
    assert len(blocks) == 4
    for calls, shown in blocks:
        for words in calls:
            assert main(words) == 0
        printed = iter(capsys.readouterr().out.splitlines())
        for line in shown:
            pattern = ".*".join(re.escape(part) for part in line.split("..."))
            assert any(re.fullmatch(pattern, text.rstrip()) for text in printed), line
