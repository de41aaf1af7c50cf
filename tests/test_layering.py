"""Imports run down the house only, and the lazy front door stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import likely

ROOT = Path(likely.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# Level of each part of the package; a part imports only from parts of a lower level, or from its
# own, without exceptions. design: evaluation never knows a model by name, decision processes know
# no density, and nobody imports the command.
LEVELS = {
    "_lazy": 0, "errors": 0,
    "files": 1, "noise": 1, "settings": 1,
    "estimate": 2, "data": 2, "devices": 2, "mdp": 2,
    "heads": 3,
    "density": 4,
    "sampling": 5,
    "nn": 6,
    "ask": 7, "models": 7,
    "runs": 8,
    "training": 9,
    "verify": 10,
    "evaluate": 11,
    "report": 12,
    "jobs": 13, "world": 13,
    "__init__": 14, "cli": 14, "sklearn": 14, "studio": 14,
    "__main__": 15,
}  # fmt: skip
FORBIDDEN = {("evaluate", "models"), ("evaluate", "runs"), ("mdp", "density"), ("mdp", "models"),
             ("data", "mdp"), ("verify", "models"), ("nn", "models"), ("mdp", "data"),
             ("density", "nn"), ("density", "sampling")}  # fmt: skip
# The version, read by whoever stamps a file with it.
VERSION = "__init__"


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Parts of this package that a file imports, anywhere in it, types included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import, line {node.lineno}"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            words = name.split(".")
            if words[0] == "likely":
                known = len(words) > 1 and words[1] in LEVELS
                found.add(words[1] if known else VERSION)
    return found


def eager(path: Path) -> set[str]:
    """Modules that a file imports when it is imported (not inside functions, not for types)."""
    found: set[str] = set()
    stack: list[ast.stmt] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""}
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            stack += node.body + node.orelse
        elif isinstance(node, ast.Try):
            stack += node.body + node.orelse + [s for h in node.handlers for s in h.body]
        elif isinstance(node, ast.ClassDef):
            stack += node.body
    return found


def test_every_part_has_a_level() -> None:
    parts = {part_of(path) for path in FILES}
    assert parts <= set(LEVELS), f"give these a level: {sorted(parts - set(LEVELS))}"


def test_imports_run_to_a_lower_level() -> None:
    for path in FILES:
        part = part_of(path)
        for other in imported(path) - {part, VERSION}:
            assert (part, other) not in FORBIDDEN, f"{path} imports likely.{other}"
            assert LEVELS[other] < LEVELS[part], f"{path} imports likely.{other}: upwards"


def test_nobody_imports_the_command() -> None:
    for path in FILES:
        if part_of(path) not in {"cli", "studio", "__main__"}:
            assert not imported(path) & {"cli", "studio"}, path


def test_decision_processes_load_no_torch() -> None:
    for path in FILES:
        if part_of(path) == "mdp":
            assert not any(name.split(".")[0] == "torch" for name in eager(path)), path
    assert loaded("import likely.mdp") & {"torch"} == set()


def test_each_test_file_has_a_name_of_its_own() -> None:
    """pytest imports them by their base name."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert len(names) == len(set(names)), {n for n in names if names.count(n) > 1}


def test_the_rules_can_fail(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import torch.nn\nfrom likely import models\nfrom likely.cli import main\n"
        "def later():\n    import numpy\n    from likely.runs.saved import load\n"
        "if TYPE_CHECKING:\n    import scipy\n"
    )
    assert imported(wrong) == {"models", "cli", "runs"}
    assert {"torch.nn", "likely.models", "likely.cli"} <= eager(wrong)
    assert not {"numpy", "scipy"} & eager(wrong)


HEAVY = ("torch", "numpy", "scipy", "numba", "matplotlib", "PIL", "pydantic", "rich")


def loaded(statement: str) -> set[str]:
    """Which of the heavy modules a fresh interpreter holds after a statement."""
    code = f"import sys; {statement}; print(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import likely",
        "import likely; dir(likely)",
        "import likely.settings, likely.estimate, likely.errors",
        "import likely.models, likely.models.vectors.settings",
    ],
)
def test_the_front_door_is_light(statement: str) -> None:
    assert loaded(statement) == set()


def test_the_light_door_would_notice() -> None:
    assert "numpy" in loaded("import numpy")


def test_the_house_has_few_rooms_and_none_is_crowded() -> None:
    """At most 22 rooms at the top, `world` the last of them, and 20 files in one; no doors."""
    rooms = {part_of(path) for path in FILES} - {"__init__", "__main__", "_lazy", "sklearn"}
    assert len(rooms) <= 22, sorted(rooms)
    for folder in {path.parent for path in FILES} - {ROOT}:
        files = [path for path in FILES if path.parent == folder and path.name != "__init__.py"]
        assert len(files) <= 20, f"{folder} has {len(files)} files"


def test_no_private_name_crosses_a_room() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("likely."):
                private = [a.name for a in node.names if re.fullmatch(r"_[a-z]\w*", a.name)]
                same = path.parent == ROOT.joinpath(*(node.module or "").split(".")[1:]).parent
                assert same or not private, f"{path} imports {private} from {node.module}"
