"""The precision of the weights, whatever autocast block a caller has opened."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
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


def full_precision(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A method that computes the same inside an autocast block of its caller as outside."""

    @functools.wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with without_autocast(self.device):
            return method(self, *args, **kwargs)

    return run


__all__ = ["full_precision", "without_autocast"]
