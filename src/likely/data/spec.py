"""Specifications and data sets: `DataSpec` and `Dataset`.

Images are integer-coded, x in [0, levels). Scaling x is up to each model.
The specification records everything that changes the meaning of a likelihood (shape, levels,
preprocessing, split, and a digest of the values) and hashes to a fingerprint: two numbers may
be compared only when their fingerprints agree. Static and dynamic binarisation of MNIST differ
by about two nats, and so have different fingerprints.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from likely.errors import InvalidData, InvalidSetting, nearest, whole

if TYPE_CHECKING:
    from PIL import Image

    from likely.files.inline import Shown

Split = Literal["train", "validation", "test"]
IntArray = npt.NDArray[Any]
# What a conditional likelihood is given; "" for none.
Condition = Literal["", "label", "context"]
_SPLITS: tuple[Split, ...] = ("train", "validation", "test")

VALIDATION_SEED = 20140501
TEST_SEED = 20140502


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """What the data is.

    Attributes:
        name: of the data set, as "mnist".
        shape: event shape, (C, H, W) for images.
        levels: number of integer levels of each dimension.
        split: "train", "validation" or "test".
        preprocessing: what was done to the published values, in order, as ("binarize=static",).
        n: number of examples.
        digest: SHA-256 (hex) of the stored values, before any per-epoch noise.
        classes: names of the classes, or () where there are no labels; a label is a position
            in them.
        context: shape of the context of each example, (K,) for a vector or (K, H, W) for a map over
            the pixels; () without one.
    """

    name: str
    shape: tuple[int, ...]
    levels: int
    split: Split = "train"
    preprocessing: tuple[str, ...] = ()
    n: int = 0
    digest: str = ""
    classes: tuple[str, ...] = ()
    context: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.shape or any(side < 1 for side in self.shape):
            raise InvalidSetting(f"an event shape needs positive sides, given {self.shape}")
        # Arrays give integers of numpy's, which files cannot keep and whose products overflow.
        object.__setattr__(self, "levels", whole("levels", self.levels))
        object.__setattr__(self, "shape", tuple(whole("shape", side) for side in self.shape))
        if not 2 <= self.levels <= 65536:
            raise InvalidSetting(f"levels must be in [2, 65536], given {self.levels}")
        is_map = len(self.context) == 3 and self.context[1:] == self.shape[1:]
        if self.context and (min(self.context) < 1 or not (len(self.context) == 1 or is_map)):
            raise InvalidSetting(
                f"a context is a vector (K,) or a map (K, {', '.join(map(str, self.shape[1:]))}) "
                f"for each example, given {self.context}"
            )

    @property
    def dimensions(self) -> int:
        """Number of scalar dimensions D of one example."""
        return math.prod(self.shape)

    @property
    def grid(self) -> tuple[int, int, int]:
        """The shape (C, H, W) in which models compute: a vector of D is one row of D pixels.

        Raises:
            InvalidSetting: examples that are neither images nor vectors.
        """
        if len(self.shape) == 1:
            return 1, 1, self.shape[0]
        if len(self.shape) != 3:
            raise InvalidSetting(
                f"{self.name}: models take images of shape (C, H, W) or vectors of shape (D,), "
                f"given examples of shape {self.shape}; reshape them"
            )
        channels, height, width = self.shape
        return channels, height, width

    @property
    def side(self) -> int:
        """The longer side of an image; of a vector, that of a square of as many dimensions."""
        if len(self.shape) == 1:
            return math.isqrt(self.dimensions - 1) + 1
        return max(self.grid[1:])

    @functools.cached_property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that identify the data a number is about."""
        record = dataclasses.asdict(self)
        if not self.context:
            del record["context"]
        text = json.dumps(record, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def __str__(self) -> str:
        shape = " × ".join(map(str, self.shape))
        done = f", {', '.join(self.preprocessing)}" if self.preprocessing else ""
        return f"{self.name}, {self.split}: {self.n:,} of {shape}, {self.levels} levels{done}"

    def differences(self, other: DataSpec) -> str:
        """What distinguishes this data from other data, in words; "" where nothing does."""
        words: dict[str, Callable[[DataSpec], str]] = {
            "shape": lambda s: " × ".join(map(str, s.shape)),
            "levels": lambda s: f"{s.levels} levels",
            "preprocessing": lambda s: ", ".join(s.preprocessing) or "as published",
            "name": lambda s: s.name,
            "split": lambda s: f"the {s.split} split",
            "n": lambda s: f"{s.n:,} examples",
            "classes": lambda s: f"{len(s.classes)} classes",
            "context": lambda s: f"contexts {s.context}" if s.context else "no contexts",
        }
        differing = [
            say for name, say in words.items() if getattr(self, name) != getattr(other, name)
        ]
        pairs = [f"{say(self)} against {say(other)}" for say in differing]
        more = [
            field.name.replace("_", " ") for field in dataclasses.fields(self)
            if field.name not in words and field.name != "digest"
            and getattr(self, field.name) != getattr(other, field.name, None)
        ]  # fmt: skip
        if more:
            pairs.append(f"other {', '.join(more)}")
        if not pairs and self.digest != other.digest:
            pairs = ["other examples of the same kind"]
        return "; ".join(pairs)

    def misfit(self, built: DataSpec) -> str:
        """Why a model that was built for other data cannot take this; "" where it can."""
        if (self.shape, self.levels) == (built.shape, built.levels):
            return ""
        return (
            f"the model was built for shape {built.shape} with {built.levels} levels, "
            f"{self.name} has shape {self.shape} with {self.levels}"
        )

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values; `from_json` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> DataSpec:
        """Read what `to_json` wrote (lists become tuples again)."""
        fields = {field.name for field in dataclasses.fields(cls)}
        for key in record:
            if key not in fields:
                raise InvalidData(
                    f'a data specification has no field "{key}": {nearest(key, fields)}'
                )
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in record.items()
        }
        return cls(**plain)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Examples of a data set.

    Attributes:
        x: integer values in [0, levels), uint8 or uint16, [B, *shape].
        label: class of each example, int64 [B], or None.
        index: position of each example in the data set, int64 [B], never negative.
        context: context of each example, float32 [B, *spec.context], or None.
    """

    x: IntArray
    label: npt.NDArray[np.int64] | None
    index: npt.NDArray[np.int64]
    context: npt.NDArray[np.float32] | None = None


@dataclasses.dataclass(repr=False, eq=False)
class Dataset:
    """Integer-coded examples with their specification.

    It reads as an array of examples: `len(data)`, `data[0]`, `data[:8]`, `for x in data`, and
    all of them as `data.x`. `batch` reads labels and contexts, too.

    `values` may be a memory map. `intensity_levels` set means dynamic binarisation: the stored
    values are intensities in [0, intensity_levels), and each read draws Bernoulli pixels again
    from (noise_seed, split, epoch, index), so that a read is a function of its arguments and a
    resumed run sees the same bits. (Salakhutdinov and Murray 2008, section 5.)

    Attributes:
        spec: what the data is.
        values: stored integers, [N, *shape].
        labels: positions in `spec.classes`, int64 [N], or None.
        attributes: further binary columns by name (faces), each bool [N].
        factors: what each example was drawn from, by name (shapes), each float64 [N].
        validation: the held-out part of a training set, or None.
        contexts: float32 [N, *spec.context] or None.
        source: arguments with which `likely.data.load` reads the data set that this is a split of,
            {"name": ..., options}; None for data made in memory.
        origins: where each example was read, [N]: the path of an image below its folder (UTF-8
            bytes), or the row of an array file (integers); None where neither is known.
    """

    spec: DataSpec
    values: IntArray
    labels: npt.NDArray[np.int64] | None = None
    attributes: dict[str, npt.NDArray[np.bool_]] = dataclasses.field(default_factory=dict)
    validation: Dataset | None = None
    intensity_levels: int | None = None
    noise_seed: int = 0
    contexts: npt.NDArray[np.float32] | None = None
    source: Mapping[str, Any] | None = None
    factors: dict[str, npt.NDArray[np.float64]] = dataclasses.field(default_factory=dict)
    origins: npt.NDArray[Any] | None = None

    # Examples that are read together where nothing else is asked.
    together: ClassVar[int] = 256

    def __post_init__(self) -> None:
        spec, values, labels, contexts = self.spec, self.values, self.labels, self.contexts
        if values.dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)):
            raise InvalidData(f"{spec.name}: expected uint8 or uint16 values, given {values.dtype}")
        if tuple(values.shape[1:]) != spec.shape or len(values) != spec.n:
            raise InvalidData(
                f"{spec.name}: expected values of shape {(spec.n, *spec.shape)}, "
                f"given {tuple(values.shape)}"
            )
        if labels is not None and labels.shape != (spec.n,):
            raise InvalidData(f"{spec.name}: expected {spec.n} labels, given {labels.shape}")
        if labels is not None and spec.classes and len(labels):
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= len(spec.classes):
                raise InvalidData(
                    f"{spec.name}: labels from {low} to {high} are positions in the names of "
                    f"{len(spec.classes)} classes: expected 0 to {len(spec.classes) - 1}"
                )
        context_shape = () if contexts is None else contexts.shape[1:]
        if context_shape != spec.context or (contexts is not None and len(contexts) != spec.n):
            raise InvalidData(
                f"{spec.name}: expected contexts of shape {(spec.n, *spec.context)}, given "
                f"{None if contexts is None else contexts.shape}"
            )

    def __len__(self) -> int:
        return self.spec.n

    def __getitem__(self, index: Any) -> IntArray:
        """The example at a number, [*shape]; those at a slice or at numbers, [B, *shape].

        Integers in [0, levels). With dynamic binarisation they are drawn as in epoch 0.
        """
        if not isinstance(index, slice | np.ndarray | list):
            index = operator.index(index)
            if not -len(self) <= index < len(self):
                raise IndexError(f"{self.spec.name} has {len(self)} examples, no number {index}")
            return np.asarray(self.batch(np.array([index])).x[0])
        return self.batch(index if isinstance(index, slice) else np.asarray(index)).x

    def __iter__(self) -> Iterator[IntArray]:
        return (self[index] for index in range(len(self)))

    @property
    def x(self) -> IntArray:
        """All examples, integers in [0, levels), [N, *shape]; a memory map stays one."""
        return self.values if self.intensity_levels is None else self[:]

    def __repr__(self) -> str:
        s = self.spec
        return (
            f"Dataset({s.name}, {s.split}, n={s.n}, shape={s.shape}, levels={s.levels}, "
            f"fingerprint={s.fingerprint})"
        )

    def show(self, n: int = 40, *, columns: int | None = 10) -> Image.Image | Shown:
        """The first examples as a picture, which a notebook shows and `.save` writes.

        Args:
            n: how many.
            columns: images per row.
        """
        from likely.files.sheets import show

        return show(self[:n], self.spec, columns=columns)

    def _repr_html_(self) -> str:
        from likely.files.inline import fragment, line
        from likely.files.sheets import data_uri, show

        s = self.spec
        classes = f"{len(s.classes)} classes, " if s.classes else ""
        parts = [line(s), line(f"{classes}fingerprint {s.fingerprint}", muted=True)]
        if len(s.shape) == 3 and s.shape[0] in (1, 3) and s.n:
            parts.append(
                f'<img src="{data_uri(show(self[:20], s, columns=10))}" alt="the first examples">'
            )
        return fragment(*parts)

    def fingerprint_given(self, condition: Condition) -> str:
        """Twelve hexadecimal digits of the examples, and of what a likelihood of them is given.

        log p(x) is about the examples alone, `spec.fingerprint`; log p(x | label) is about the
        labels, too, in their order.

        Raises:
            InvalidData: there is no such condition.
        """
        if not condition:
            return self.spec.fingerprint
        column = self.labels if condition == "label" else self.contexts
        if column is None:
            raise InvalidData(f"{self.spec.name} ({self.spec.split}) has no {condition}")
        plain = np.asarray(column, np.int64 if condition == "label" else np.float32)
        text = f"{self.spec.fingerprint} {condition} {digest_of(plain)}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def batch(self, index: npt.NDArray[np.int64] | slice, epoch: int = 0) -> Batch:
        """Read examples: a function of (index, epoch).

        Args:
            index: positions, int64 [B], or a slice.
            epoch: for dynamic binarisation; evaluation uses 0.

        Returns:
            The examples, integers in [0, levels).
        """
        index = self._positions(index)
        x = np.asarray(self.values[index])  # [B, *shape]
        if self.intensity_levels is not None:
            x = self._binarised(x, index, epoch)
        label = None if self.labels is None else self.labels[index]
        context = None if self.contexts is None else np.asarray(self.contexts[index])
        return Batch(x, label, index, context)

    def _positions(self, index: npt.NDArray[np.int64] | slice) -> npt.NDArray[np.int64]:
        """Positions in [0, N) of a slice, or of integers of which the negative count from the
        end, as everywhere in Python."""
        if isinstance(index, slice):
            return np.arange(len(self), dtype=np.int64)[index]
        if index.dtype == np.bool_:
            return np.flatnonzero(index)
        positions = index.astype(np.int64)
        return np.where(positions < 0, positions + len(self), positions)

    def _binarised(self, intensity: IntArray, index: npt.NDArray[np.int64], epoch: int) -> IntArray:
        """Bernoulli(intensity / (intensity_levels - 1)), drawn again for each (epoch, index).

        Philox is counter-based, so a key for each example costs no more than one stream; its raw
        words are fixed by its definition, where the methods of `Generator` may change with numpy.
        """
        assert self.intensity_levels is not None
        if not 0 <= epoch < 1 << 22:
            raise InvalidSetting(f"epoch must be in [0, {1 << 22}), given {epoch}")
        out = np.empty(intensity.shape, np.uint8)
        stream = (_SPLITS.index(self.spec.split) << 62) | (epoch << 40)
        for row, position in enumerate(index):
            key = np.array([self.noise_seed, stream | int(position)], np.uint64)
            raw = np.random.Philox(key=key).random_raw(self.spec.dimensions)
            uniform = (raw >> np.uint64(11)) * 2.0**-53  # in [0, 1), so intensity 0 is never 1
            pixels = uniform.reshape(self.spec.shape) * (self.intensity_levels - 1)
            out[row] = pixels < intensity[row]
        return out

    def units(self, count: int) -> int:
        """What a validation of the first `count` examples is a mean over: these examples."""
        return count

    def pixel_mean(self, limit: int = 10_000) -> npt.NDArray[np.float64]:
        """Mean of each dimension over at most `limit` examples, in levels, [*shape].

        The examples are spread evenly over the set, because files are often sorted by class.
        """
        step = max(1, -(-len(self) // limit))
        x = self.values[::step].astype(np.float64).mean(axis=0)
        if self.intensity_levels is not None:
            x = x / (self.intensity_levels - 1)
        return np.asarray(x)

    def take(self, index: npt.NDArray[np.int64] | slice, split: Split | None = None) -> Dataset:
        """The examples at `index` as a data set of their own (with its own fingerprint)."""
        index = self._positions(index)
        values = np.ascontiguousarray(self.values[index])
        spec = dataclasses.replace(
            self.spec, n=len(index), split=split or self.spec.split, digest=digest_of(values)
        )
        return dataclasses.replace(
            self,
            spec=spec,
            values=values,
            labels=None if self.labels is None else self.labels[index],
            attributes={name: column[index] for name, column in self.attributes.items()},
            factors={name: column[index] for name, column in self.factors.items()},
            validation=None,
            contexts=None if self.contexts is None else self.contexts[index],
            source=None,
            origins=None if self.origins is None else self.origins[index],
        )


def as_dataset(data: object) -> Dataset:
    """The data set that was given.

    Raises:
        InvalidData: something else; the message says how to make one of it.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, tuple):
        hint = "data.load returns (train, test): give one of them"
    elif hasattr(data, "dataset"):
        hint = (
            "read the images of a DataLoader into an array first, as data.from_array("
            "numpy.stack([numpy.asarray(x) for x, _ in loader.dataset]), levels=256)"
        )
    else:
        hint = "data.from_array(x, levels=256) makes one of an array, data.load reads one"
    raise InvalidData(f"expected a Dataset, given {type(data).__name__}: {hint}")


