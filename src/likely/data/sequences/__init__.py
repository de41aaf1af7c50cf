"""Sequences: numbers and symbols over time, of different lengths, on the lattice they lie on.

`likely.data.load` reads them by name or from a file, `from_sequences` takes arrays in memory.
Names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from likely._lazy import lazy

if TYPE_CHECKING:
    from likely.data.sequences.dataset import Sequences as Sequences
    from likely.data.sequences.dataset import Windows as Windows
    from likely.data.sequences.lattice import Lattice as Lattice
    from likely.data.sequences.lattice import find_lattice as find_lattice
    from likely.data.sequences.made import regimes_log_prob as regimes_log_prob
    from likely.data.sequences.spec import Column as Column
    from likely.data.sequences.spec import SequenceSpec as SequenceSpec
    from likely.data.sequences.splits import from_sequences as from_sequences

_HOME = {
    **dict.fromkeys(("Sequences", "Windows"), "dataset"),
    **dict.fromkeys(("Lattice", "find_lattice"), "lattice"),
    **dict.fromkeys(("Column", "SequenceSpec"), "spec"),
    "regimes_log_prob": "made",
    "from_sequences": "splits",
}

__getattr__, __dir__, __all__ = lazy(__name__, _HOME)
