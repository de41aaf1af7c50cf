"""Settings as frozen dataclasses, read from mappings, YAML files and `name=value` words.

An unknown field is an error that names the nearest valid one. Standard library only (YAML is
imported when a YAML file is read).

A setting may be the name of a class (a model, a head, an objective): a `Registry` holds those
names, and classes of any package join it. A name of another package is found as "module:name", or
without its module where the package, installed, names that module as an entry point of the group
"likely".
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import numbers
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar, get_args, get_origin

from likely.errors import InvalidSetting, nearest

T = TypeVar("T")

Schedule = Literal["constant", "cosine", "linear"]
Optimizer = Literal["adam", "adamw", "rmsprop", "muon", "sgd"]
Precision = Literal["auto", "float32", "bfloat16"]
# Values of other fields, any of which gives a field its effect.
CountsWith = dict[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """How a model is fitted.

    Attributes:
        steps: number of updates (of each player).
        batch_size: examples per update, over all processes and micro-batches.
        micro_batches: parts of a batch whose gradients are accumulated.
        optimizer: adam, adamw, rmsprop, sgd, or muon (matrices by orthogonal updates, else Adam).
        learning_rate: learning rate after the warm-up.
        final_learning_rate: fraction of the learning rate at the end of the schedule.
        schedule: of the learning rate after the warm-up: constant, cosine or linear.
        warmup: steps over which the learning rate rises from zero.
        beta1: first-moment decay of Adam; momentum of Muon.
        beta2: second-moment decay of Adam (also beside Muon); smoothing constant of RMSProp.
        weight_decay: weight decay, decoupled (adamw, muon) or L2 (adam, rmsprop, sgd).
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

    COUNTS_WITH: ClassVar[dict[str, CountsWith]] = {
        "beta1": {"optimizer": ("adam", "adamw", "muon")},
        "beta2": {"optimizer": ("adam", "adamw", "muon", "rmsprop")},
        "final_learning_rate": {"schedule": ("cosine", "linear")},
    }

    def __post_init__(self) -> None:
        typed(self)
        for name in ("steps", "batch_size", "micro_batches", "log_every", "learning_rate"):
            if not getattr(self, name) > 0:
                raise InvalidSetting(f"{name} must be positive, given {getattr(self, name)}")
        rates(self, "beta1", "beta2", "ema")
        not_negative(self, "warmup", "weight_decay", "clip", "validate_every")
        not_negative(self, "validation_examples", "checkpoint_seconds", "final_learning_rate")
        if self.batch_size % self.micro_batches:
            raise InvalidSetting(
                f"batch_size={self.batch_size} does not divide into "
                f"micro_batches={self.micro_batches} equal parts"
            )

    @property
    def without_effect(self) -> dict[str, str]:
        """Fields that change nothing beside the others, and the settings that each is of."""
        return unused_beside(self, self.COUNTS_WITH)

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


@dataclasses.dataclass(frozen=True)
class Entry:
    """A class that a name stands for.

    Attributes:
        name: in settings and on the command line.
        place: of the class, as "module:Class"; imported when it is first used.
        home: the module that registered it.
        settings: the dataclass of its settings, importable without torch; None where it has none.
    """

    name: str
    place: str
    home: str
    settings: type[Any] | None = None

    @property
    def class_name(self) -> str:
        """The name of the class."""
        return self.place.partition(":")[2]

    @property
    def reference(self) -> str:
        """The name, as "module:name" where the module is of another package."""
        return self.name if self.home.split(".")[0] == "likely" else f"{self.home}:{self.name}"

    def load(self) -> type[Any]:
        """The class (may import torch)."""
        module, _, name = self.place.partition(":")
        kind: type[Any] = getattr(importlib.import_module(module), name)
        return kind


@dataclasses.dataclass(frozen=True)
class ModelEntry(Entry):
    """A registered model: its class takes (spec, settings)."""

    settings: type[Any]

    @property
    def summary(self) -> str:
        """One line for the help."""
        return (self.settings.__doc__ or "").partition("\n")[0]

    def preset(self, spec: Any) -> Any:
        """Settings for such data: `preset(spec)` of the settings class, if it has one."""
        make = getattr(self.settings, "preset", None)
        return self.settings() if make is None else make(spec)

    @property
    def named_presets(self) -> dict[str, dict[str, Any]]:
        """Settings by the names of `likely fit --preset`, each as a settings file has them.

        They are the `PRESETS` of the settings class, if it has some.
        """
        presets: dict[str, dict[str, Any]] = getattr(self.settings, "PRESETS", {})
        return presets

    def fit_preset(self, spec: Any) -> FitSettings:
        """How to fit it: `fit_preset(spec)` of the settings class, if it has one."""
        make: Callable[[Any], FitSettings] | None
        make = getattr(self.settings, "fit_preset", None)
        return FitSettings() if make is None else make(spec)


