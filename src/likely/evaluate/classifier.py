"""The offline extractor: a small classifier fitted on the training labels.

Its features are the numbers before the last layer. Where the training data has no labels, its
attributes are the targets; where it has neither, the same network is left at its random start,
which is a weaker but still fixed measure (Ulyanov et al. 2018 show how much such a network
already knows of images).

Fitting is a function of (training data, settings, seed): one thread, own generator. The result
is kept in the cache, so a second evaluation reads it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from likely.data import load
from likely.data.catalogue import STATIC_MNIST
from likely.data.places import cache_folder
from likely.data.spec import Dataset, DataSpec, with_validation
from likely.errors import InvalidData, InvalidSetting, LikelyError
from likely.evaluate.features import Images, checked_images
from likely.files import write_bytes
from likely.training.optimizers import Adam

Progress = Callable[[int, int], None]

# Part of the cache key: change it when the network or its training changes.
RECIPE = "small-convolutional-network-1"
# Extractors that come with the package, under the names they have in the cache.
SHIPPED = Path(__file__).parent
BATCH = 512  # images a forward pass outside training


@dataclasses.dataclass(frozen=True)
class ClassifierSettings:
    """How the default extractor is made.

    Attributes:
        features: number of features F.
        seed: of the start and of the order of the images.
        steps: of Adam; None takes two passes over the data, at least 600 and at most 2,000.
        batch: images per step.
        learning_rate: at the start; falls to 0 along a half cosine.
    """

    features: int = 64
    seed: int = 0
    steps: int | None = None
    batch: int = 64
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        if self.features < 1 or self.batch < 1 or not self.learning_rate > 0.0:
            raise InvalidSetting(
                "an extractor needs features >= 1, batch >= 1 and learning_rate > 0, "
                f"given {self.features}, {self.batch} and {self.learning_rate}"
            )

    def steps_for(self, n: int) -> int:
        """Number of steps on n training images."""
        if self.steps is not None:
            return self.steps
        return min(2000, max(600, math.ceil(2 * n / self.batch)))


@dataclasses.dataclass(eq=False, repr=False)
class NetworkFeatures:
    """Features of the small network: convolution, ReLU and pooling until 4x4, then a layer.

    Vectors have no neighbouring pixels: of them the features are the layer alone.

    Attributes:
        spec: of the training data (shape and levels are those of the images it takes).
        held_out_accuracy: share of held-out targets that the classifier gets right; None for the
            network at its random start.
        held_out: number of held-out images that the accuracy is over.
    """

    spec: DataSpec
    weights: dict[str, Tensor]
    held_out_accuracy: float | None
    held_out: int
    fitted_on: str

    @property
    def name(self) -> str:
        kind = "random-network" if self.held_out_accuracy is None else "classifier"
        return f"{self.spec.name}-{kind}"

    @functools.cached_property
    def fingerprint(self) -> str:
        sha = hashlib.sha256(RECIPE.encode())
        for name in sorted(self.weights):
            sha.update(name.encode())
            sha.update(self.weights[name].contiguous().numpy().tobytes())
        return sha.hexdigest()[:12]

    @property
    def description(self) -> str:
        features, is_vector = len(self.weights["mean"]), len(self.spec.shape) == 1
        if self.held_out_accuracy is None:
            what = "features of a convolutional network with fixed random weights"
            what = "random projections of the values" if is_vector else what
            because = f"because the training data of {self.spec.name} has no labels"
            return f"{features} {what}, {because}"
        kind = "classifier" if is_vector else "convolutional classifier"
        return (
            f"{features} features of a small {kind} fitted on the training "
            f"{self.fitted_on} of {self.spec.name}; held-out accuracy "
            f"{self.held_out_accuracy:.3f} (n = {self.held_out})"
        )

    @torch.no_grad()
    def labels(self, x: Images) -> Tensor:
        """The most probable label of each integer image, int64 [B].

        Raises:
            InvalidSetting: the network was fitted on attributes, or is at its random start.
        """
        if self.fitted_on != "labels":
            raise InvalidSetting(f"{self.name} was fitted on no labels: it can name none")
        x = checked_images(x, self.spec)
        with torch.autocast("cpu", enabled=False):
            parts = [
                _output(self.weights, _hidden(self.weights, _scaled(part, self.spec.levels)))
                for part in (x[start : start + BATCH] for start in range(0, len(x), BATCH))
            ]
        return torch.cat(parts).argmax(1)

    @torch.no_grad()
    def __call__(self, x: Images) -> Tensor:
        """Features of integer images.

        Args:
            x: integers in [0, levels), [B, C, H, W], a tensor or an array.

        Returns:
            float64 [B, F]: shifted and scaled by constants so that the training images have mean
            0 and an average variance of 1.
        """
        return (self._hidden(x).double() - self.weights["mean"]) / self.weights["scale"]

    @torch.no_grad()
    def scores(self, x: Images) -> Tensor:
        """Logits of the classes, or of the attributes in the order of their names, float32 [B, K].

        Args:
            x: integers in [0, levels), [B, C, H, W], a tensor or an array.
        """
        return _output(self.weights, self._hidden(x))

    def _hidden(self, x: Images) -> Tensor:
        x = checked_images(x, self.spec)
        with torch.autocast("cpu", enabled=False):
            parts = [
                _hidden(self.weights, _scaled(x[start : start + BATCH], self.spec.levels))
                for start in range(0, len(x), BATCH)
            ]
        return torch.cat(parts) if parts else torch.zeros(0, len(self.weights["mean"]))


def default_extractor(
    train: Dataset,
    settings: ClassifierSettings | None = None,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> NetworkFeatures:
    """The offline extractor for a training set: from the cache, else fitted now.

    Args:
        train: training images, [C, H, W] each, or vectors [D]; labels or attributes where there
            are any. Statically binarised MNIST, which has none, takes those of the dynamic one.
        settings: of the network and its training.
        cache: folder that keeps fitted extractors; `likely.data.places.cache_folder()` by
            default. A broken file in it is made again; a folder that cannot be written is no
            error.
        progress: called with (steps done, steps in all) while fitting.

    Returns:
        The extractor, the same for the same training data and settings; that of MNIST comes with
        the package, because one that is fitted on another processor differs in its last bits.
    """
    settings = settings or ClassifierSettings()
    train = _labelled(train)
    if len(train.spec.shape) not in (1, 3):
        raise InvalidData(
            f"the default extractor is for images [C, H, W] and vectors [D]; {train.spec.name} "
            f"has examples of shape {list(train.spec.shape)}"
        )
    folder = (cache_folder() / "extractors") if cache is None else cache
    targets, kind = _targets(train)
    values = b"" if targets is None else targets.numpy().tobytes()
    digest = kind + hashlib.sha256(values).hexdigest()
    key = json.dumps([RECIPE, train.spec.fingerprint, digest, dataclasses.asdict(settings)])
    path = folder / f"{train.spec.name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.safetensors"
    for file in (SHIPPED / path.name, path):
        kept = _read(file, train.spec)
        if kept is not None:
            return kept
    extractor = _fitted(train, settings, progress)
    # An evaluation that has its extractor must not fail for want of a cache.
    with contextlib.suppress(OSError):
        _write(path, extractor)
    return extractor


def _labelled(train: Dataset) -> Dataset:
    """The data set of the catalogue that the features of this one are fitted on.

    Larochelle's binarisation of MNIST has no labels; another one has the same shape and levels.
    Where that cannot be read, the features stay random, and the extractor's description says so.
    """
    if STATIC_MNIST.labelled is None or train.spec.digest != STATIC_MNIST.digests[0]:
        return train
    with contextlib.suppress(LikelyError):
        return load(STATIC_MNIST.name, binarize=STATIC_MNIST.labelled)[0]
    return train


# -- the network ------------------------------------------------------------------------------


def _start(spec: DataSpec, features: int, outputs: int, seed: int) -> dict[str, Tensor]:
    """Weights at their random start (He et al. 2015), drawn from a generator of their own."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}

    def layer(name: str, shape: tuple[int, ...]) -> None:
        spread = math.sqrt(2.0 / math.prod(shape[1:]))
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator) * spread
        weights[f"{name}.bias"] = torch.zeros(shape[0])

    channels, height, width = spec.grid
    depth = 0
    # Small images get wide layers at once; large ones start narrow, which is where time goes.
    wide = 32 if max(height, width) <= 16 else 16
    while len(spec.shape) == 3 and (depth == 0 or max(height, width) > 4):
        layer(f"convolution{depth}", (wide, channels, 3, 3))
        channels, wide = wide, min(64, wide * 2)
        height, width = math.ceil(height / 2), math.ceil(width / 2)
        depth += 1
    layer("hidden", (features, channels * height * width))
    layer("output", (outputs, features))
    weights["mean"], weights["scale"] = torch.zeros(features), torch.ones(())
    return weights


