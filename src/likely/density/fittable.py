"""What can be fitted: a network, the specification of its data, and what it is conditioned on."""

from __future__ import annotations

import abc
import contextlib
import contextvars
import dataclasses
import hashlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from likely.data.labels import relabelled
from likely.data.sequences.spec import SequenceSpec
from likely.data.spec import Batch, Condition, Dataset, DataSpec
from likely.errors import Diverged, InvalidData, InvalidSetting
from likely.noise import weights_from
from likely.settings import MODELS, from_mapping, refuse_without_effect


@dataclasses.dataclass(frozen=True)
class NoSettings:
    """The settings of a model that has none."""


# Whether a model is being built: a network inside another takes part in its draws.
_building = contextvars.ContextVar("building", default=False)


class _Seeded(abc.ABCMeta):
    """Initial weights are a function of a seed, whatever torch's global generator did before.

    A registered model takes fields of its settings by name, too: the others are those of the preset
    for its data, or of the settings that come beside them.
    """

    def __call__(cls, *arguments: Any, seed: int = 0, **options: Any) -> Any:
        """Build a model.

        Args:
            arguments: of the class.
            seed: of the initial weights; torch's global generator is left as it was.
            options: of the class, or fields of its settings, as latent=2.

        Raises:
            InvalidSetting: an unknown field; names the nearest. Or a data set for its
                specification.
        """
        if arguments and isinstance(arguments[0], Dataset):
            raise InvalidSetting(
                f"{cls.__name__} is built for a specification, given a data set: take its .spec"
            )
        entry = MODELS.of(cls)
        fields = options.keys() - inspect.signature(cls.__init__).parameters.keys()  # type: ignore[misc]
        if entry is not None and fields:
            spec, settings = (*arguments, None)[:2] if arguments else (options.pop("spec"), None)
            base = options.pop("settings", settings) or entry.preset(spec)
            changes = {name: options.pop(name) for name in fields}
            settings = from_mapping(entry.settings, changes, base)
            refuse_without_effect(settings, changes, base)
            arguments = (spec, settings, *arguments[2:])
        if _building.get():
            return super().__call__(*arguments, **options)
        token = _building.set(True)
        try:
            with weights_from(seed):
                return super().__call__(*arguments, **options)
        finally:
            _building.reset(token)


