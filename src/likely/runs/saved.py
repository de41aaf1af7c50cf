"""Runs: directories with everything about a fit.

    config.json        model, its settings, the data it was built for
    fit.json           settings of the fit, objective, fingerprint of the training data
    environment.json   versions and processor
    metrics.jsonl      one record per line, without times; timing.jsonl has the times
    weights.safetensors  averaged weights, for use; those of a GAN's adversary as discriminator.*
    state.safetensors  the checkpoint: everything that the next step depends on
    report.json        estimates, written by `likely evaluate`
    proofs.json        written by `likely verify`, valid for these weights only
    health.json        findings of the health monitor
    samples/           sheets, written by `likely sample` and `likely evaluate`

No pickle is loaded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from likely.data import load as load_data
from likely.data.spec import Dataset, DataSpec
from likely.density import GenerativeModel
from likely.devices import place
from likely.errors import InvalidData, InvalidSetting, nearest
from likely.files import allow, reading, record_of
from likely.models import MODELS, ModelEntry, entry
from likely.models.gan.adversary import DISCRIMINATOR, adversary_of
from likely.runs import checkpoint
from likely.runs.resume import STATE
from likely.settings import from_mapping, to_json

# What the names of the adversary's weights begin with.
ADVERSARY = f"{DISCRIMINATOR}."


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """What `load` finds in a run directory.

    Attributes:
        directory: of the run.
        name: of the model in the registry.
        model: with its weights, in evaluation mode.
        data: how to load the data again: {"name": ..., options}.
        config: the whole of config.json.
        adversary: the network that played against an implicit density, else None.
    """

    directory: Path
    name: str
    model: GenerativeModel
    data: dict[str, Any]
    config: dict[str, Any]
    adversary: nn.Module | None = None


def build(
    name: str, spec: DataSpec, changes: dict[str, Any] | None = None, seed: int = 0
) -> GenerativeModel:
    """A model with fresh weights.

    Args:
        name: in the registry, as "gated-pixelcnn", or "module:name" of another package's model.
        spec: of the data.
        changes: settings that differ from the preset for that data.
        seed: of the initial weights; torch's global generator is left as it was.
    """
    found = entry(name)
    settings = from_mapping(found.settings, changes or {}, found.preset(spec))
    return _construct(found, spec, settings, seed)


def _construct(found: ModelEntry, spec: DataSpec, settings: Any, seed: int) -> GenerativeModel:
    model: GenerativeModel = found.load()(spec, settings, seed=seed)
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


def read_config(directory: str | Path) -> dict[str, Any]:
    """What config.json says, its fields of the right kind.

    Raises:
        InvalidSetting: the directory is no run.
        CheckpointError: the file is damaged; the message names the field.
    """
    path = Path(directory) / "config.json"
    if not path.is_file():
        raise InvalidSetting(
            f"{directory} is not a run: it has no config.json; "
            "`likely fit MODEL --data DATA --out DIRECTORY` makes one"
        )
    with _config_file(path):
        config = record_of(checkpoint.read_json(path), "model", "settings", "spec", "data")
        for field in ("settings", "spec", "data"):
            with _config_file(path, field):
                record_of(config[field])
        record_of(config["data"], "name")
        for field, value in (("model", config["model"]), ("data", config["data"]["name"])):
            if not isinstance(value, str):
                raise InvalidData(f"{field}: expected a name, given {value!r}")
    return config


def _config_file(path: Path, field: str = "") -> contextlib.AbstractContextManager[None]:
    return reading(
        path, field, what="damaged", kind=checkpoint.CheckpointError,
        remedy="restore it from a copy, or fit again in another directory",
    )  # fmt: skip


def load(directory: str | Path, weights: str = "weights.safetensors") -> SavedRun:
    """Read a run directory.

    Raises:
        CheckpointError: a file is missing or broken, or does not fit the others.
        InvalidSetting: it is no run directory.
    """
    directory = Path(directory)
    config = read_config(directory)
    path = directory / "config.json"
    # A run that can be resumed writes its weights again.
    again = (directory / STATE).is_file() and weights == "weights.safetensors"
    remedy = "run the same `likely fit` command again" if again else "fit again"
    tensors, _ = checkpoint.read_tensors(
        directory / weights, f"restore it from a copy, or {remedy} to write it again"
    )
    with _config_file(path, "model"):
        found = entry(config["model"])
    with _config_file(path, "spec"):
        spec = DataSpec.from_json(config["spec"])
    with _config_file(path, "settings"):
        settings = from_mapping(found.settings, config["settings"])
        _refuse_another_size(path, config["settings"], spec, tensors)
        with torch.device("meta"):  # it takes no memory before it is known to fit
            hollow = _construct(found, spec, settings, 0)
            names = hollow.state_dict().keys()
            played = any(n not in names and n.startswith(ADVERSARY) for n in tensors)
            shapes = _shapes(hollow.state_dict())
            if played:
                other = adversary_of(hollow).state_dict()
                shapes |= _shapes({ADVERSARY + name: t for name, t in other.items()})
    wrong = sorted(dict(shapes.items() ^ _shapes(tensors).items()))
    if wrong:
        raise checkpoint.CheckpointError(
            f"{directory / weights} does not fit the settings in config.json: "
            f"{', '.join(wrong[:4])} {'differs' if len(wrong) == 1 else 'differ'}"
        )
    model = _construct(found, spec, settings, 0)
    adversary = adversary_of(model) if played else None
    for network, prefix in ((model, ""), (adversary, ADVERSARY)):
        if network is not None:
            network.load_state_dict({n: tensors[prefix + n] for n in network.state_dict()})
            # The memory order in which convolutions run fastest.
            place(network, torch.device("cpu"))
            network.eval()
    return SavedRun(directory, found.name, model, dict(config["data"]), config, adversary)


def data_options(run: SavedRun) -> dict[str, Any]:
    """How to load the data of a run: arguments of `likely.data.load`.

    Raises:
        CheckpointError: config.json names options that it does not have.
    """
    options = {key: tuple(v) if isinstance(v, list) else v for key, v in run.data.items()}
    options["source"] = options.pop("name")
    valid = inspect.signature(load_data).parameters.keys() - {"progress"}
    with _config_file(run.directory / "config.json", "data"):
        for key in options:
            if key not in valid:
                raise InvalidData(f'there is no option "{key}": {nearest(key, valid)}')
    return options


def data_of(run: SavedRun, progress: Any = None) -> tuple[Dataset, Dataset]:
    """Training and test set that a run was fitted to, as config.json says where they are.

    Args:
        run: from `load`.
        progress: as in `likely.data.load`.

    Raises:
        CheckpointError: they are not there, or cannot be read.
    """
    with _config_file(run.directory / "config.json", "data"):
        return load_data(**data_options(run), progress=progress)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}


def _refuse_another_size(
    path: Path, settings: dict[str, Any], spec: DataSpec, tensors: Mapping[str, Tensor]
) -> None:
    """No size of a network is larger than the count of its weights; nor is an image, by far."""
    held = sum(tensor.numel() for tensor in tensors.values())
    allow(path, 8 * held, 64 * spec.dimensions, f"a shape of {spec.shape}")
    for name, value in settings.items():
        sizes = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, int)]
        if max(sizes, default=0) > max(held, 10_000):
            raise InvalidData(f"{name} is {value}, and the weights are {held} numbers")


__all__ = [
    "MODELS",
    "SavedRun",
    "build",
    "data_of",
    "data_options",
    "describe",
    "load",
    "read_config",
]
