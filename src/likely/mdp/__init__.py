"""Dynamic programming on Markov decision processes: prediction, control, certificates.

This package imports no generative model and works on its own. Names are loaded on first use, so
`import likely.mdp` costs no more than NumPy; numba is imported when the first solver runs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from likely.mdp.problem import MDP

_HOME = {
    "MDP": "problem",
}

__all__ = ["MDP"]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
