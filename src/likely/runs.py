"""A run is a directory: what was fitted, to what, how, and what came out.

    config.json        model, its settings, the data it was built for
    fit.json           settings of the fit, objective, fingerprint of the training data
    environment.json   versions and processor
    metrics.jsonl      a record a line, no clock in it; timing.jsonl holds the clock
    weights.safetensors  averaged weights, for use
    state.safetensors  everything the next step depends on
    report.json        estimates, written by `likely evaluate`
    proofs.json        written by `likely verify`, believed while the weights are the same
    health.json        what the monitor found wrong with the fit
    samples/           sheets, written by `likely sample` and `likely evaluate`

No pickle is ever loaded.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from likely import checkpoint
from likely.data.spec import DataSpec
from likely.density import GenerativeModel
from likely.devices import place
from likely.errors import InvalidSetting
from likely.models import MODELS, ModelEntry, entry
from likely.noise import derived_seed
from likely.settings import from_mapping, to_json


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """What `load` finds in a run directory.

    Attributes:
        directory: of the run.
        name: of the model in the registry.
        model: with its weights, in evaluation mode.
        data: how to load the data again: {"name": ..., options}.
        config: the whole of config.json.
    """

    directory: Path
    name: str
    model: GenerativeModel
    data: dict[str, Any]
    config: dict[str, Any]


def build(
    name: str, spec: DataSpec, changes: dict[str, Any] | None = None, seed: int = 0
) -> GenerativeModel:
    """A model with fresh weights.

    Args:
        name: in the registry, as "gated-pixelcnn".
        spec: of the data.
        changes: settings that differ from the preset for that data.
        seed: of the initial weights; torch's global generator is left as it was.
    """
    found = entry(name)
    settings = from_mapping(found.settings, changes or {}, found.settings.preset(spec))
    return _construct(found, spec, settings, seed)


def _construct(found: ModelEntry, spec: DataSpec, settings: Any, seed: int) -> GenerativeModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "weights"))
        model: GenerativeModel = found.load()(spec, settings)
    return model


def describe(
    directory: str | Path, name: str, model: GenerativeModel, data: dict[str, Any]
) -> None:
    """Write config.json: enough to rebuild the model and to find its data."""
    checkpoint.write_json(
        Path(directory) / "config.json",
        {
            "model": name,
            "settings": to_json(model.settings),
            "spec": model.spec.to_json(),
            "data": data,
        },
    )


def load(directory: str | Path, weights: str = "weights.safetensors") -> SavedRun:
    """Read a run directory.

    Raises:
        CheckpointError: a file is missing or broken.
        InvalidSetting: it is no run directory, or of a model that is not known here.
    """
    directory = Path(directory)
    if not (directory / "config.json").is_file():
        raise InvalidSetting(
            f"{directory} is not a run: it has no config.json; "
            "`likely fit MODEL --data DATA --out DIRECTORY` makes one"
        )
    config = checkpoint.read_json(directory / "config.json")
    found = entry(str(config["model"]))
    spec = DataSpec.from_json(config["spec"])
    model = _construct(found, spec, from_mapping(found.settings, config["settings"]), 0)
    tensors, _ = checkpoint.read_tensors(directory / weights)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise checkpoint.CheckpointError(
            f"{directory / weights} does not fit the settings in config.json: {detail}"
        ) from error
    # The memory order in which convolutions run fastest.
    place(model, torch.device("cpu"))
    model.eval()
    return SavedRun(directory, found.name, model, dict(config["data"]), config)


__all__ = ["MODELS", "SavedRun", "build", "describe", "load"]
