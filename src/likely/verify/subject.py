"""What is checked: exact copies, probe images, and tiny instances of the same class."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from likely.data.spec import Dataset, DataSpec
from likely.density import Autoregressive, Fittable, LatentVariable, NoSettings
from likely.errors import LikelyError
from likely.heads import Bernoulli, Head
from likely.noise import Dropout, Noise, derived_seed
from likely.sampling.incremental import InOrder
from likely.settings import HEADS

Model = TypeVar("Model", bound=Fittable)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model under verification.

    Attributes:
        model: a float64 copy on the CPU, in evaluation mode, weights without gradient.
        x: probe images, int64 [B, *shape]: random levels, and examples of the data if given.
        context: of the probe images: labels [B], floats [B, *context_shape], or None.
        quick: whether the short version is wanted.
        seed: of everything random.
    """

    model: Fittable
    x: Tensor
    context: Tensor | None
    quick: bool
    seed: int

    def noise(self, *key: int | str) -> Noise:
        """A stream for one purpose."""
        return Noise("verify", self.seed, *key)

    def labels(self, rows: int, label: int = 0, model: Fittable | None = None) -> Tensor | None:
        """The same context for all rows, or None for an unconditional model.

        `label` is the class, or the number of a random vector or map; `model` is the one that is
        asked, where it is another (for smaller images).
        """
        model = model or self.model
        if model.context_shape:
            numbers = self.noise("context", label).normal(
                1, *model.context_shape, dtype=torch.float64
            )
            return numbers.expand(rows, *model.context_shape)
        return torch.full((rows,), label) if model.classes else None


def subject_of(model: Fittable, data: Dataset | None, quick: bool, seed: int) -> Subject:
    """Copy a model and choose its probe images; the model itself is not touched."""
    exact = exact_copy(model)
    levels, rows = model.spec.levels, 4
    noise = Noise("verify", seed, "probe")
    x = (noise.uniform(rows, *model.spec.grid) * levels).to(torch.int64)
    if data is not None and len(data):
        batch = data.batch(slice(0, rows // 2))
        first_images = torch.from_numpy(batch.x.astype("int64"))
        x[: len(first_images)] = first_images.reshape(len(first_images), *model.spec.grid)
    context = None
    if model.classes:
        context = torch.arange(rows) % model.classes
    elif model.context_shape:
        context = noise.normal(rows, *model.context_shape, dtype=torch.float64)
    return Subject(exact, x, context, quick, seed)


def exact_copy(model: Model) -> Model:
    """A float64 copy on the CPU in evaluation mode, weights without gradient."""
    # A module's noise is a live generator; the copy gets none of it.
    return _made_exact(copy.deepcopy(model))


def _made_exact(model: Model) -> Model:
    """The model itself, in float64 on the CPU in evaluation mode, weights without gradient."""
    exact = model.cpu().double().eval()
    exact.requires_grad_(False)
    # The checks look at pixels: a model of vectors is checked in the layout it computes in.
    for module in exact.modules():
        if isinstance(module, Fittable) and module.spec.shape != module.spec.grid:
            module.spec = dataclasses.replace(module.spec, shape=module.spec.grid)
    return exact


def in_training(model: Fittable) -> Fittable:
    """A copy in training mode whose dropout layers stay off."""
    trained = copy.deepcopy(model).train()
    for layer in trained.modules():
        if isinstance(layer, Dropout | nn.modules.dropout._DropoutNd):
            layer.eval()
    return trained


def work_of(model: Fittable, rows: int = 1, backward: bool = False) -> float:
    """Rough number of multiply-adds of a pass over `rows` examples."""
    weights = sum(p.numel() for p in model.parameters())
    pixels = model.spec.dimensions / model.spec.shape[0]
    once = isinstance(model, LatentVariable) or (
        isinstance(model, Autoregressive) and model.uses_each_weight_once
    )
    shared = 1.0 if once else pixels
    return rows * weights * shared * (3 if backward else 1)


def few_channels(model: Fittable, most: int = 6) -> int:
    """Channels of a tiny instance: the model's, or the most that divide them, as its widths may be
    multiples of them; all images of a pixel of many channels could not be listed."""
    channels = model.spec.grid[0]
    return max(n for n in range(1, min(channels, most) + 1) if channels % n == 0)


def smaller(
    model: Model, shape: tuple[int, ...], levels: int, seed: int, **changes: Any
) -> tuple[Model, bool]:
    """An instance of the same class and settings for other data, float64 and in evaluation mode.

    It holds the fitted weights where they fit (a convolutional network with the same head), and the
    second value is then True; otherwise fresh weights, whose zero or one-sided parts (biases) are
    set at random so that no term of the likelihood is hidden. `changes` are settings that differ,
    as latent=1.
    """
    if isinstance(model, InOrder):
        small, fitted = smaller(model.mixture, shape, levels, seed, **changes)
        return cast("Model", InOrder(small, model.number)), fitted
    context = model.spec.context
    if len(context) == 3:
        context = (context[0], *shape[1:])
    spec = DataSpec("verify", shape, levels, classes=model.spec.classes, context=context)
    settings = model.settings
    fields = {field.name for field in dataclasses.fields(settings)}
    head = head_of(model)
    registered = None if head is None else HEADS.of(type(head))
    if "head" in fields and registered is not None:
        # "auto" depends on the data: the instance takes the head that the model has.
        changes = {**changes, "head": registered.name}
    settings = dataclasses.replace(settings, **changes)
    build = cast("Callable[..., Model]", type(model))
    arguments = (spec,) if isinstance(settings, NoSettings) else (spec, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed("verify", seed, "smaller"))
        instance = build(*arguments)
        shapes = ({n: t.shape for n, t in m.state_dict().items()} for m in (instance, model))
        fitted = next(shapes) == next(shapes)
        if fitted:
            instance.load_state_dict(model.state_dict())
        else:
            for parameter in instance.parameters():
                if parameter.ndim == 1 or not bool(parameter.any()):
                    parameter.data += 0.5 * torch.randn_like(parameter)
    return _made_exact(instance), fitted


def smaller_or_none(
    model: Model, shape: tuple[int, ...], levels: int, seed: int, **changes: Any
) -> tuple[Model, bool] | None:
    """`smaller`, or None where the class refuses data of that shape."""
    try:
        return smaller(model, shape, levels, seed, **changes)
    except LikelyError:
        return None


def head_of(model: Fittable) -> Head | None:
    """The model's head, or None for a model without one."""
    head = model.__dict__.get("head")
    return head if isinstance(head, Head) else None


def least_levels(model: Fittable) -> int:
    """Levels of a tiny instance: 2 for a Bernoulli, else 3 where the images stay few."""
    return 2 if isinstance(head_of(model), Bernoulli) else 3


def all_images(shape: tuple[int, ...], levels: int) -> Tensor:
    """Every image of that shape, int64 [levels ** D, *shape]."""
    rows = list(itertools.product(range(levels), repeat=math.prod(shape)))
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, *shape)


def moved(subject: Subject, model: Model, attempt: int) -> Model:
    """A copy whose weights are each moved at random: by a tenth of what their tensor's are at the
    first attempt, by as much as they are from the fourth on."""
    out = copy.deepcopy(model)
    noise = subject.noise("moved", attempt)
    for parameter in out.parameters():
        size = (float(parameter.square().mean().sqrt()) if parameter.numel() else 0.0) or 1.0
        size *= min(1.0, 0.1 * 3**attempt)
        parameter.add_(size * noise.normal(*parameter.shape, dtype=parameter.dtype))
    return out
