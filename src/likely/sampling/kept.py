"""Compiled programs kept between draws: used again only where nothing of the model changed.

Building a program takes as long as a quarter of a single image, or most of a batch of MADE's. The
tables of the last draw are used again when the model's whole state equals a copy of what it was
then: the bits of all parameters, buffers and other tensors, shapes, types, and every attribute of
every module.
It is compared at each draw, because weights change in place in ways that leave no trace. Where a
model holds anything whose state cannot be seen, nothing is kept.

Tables hold copies, no reference to the model, and are dropped with it. They are not part of the
model: nothing is saved, copied or pickled with it.
"""

from __future__ import annotations

import dataclasses
import enum
import threading
import weakref
from types import FunctionType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from likely.sampling.instructions import Program

if TYPE_CHECKING:
    from likely.sampling.lowering import Tables

# Numbers that are compared and kept; with more, drawing takes so long that building is little.
MOST = 16_000_000
# Tables of a model: a last chunk is smaller than the others, and parts of a batch differ by one.
# Together they take no more than this many bytes, but for the last.
SIZES, BYTES = 2, 2**26

_INTS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_PLAIN = frozenset(
    {str, bytes, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format,
     torch.Size, range}
)  # fmt: skip
# What a module keeps for itself: its hooks, which an incremental evaluation does not call.
_HOOKS = frozenset(vars(nn.Module())) - {"training", "_parameters", "_buffers", "_modules"}


class _Object:
    """Of the size of an object that has attributes and nothing else."""


class _Incomparable(Exception):
    """Something whose state cannot be seen."""


@dataclasses.dataclass
class State:
    """All that a model's program is computed from.

    Attributes:
        form: types, attributes and shapes, in nested tuples.
        bits: of the tensors in the order of the form, as integers.
    """

    form: Any
    bits: list[Tensor]

    def equals(self, other: State) -> bool:
        """Whether form and bits are the same."""
        return self.form == other.form and all(map(torch.equal, self.bits, other.bits))

    def copy(self) -> State:
        """The same with tensors of its own."""
        return State(self.form, [x.clone() for x in self.bits])


@torch.no_grad()
def state_of(model: object) -> State | None:
    """The state of a model on the processor, uncopied; None where it cannot be compared."""
    walk = _Walk()
    try:
        return State(walk.form(model), walk.bits)
    except (_Incomparable, RecursionError):
        return None


class _Walk:
    def __init__(self) -> None:
        self.bits: list[Tensor] = []
        self.count = 0
        self.seen: dict[int, int] = {}  # modules and objects by their place in the walk

    def form(self, x: Any) -> Any:
        kind = type(x)
        if kind in _PLAIN:
            return x
        if kind in (int, bool, complex):
            return kind, x
        if kind is float:
            return x.hex()
        if kind is Tensor or kind is nn.Parameter:
            return self._tensor(x)
        if kind in (tuple, list):
            return kind, tuple([self.form(value) for value in x])
        if isinstance(x, dict) and kind.__module__ in ("builtins", "collections"):
            return kind, tuple([(self.form(key), self.form(value)) for key, value in x.items()])
        if kind in (set, frozenset):
            return kind, frozenset(self.form(value) for value in x)
        if isinstance(x, enum.Enum | type) or (kind is FunctionType and x.__closure__ is None):
            return x  # itself
        if kind is np.ndarray and x.dtype.kind in "biufU":
            return kind, x.shape, x.dtype.str, x.tobytes()
        return self._object(x)

    def _tensor(self, x: Tensor) -> Any:
        dense = x.device.type == "cpu" and x.layout is torch.strided and not x.is_quantized
        self.count += x.numel() if dense else 0
        if not dense or x.is_complex() or self.count > MOST:
            raise _Incomparable
        self.bits.append(x.view(_INTS[x.element_size()]))
        return x.dtype, x.shape

    def _object(self, x: Any) -> Any:
        kind = type(x)
        if id(x) in self.seen:
            return "again", self.seen[id(x)]
        self.seen[id(x)] = len(self.seen)
        if not isinstance(x, nn.Module) and not _has_attributes_only(kind):
            raise _Incomparable
        form = self.form
        return kind, tuple([(k, form(v)) for k, v in vars(x).items() if k not in _HOOKS])


def _has_attributes_only(kind: type) -> bool:
    """Whether all state of an object of this class is in its `__dict__`."""
    slots = any(base.__dict__.get("__slots__") for base in kind.__mro__)
    return kind.__basicsize__ == _Object.__basicsize__ and not kind.__itemsize__ and not slots


@dataclasses.dataclass
class _Kept:
    """What is kept of a model: its state, and the tables that were made in that state."""

    state: State
    program: Program  # without instructions
    tables: dict[tuple[int, bool], Tables] = dataclasses.field(default_factory=dict)


_all_kept: weakref.WeakKeyDictionary[nn.Module, _Kept] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


class Programmed(Protocol):
    """A model with a program."""

    def program(self) -> Program:
        """The incremental form."""


def _by_identity(model: object) -> bool:
    kind = type(model)
    return kind.__hash__ is object.__hash__ and kind.__eq__ is object.__eq__


class Prepared:
    """The program of a model for one draw.

    Attributes:
        program: of the model, perhaps without its instructions.
    """

    def __init__(self, model: Programmed) -> None:
        """Look for tables of an earlier draw.

        Args:
            model: tables are kept only for modules, by their identity.
        """
        self._model = model
        self._state: State | None = None
        self._owner = model if isinstance(model, nn.Module) else None
        self._kept: _Kept | None = None
        self._whole: Program | None = None
        self.program: Program
        state = state_of(model) if _by_identity(self._owner) else None
        if state is not None and self._owner is not None:
            with _lock:
                kept = _all_kept.get(self._owner)
            if kept is not None and kept.state.equals(state):
                self._kept, self.program = kept, kept.program
                return
            self._state = state.copy()
        self.program = self._whole = model.program()

    def whole(self) -> Program:
        """The program with its instructions."""
        if self._whole is None:
            self._whole = self._model.program()
        return self._whole

    def tables(self, batch: int, *, side_by_side: bool) -> Tables:
        """The program written for the kernels, for this many images."""
        from likely.sampling.lowering import Tables

        key = batch, side_by_side
        if self._kept is not None:
            with _lock:
                tables = self._kept.tables.get(key)
            if tables is not None:
                return tables
        tables = Tables(self.whole(), batch, side_by_side=side_by_side)
        self._keep(key, tables)
        return tables

    def _keep(self, key: tuple[int, bool], tables: Tables) -> None:
        before = self._state if self._kept is None else self._kept.state
        now = None if before is None else state_of(self._model)
        if self._owner is None or before is None or now is None or not before.equals(now):
            return  # it changed while the program was built
        with _lock:
            if self._kept is None:
                self._kept = _Kept(before, tables.program)
                _all_kept[self._owner] = self._kept
            mine = self._kept.tables
            mine[key] = tables
            while len(mine) > 1 and (
                len(mine) > SIZES or sum(some.weights.nbytes for some in mine.values()) > BYTES
            ):
                del mine[next(iter(mine))]