E = TypeVar("E", bound=Entry)


class Registry(Mapping[str, E], Generic[E]):
    """Classes by name, in the order in which they joined.

    Args:
        what: they are, as errors call it: "model".
        kind: of the entries.
        also: another registry, whose names are found here, too, and not listed.
    """

    _discovered = False

    def __init__(self, what: str, kind: type[E], also: Registry[E] | None = None) -> None:
        self.what, self._kind, self._also = what, kind, also
        self._entries: dict[str, E] = {}

    def join(self, name: str, place: str, home: str, settings: type[Any] | None = None) -> None:
        """Register a class; arguments as the attributes of `Entry`.

        Raises:
            InvalidSetting: another class has the name, or `place` is not "module:Class".
        """
        if place.count(":") != 1:
            raise InvalidSetting(f'{self.what} "{name}": expected "module:Class", given "{place}"')
        if ":" in name:
            raise InvalidSetting(f'the name of a {self.what} has no colon, given "{name}"')
        if name in self._entries and self._entries[name].place != place:
            raise InvalidSetting(f'the name "{name}" is taken by {self._entries[name].place}')
        self._entries[name] = self._kind(name, place, home, settings)

    def __getitem__(self, name: str) -> E:
        if name not in self._entries:
            self._discover()
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(self._entries)

    def __len__(self) -> int:
        self._discover()
        return len(self._entries)

    def entry(self, name: str) -> E:
        """The class of that name, or "module:name", which imports the module first.

        Raises:
            InvalidSetting: there is no such module, or no such name; the nearest is named.
        """
        module, colon, last = name.rpartition(":")
        if not colon and self._also is not None and name in self._also:
            return self._also[name]
        if colon:
            if not all(part.isidentifier() for part in module.split(".")):
                raise InvalidSetting(f'{self.what} "{name}": expected a name, or "module:name"')
            try:
                importlib.import_module(module)
            except ModuleNotFoundError as error:
                if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                    raise
                raise InvalidSetting(
                    f'{self.what} "{name}": there is no module "{error.name}"; install its '
                    "package, or put the folder that holds it on PYTHONPATH"
                ) from error
        package = module.split(".")[0]
        valid = [e.name for e in self.values() if not colon or e.home.split(".")[0] == package]
        if last not in valid:
            if self._also is not None and not colon:
                valid += list(self._also)
            none = "it registers none"
            if module == "__main__":
                none = "it stood in a script or a notebook; put it in a module of its own"
            hint = nearest(last, valid) if valid else none
            where = f"{module} has no" if colon else "unknown"
            raise InvalidSetting(f'{where} {self.what} "{last}": {hint}')
        return self[last]

    def of(self, kind: type[Any]) -> E | None:
        """The entry of a class, or of the class of its settings; None where it has not joined."""
        place = f"{kind.__module__}:{kind.__qualname__}"
        entries = self._everywhere()
        return next((e for e in entries if place == e.place or kind is e.settings), None)

    def of_class_name(self, name: str) -> E | None:
        """The entry whose class has that name; no other package is asked."""
        return next((e for e in self._everywhere() if e.class_name == name), None)

    def _everywhere(self) -> list[E]:
        """What has joined so far, here and in the other registry."""
        others = [] if self._also is None else self._also._everywhere()
        return [*self._entries.values(), *others]

    @staticmethod
    def _discover() -> None:
        """Import what installed packages name in their entry points, once."""
        if Registry._discovered:
            return
        Registry._discovered = True
        from importlib.metadata import entry_points

        for point in entry_points(group="likely"):
            try:
                point.load()
            except Exception as error:  # another package's defect must not stop this one
                warnings.warn(f"{point.value} cannot be imported: {error}", stacklevel=2)


SEQUENCE_MODELS = Registry("model", ModelEntry)
# Of images and vectors; those of sequences are found here by name, too.
MODELS = Registry("model", ModelEntry, SEQUENCE_MODELS)
OBJECTIVES = Registry("objective", Entry)
HEADS = Registry("head", Entry)
for _name, _class in (
    ("bernoulli", "Bernoulli"),
    ("categorical", "Categorical"),
    ("logistic-mixture", "DiscretizedLogisticMixture"),
):
    HEADS.join(_name, f"likely.heads:{_class}", "likely.heads")
# A name of `HEADS`, or auto: by the number of levels.
HeadName = Annotated[str, HEADS, "auto"]


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


