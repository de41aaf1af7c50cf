"""Errors to act on: each says what was given, what was expected and what to do.

The command turns any `LikelyError` into one line and exit code 2; library users catch it as an
ordinary exception.
"""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Iterable


class LikelyError(Exception):
    """Base of all errors about the user's input or environment, as opposed to bugs."""


class InvalidData(LikelyError, ValueError):
    """Data that cannot be read, or does not match its specification."""


class InvalidSetting(LikelyError, ValueError):
    """A configuration field, option or argument with an unknown name or an impossible value."""


class MissingDependency(LikelyError, ImportError):
    """An optional extra that this call needs is not installed."""


class Unanswerable(LikelyError, TypeError):
    """A question that this kind of model cannot answer; the message says why."""


class ProofFailed(LikelyError):
    """A check of a likelihood failed (causality, normalisation, bounds); it is not printed."""


class Diverged(LikelyError, ArithmeticError):
    """Training met a non-finite loss, and the last good checkpoint is kept; or weights are NaN."""


# What other programs call our settings.
ELSEWHERE = {
    "batch": "batch_size",
    "bs": "batch_size",
    "epochs": "steps",
    "iterations": "steps",
    "lr": "learning_rate",
    "size": "image_size",
    "wd": "weight_decay",
    "z_dim": "latent",
    "latent_dim": "latent",
}


def _plain(name: str) -> str:
    """An option or a setting without its hyphens."""
    return name.lstrip("-").replace("-", "_")


def nearest(name: str, valid: Iterable[str]) -> str:
    """The hint that follows an unknown name: the nearest valid one, or the whole list.

    >>> nearest("chanels", ["channels", "layers"])
    'did you mean "channels"?'
    >>> nearest("vea", ["vae", "var"])
    'did you mean "vae"?'
    >>> nearest("zzz", ["channels", "layers"])
    'valid: channels, layers'
    >>> nearest("--lr", ["--layers", "--learning-rate"])
    'did you mean "--learning-rate"?'
    """
    options = sorted(valid)
    elsewhere = ELSEWHERE.get(_plain(name))
    for option in options:
        if _plain(option) == elsewhere:
            return f'did you mean "{option}"?'
    swapped = [option for option in options if sorted(option) == sorted(name)]
    close = swapped or difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{close[0]}"?'
    return "valid: " + ", ".join(options)


def whole(name: str, value: object, least: int | None = None) -> int:
    """A whole number of any type, also of numpy's, as an int. `name` is what an error calls it.

    Raises:
        InvalidSetting: something else, also True and 3.0; or below `least`.
    """
    if not isinstance(value, bool) and isinstance(value, numbers.Integral):
        number = int(value)
        if least is None or number >= least:
            return number
    expected = "a whole number" if least is None else f"a whole number from {least}"
    raise InvalidSetting(f"{name}: expected {expected}, given {value!r}")