def _hidden(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """The features before shift and scale, float32 [B, F], of float32 [B, C, H, W]."""
    depth = 0
    while f"convolution{depth}.weight" in weights:
        name = f"convolution{depth}"
        x = functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)
        x = functional.max_pool2d(functional.relu(x), 2, ceil_mode=True)
        depth += 1
    return functional.linear(x.flatten(1), weights["hidden.weight"], weights["hidden.bias"])


def _output(weights: dict[str, Tensor], hidden: Tensor) -> Tensor:
    active = functional.relu(hidden)
    return functional.linear(active, weights["output.weight"], weights["output.bias"])


def _scaled(x: Tensor, levels: int) -> Tensor:
    """Integers to float32 in [-1, 1]."""
    return x.float() * (2.0 / (levels - 1)) - 1.0


# -- fitting ----------------------------------------------------------------------------------


def _targets(data: Dataset) -> tuple[Tensor | None, str]:
    """Labels int64 [N], or attributes float32 [N, A], or None; and their name."""
    if data.labels is not None:
        return torch.from_numpy(np.asarray(data.labels).astype(np.int64)), "labels"
    if data.attributes:
        columns = [data.attributes[name] for name in sorted(data.attributes)]
        return torch.from_numpy(np.stack(columns, axis=1).astype(np.float32)), "attributes"
    return None, ""


