"""What a fit was asked for: a settings file, overridden by --set, overridden by options.

A preset that --preset names is weaker than all three, and the one for the data weaker still; that
is applied where the data is known.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from likely.cli.fields import Field, fields_of, settings_fields
from likely.errors import InvalidSetting, nearest
from likely.models import SEQUENCE_MODELS, ModelEntry
from likely.settings import OBJECTIVES, converted, read_settings_file


@dataclasses.dataclass(frozen=True)
class Request:
    """What `likely fit` was asked for.

    Attributes:
        model: the registry's entry.
        data: arguments of `likely.data.load`; "name" is its source.
        changes: settings of the model that differ from the preset.
        fit: fields of FitSettings.
        objective: its name, or None for the one that fits the model.
        objective_settings: its fields.
        out: directory of the run.
        resume: resume the run in it.
        start: directory of a run whose weights are the first ones, or None.
    """

    model: ModelEntry
    data: dict[str, Any]
    changes: dict[str, Any]
    fit: dict[str, Any]
    objective: str | None
    objective_settings: dict[str, Any]
    out: Path
    resume: bool
    start: Path | None


def requested(entry: ModelEntry, options: argparse.Namespace) -> Request:
    """Everything asked for, checked field by field.

    Raises:
        InvalidSetting: an unknown field (the nearest is named), a value of the wrong type, the
            same field by --set and by its option, or no data or directory.
    """
    in_file = read_settings_file(options.config) if "config" in options else {}
    if "preset" in options:
        presets = entry.named_presets
        if options.preset not in presets:
            raise InvalidSetting(
                f'{entry.name} has no preset "{options.preset}": {nearest(options.preset, presets)}'
            )
        in_file = presets[options.preset] | {k.replace("-", "_"): v for k, v in in_file.items()}
    if ":" in str(in_file.get("objective")):
        OBJECTIVES.entry(str(in_file["objective"]))  # its import brings its settings
    fields = fields_of(entry)
    sections: dict[str, dict[str, Any]] = {
        section: {} for section in ("data", "model", "fit", "objective", "run")
    }
    for field, value in _given(fields, options, in_file):
        sections[field.section][field.key] = value
    for section, key, option in (("data", "name", "--data"), ("run", "out", "--out")):
        if key not in sections[section]:
            what = "data" if option == "--data" else "directory"
            usual = "regimes" if entry.name in SEQUENCE_MODELS else "digits"
            raise InvalidSetting(
                f"no {what} given: add {option}, as `likely fit {entry.name} --data {usual} "
                f"--out runs/{entry.name}`"
            )
    name = sections["objective"].pop("name", None)
    _check_objective(name, sections["objective"])
    return Request(
        entry,
        sections["data"],
        sections["model"],
        sections["fit"],
        name,
        sections["objective"],
        Path(sections["run"]["out"]).expanduser(),
        sections["run"].get("resume", True),
        Path(sections["run"]["from"]).expanduser() if "from" in sections["run"] else None,
    )


def _given(
    fields: dict[str, Field], options: argparse.Namespace, in_file: dict[str, Any]
) -> Iterator[tuple[Field, Any]]:
    """Every given field with its converted value; later ones win."""
    source = getattr(options, "config", None) or f"preset {getattr(options, 'preset', None)}"
    for name, value in in_file.items():
        yield _one(fields, name, value, f"{source}: {name}")
    words: dict[str, str] = {}
    for word in options.set:
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidSetting(f'--set {word}: expected name=value, as "--set channels=32"')
        field, _ = chosen = _one(fields, name, value, f"--set {name}")
        if field.name in words or field.name in options:
            raise InvalidSetting(f"{field.name} is given twice, by --set and on its own; give one")
        words[field.name] = value
        yield chosen
    for name, field in fields.items():
        if name in options:
            yield _one(fields, name, getattr(options, name), field.option)


def _one(fields: dict[str, Field], name: str, value: Any, label: str) -> tuple[Field, Any]:
    plain = name.replace("-", "_")
    if plain not in fields:
        source = label[: -len(name)].rstrip().rstrip(":")
        hint = nearest(plain, fields)
        if hint.startswith("valid:"):
            hint = "`likely fit MODEL --help` lists those of each model"
        raise InvalidSetting(f'{source}: unknown setting "{name}": {hint}')
    return fields[plain], converted_field(fields[plain], value, label)


def converted_field(field: Field, value: Any, label: str) -> Any:
    """A value as the type of its field; `label` is what an error calls it."""
    if field.name == "image_size":
        return _size(value, label)
    return converted(label, value, field.hint)


def set_fields(fields: Iterable[Field], options: argparse.Namespace) -> dict[str, Any]:
    """The fields that have an option, by their keys."""
    return {
        field.key: converted_field(field, getattr(options, field.name), field.option)
        for field in fields
        if field.name in options
    }


def _size(value: Any, label: str) -> int | tuple[int, int]:
    """64, "64", "48x64" or [48, 64]."""
    words = value if isinstance(value, list) else str(value).lower().split("x")
    if len(words) not in (1, 2) or not all(str(word).isdigit() for word in words):
        raise InvalidSetting(
            f"{label}: expected a side in pixels, as 64, or height x width, as 48x64; "
            f'given "{value}"'
        )
    sides = [int(word) for word in words]
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _check_objective(name: str | None, settings: dict[str, Any]) -> None:
    if name is None:
        return
    settings_class = OBJECTIVES.entry(name).settings
    assert settings_class is not None
    valid = [field.key for field in settings_fields(settings_class, "objective")]
    for key in settings:
        if key not in valid:
            options = ", ".join(f"--objective-{word.replace('_', '-')}" for word in valid)
            raise InvalidSetting(
                f"--objective-{key.replace('_', '-')} is no setting of {name}"
                + (f"; valid: {options}" if options else ", which has none")
            )
