"""What every benchmark shares: results as JSON with figures, settings and environment."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from likely.devices import environment
from likely.runs.checkpoint import write_json

RESULTS = Path(__file__).parent / "results"


def write_result(
    name: str,
    figures: dict[str, float],
    settings: dict[str, Any],
    about: dict[str, Any],
    part: str | None = None,
) -> Path:
    """Write bench/results/<name>.json: flat figures beside settings, data and environment.

    Where a command measures a part of the figures beside older ones, `part` names it; the file
    keeps the command of each part.
    """
    path, ran = RESULTS / f"{name}.json", this_command()
    parts = json.loads(path.read_text()).get("parts", {}) if part and path.is_file() else {}
    write_json(
        path,
        {
            "figures": figures,
            **ran,
            **({"parts": {**parts, part: ran}} if part else {}),
            "settings": settings,
            "about": about,
            "environment": environment(),
        },
    )
    return path


def this_command() -> dict[str, str]:
    """The command that runs, and its date."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)  # of a module, as with -m
    ran = [portable(sys.argv[0])] if spec is None else ["-m", spec.name]
    return {
        "command": " ".join(["python", *ran, *map(portable, sys.argv[1:])]),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def portable(word: str) -> str:
    """An argument without the folders of this machine."""
    return Path(word).name if word.startswith("/") else word