def _images(data: Dataset, index: npt.NDArray[np.int64] | slice) -> Tensor:
    x = data.batch(index).x
    return _scaled(torch.from_numpy(x.astype(np.float32)), data.spec.levels)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order, so that the weights do not depend on the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _fitted(
    train: Dataset, settings: ClassifierSettings, progress: Progress | None
) -> NetworkFeatures:
    targets, kind = _targets(train)
    with _one_thread():
        if targets is None:
            weights = _start(train.spec, settings.features, 1, settings.seed)
            _standardise(weights, train)
            return NetworkFeatures(train.spec, weights, None, 0, "")
        if train.validation is None:
            # No held-out part was given: take the one that every choice would use.
            train = with_validation(train)
            targets, kind = _targets(train)
            assert targets is not None
        held_out = train.validation
        assert held_out is not None
        outputs = int(targets.max()) + 1 if kind == "labels" else targets.shape[1]
        weights = _start(train.spec, settings.features, outputs, settings.seed)
        _train(weights, train, targets, settings, progress)
        _standardise(weights, train)
        return NetworkFeatures(
            train.spec, weights, _accuracy(weights, held_out), len(held_out), kind
        )


def _train(
    weights: dict[str, Tensor],
    train: Dataset,
    targets: Tensor,
    settings: ClassifierSettings,
    progress: Progress | None,
) -> None:
    """Adam on the cross-entropy of the targets, in place."""
    parameters = [w.requires_grad_() for name, w in weights.items() if "." in name]
    steps, n = settings.steps_for(len(train)), len(train)
    optimizer = Adam(parameters, settings.learning_rate)
    generator = torch.Generator().manual_seed(settings.seed + 1)
    order = torch.randperm(n, generator=generator)
    at = 0
    for step in range(steps):
        if at + settings.batch > n and at > 0:
            order, at = torch.randperm(n, generator=generator), 0
        index = order[at : at + settings.batch].sort().values
        at += settings.batch
        optimizer.rate = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        with torch.enable_grad():
            scores = _output(weights, _hidden(weights, _images(train, index.numpy())))
            loss = (
                functional.binary_cross_entropy_with_logits(scores, targets[index])
                if targets.is_floating_point()
                else functional.cross_entropy(scores, targets[index])
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if progress is not None:
            progress(step + 1, steps)
    for parameter in parameters:
        parameter.requires_grad_(False)
        parameter.grad = None


@torch.no_grad()
def _standardise(weights: dict[str, Tensor], train: Dataset, limit: int = 10_000) -> None:
    """Set mean and scale from the first training images."""
    n = min(limit, len(train))
    hidden = torch.cat(
        [
            _hidden(weights, _images(train, np.arange(start, min(n, start + BATCH))))
            for start in range(0, n, BATCH)
        ]
    ).double()
    weights["mean"] = hidden.mean(0).float()
    spread = float((hidden - hidden.mean(0)).square().mean().sqrt())
    weights["scale"] = torch.tensor(spread if spread > 0.0 else 1.0)


@torch.no_grad()
def _accuracy(weights: dict[str, Tensor], held_out: Dataset) -> float:
    targets, _ = _targets(held_out)
    assert targets is not None
    right = 0.0
    for start in range(0, len(held_out), BATCH):
        index = np.arange(start, min(len(held_out), start + BATCH))
        scores, truth = _output(weights, _hidden(weights, _images(held_out, index))), targets[index]
        if truth.is_floating_point():
            right += float(((scores > 0) == (truth > 0.5)).double().mean(1).sum())
        else:
            right += float((scores.argmax(1) == truth).sum())
    return right / len(held_out)


# -- the cache --------------------------------------------------------------------------------


def _read(path: Path, spec: DataSpec) -> NetworkFeatures | None:
    """The extractor in the file, or None where there is no whole one."""
    if not path.is_file():
        return None
    try:
        weights = safetensors.torch.load_file(path)
        with safetensors.safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {})["extractor"])
        kept = NetworkFeatures(
            spec, weights, record["accuracy"], record["held_out"], record["fitted_on"]
        )
    except Exception:  # damaged in whatever way: it is only a cache, and is made again
        return None
    return kept if kept.fingerprint == record["fingerprint"] else None


def _write(path: Path, extractor: NetworkFeatures) -> None:
    """Write atomically: a temporary file, then a rename."""
    record = {
        "accuracy": extractor.held_out_accuracy,
        "held_out": extractor.held_out,
        "fitted_on": extractor.fitted_on,
        "fingerprint": extractor.fingerprint,
    }
    content = safetensors.torch.save(extractor.weights, {"extractor": json.dumps(record)})
    write_bytes(path, content)
