"""How well arithmetic of codes does what it is asked: an accuracy, by a classifier of attributes.

An image is moved by the difference of two mean codes, of examples with an attribute and of ones
without. A classifier that knows nothing of the model reads the attributes before and after: how
often has the wanted one come, how often have the others stayed? A random direction of the same
length is the measure of chance, image by image (Shen et al. 2020, sec. 4, judge such moves by
classifiers, https://arxiv.org/abs/1907.10786; the paired random direction is ours).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from likely.data.spec import Dataset
from likely.density import Decoder, EncoderDecoder, Fittable, StandardNormal, UniformCube, chunks
from likely.errors import InvalidData, InvalidSetting, nearest
from likely.estimate import Estimate, Relation
from likely.evaluate.classifier import ClassifierSettings, NetworkFeatures, default_extractor
from likely.noise import Noise

Bools = npt.NDArray[np.bool_]
# Steps of the classifier: attributes of an image are finer than its class.
FIT = ClassifierSettings(steps=1500)
BATCH = 256


def attributes_of(data: Dataset) -> dict[str, Bools]:
    """What each example is or has, by name, bool [N].

    The attributes of the data, each of its classes, and of each factor whether it is above the
    middle of its values; a factor that says the class again is left out.
    """
    columns = dict(data.attributes)
    if data.labels is not None:
        columns |= {name: data.labels == k for k, name in enumerate(data.spec.classes)}
    for name, column in data.factors.items():
        if data.labels is None or not np.array_equal(column, data.labels):
            columns[name] = column > (column.min() + column.max()) / 2
    return columns


def exclude_each_other(data: Dataset, names: Sequence[str]) -> list[list[int]]:
    """Of each attribute the places of those that cannot stay when it comes: other classes."""
    is_class = [data.labels is not None and name in data.spec.classes for name in names]
    return [
        [k for k in range(len(names)) if k == i or (is_class[i] and is_class[k])]
        for i in range(len(names))
    ]


@dataclasses.dataclass(frozen=True)
class AttributeClassifier:
    """Reads attributes off images.

    Attributes:
        names: of the attributes, sorted.
        rivals: of each the places of those that change with it, its own among them.
        network: the classifier.
        accuracy: on the test split, by name.
    """

    names: tuple[str, ...]
    rivals: list[list[int]]
    network: NetworkFeatures
    accuracy: dict[str, Estimate]

    def __call__(self, images: Tensor) -> Tensor:
        """Whether each image has each attribute, bool [B, A]."""
        return self.network.scores(images) > 0

    def place(self, name: str) -> int:
        """Of an attribute.

        Raises:
            InvalidSetting: there is none of this name.
        """
        if name not in self.names:
            raise InvalidSetting(f'there is no attribute "{name}": {nearest(name, self.names)}')
        return self.names.index(name)

    def __str__(self) -> str:
        each = ", ".join(f"{name} {100 * a.value:.1f}" for name, a in self.accuracy.items())
        n = next(iter(self.accuracy.values())).n
        return f"classifier of attributes, test accuracy in percent (n = {n:,}): {each}"


def attribute_classifier(
    train: Dataset,
    test: Dataset,
    settings: ClassifierSettings = FIT,
    *,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> AttributeClassifier:
    """A small convolutional network fitted to the attributes of the training images.

    Args:
        train: with classes, factors or attributes.
        test: the same, of which its accuracy is.
        settings: of its fit.
        cache: folder that keeps it.
        progress: called with (steps done, of how many).

    Raises:
        InvalidData: the data says nothing of its examples.
    """
    names = tuple(sorted(attributes_of(train)))
    if not names:
        raise InvalidData(
            f"{train.spec.name} has no classes, attributes or factors, so no classifier can say "
            "what an image has"
        )
    network = default_extractor(_with(train, names), settings, cache=cache, progress=progress)
    truth = attributes_of(test)
    read = (network.scores(test.x) > 0).numpy()
    accuracy = {
        name: Estimate.mean_of(
            (read[:, k] == truth[name]).astype(np.float64).tolist(),
            unit="",
            relation=Relation.APPROXIMATE,
            quantity=f"accuracy of {name}",
            fingerprint=test.spec.fingerprint,
            lower_is_better=False,
        )
        for k, name in enumerate(names)
    }
    return AttributeClassifier(names, exclude_each_other(train, names), network, accuracy)


def _with(data: Dataset, names: Sequence[str]) -> Dataset:
    """The same images with these attributes as the only targets."""
    columns = attributes_of(data)
    held = None if data.validation is None else _with(data.validation, names)
    return dataclasses.replace(
        data, labels=None, attributes={name: columns[name] for name in names}, validation=held,
        spec=dataclasses.replace(data.spec, classes=()),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class LabelledCodes:
    """Codes whose attributes are known.

    Attributes:
        codes: [N, latent].
        has: bool [N, A].
        about: whose codes, and who labelled them, in words.
    """

    codes: Tensor
    has: Tensor
    about: str


def labelled_codes(
    model: Fittable, classifier: AttributeClassifier, data: Dataset, n: int, seed: int = 0
) -> LabelledCodes:
    """Codes to take means of.

    Of a model with an encoder the codes of n examples, with the labels of the data; of a
    generator those of n samples, which the classifier labels: no search for the code of an image,
    and no image that the generator cannot make, but the errors of the classifier.
    """
    assert isinstance(model, Decoder)
    if isinstance(model, EncoderDecoder):
        part = data.take(np.arange(0, len(data), max(1, -(-len(data) // n))))
        x = torch.from_numpy(part.x.astype(np.int64)).to(model.device)
        columns = attributes_of(part)
        has = torch.from_numpy(np.stack([columns[name] for name in classifier.names], 1))
        return LabelledCodes(model.features(x), has, "codes of examples, with their labels")
    codes = model.drawn_codes(n, seed=seed)
    has = classifier(decoded(model, codes))
    return LabelledCodes(codes, has, "codes of samples, labelled by the classifier")


def decoded(model: Decoder, codes: Tensor) -> Tensor:
    """What codes stand for, int64 [B, *shape] on the CPU."""
    return torch.cat([model.decode(codes[part]).cpu() for part in chunks(len(codes), BATCH)])


@dataclasses.dataclass(frozen=True)
class Flips:
    """What moves towards an attribute did, in percent of the images that did not have it.

    Attributes:
        attribute: the wanted one.
        flipped: where it came.
        by_chance: where it came by a random direction of the same length.
        gained: `flipped` minus `by_chance`, paired.
        kept: of the other attributes, the share that stayed; None where there are no others, as
            among the classes of one label.
        kept_by_chance: by the random direction.
        spared: `kept` minus `kept_by_chance`, paired.
    """

    attribute: str
    flipped: Estimate
    by_chance: Estimate
    gained: Estimate
    kept: Estimate | None = None
    kept_by_chance: Estimate | None = None
    spared: Estimate | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "attribute"]
        estimates = {name: getattr(self, name) for name in names}
        known = {name: e.to_json() for name, e in estimates.items() if e is not None}
        return {"attribute": self.attribute} | known


def moved(model: Decoder, codes: Tensor, by: Tensor) -> Tensor:
    """Codes with something added, each brought back to its length, and into a cube."""
    known = isinstance(model.prior, StandardNormal | UniformCube)
    centre = torch.zeros_like(codes[0]) if known else codes.mean(0)
    before, after = codes - centre, codes - centre + by
    length = before.norm(dim=1, keepdim=True) / after.norm(dim=1, keepdim=True).clamp(min=1e-12)
    back: Tensor = centre + after * length
    return back.clamp(-1.0, 1.0) if isinstance(model.prior, UniformCube) else back


@torch.no_grad()
def flips(
    model: Decoder,
    classifier: AttributeClassifier,
    attribute: str,
    pool: LabelledCodes,
    start: Tensor,
    *,
    group: int = 100,
    seed: int = 0,
) -> Flips:
    """How often arithmetic gives images an attribute, and leaves the others.

    Args:
        model: in evaluation mode, unconditional.
        classifier: reads the attributes.
        attribute: the wanted one.
        pool: codes that groups are drawn from.
        start: codes that are moved, [N, latent]; of those only that decode to an image without the
            attribute.
        group: codes in each of the two means; they are drawn again for every code that is moved.
        seed: of the groups and of the random directions.

    Raises:
        InvalidData: there are too few codes with the attribute, or without.
    """
    k = classifier.place(attribute)
    sides = [pool.codes[pool.has[:, k] == side] for side in (True, False)]
    for side, words in zip(sides, ("with", "without"), strict=True):
        if len(side) < group:
            raise InvalidData(
                f"{len(side)} of {len(pool.codes)} codes are {words} {attribute}, and a group "
                f"takes {group}"
            )
    before = classifier(decoded(model, start))
    without = ~before[:, k]
    if int(without.sum()) < 2:
        raise InvalidData(f"no image to give {attribute} to: all have it")
    codes, before = start[without.to(start.device)], before[without]
    noise = Noise(seed, "flips", attribute, device=start.device)
    by = torch.zeros_like(codes)
    for side, sign in zip(sides, (1.0, -1.0), strict=True):
        # A random order of the pool for each code: its first ones are a group.
        for part in chunks(len(codes), BATCH):
            rows = part.stop - part.start
            chosen = noise.uniform(rows, len(side)).topk(group, 1).indices
            by[part] += sign * side[chosen].mean(1)
    chance = noise.normal(*codes.shape, dtype=codes.dtype)
    chance *= by.norm(dim=1, keepdim=True) / chance.norm(dim=1, keepdim=True)
    others = [i for i in range(before.shape[1]) if i not in classifier.rivals[k]]
    came, stayed = [], []
    for step in (by, chance):
        after = classifier(decoded(model, moved(model, codes, step)))
        came.append(100.0 * after[:, k].double())
        stayed.append(100.0 * (after == before)[:, others].double().mean(1))
    values = {"flipped": came[0], "by_chance": came[1], "gained": came[0] - came[1]}
    if others:
        values |= {
            "kept": stayed[0], "kept_by_chance": stayed[1], "spared": stayed[0] - stayed[1],
        }  # fmt: skip
    return Flips(attribute, **{name: _estimate(name, v) for name, v in values.items()})


def _estimate(name: str, values: Tensor) -> Estimate:
    return Estimate.mean_of(
        values.tolist(),
        unit="points" if name in ("gained", "spared") else "%",
        relation=Relation.APPROXIMATE,
        quantity=name.replace("_", " "),
        fingerprint="",
        lower_is_better=name in ("by_chance", "kept_by_chance"),
    )
