"""A run is a directory: what was fitted, to what, how, and what came out (`likely.runs.saved`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from likely._lazy import lazy

if TYPE_CHECKING:
    from likely.runs.saved import SavedRun as SavedRun
    from likely.runs.saved import build as build
    from likely.runs.saved import data_of as data_of
    from likely.runs.saved import data_options as data_options
    from likely.runs.saved import describe as describe
    from likely.runs.saved import load as load
    from likely.runs.saved import read_config as read_config

_NAMES = ("SavedRun", "build", "data_of", "data_options", "describe", "load", "read_config")
__getattr__, __dir__, __all__ = lazy(__name__, dict.fromkeys(_NAMES, "saved"))