def not_negative(settings: object, *names: str) -> None:
    """Refuse settings whose named fields are negative, or not a number.

    Raises:
        InvalidSetting: names the field and its value.
    """
    for name in names:
        if not getattr(settings, name) >= 0:
            raise InvalidSetting(f"{name} must not be negative, given {getattr(settings, name)}")


_HINTS: dict[type[Any], Mapping[str, Any]] = {}


def type_hints(kind: type[Any]) -> Mapping[str, Any]:
    """Of the fields of a class; evaluated once, as they are read whenever settings are made."""
    if kind not in _HINTS:
        _HINTS[kind] = MappingProxyType(typing.get_type_hints(kind, include_extras=True))
    return _HINTS[kind]


def typed(settings: Any) -> None:
    """Make the fields of settings what their types say, numbers of numpy's plain ones.

    Raises:
        InvalidSetting: a field that is something else; names it, and what was given.
    """
    hints = type_hints(type(settings))
    for name in (field.name for field in dataclasses.fields(settings)):
        field, value = f"{type(settings).__name__}.{name}", getattr(settings, name)
        if get_origin(hints[name]) is tuple and not isinstance(value, list | tuple):
            raise InvalidSetting(f"{field}: expected a tuple, given {_given(value)}")
        object.__setattr__(settings, name, converted(field, value, hints[name]))


def rates(settings: object, *names: str) -> None:
    """Refuse settings whose named fields are not in [0, 1).

    Raises:
        InvalidSetting: names the field and its value.
    """
    for name in names:
        if not 0 <= getattr(settings, name) < 1:
            raise InvalidSetting(f"{name} must be in [0, 1), given {getattr(settings, name)}")


def unused_beside(settings: object, counts_with: Mapping[str, CountsWith]) -> dict[str, str]:
    """Fields none of whose conditions holds, and the settings that each is of, in words."""
    return {
        field: " or ".join(f"{other}={' or '.join(map(str, v))}" for other, v in needs.items())
        for field, needs in counts_with.items()
        if not any(getattr(settings, other) in values for other, values in needs.items())
    }


def refuse_without_effect(settings: object, chosen: Iterable[str], base: object) -> None:
    """Refuse chosen fields that differ from those of `base` and change nothing.

    Settings say by `without_effect` which these are, if any, and what each is of.

    Raises:
        InvalidSetting: names the field, its value and what it is of.
    """
    unused: Mapping[str, str] = getattr(settings, "without_effect", {})
    for name in chosen:
        value = getattr(settings, name)
        if name in unused and value != getattr(base, name):
            raise InvalidSetting(f"{name}={value} changes nothing: it is of {unused[name]}")


def from_mapping(kind: type[T], values: Mapping[str, Any], base: T | None = None) -> T:
    """Settings of `kind`, a frozen dataclass, with the given fields changed; text is converted.

    The other fields are those of `base`, or the defaults.

    Raises:
        InvalidSetting: an unknown field (names the nearest), or a value of the wrong type.
    """
    fields = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = type_hints(kind)
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

    class Loader(yaml.SafeLoader):
        """Refuses a name that stands twice in a mapping: the last one would win."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f'"{twice}" stands there twice')
            return super().construct_mapping(node, deep)

    try:
        values = yaml.load(text, Loader)
    except Exception as error:  # its errors, and those of Python's numbers and dates
        reason = " ".join(str(error).split())
        raise InvalidSetting(f"{path} is not valid YAML: {reason}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InvalidSetting(f"{path}: expected a mapping of field names to values at the top")
    return values


def to_json(settings: object) -> dict[str, Any]:
    """A dictionary of plain values that `from_mapping` reads back.

    A name of another package's class is written as "module:name", so that it is found again.

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
    for name, hint in type_hints(type(settings)).items():
        if get_origin(hint) is Annotated:
            record[name] = converted(name, record[name], hint)
    return record


def converted(name: str, value: Any, hint: Any) -> Any:
    """A value as the type of its field; text is converted. `name` is what an error calls the field.

    The type is bool, int, float, str, a Literal, a name in a registry (`HeadName`), a tuple of one
    of these, settings, or any of them or None.

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
    if origin is Annotated:
        registry, *words = hint.__metadata__
        if value in words:
            return value
        try:
            return registry.entry(str(value)).reference
        except InvalidSetting as error:
            raise InvalidSetting(f"{name}: {error}") from error
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
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if not isinstance(value, hint):
            raise InvalidSetting(f"{name}: expected {hint.__name__}, given {_given(value)}")
        return value
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
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (is_number or isinstance(value, str)):
        raise wrong
    if kind is str:
        return str(value)
    try:
        if kind is int and (isinstance(value, numbers.Integral) or _is_whole(value)):
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
