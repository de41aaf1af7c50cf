"""Runs that were saved: `load` gives back the model, its data and what was measured."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from likely.data import load as load_data
from likely.data.labels import relabelled
from likely.data.sequences.spec import spec_of
from likely.data.spec import Dataset, DataSpec
from likely.density import Fittable, condition_of, nan_names
from likely.devices import environment, place
from likely.errors import InvalidData, InvalidSetting, nearest
from likely.estimate import Estimate
from likely.files import allow, reading, record_of
from likely.models import MODELS, ModelEntry, entry
from likely.models.gan.adversary import DISCRIMINATOR, adversary_of
from likely.runs.checkpoint import CheckpointError, read_json
from likely.runs.directory import REPORT, WEIGHTS, RunDirectory
from likely.runs.resume import Description, describe_model
from likely.runs.view import Viewed
from likely.settings import from_mapping

# What makes a tensor of the size in its arguments, and a matrix of so many rows and columns.
FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn,
             torch.arange}  # fmt: skip
SQUARE = {torch.eye, torch.tril_indices, torch.triu_indices}
# Bytes that a network may take beside its weights: masks, indices, tables.
ROOM = 64 << 20
# What the names of the adversary's weights begin with.
ADVERSARY = f"{DISCRIMINATOR}."


@dataclasses.dataclass(frozen=True, repr=False)
class SavedRun(Viewed):
    """A run as its directory keeps it: a line as text, its curves in a notebook.

    Attributes:
        directory: of the run.
        name: of the model in the registry.
        model: with its weights, in evaluation mode.
        data: arguments of `likely.data.load`, {"name": ..., options}; None where the model was
            fitted to data in memory.
        config: the whole of config.json.
        adversary: the network that played against an implicit density, else None.
    """

    directory: Path
    name: str
    model: Fittable
    data: dict[str, Any] | None
    config: dict[str, Any]
    adversary: nn.Module | None = None
    _datasets: tuple[Dataset, Dataset] = dataclasses.field(init=False, repr=False, compare=False)

    @property
    def files(self) -> RunDirectory:
        """The files of the run."""
        return RunDirectory(self.directory)

    @property
    def train(self) -> Dataset:
        """The training set, its `.validation` included, read at first use.

        Raises:
            InvalidSetting, InvalidData, CheckpointError: as `datasets`.
        """
        return self.datasets()[0]

    @property
    def test(self) -> Dataset:
        """The test set, read at first use."""
        return self.datasets()[1]

    @property
    def metrics(self) -> list[dict[str, float]]:
        """The records of the fit, as in metrics.jsonl."""
        return self.files.records()

    @property
    def report(self) -> dict[str, list[Estimate]]:
        """What `likely evaluate` measured of each split; annealed bounds come last."""
        measured = read_report(self.directory).get("evaluations", {})
        every = {
            split: record["estimates"] + record.get("annealed", {"estimates": []})["estimates"]
            for split, record in measured.items()
        }
        return {split: [Estimate.from_json(each) for each in e] for split, e in every.items()}

    def options(self) -> dict[str, Any]:
        """Arguments with which `likely.data.load` reads the data.

        Raises:
            InvalidSetting: the data were in memory.
            CheckpointError: config.json names options that there are not.
        """
        if self.data is None:
            spec = self.model.spec
            raise InvalidSetting(
                f"{self.directory} was fitted to data in memory ({spec.name}, fingerprint "
                f"{spec.fingerprint}), which it cannot load; measure it in Python, as "
                "likely.nats(likely.load(DIRECTORY).model, test), or save the array as .npz and "
                "fit to likely.data.load(FILE)"
            )
        options = {key: tuple(v) if isinstance(v, list) else v for key, v in self.data.items()}
        options["source"] = options.pop("name")
        valid = inspect.signature(load_data).parameters.keys() - {"progress"}
        with self.files.reading_config("data"):
            for key in options:
                if key not in valid:
                    raise InvalidData(f'there is no option "{key}": {nearest(key, valid)}')
        return options

    def datasets(self, progress: Any = None) -> tuple[Dataset, Dataset]:
        """Training and test set, as config.json says where they are, read at the first call.

        Args:
            progress: as in `likely.data.load`.

        Raises:
            InvalidSetting: the model was fitted to data in memory.
            InvalidData: what is there now is not what it was fitted to.
            CheckpointError: they are not there, or cannot be read.
        """
        if "_datasets" in vars(self):
            return self._datasets
        options = self.options()
        with self.files.reading_config("data"):
            train, test = load_data(**options, progress=progress)
        spec, condition = self.model.spec, condition_of(self.model)
        now = relabelled(train, spec.classes) if self.model.classes else train
        if now.spec.fingerprint != spec.fingerprint:
            raise InvalidData(
                f"{self.directory} was fitted to {spec.name} with fingerprint {spec.fingerprint}; "
                f"what is there now has {now.spec.fingerprint}. Bring the old data back, or fit "
                "again"
            )
        fitted = self.files.fit().get("condition_fingerprint") if condition else None
        if fitted not in (None, now.fingerprint_given(condition)):
            raise InvalidData(
                f"{self.directory} was fitted to the images that are there now with another "
                f"{condition} for each; bring the old ones back, or fit again"
            )
        vars(self)["_datasets"] = train, test
        return train, test


def build(
    name: str, spec: DataSpec, changes: dict[str, Any] | None = None, seed: int = 0
) -> Fittable:
    """A model with fresh weights.

    Args:
        name: in the registry, as "gated-pixelcnn", or "module:name" of another package's model.
        spec: of the data.
        changes: settings that differ from the preset for that data.
        seed: of the initial weights; torch's global generator is left as it was.
    """
    registered = entry(name)
    settings = from_mapping(registered.settings, changes or {}, registered.preset(spec))
    model: Fittable = registered.load()(spec, settings, seed=seed)
    return model


def build_from(run: SavedRun, spec: DataSpec, changes: Mapping[str, Any]) -> Fittable:
    """A model with the weights of a run, to be fitted further, to the same data or to other.

    Args:
        run: whose weights are taken.
        spec: of the data that it is going to be fitted to.
        changes: settings that differ from those of the run, and leave its weights their shapes.

    Raises:
        InvalidSetting: the weights do not fit the data or the settings.
    """
    registered = entry(run.name)
    settings = from_mapping(registered.settings, changes, run.model.settings)
    model: Fittable = registered.load()(spec, settings)
    weights = run.model.state_dict()
    wrong = sorted(dict(_shapes(model.state_dict()).items() ^ _shapes(weights).items()))
    if wrong:
        raise InvalidSetting(
            f"the weights of {run.directory} do not fit {run.name} with these settings on "
            f"{spec.name}, shape {spec.shape} with {spec.levels} levels: {', '.join(wrong[:4])} "
            f"{'differs' if len(wrong) == 1 else 'differ'}"
        )
    model.load_state_dict(weights)
    model.origin, model.origin_run = run.model.origin, run.model.origin_run
    return model


def save(directory: str | Path, model: Fittable, data: Dataset | None = None) -> Path:
    """Write a model as a run that was not fitted here; `load` and the command find it there.

    Args:
        directory: new or empty.
        model: registered or not (`load` then says how to register it).
        data: what it was fitted to, so that the command can measure it.

    Raises:
        InvalidSetting: a run or other files are there.
    """
    wanted = Description(describe_model(model, data), {})
    RunDirectory(directory).save(wanted, environment(), model.state_dict(), [], [])
    return Path(directory)


def load(directory: str | Path) -> SavedRun:
    """Read a run directory.

    Raises:
        CheckpointError: a file is missing or broken, or does not fit the others.
        InvalidSetting: it is no run directory, or its model is not registered here.
    """
    files = RunDirectory(directory)
    config = files.config()
    registered = _entry(files, config)
    tensors, about = files.weights()
    with files.reading_config("spec"):
        spec = spec_of(config["spec"])
    with files.reading_config("settings"):
        settings = from_mapping(registered.settings, config["settings"])
        _refuse_another_size(files.path / "config.json", config["settings"], spec, tensors)
        with _Bounded(tensors):
            model: Fittable = registered.load()(spec, settings)
            names = model.state_dict().keys()
            played = any(n not in names and n.startswith(ADVERSARY) for n in tensors)
            shapes = _shapes(model.state_dict())
            # Older runs and models without a fit know of no packs.
            packing = int(files.fit().get("objective", {}).get("packing", 1)) if played else 1
            adversary = adversary_of(model, packing) if played else None
            if adversary is not None:
                other = adversary.state_dict()
                shapes |= _shapes({ADVERSARY + name: t for name, t in other.items()})
    if lost := nan_names(tensors):
        raise CheckpointError(f"{files / WEIGHTS}: weights are NaN ({', '.join(lost[:3])})")
    wrong = sorted(dict(shapes.items() ^ _shapes(tensors).items()))
    if wrong:
        raise CheckpointError(
            f"{files / WEIGHTS} does not fit the settings in config.json: "
            f"{', '.join(wrong[:4])} {'differs' if len(wrong) == 1 else 'differ'}"
        )
    for network, prefix in ((model, ""), (adversary, ADVERSARY)):
        if network is not None:
            network.load_state_dict({n: tensors[prefix + n] for n in network.state_dict()})
            # The memory order in which convolutions run fastest.
            place(network, torch.device("cpu"))
            network.eval()
    model.origin_run = str(files.path.resolve())
    model.origin = f"step {about.get('step', '?')} of {model.origin_run}"
    data = None if config["data"] is None else dict(config["data"])
    return SavedRun(files.path, registered.name, model, data, config, adversary)


def _entry(files: RunDirectory, config: Mapping[str, Any]) -> ModelEntry:
    """The registry's entry for the model of a run."""
    network = config.get("class")
    if network is None:
        with files.reading_config("model"):
            return entry(config["model"])
    registered = MODELS.of_class_name(config["model"])
    if registered is not None:
        return registered
    raise InvalidSetting(
        f"{files.path} holds a run of {network}, which is not registered in this program: put "
        f'@likely.models.model("{str(config["model"]).lower()}", "{network}") above its settings '
        "class, and import that module first"
    )


