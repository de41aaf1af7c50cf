"""Settings as options: every field of a dataclass, explained by its docstring."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import typing
from types import SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

from likely.cli.output import wrapped
from likely.cli.parser import Parser, Words, one_of
from likely.models import SEQUENCE_MODELS, ModelEntry
from likely.settings import FitSettings, type_hints
from likely.training.registry import OBJECTIVES

# Shapes that presets are shown for in the help, by their heading.
SHAPES = {"8x8": (1, 8, 8), "28x28": (1, 28, 28), "32x32x3": (3, 32, 32), "64x64x3": (3, 64, 64)}
# And kinds of sequences: (kind of the columns, how many, levels, steps of the training data).
KINDS = {
    "piano rolls": ("binary", 88, 2, 10_000), "many rolls": ("binary", 88, 2, 200_000),
    "voices": ("categorical", 4, 47, 50_000), "other": ("lattice", 7, 1000, 10_000),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Field:
    """One setting.

    Attributes:
        section: what it is a setting of: data, model, fit, objective, run.
        name: as in a settings file; the option is --name with hyphens.
        key: its name inside the section.
        hint: its type.
        about: one line for the help.
    """

    section: str
    name: str
    key: str
    hint: Any
    about: str

    @property
    def option(self) -> str:
        """As on the command line."""
        return "--" + self.name.replace("_", "-")


@dataclasses.dataclass(frozen=True)
class _Shape:
    """As much of a data specification as a preset reads."""

    shape: tuple[int, int, int]
    levels: int = 256

    @property
    def grid(self) -> tuple[int, int, int]:
        """The shape."""
        return self.shape

    @property
    def side(self) -> int:
        """The longer side of the image."""
        return max(self.shape[1:])


DATA = (
    Field("data", "data", "name", str, "a name (`likely data`), a folder of images, or an "
          ".npy, .npz, .parquet, .csv, .mat or .ts file"),
    Field("data", "binarize", "binarize", Literal["static", "dynamic", "threshold"],
          "two levels: static (mnist's published file), dynamic (drawn again each epoch), "
          "threshold (at 1/2)"),
    Field("data", "levels", "levels", int, "requantise to this many levels"),
    Field("data", "image_size", "size", str, "size of images from a folder, in pixels: 64, or "
          "48x64 for height x width; of shapes: 28 or 32"),
    Field("data", "image_channels", "channels", int,
          "channels of images from a folder, or of shapes: 1 (grey) or 3"),
    Field("data", "strict", "strict", bool, "refuse a folder with an unreadable image instead "
          "of skipping the image"),
    Field("data", "image_column", "image", str, "column of the images in parquet files"),
    Field("data", "label_column", "label", str, "column of the labels in parquet files"),
    Field("data", "time_column", "time", str, "column of a table of sequences that orders its "
          "steps"),
    Field("data", "series_column", "series", str, "column of a table that tells its series apart"),
    Field("data", "columns", "columns", tuple[str, ...], "columns of a table to model, in this "
          "order, with commas between"),
)  # fmt: skip

RUN = (
    Field("run", "out", "out", str, "directory of the run; created if missing"),
    Field("run", "resume", "resume", bool, "resume the run in --out (default), or with "
          "--no-resume replace it"),
    Field("run", "from", "from", str, "start from the weights of this run (fine-tuning)"),
)  # fmt: skip


def objective_fields() -> tuple[Field, ...]:
    """The objective and the settings of every one, by name: --objective-penalty is of several."""
    sharing: dict[str, list[tuple[str, Field, Any]]] = {}
    for name, entry in OBJECTIVES.items():
        assert entry.settings is not None
        defaults = dataclasses.asdict(entry.settings())
        for field in settings_fields(entry.settings, "objective"):
            sharing.setdefault(field.key, []).append((name, field, defaults[field.key]))
    named = Field("objective", "objective", "name", Annotated[str, OBJECTIVES],
                  "loss to minimise (default: the one for the kind of model)")  # fmt: skip
    fields = [named]
    for key, users in sharing.items():
        hints = {str(field.hint): field.hint for _, field, _ in users}
        texts: dict[str, dict[str, list[str]]] = {}  # by what is said, by the default: names
        for name, field, value in users:
            texts.setdefault(field.about.rstrip("."), {}).setdefault(_shown(value), []).append(name)
        about = "; ".join(map(_shared, texts, texts.values()))
        # Text is converted when it is known whose setting it is.
        hint = next(iter(hints.values())) if len(hints) == 1 else str
        fields.append(Field("objective", f"objective_{key}", key, hint, about))
    return tuple(fields)


def _shared(about: str, names: dict[str, list[str]]) -> str:
    """What is said of a setting, whose it is, and its defaults, the first of most of them."""
    (usual, _), *others = names.items()
    special = (f"; {', '.join(some)}: {value}" for value, some in others)
    everyone = ", ".join(name for some in names.values() for name in some)
    return f"{everyone}: {about} ({usual}{''.join(special)})"


def about_fields(kind: type[Any]) -> dict[str, str]:
    """The lines under "Attributes:" in the docstrings of a class and of its bases, by field."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        texts |= _attributes(base)
    return texts


