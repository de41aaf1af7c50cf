"""The registry of models: a settings class joins it under a name; no torch is imported.

    @model("logistic", "my_package.network:Logistic")
    @dataclasses.dataclass(frozen=True)
    class LogisticSettings: ...

The command and `likely.runs` know a model by its name from then on.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any, TypeVar

from likely.errors import InvalidSetting, nearest

Settings = TypeVar("Settings", bound=type[Any])


@dataclasses.dataclass(frozen=True)
class ModelEntry:
    """A registered model.

    Attributes:
        name: on the command line.
        network: where its class is, as "module:Class"; imported when it is first built.
        settings: its settings class (importable without torch).
    """

    name: str
    network: str
    settings: type[Any]

    @property
    def class_name(self) -> str:
        """The name of the model's class."""
        return self.network.partition(":")[2]

    @property
    def summary(self) -> str:
        """One line for the help."""
        return (self.settings.__doc__ or "").splitlines()[0]

    def load(self) -> type[Any]:
        """The model class (imports torch)."""
        module, _, name = self.network.partition(":")
        kind: type[Any] = getattr(importlib.import_module(module), name)
        return kind


MODELS: dict[str, ModelEntry] = {}


def model(name: str, network: str) -> Callable[[Settings], Settings]:
    """Register the decorated settings class.

    Args:
        name: on the command line, as "gated-pixelcnn".
        network: the model's class, as "module:Class"; it takes (spec, settings).

    Raises:
        InvalidSetting: the name is taken by another model, or `network` names no class.
    """
    if network.count(":") != 1:
        raise InvalidSetting(f'model "{name}": expected "module:Class", given "{network}"')
    if name in MODELS and MODELS[name].network != network:
        raise InvalidSetting(f'the name "{name}" is taken by {MODELS[name].network}')

    def register(settings: Settings) -> Settings:
        MODELS[name] = ModelEntry(name, network, settings)
        return settings

    return register


def entry(name: str) -> ModelEntry:
    """The model of that name, or an error with the nearest valid one."""
    if name not in MODELS:
        raise InvalidSetting(f'unknown model "{name}": {nearest(name, MODELS)}')
    return MODELS[name]