def read_report(directory: str | Path) -> dict[str, Any]:
    """What report.json says, its fields of the right kind; empty where there is none.

    Raises:
        CheckpointError: it is damaged.
    """
    path = Path(directory) / REPORT
    if not path.exists():
        return {}
    remedy = "delete it, and `likely evaluate` writes it again"
    report = read_json(path, remedy)
    with reading(path, what="damaged", remedy=remedy, kind=CheckpointError):
        for record in record_of(record_of(report, "evaluations")["evaluations"]).values():
            record_of(record_of(record, "data", "estimates")["data"], "fingerprint")
            near = record_of(record.get("annealed", {"estimates": []}), "estimates")
            for estimate in record["estimates"] + near["estimates"]:
                Estimate.from_json(record_of(estimate))
    return dict(report)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[bool, torch.Size]]:
    """Whether they are real numbers, of any precision, and their shapes."""
    return {name: (tensor.is_floating_point(), tensor.shape) for name, tensor in tensors.items()}


class _Bounded(TorchFunctionMode):
    """Refuses tensors that are far larger than the weights: damaged settings ask for them.

    A network on the meta device would take no memory, but plain arithmetic there imports torch's
    compiler, which takes longer than to read most runs.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._most = ROOM + 64 * sum(tensor.nbytes for tensor in tensors.values())

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Elements are counted before, where sizes or broadcasting tell them; bytes afterwards."""
        sizes = args[0] if args and isinstance(args[0], Sequence) else args
        if func in SQUARE:
            self._allow(math.prod(sizes[:2]) * (sizes[0] if len(sizes) == 1 else 1))
        elif func in FACTORIES:
            self._allow(math.prod(size for size in sizes if isinstance(size, int)))
        try:
            shape = np.broadcast_shapes(*(a.shape for a in args if isinstance(a, Tensor)))
        except ValueError:
            shape = ()  # not by broadcasting
        self._allow(math.prod(shape))
        result = func(*args, **kwargs or {})
        if isinstance(result, Tensor):
            self._allow(result.untyped_storage().nbytes())
        return result

    def _allow(self, size: int) -> None:
        if size > self._most:
            raise InvalidData(f"they make a tensor of {size / 1e9:.3g} GB, far beyond the weights")


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
