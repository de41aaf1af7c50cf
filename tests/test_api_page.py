"""The API page holds what is public, by its public name, and nothing that does not exist."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import likely

EVERY = [*likely.models.MODELS.values(), *likely.models.SEQUENCE_MODELS.values()]
PAGE = (Path(__file__).parent.parent / "docs" / "api.md").read_text(encoding="utf-8")
LISTED = {
    module: [name.strip() for name in names.split(",")]
    for module, names in re.findall(r"automodule:: (\S+)\n +:members: (.*)", PAGE)
}


def test_every_listed_name_exists_and_has_a_docstring() -> None:
    assert len(LISTED) > 30
    for module, names in LISTED.items():
        loaded = importlib.import_module(module)
        for name in names:
            assert not name.startswith("_")
            assert inspect.getdoc(getattr(loaded, name)), f"{module}.{name}"


def test_every_public_name_is_listed() -> None:
    """Classes and functions of the packages that people import from."""
    objects = {
        id(getattr(importlib.import_module(module), name))
        for module, names in LISTED.items()
        for name in names
    }
    for package in ("likely", "likely.data", "likely.mdp", "likely.verify", "likely.world"):
        loaded = importlib.import_module(package)
        for name in loaded.__all__:
            value = getattr(loaded, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                assert id(value) in objects, f"{package}.{name}"


def test_every_model_of_the_command_is_listed_with_its_settings() -> None:
    listed = {name for names in LISTED.values() for name in names}
    for entry in EVERY:
        assert {entry.class_name, entry.settings.__name__} <= listed


def test_the_models_are_offered_by_dir() -> None:
    """So that an interpreter completes them and this page finds them."""
    offered = dir(likely.models)
    for entry in EVERY:
        assert {entry.class_name, entry.settings.__name__} <= set(offered)


def test_every_model_links_its_paper() -> None:
    for entry in EVERY:
        module = inspect.getmodule(entry.load())
        assert module is not None
        assert "https://" in (module.__doc__ or ""), entry.name
