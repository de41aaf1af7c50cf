"""What a fit is remembered by, so that it can go on: the state file and what it must agree with.

state.safetensors   model.*, average.*, optimizer.<player>.<parameter>.<slot>, sums.*
                    and, as strings, the step, the best validation, the seconds so far, the
                    data's fingerprint and the settings it was made under
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from likely.checkpoint import read_json
from likely.errors import InvalidSetting
from likely.settings import FitSettings, to_json

STATE = "state.safetensors"

# Pauses, the device, logging, compilation and graphs do not change what is being fitted.
FREE_SETTINGS = frozenset({"checkpoint_seconds", "device", "tensorboard", "compile", "graphs"})


def refuse_other_run(directory: Path, state: Mapping[str, str], now: Mapping[str, Any]) -> None:
    """Compare the settings a state was made under with those of now; nothing is changed.

    Args:
        directory: of the run.
        state: the strings of its state file.
        now: what fit.json would say of the fit that wants to go on.

    Raises:
        InvalidSetting: they differ; the message names every field.
    """
    # States of before the settings were kept in them stand beside their fit.json.
    written = state.get("about")
    saved = json.loads(written) if written else read_json(directory / "fit.json")
    defaults = to_json(FitSettings())
    changed = [
        name
        for name, value in now["fit"].items()
        if name not in FREE_SETTINGS and saved["fit"].get(name, defaults[name]) != value
    ]
    changed += [name for name in ("objective", "model") if saved.get(name, now[name]) != now[name]]
    if saved["training_fingerprint"] != now["training_fingerprint"]:
        changed.append("data")
    if changed:
        raise InvalidSetting(
            f"{directory} holds a run with other settings ({', '.join(changed)} differ); "
            "give the same settings to resume it, or another directory to start anew"
        )


def copy_into(state: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Copy values and keep the memory order: sums in another order differ in the last bit.

    Raises:
        KeyError: the names differ.
        ValueError: a shape differs.
    """
    if state.keys() != saved.keys():
        raise KeyError(", ".join(sorted(state.keys() ^ saved.keys())[:4]))
    for name, tensor in state.items():
        if tensor.shape != saved[name].shape:
            raise ValueError(f"{name} is {tuple(saved[name].shape)}, not {tuple(tensor.shape)}")
    for name, tensor in state.items():
        tensor.copy_(saved[name])
