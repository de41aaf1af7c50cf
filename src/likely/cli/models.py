"""`likely models`: what can be fitted, and with which settings."""

from __future__ import annotations

import argparse

from likely.cli.fields import kinds_of, preset_words, presets, settings_fields
from likely.cli.output import rows, say, say_json
from likely.cli.parser import Command, Parser, Words, one_of
from likely.models import MODELS, SEQUENCE_MODELS, ModelEntry

EXAMPLE = """\
  likely models
  likely models vae
"""


def _name(parser: Parser, _: str | None) -> None:
    every = {**MODELS, **SEQUENCE_MODELS}
    parser.add_argument(
        "model",
        nargs="?",
        default=None,
        type=one_of(Words(every)),
        choices=Words(every),
        metavar="MODEL",
        help=f"show its settings: {', '.join(every)}",
    )


COMMAND = Command(EXAMPLE, configure=_name)


def run(options: argparse.Namespace) -> int:
    """List."""
    name: str | None = options.model
    every = {**MODELS, **SEQUENCE_MODELS}
    chosen = {name: MODELS.entry(name)} if name else every
    if options.json:
        say_json({"models": [_record(entry) for entry in chosen.values()]})
        return 0
    say(rows(((entry.name, entry.summary) for entry in chosen.values()), 0).rstrip())
    if not name:
        say("\nSettings of one: likely models NAME. Fit it: likely fit NAME --data DATA --out DIR")
        return 0
    say(f"\nsettings, with the presets for {', '.join(kinds_of(chosen[name]))} data:")
    words = preset_words(chosen[name], "model")
    lines = [
        (field.name, f"{field.about.rstrip('.')} [{words[field.key]}]")
        for field in settings_fields(chosen[name].settings, "model")
    ]
    say(rows(lines).rstrip())
    return 0


def _record(entry: ModelEntry) -> dict[str, object]:
    fields = settings_fields(entry.settings, "model")
    return {
        "name": entry.name,
        "class": entry.class_name,
        "summary": entry.summary,
        "settings": {field.name: field.about for field in fields},
        "presets": presets(entry),
        "fit_presets": presets(entry, "fit"),
    }
