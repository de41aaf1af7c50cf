"""The state file of a fit and what it must agree with to be resumed.

state.safetensors   model.*, average.*, optimizer.<player>.<parameter>.<slot>, sums.*
                    and, as strings, the step, the best validation, the seconds so far, the
                    data's fingerprint and the settings it was made under
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from likely.density import condition_of
from likely.errors import InvalidSetting
from likely.files import parse_json, reading, record_of
from likely.runs.checkpoint import CheckpointError, read_json
from likely.settings import FitSettings, to_json

if TYPE_CHECKING:
    from likely.data.spec import Dataset
    from likely.density import GenerativeModel

STATE = "state.safetensors"
START_OVER = (
    "restore it from a copy, or start from scratch with --no-resume (in Python: resume=False)"
)

# Pauses, the device, logging, compilation and graphs do not change what is being fitted.
FREE_SETTINGS = frozenset({"checkpoint_seconds", "device", "tensorboard", "compile", "graphs"})


def refuse_other_run(directory: Path, state: Mapping[str, str], now: Mapping[str, Any]) -> None:
    """Compare the settings a state was made under with those of now; nothing is changed.

    Args:
        directory: of the run.
        state: the strings of its state file.
        now: what fit.json would say of the fit that wants to resume.

    Raises:
        InvalidSetting: they differ; the message names every field.
    """
    # States of before the settings were kept in them stand beside their fit.json.
    written, path = state.get("about"), directory / ("fit.json" if "about" not in state else STATE)
    with reading(path, what="damaged", remedy=START_OVER, kind=CheckpointError):
        saved = record_of(
            parse_json(written) if written else read_json(path, START_OVER),
            "fit",
            "training_fingerprint",
        )
        record_of(saved["fit"])
    defaults = to_json(FitSettings())
    changed = [
        name
        for name, value in now["fit"].items()
        if name not in FREE_SETTINGS and saved["fit"].get(name, defaults[name]) != value
    ]
    changed += [name for name in ("objective", "model") if saved.get(name, now[name]) != now[name]]
    if saved["training_fingerprint"] != now["training_fingerprint"]:
        changed.append("data")
    # Runs from before labels were looked at did not note them.
    given = now.get("condition_fingerprint")
    if saved.get("condition_fingerprint", given) != given and "data" not in changed:
        changed.append("labels or contexts of the data")
    if changed:
        raise InvalidSetting(
            f"{directory} holds a run with other settings ({', '.join(changed)} differ); "
            "give the same settings to resume it, or another directory to start from scratch"
        )


def about_fit(
    model: GenerativeModel, data: Dataset, objective: object, settings: FitSettings
) -> dict[str, Any]:
    """What must not change when a run is resumed, as stored in fit.json."""
    condition = condition_of(model)
    # What log p(x | label) learns depends on the labels, too.
    given = {"condition_fingerprint": data.fingerprint_given(condition)} if condition else {}
    return {
        **given,
        "fit": to_json(settings),
        "objective": {"name": type(objective).__name__, **to_json(objective)},
        "training_fingerprint": data.spec.fingerprint,
        "model": {"name": type(model).__name__, **to_json(model.settings)},
    }


def refuse_lost_state(directory: Path) -> None:
    """Refuse to overwrite the weights of a run whose state is lost.

    Raises:
        InvalidSetting: there are weights and no state.
    """
    if (directory / "weights.safetensors").exists() and not (directory / STATE).exists():
        raise InvalidSetting(
            f"{directory} holds the weights of a fit but no {STATE}, so it cannot be resumed, and "
            "a fit from step 0 would overwrite them; restore the file, give another directory, or "
            "start from scratch with --no-resume (in Python: resume=False)"
        )


def copy_into(state: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Copy values and keep the memory order: sums in another order differ in the last bit.

    Raises:
        KeyError: the names differ.
        ValueError: a shape or a type differs.
    """
    if state.keys() != saved.keys():
        raise KeyError(", ".join(sorted(state.keys() ^ saved.keys())[:4]))
    for name, tensor in state.items():
        if tensor.shape != saved[name].shape:
            raise ValueError(f"{name} is {tuple(saved[name].shape)}, not {tuple(tensor.shape)}")
        if tensor.dtype != saved[name].dtype:
            raise ValueError(f"{name} is {saved[name].dtype}, not {tensor.dtype}")
    for name, tensor in state.items():
        tensor.copy_(saved[name])


def threads_of(directory: str | Path) -> int | None:
    """The threads that the run in a directory was begun with; it resumes bit for bit with these.

    None where there is no run to resume.
    """
    path = Path(directory) / "environment.json"
    if not (path.parent / STATE).exists() or not path.exists():
        return None
    threads = read_json(path).get("threads")
    return threads if isinstance(threads, int) and threads > 0 else None