class Fittable(nn.Module, metaclass=_Seeded):
    """A network that is fitted to data: a generative model, an autoencoder, a classifier.

    Every model takes `seed=0` beside its own arguments: its initial weights are a function of it;
    a registered one takes fields of its settings, as latent=2, that differ from its preset's.

    Attributes:
        spec: of the data it was built for; shapes and levels are those of `spec`.
        classes: number of context labels; 0 where there are none.
        context_shape: of the vector (K,) or the map (K, H, W) that each example is conditioned
            on; () for labels and for an unconditional model.
        settings: the frozen dataclass it was built from; empty where it has none.
        origin: where its weights come from, in words; "" while they are the initial ones. A fit
            of such a model begins with `start_at`, of another one with the weights as they are.
        origin_run: path of the run directory that its weights are of; "" where there is none.
        origin_weights: digest of the weights that it was made of, where those were another
            model's; "" where its own are what a fit begins from.
        takes_sequences: whether examples are sequences, and neither images nor vectors.
        takes_vectors: whether examples may be vectors (D,). Inside, every model computes in the
            layout (C, H, W) of `spec.grid`, where a vector is one row of grey pixels.
        instead: of what is no generative model: what to do for samples and likelihoods, in words.
    """

    takes_vectors: ClassVar[bool] = False
    takes_sequences: ClassVar[bool] = False
    instead: ClassVar[str] = "take a generative model"

    spec: DataSpec
    classes: int
    context_shape: tuple[int, ...]
    settings: Any = NoSettings()
    origin: str = ""
    origin_run: str = ""
    origin_weights: str = ""

    def __init__(self, spec: DataSpec, classes: int, context_shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        if isinstance(spec, SequenceSpec) != self.takes_sequences:
            has, takes = ("sequences", "images or vectors")[:: -1 if self.takes_sequences else 1]
            raise InvalidSetting(
                f"{type(self).__name__} takes {takes}, and {spec.name} holds {has}"
            )
        if len(spec.grid) != len(spec.shape) and not (self.takes_vectors or self.takes_sequences):
            raise InvalidSetting(
                f"{type(self).__name__} takes images of shape (C, H, W), and {spec.name} holds "
                f"vectors of {spec.dimensions} dimensions: take {_vector_models()}"
            )
        self.spec = spec
        self.classes = classes
        self.context_shape = context_shape

    @property
    @abc.abstractmethod
    def kind(self) -> str:
        """The place in the taxonomy, as "explicit, tractable"."""

    def start_at(self, data: Dataset) -> None:
        """Initialise from the training data before the first step, as an output bias by pixel.

        By default nothing: a bias that serves all pixels is learned in the first steps.
        """

    def batch_context(self, batch: Batch) -> Tensor | None:
        """What it takes of a batch: labels int64 [B], floats [B, *context_shape], or None."""
        of_batch = batch.context if self.context_shape else batch.label if self.classes else None
        return None if of_batch is None else torch.from_numpy(of_batch).to(self.device)

    def negative_log_prior(self) -> Tensor | None:
        """-log p(weights), a scalar, up to a constant; None where the settings name no prior.

        `likely.fit` adds 1/N of it to the mean loss of N training examples, so the fit is the
        maximum a posteriori. Reported likelihoods do not include it.
        """
        return None

    def nan_weights(self) -> list[str]:
        """Names of what is saved with the model and is NaN somewhere."""
        return nan_names(self.state_dict())

    def refuse_nan_weights(self) -> None:
        """Raise Diverged where weights are NaN: what is drawn with them looks like any sample."""
        if lost := self.nan_weights():
            raise Diverged(f"{type(self).__name__}: weights are NaN ({', '.join(lost[:3])})")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def labels(self, context: Tensor | int | None, n: int) -> Tensor | None:
        """The context as the model takes it, or None; refuses what does not fit.

        Returns:
            Labels int64 [n], or floats [n, *context_shape], on the model's device.
        """
        if self.context_shape:
            return self._floats_for(context, n)
        if self.classes == 0:
            if context is not None:
                raise InvalidSetting(
                    f"{type(self).__name__} is unconditional: it takes no context; "
                    "fit it with conditional=true to condition on labels"
                )
            return None
        if context is None:
            raise InvalidSetting(
                f"{type(self).__name__} is conditional on {self.classes} classes: "
                "give context=<label> or one label per example"
            )
        numbers = self._tensor(context)
        if numbers.is_floating_point() or numbers.is_complex():
            # Rounding 0.9 (or NaN) to some class would be an answer to another question.
            raise InvalidSetting(f"context: labels must be integers, given {numbers.dtype}")
        labels = numbers.to(self.device, torch.int64)
        if labels.ndim == 0:
            labels = labels.expand(n)
        if labels.shape != (n,):
            raise InvalidSetting(f"context: expected {n} labels, given {tuple(labels.shape)}")
        if _hidden(labels):
            return labels
        if bool((labels < 0).any()) or bool((labels >= self.classes).any()):
            raise InvalidSetting(
                f"context: labels must be in [0, {self.classes}), given "
                f"{int(labels.min())} to {int(labels.max())}"
            )
        return labels

    def _tensor(self, context: Any) -> Tensor:
        """The given context, whatever it is, as a tensor."""
        try:
            return torch.as_tensor(context)
        except (TypeError, ValueError, RuntimeError) as error:
            wanted = f"numbers of shape {self.context_shape}" if self.context_shape else "labels"
            hint = ""
            if isinstance(context, str) and context in self.spec.classes:
                hint = f'; the class "{context}" has the number {self.spec.classes.index(context)}'
            shown = f'"{context}"' if isinstance(context, str) else type(context).__name__
            raise InvalidSetting(
                f"context: expected {wanted}, as a number or a tensor, given {shown}{hint}"
            ) from error

    def _floats_for(self, context: Tensor | int | None, n: int) -> Tensor:
        """A context that is a vector or a map, [n, *context_shape]."""
        shape = self.context_shape
        if context is None:
            raise InvalidSetting(
                f"{type(self).__name__} is conditional on numbers of shape {shape}: give a "
                "context for each example, or one for all"
            )
        values = self._tensor(context).to(self.device, next(self.parameters()).dtype)
        if values.shape == shape:
            values = values.expand(n, *shape)
        if values.shape != (n, *shape):
            raise InvalidSetting(
                f"context: expected numbers of shape {(n, *shape)}, given {tuple(values.shape)}"
            )
        if not _hidden(values) and not bool(values.isfinite().all()):
            raise InvalidSetting("context: expected finite numbers")
        return values

    def integers(self, x: Tensor | npt.NDArray[Any]) -> Tensor:
        """x as int64 on the model's device, [B, *spec.grid].

        Raises:
            InvalidData: no tensor or array, another shape than that of the data, no example,
                floats, or levels out of range.
        """
        x = as_tensor(x, f"examples [B, {', '.join(map(str, self.spec.shape))}]")
        if x.is_floating_point() or x.is_complex():
            raise InvalidData(f"expected integers in [0, {self.spec.levels}), given {x.dtype}")
        if x.ndim == 0 or tuple(x.shape[1:]) not in (self.spec.shape, self.spec.grid):
            raise InvalidData(
                f"expected a batch of examples of shape {self.spec.shape}, [B, "
                f"{', '.join(map(str, self.spec.shape))}], given {list(x.shape)}"
            )
        if not len(x):
            raise InvalidData("an empty batch: give an example or more")
        x = x.to(self.device, torch.int64).reshape(len(x), *self.spec.grid)
        if not _hidden(x) and (int(x.min()) < 0 or int(x.max()) >= self.spec.levels):
            raise InvalidData(
                f"expected values in [0, {self.spec.levels}), "
                f"given {int(x.min())} to {int(x.max())}"
            )
        return x

    def refuse_place(self, *place: int) -> None:
        """InvalidSetting where there is no dimension (channel, row, column)."""
        shape = self.spec.grid
        if any(not 0 <= at < side for at, side in zip(place, shape, strict=True)):
            raise InvalidSetting(f"no dimension {place} in a shape of {shape}")

    def mask(self, observed: Tensor | npt.NDArray[np.bool_]) -> Tensor:
        """Which pixels are observed, bool [H, W] of `spec.grid` on the model's device.

        Raises:
            InvalidData: another shape or type than one boolean for each pixel.
        """
        wanted = self.spec.shape[-2:] if len(self.spec.shape) == 3 else self.spec.shape
        observed = as_tensor(observed, f"observed: one boolean for each pixel, {list(wanted)},")
        if observed.dtype != torch.bool or tuple(observed.shape) != wanted:
            raise InvalidData(
                f"observed: expected one boolean for each pixel, bool {list(wanted)}, given "
                f"{observed.dtype} {list(observed.shape)}"
            )
        return observed.to(self.device).reshape(self.spec.grid[1:])

    def as_data(self, x: Tensor) -> Tensor:
        """What was computed in the layout of `spec.grid`, in the data's shape: [..., *shape]."""
        return x if self.spec.shape == self.spec.grid else x.flatten(-3)

    def scaled(self, x: Tensor) -> Tensor:
        """Scale integers in [0, levels) to floats in [-1, 1], in the dtype of the weights."""
        dtype = next(self.parameters()).dtype
        return x.to(dtype) * (2.0 / (self.spec.levels - 1)) - 1.0


@runtime_checkable
class HasLoss(Protocol):
    """A network without a likelihood, which is validated by a loss.

    Attributes:
        loss_unit: of the loss, as "squared error" or "nats".
    """

    loss_unit: str

    def loss(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The loss of each example, [B]; x integers [B, *shape]."""


def as_tensor(x: object, what: str) -> Tensor:
    """A tensor as it is, or the numbers of a numpy array in one.

    Raises:
        InvalidData: neither; the message says what was expected and what was given.
    """
    if isinstance(x, Tensor):
        return x
    if isinstance(x, np.ndarray | np.generic) and x.dtype.kind in "biuf":
        return torch.tensor(x)
    hint = {Dataset: ": its examples are data.x", Batch: ": its examples are batch.x"}
    raise InvalidData(
        f"expected {what} as a tensor or a numpy array, given {type(x).__name__}"
        f"{hint.get(type(x), '')}"
    )


def _vector_models() -> str:
    """The registered models that take examples of shape (D,), in words."""
    *names, last = [e.name for e in MODELS.values() if e.load().takes_vectors] or ["another"]
    return f"{', '.join(names)} or {last}" if names else last


def captured() -> bool:
    """Whether kernels are being recorded, not run: then no value can be looked at."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _hidden(x: Tensor) -> bool:
    """Whether the values cannot be looked at: they are recorded, or only their shape is known."""
    return x.is_meta or captured()


def conditioned_on(spec: DataSpec, wanted: bool) -> tuple[int, tuple[int, ...]]:
    """(number of classes, shape of a context) that a model of this data is conditioned on.

    Data that comes with a context is conditioned on that, other data on its labels.

    Raises:
        InvalidSetting: wanted, and the data has neither.
    """
    return (0, spec.context) if wanted and spec.context else (labels_of(spec, wanted), ())


def labels_of(spec: DataSpec, wanted: bool) -> int:
    """Number of classes that a model is conditioned on, 0 where that is not `wanted`.

    Raises:
        InvalidSetting: wanted, and the data has no labels.
    """
    if wanted and not spec.classes:
        raise InvalidSetting(f"conditional=true needs labels; {spec.name} has none")
    return len(spec.classes) if wanted else 0


def inputs_of(model: Fittable, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """What a model reads of a batch: integers, int64 on its device, and its context."""
    x = torch.from_numpy(batch.x.astype(np.int64)).to(model.device)
    return x, model.batch_context(batch)


def reading_of(
    model: Fittable, data: Dataset, size: int, most: int | None = None
) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
    """(rows, integers, context) of `size` examples at a time, their classes those of the model.

    Args:
        model: that reads.
        data: of its shape.
        size: of a chunk.
        most: examples that are read, the first ones; all when None.
    """
    known = relabelled(data, model.spec.classes) if model.classes else data
    for rows in chunks(min(len(data), most or len(data)), size):
        yield rows, *inputs_of(model, known.batch(rows))


def chunks(n: int, size: int) -> Iterator[slice]:
    """Slices that cover range(n), `size` at a time."""
    for start in range(0, n, size):
        yield slice(start, min(n, start + size))


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A block in evaluation mode; afterwards the model is in the mode of before."""
    was_training = model.training
    if any(module.training for module in model.modules()):
        model.eval()
    try:
        yield
    finally:
        if was_training:
            model.train()


def condition_of(model: Fittable) -> Condition:
    """What the model's likelihood is given: "label", "context" (numbers), or "" for nothing."""
    return "context" if model.context_shape else "label" if model.classes else ""


def nan_names(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that are NaN somewhere, in order."""
    floats = {name: t for name, t in tensors.items() if t.is_floating_point()}
    return sorted(name for name, t in floats.items() if bool(t.isnan().any()))


def weights_digest(model: Fittable) -> str:
    """SHA-256 (first 16 hexadecimal digits) of the settings and of all weights with their names.

    The settings count, because the same weights under another dilation are another model.
    """
    sha = hashlib.sha256(f"{model.settings} {model.spec.shape} {model.spec.levels}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        sha.update(plain.view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:16]
