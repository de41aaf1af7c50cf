"""Settings as frozen dataclasses, read from mappings, YAML files and `name=value` words.

An unknown field is an error that names the nearest valid one. Standard library only (YAML is
imported when a YAML file is read).
"""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

from likely.errors import InvalidSetting, nearest

T = TypeVar("T")

Schedule = Literal["constant", "cosine", "linear"]
Optimizer = Literal["adam", "adamw", "rmsprop", "muon"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """How a model is fitted.

    Attributes:
        steps: number of updates (of each player).
        batch_size: examples per update, over all processes and micro-batches.
        micro_batches: parts of a batch whose gradients are accumulated.
        optimizer: adam, adamw, rmsprop or muon (matrices by orthogonal updates, the rest by Adam).
        learning_rate: learning rate after the warm-up.
        final_learning_rate: fraction of the learning rate at the end of the schedule.
        schedule: of the learning rate after the warm-up: constant, cosine or linear.
        warmup: steps over which the learning rate rises from zero.
        beta1: first-moment decay of Adam; momentum of Muon.
        beta2: second-moment decay of Adam (also beside Muon); smoothing constant of RMSProp.
        weight_decay: weight decay, decoupled (adamw, muon) or L2 (adam, rmsprop).
        clip: maximum gradient norm per player; 0 turns clipping off.
        ema: decay of the averaged weights, which are evaluated and sampled; 0 turns averaging off.
        seed: seed of the data order and the noise.
        validate_every: steps between validations; 0 means a tenth of all steps.
        validation_examples: examples per validation; 0 means all.
        log_every: steps between records in metrics.jsonl.
        checkpoint_seconds: seconds between checkpoints.
        precision: auto uses bfloat16 where it is faster.
        device: auto, cpu, cuda, cuda:1, mps.
        compile: compile the networks with torch.compile (takes about a minute).
        graphs: on CUDA, capture updates as CUDA graphs where possible.
        tensorboard: also write TensorBoard events (needs tensorboard).
    """

    steps: int = 1000
    batch_size: int = 64
    micro_batches: int = 1
    optimizer: Optimizer = "adam"
    learning_rate: float = 1e-3
    final_learning_rate: float = 0.0
    schedule: Schedule = "cosine"
    warmup: int = 100
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    validate_every: int = 0
    validation_examples: int = 2000
    log_every: int = 10
    checkpoint_seconds: float = 60.0
    precision: Precision = "auto"
    device: str = "auto"
    compile: bool = False
    graphs: bool = True
    tensorboard: bool = False

    def __post_init__(self) -> None:
        known(self)
        positive = ("steps", "batch_size", "micro_batches", "log_every", "learning_rate")
        for name in positive:
            if not getattr(self, name) > 0:
                raise InvalidSetting(f"{name} must be positive, given {getattr(self, name)}")
        for name in ("beta1", "beta2", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidSetting(f"{name} must be in [0, 1), given {getattr(self, name)}")
        not_negative = (
            "warmup", "weight_decay", "clip", "validate_every", "validation_examples",
            "checkpoint_seconds", "final_learning_rate",
        )  # fmt: skip
        for name in not_negative:
            if not getattr(self, name) >= 0:
                raise InvalidSetting(f"{name} must not be negative, given {getattr(self, name)}")
        if self.batch_size % self.micro_batches:
            raise InvalidSetting(
                f"batch_size={self.batch_size} does not divide into "
                f"micro_batches={self.micro_batches} equal parts"
            )

    def rate(self, step: int) -> float:
        """The learning rate of update `step` (counted from 0)."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        left = 1 - done if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        share = self.final_learning_rate
        return self.learning_rate * (share + (1 - share) * left)


def at_least(settings: object, least: float, *names: str) -> None:
    """Refuse settings whose named fields (or an entry of a tuple) are below `least`.

    Raises:
        InvalidSetting: names the field, its value and the least that is allowed.
    """
    for name in names:
        value = getattr(settings, name)
        parts = value if isinstance(value, tuple) else (value,)
        if not parts or not all(part >= least for part in parts):
            raise InvalidSetting(f"{name} must be at least {least:g}, given {value}")


def known(settings: object) -> None:
    """Refuse settings whose field of named alternatives (a `Literal`) is none of them.

    Raises:
        InvalidSetting: names the field, the alternatives and what was given.
    """
    for name, hint in typing.get_type_hints(type(settings)).items():
        if get_origin(hint) is Literal:
            converted(f"{type(settings).__name__}.{name}", getattr(settings, name), hint)


def rates(settings: object, *names: str) -> None:
    """Refuse settings whose named fields are not in [0, 1).

    Raises:
        InvalidSetting: names the field and its value.
    """
    for name in names:
        if not 0 <= getattr(settings, name) < 1:
            raise InvalidSetting(f"{name} must be in [0, 1), given {getattr(settings, name)}")


def from_mapping(kind: type[T], values: Mapping[str, Any], base: T | None = None) -> T:
    """Settings of `kind` with the given fields changed.

    Args:
        kind: a frozen dataclass.
        values: field names to values; strings are converted to the field's type.
        base: what the other fields are taken from; the defaults when None.

    Raises:
        InvalidSetting: an unknown field (names the nearest), or a value of the wrong type.
    """
    fields = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    changes: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise InvalidSetting(f'{kind.__name__} has no field "{name}": {nearest(name, fields)}')
        changes[name] = converted(f"{kind.__name__}.{name}", value, hints[name])
    if base is None:
        return kind(**changes)
    return dataclasses.replace(base, **changes)  # type: ignore[type-var]


def read_settings_file(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file.

    Raises:
        InvalidSetting: no such file, not valid, or not a mapping at the top.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"cannot read the settings file {path}: {error}") from error
    import yaml

    try:
        values = yaml.safe_load(text)
    except Exception as error:  # its errors, and those of Python's numbers and dates
        reason = " ".join(str(error).split())
        raise InvalidSetting(f"{path} is not valid YAML: {reason}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InvalidSetting(f"{path}: expected a mapping of field names to values at the top")
    return values


def to_json(settings: object) -> dict[str, Any]:
    """A dictionary of plain values that `from_mapping` reads back.

    Raises:
        InvalidSetting: it is no dataclass of plain values, so no file can keep it.
    """
    if not dataclasses.is_dataclass(settings) or isinstance(settings, type):
        raise InvalidSetting(
            f"a run keeps its settings in a file, and {type(settings).__name__} is no dataclass "
            "whose fields could be written there; decorate the class with "
            "@dataclasses.dataclass(frozen=True)"
        )
    try:
        record: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    except (TypeError, ValueError) as error:
        raise InvalidSetting(
            f"a run keeps its settings in a file, and a field of {type(settings).__name__} cannot "
            f"be written there ({error}); use numbers, text, and tuples of them"
        ) from error
    return record


def converted(name: str, value: Any, hint: Any) -> Any:
    """A value as the type of its field.

    Args:
        name: of the field, as the error should call it.
        value: as given; text is converted.
        hint: bool, int, float, str, a Literal, a tuple of one of these, or any of them or None.

    Raises:
        InvalidSetting: what was expected, and what was given.
    """
    origin = get_origin(hint)
    if origin is Literal:
        options = get_args(hint)
        if value in options:
            return value
        hint_text = nearest(str(value), map(str, options))
        close = f"; {hint_text}" if hint_text.startswith("did you") else ""
        listed = ", ".join(map(str, options))
        raise InvalidSetting(f"{name}: expected one of {listed}, given {_given(value)}{close}")
    if origin in (typing.Union, UnionType):
        if value is None or value == "none":
            return None
        inner = next(kind for kind in get_args(hint) if kind is not type(None))
        return converted(name, value, inner)
    if origin is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            parts = [parts]
        return tuple(converted(name, part, get_args(hint)[0]) for part in parts)
    return _scalar(name, value, hint)


_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_TRUTH = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}


def _scalar(name: str, value: Any, kind: type) -> Any:
    wrong = InvalidSetting(f"{name}: expected {_EXPECTED[kind]}, given {_given(value)}")
    if kind is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in _TRUTH:
            return _TRUTH[value.lower()]
        raise wrong
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise wrong
    if kind is str:
        return str(value)
    try:
        if kind is int and (isinstance(value, int) or _is_whole(value)):
            return int(value)
        number = float(value)
    except (ValueError, OverflowError) as error:
        raise wrong from error
    if not math.isfinite(number) or (kind is int and not number.is_integer()):
        raise wrong
    return int(number) if kind is int else number


def _is_whole(value: object) -> bool:
    """Digits with a sign: too long a number for a float must not lose its last ones."""
    return isinstance(value, str) and value.strip().lstrip("+-").isdecimal()


def _given(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
