"""A run is a directory: what was fitted, to what, how, and what came out.

`likely.runs.directory` is the one author of its files, `likely.load` reads them back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from likely._lazy import lazy

if TYPE_CHECKING:
    from likely.runs.directory import RunDirectory as RunDirectory
    from likely.runs.saved import SavedRun as SavedRun
    from likely.runs.saved import build as build
    from likely.runs.saved import build_from as build_from
    from likely.runs.saved import load as load
    from likely.runs.saved import save as save

_HOME = dict.fromkeys(("SavedRun", "build", "build_from", "load", "save"), "saved")
__getattr__, __dir__, __all__ = lazy(__name__, {**_HOME, "RunDirectory": "directory"})