def digest_of(values: IntArray) -> str:
    """SHA-256 of the values, read in chunks so that a memory map stays on disk."""
    sha = hashlib.sha256(f"{values.dtype.str}{values.shape}".encode())
    for start in range(0, len(values), 4096):
        sha.update(np.ascontiguousarray(values[start : start + 4096]).tobytes())
    return sha.hexdigest()


def hold_out(n: int, size: int, seed: int = VALIDATION_SEED) -> tuple[IntArray, IntArray]:
    """Positions that stay and positions that are held out, both sorted: int64, n in all.

    The order is that of n raw Philox words, so it never changes with numpy's version.
    """
    order = np.argsort(np.random.Philox(seed).random_raw(n), kind="stable")
    return np.sort(order[size:]), np.sort(order[:size])


def validation_size(n: int) -> int:
    """How many of n training examples are held out by default: a sixth, at most 10,000."""
    return min(10_000, n // 6)


def with_validation(
    train: Dataset, size: int | None = None, seed: int = VALIDATION_SEED
) -> Dataset:
    """Split a validation part off a training set, once, by a fixed seed.

    Args:
        train: the whole training set.
        size: number of held-out examples; a sixth of the set, at most 10,000, by default.
        seed: of the split; change it only to study the split itself.

    Returns:
        The training set without the held-out examples, which are its `.validation`.
    """
    n = len(train)
    size = validation_size(n) if size is None else size
    if not 0 < size < n:
        raise InvalidSetting(f"{train.spec.name}: cannot hold out {size} of {n} examples")
    rest, held_out = hold_out(n, size, seed)
    part = train.take(rest, "train")
    part.validation = train.take(held_out, "validation")
    return part


def train_and_test(whole: Dataset, test: int | None = None) -> tuple[Dataset, Dataset]:
    """Split a single data set into a training and a test set, by fixed seeds.

    Args:
        whole: all examples; at least 3.
        test: number of test examples; a sixth of the set, at most 10,000 (at least 1) by default.

    Returns:
        The training set, whose `.validation` is held out of it in turn, and the test set.
    """
    n = len(whole)
    test = max(1, validation_size(n)) if test is None else test
    if not 0 < test < n - 1:
        raise InvalidData(
            f"{whole.spec.name}: {n} examples cannot be split into training, validation and "
            f"{test} test examples; at least 3 are needed"
        )
    rest, held_out = hold_out(n, test, TEST_SEED)
    train = with_validation(whole.take(rest, "train"), max(1, validation_size(len(rest))))
    return train, whole.take(held_out, "test")


def completed(parts: dict[Split, Dataset]) -> tuple[Dataset, Dataset]:
    """Training and test set from the existing splits; missing ones are held out.

    Args:
        parts: "train" at least.

    Raises:
        InvalidData: splits of different shape or levels.
    """
    train = parts["train"]
    for split, part in parts.items():
        if part.spec.shape != train.spec.shape or part.spec.levels != train.spec.levels:
            raise InvalidData(
                f"{train.spec.name}: its {split} examples have shape {part.spec.shape} and "
                f"{part.spec.levels} levels, its training examples {train.spec.shape} and "
                f"{train.spec.levels}"
            )
    test, validation = parts.get("test"), parts.get("validation")
    if test is None and validation is None:
        return train_and_test(train)
    if test is None:
        rest, held_out = hold_out(len(train), max(1, validation_size(len(train))), TEST_SEED)
        train, test = train.take(rest, "train"), train.take(held_out, "test")
    if validation is None:
        return with_validation(train, max(1, validation_size(len(train)))), test
    train.validation = validation
    return train, test
