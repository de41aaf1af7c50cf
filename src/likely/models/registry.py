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
from likely.settings import MODELS, ModelEntry

__all__ = ["MODELS", "ModelEntry", "entry", "model"]

Settings = TypeVar("Settings", bound=type[Any])


def model(name: str, network: str) -> Callable[[Settings], Settings]:
    """Register the decorated settings class, a frozen dataclass whose fields have defaults.

    Args:
        name: on the command line, as "gated-pixelcnn".
        network: the model's class, as "module:Class"; it takes (spec, settings).

    Raises:
        InvalidSetting: the name is taken by another model, or `network` names no class.
    """

    def register(settings: Settings) -> Settings:
        if not dataclasses.is_dataclass(settings):
            raise InvalidSetting(
                f'model "{name}": {settings.__name__} is no dataclass; put @model above '
                "@dataclasses.dataclass(frozen=True)"
            )
        MODELS.join(name, network, settings.__module__, settings)
        return settings

    return register


def entry(name: str) -> ModelEntry:
    """The model of that name, or "module:name", or an error with the nearest valid one."""
    return MODELS.entry(name)
