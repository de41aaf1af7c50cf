"""The registry of models: a settings class joins it under a name; no torch is imported.

    @model("logistic", "my_package.network:Logistic")
    @dataclasses.dataclass(frozen=True)
    class LogisticSettings: ...

The command and `likely.runs` know a model by its name from then on; one of another package is
found as "my_package:logistic" (`likely.settings.Registry`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from likely.errors import InvalidSetting
from likely.settings import MODELS, SEQUENCE_MODELS, ModelEntry, Registry

__all__ = ["MODELS", "SEQUENCE_MODELS", "ModelEntry", "entry", "model", "sequence_model"]

Settings = TypeVar("Settings", bound=type[Any])


def model(
    name: str, network: str, registry: Registry[ModelEntry] = MODELS
) -> Callable[[Settings], Settings]:
    """Register the decorated settings class, a frozen dataclass whose fields have defaults.

    Args:
        name: on the command line, as "gated-pixelcnn".
        network: the model's class, as "module:Class"; it takes (spec, settings).
        registry: `MODELS`, or `SEQUENCE_MODELS` for a model of sequences.

    Raises:
        InvalidSetting: the name is taken by another model, or `network` names no class.
    """

    def register(settings: Settings) -> Settings:
        if not dataclasses.is_dataclass(settings):
            raise InvalidSetting(
                f'model "{name}": {settings.__name__} is no dataclass; put @model above '
                "@dataclasses.dataclass(frozen=True)"
            )
        registry.join(name, network, settings.__module__, settings)
        return settings

    return register


def sequence_model(name: str, network: str) -> Callable[[Settings], Settings]:
    """`model` for a class that takes sequences."""
    return model(name, network, SEQUENCE_MODELS)


def entry(name: str) -> ModelEntry:
    """The model of that name, or "module:name", or an error with the nearest valid one."""
    return MODELS.entry(name)
