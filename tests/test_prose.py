"""The prose uses the field's words, and documentation shows formulas and links that work."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from likely.cli.parser import COMMANDS, module_of, parse

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
# Not the field's words -> its words.
STILTED = {
    r"\banew\b": "again, from scratch",
    r"\b(take|takes|took|taking) down\b": "record",
    r"\bon (the|a) card\b": "on the GPU",
    r"\bby heart\b": "overfits",
    r"\bgoes on where\b": "resumes",
    r"\bwhole or not\b": "atomically",
    r"\bone paper a file\b": "one paper per file",
    r"\b(images|bytes|samples|operations) a second\b": "per second",
    r"\bthis process speaks\b": "rank 0",
}


def test_the_words_are_the_fields() -> None:
    for path in (*PAGES, *SOURCES):
        text = path.read_text(encoding="utf-8")
        for pattern, instead in STILTED.items():
            found = re.search(pattern, text, re.IGNORECASE)
            assert found is None, f"{path}: {found and found[0]!r}: say {instead}"


WRITTEN = [page for page in PAGES if not page.name.startswith("results")]  # those are generated


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_nothing_is_said_twice_on_a_page(page: Path) -> None:
    """No line of prose or row of a table; headers of tables, code and figures may repeat."""
    text = re.sub(r"(?s)<!-- results.*?<!-- end -->|^```.*?^```", "", page.read_text(), flags=re.M)
    lines = [line for line in text.splitlines() if len(line) >= 60]
    headers = set(re.findall(r"(.*)\n\| *-", text))
    assert [line for line in lines if lines.count(line) > 1 and line not in headers] == []


# They say when a value was met, not what it is.
NO_NAMES = {"found", "one", "given", "own", "here", "twin"}


def test_a_name_says_what_a_value_is() -> None:
    """No variable, argument, function or class in src/ or bench/ has one of these names."""
    bound = []
    for path in [*SOURCES, *(ROOT / "bench").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                    pass
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    pass
                case ast.MatchAs(name=name) | ast.ExceptHandler(name=name):
                    pass
                case _:
                    continue
            if name in NO_NAMES:
                bound.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
    assert not bound


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_of_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#:<\s]+)(?:#[^)]*)?\)", text)
    for target in [*targets, *re.findall(r"^```{figure} (\S+)$", text, re.MULTILINE)]:
        assert (page.parent / target).is_file(), target


def commands(text: str, prompt: str) -> Iterator[list[str]]:
    """Words after `likely` of the lines that call it, without pipes, redirections and comments."""
    for line in re.findall(rf"^\s*{prompt}(.*)$", text.replace("\\\n", " "), re.MULTILINE):
        words = shlex.split(line, comments=True)
        if "likely" in words:
            called = words[words.index("likely") + 1 :]
            yield list(itertools.takewhile(lambda word: word not in ("|", ">"), called))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_command_understands_what_a_page_types(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8"), r"\$ "):
        # Models and objectives of one's own are in modules that a test of their page writes.
        own = any(re.fullmatch(r"[\w.]+:[\w-]+", word) for word in words)
        if words and not words[0].startswith("-") and not own:
            parse(words[0], words[1:])


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_understands_the_examples_of_its_help(name: str) -> None:
    examples = list(commands(module_of(name).COMMAND.example, "(?=likely )"))
    assert examples
    for words in examples:
        parse(words[0], words[1:])


def test_the_readme_imports_what_is_there() -> None:
    """Every dotted name of its Python example."""
    import likely
    from likely import data, mdp, models

    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example is not None
    scope = {"likely": likely, "data": data, "mdp": mdp, "models": models}
    names = re.findall(r"\b((?:likely|data|mdp|models)(?:\.\w+)+)", example[1])
    assert len(names) > 6
    for name in names:
        first, *rest = name.split(".")
        value = scope[first]
        for part in rest:
            if not callable(value) or isinstance(value, type):
                value = getattr(value, part)
