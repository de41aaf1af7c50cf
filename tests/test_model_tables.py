"""What the pages list of the models is what the registry holds."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

from sizes import SMALL

DOCS = Path(__file__).parent.parent / "docs"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", DOCS / "make_model_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lists_are_those_of_the_registry() -> None:
    for path, text in script().written().items():
        assert path.read_text(encoding="utf-8") == text, (
            f"{path.name}: run python docs/make_model_tables.py"
        )


def test_every_model_has_a_page_that_names_it() -> None:
    tables = script()
    entries = {entry.name: entry for entry in tables.listed()}
    pages = tables.pages()
    assert set(pages) == set(entries)
    assert set(SMALL) <= set(entries)
    for name, page in pages.items():
        text = (DOCS / f"{page}.md").read_text(encoding="utf-8").partition("\n")[2]
        shown = re.search(rf"likely fit {name}\b|`{name}`|`{entries[name].class_name}\b", text)
        assert shown, f"{page}.md does not show {name}"


def test_the_script_notices(tmp_path: Path) -> None:
    tables = script()
    text = "a\n<!-- models -->\nold\n<!-- end -->\nb"
    assert tables.filled(text, "models", "new") == text.replace("old", "new")
