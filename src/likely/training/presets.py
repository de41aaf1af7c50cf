"""How a model is fitted where nothing else is asked: the preset of its settings class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from likely.data.sequences.dataset import Sequences
from likely.data.spec import Dataset
from likely.settings import MODELS, FitSettings, from_mapping, refuse_without_effect


def fit_settings(
    model_settings: type[Any], data: Dataset, changes: Mapping[str, Any]
) -> FitSettings:
    """The preset for the model and its training set, with the fields that were asked for.

    A preset's batch and warm-up are cut to what the data and the steps allow; what was asked for is
    not. A model that is not registered has the defaults of `FitSettings` for its preset.

    Raises:
        InvalidSetting: a change that is not valid, or that changes nothing beside the others.
    """
    entry = MODELS.of(model_settings)
    base = FitSettings() if entry is None else entry.fit_preset(data.spec)
    # A sequence may be cut into windows: its preset knows how many.
    batch = base.batch_size if isinstance(data, Sequences) else min(base.batch_size, len(data))
    base = dataclasses.replace(base, batch_size=batch)
    settings = from_mapping(FitSettings, dict(changes), base)
    if "warmup" not in changes:
        settings = dataclasses.replace(settings, warmup=min(base.warmup, settings.steps))
    refuse_without_effect(settings, changes, base)
    return settings