def _attributes(kind: type[Any]) -> dict[str, str]:
    text = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]
    texts: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        start = re.match(r" {4}(\w+): (.*)", line)
        if start:
            name = start[1]
            texts[name] = start[2].strip()
        elif name and line.startswith(" " * 8):
            texts[name] += " " + line.strip()
        else:
            name = ""
    return texts


def settings_fields(kind: type[Any], section: str) -> tuple[Field, ...]:
    """Every field of a settings class."""
    hints, about = type_hints(kind), about_fields(kind)
    return tuple(
        Field(section, field.name, field.name, hints[field.name], about.get(field.name, ""))
        for field in dataclasses.fields(kind)
    )


def presets(entry: ModelEntry, section: str = "model") -> dict[str, dict[str, Any]]:
    """The settings of a model, or of its fit, by data shape, then by field."""
    preset = entry.preset if section == "model" else entry.fit_preset
    return {name: dataclasses.asdict(preset(kind)) for name, kind in kinds_of(entry).items()}


def kinds_of(entry: ModelEntry) -> dict[str, Any]:
    """As much of the specifications as presets read, of the kinds of data that are shown."""
    if entry.name not in SEQUENCE_MODELS:
        return {name: _Shape(shape) for name, shape in SHAPES.items()}
    return {
        name: SimpleNamespace(columns=(SimpleNamespace(kind=kind, levels=levels),) * n, steps=steps)
        for name, (kind, n, levels, steps) in KINDS.items()
    }


def preset_words(entry: ModelEntry, section: str) -> dict[str, str]:
    """The presets of every field in words: one value where all shapes agree."""
    by_shape = presets(entry, section)
    words = {}
    for field in next(iter(by_shape.values())):
        shown = [_shown(preset[field]) for preset in by_shape.values()]
        words[field] = shown[0] if len(set(shown)) == 1 else " | ".join(shown)
    return words


def fields_of(entry: ModelEntry) -> dict[str, Field]:
    """Every setting of `likely fit MODEL`, by name."""
    sections = (
        DATA, RUN, settings_fields(entry.settings, "model"),
        settings_fields(FitSettings, "fit"), objective_fields(),
    )  # fmt: skip
    return {field.name: field for section in sections for field in section}


def add_fields(parser: Parser, entry: ModelEntry) -> None:
    """The options of `likely fit MODEL`, in groups, with defaults."""
    fields = fields_of(entry).values()
    about_presets = wrapped(
        f"Values in brackets are the presets for {', '.join(kinds_of(entry))} data (one if they "
        "agree)."
    )
    titles = {
        "data": ("data", None),
        "model": (f"settings of {entry.name}", about_presets),
        "fit": ("settings of the fit", None),
        "objective": ("objective", None),
    }
    for section, (title, about) in titles.items():
        group = parser.add_argument_group(title, about)
        words = preset_words(entry, section) if section in ("model", "fit") else {}
        for field in fields:
            if field.section == section:
                add_field(group, field, words.get(field.key, ""))


def add_field(group: argparse._ActionsContainer, field: Field, default: str = "") -> None:
    """One option; what is given arrives as text and is converted later, with all other sources."""
    words = _words(field.hint)
    about = field.about.rstrip(".")
    if not all(word in about for word in words):
        about += f": {', '.join(words)}"
    about = (f"{about} [{default}]" if default else about).replace("%", "%%")
    if field.hint is bool:
        group.add_argument(field.option, action=argparse.BooleanOptionalAction, help=about)
        return
    if words:
        group.add_argument(
            field.option, type=one_of(words), choices=words, metavar="NAME", help=about
        )
        return
    group.add_argument(field.option, metavar=_metavar(field), help=about)


def _words(hint: Any) -> list[str]:
    if get_origin(hint) is Annotated:
        registry, *words = hint.__metadata__
        return Words([*words, *registry])
    return [str(word) for word in get_args(hint)] if get_origin(hint) is Literal else []


def _metavar(field: Field) -> str:
    named = {"data": "DATA", "out": "DIR", "from": "RUN", "image_size": "N"}
    named |= dict.fromkeys(("image_column", "label_column", "device"), "NAME")
    if field.name in named:
        return named[field.name]
    hint = field.hint
    if get_origin(hint) in (typing.Union, UnionType):
        hint = next(kind for kind in get_args(hint) if kind is not type(None))
    if get_origin(hint) is tuple:
        return "N,N,.."
    return {int: "N", float: "X"}.get(hint, "TEXT")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return ",".join(map(_shown, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
