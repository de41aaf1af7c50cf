"""The precision of the weights, whatever autocast block a caller has opened."""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import torch


class OnDevice(Protocol):
    """What has a device."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""


P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=OnDevice)


def without_autocast(device: torch.device | str) -> contextlib.AbstractContextManager[Any]:
    """A block that is not lowered to reduced precision; without effect where nothing could be."""
    kind = torch.device(device).type
    if not torch.amp.autocast_mode.is_autocast_available(kind):
        return contextlib.nullcontext()
    return torch.autocast(kind, enabled=False)


# Whether answers may be of the precision of an autocast block: only inside a fit.
_reduced: contextvars.ContextVar[bool] = contextvars.ContextVar("reduced", default=False)


@contextlib.contextmanager
def reduced_precision() -> Iterator[None]:
    """A block in which `full_precision` methods follow an autocast block, as a fit wants it."""
    token = _reduced.set(True)
    try:
        yield
    finally:
        _reduced.reset(token)


def full_precision(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A method that computes the same inside an autocast block of its caller as outside."""

    @functools.wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if _reduced.get():
            return method(self, *args, **kwargs)
        with without_autocast(self.device):
            return method(self, *args, **kwargs)

    return run
