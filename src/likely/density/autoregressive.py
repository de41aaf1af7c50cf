"""Densities by the chain rule: log p(x) = sum_i log p(x_i | x_<i)."""

from __future__ import annotations

import abc
from collections.abc import Callable

import torch
from torch import Tensor

from likely.data.spec import Dataset
from likely.density.taxonomy import (
    Answer,
    Guarantee,
    Query,
    TractableDensity,
)
from likely.devices.precision import full_precision
from likely.errors import InvalidSetting, Unanswerable
from likely.heads import Head, at_least_float, log_likelihood
from likely.noise import Noise
from likely.sampling.ancestral import Method, Stepper, Stream, Watch, ancestral
from likely.sampling.program import Builder, Cells, Program
from likely.sampling.torch_executor import TorchExecutor


class Autoregressive(TractableDensity):
    r"""log p(x) = sum_i log p(x_i | x_<i), in raster order, channels innermost.

    A subclass may set `order`, another order of the pixels; channels stay innermost. Sampling,
    completion and verification then follow it, through `in_drawing_order`.

    A subclass implements `conditionals`: the parameters of all conditionals in one pass, each a
    function of earlier dimensions only (`likely.verify` checks that). The head turns the
    parameters into a distribution over levels.
    """

    head: Head
    # Whether a pass uses each weight once (a network on vectors) or at every pixel (a
    # convolution); verification plans its work by it.
    uses_each_weight_once = False
    # Raster positions (row * W + column) in the order the pixels are drawn, [H * W]; None is
    # raster order.
    order: Tensor | None = None

    @abc.abstractmethod
    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Parameters of p(x_i | x_<i) for all i at once.

        Args:
            x: values in [0, levels), [B, C, H, W]; integers, or floats in the same units where
                a derivative is wanted.
            context: int64 [B], floats [B, *context_shape] or None.

        Returns:
            [B, head.parameters, H, W].
        """

    @property
    @abc.abstractmethod
    def has_blind_spot(self) -> bool:
        """Whether some earlier dimensions are invisible (as in the 2016 PixelCNN)."""

    @full_precision
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = self.integers(x)
        parameters = self.conditionals(x, self.labels(context, len(x)))
        return log_likelihood(self.head, parameters, x)

    def answers(self) -> dict[Query, Answer]:
        no_latent = "it has no latent variables: every hidden unit is a function of x"
        exact = Guarantee.EXACT
        return {
            Query.SAMPLE: Answer(exact, "ancestral sampling, one dimension after another"),
            Query.LOG_PROB: Answer(exact, "the chain rule: a sum of log-conditionals"),
            Query.CONDITIONAL: Answer(exact, "p(x_i | x_<i) is what the network computes"),
            Query.COMPLETE: Answer(exact, f"given the first pixels in {self._order_name}"),
            Query.POSTERIOR: Answer(Guarantee.NONE, no_latent),
            Query.FEATURES: Answer(Guarantee.NONE, "no hidden unit is a code of the whole x"),
            Query.RECONSTRUCT: Answer(Guarantee.NONE, no_latent),
            Query.INTERPOLATE: Answer(Guarantee.NONE, no_latent),
        }

    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        return self._drawn(noise, n, context)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        context: Tensor | int | None = None,
        chunk: int = 256,
        temperature: float = 1.0,
        method: Method = "auto",
        progress: Callable[[int], None] | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Draw n examples: a function of (weights, n, seed, context, temperature).

        Args:
            n: number of examples.
            seed: of the noise.
            context: class label for all, or int64 [n]; floats [n, *context_shape], or one
                for all; None for an unconditional model.
            chunk: examples drawn together; bounds the memory.
            temperature: of every conditional (`Head.tempered`); only 1 samples the model.
            method: all give the same integers; see `likely.sampling.ancestral`.
            progress: called with the number of examples drawn so far after each chunk.
            watch: called with (row, images of the chunk so far, int64 [B, C, H, W]) after each
                row of pixels.

        Returns:
            Integers in [0, levels), int64 [n, *shape].

        Raises:
            InvalidSetting: n < 1, a context that the model does not have, a method that is
                unknown or that the model does not offer.
        """

        def draw(noise: Noise, count: int, labels: Tensor | None) -> Tensor:
            return self._drawn(noise, count, labels, method, watch, temperature)

        return self.in_chunks(n, seed, context, chunk, draw, progress)

    def _drawn(
        self,
        noise: Noise,
        n: int,
        context: Tensor | None,
        method: Method = "auto",
        watch: Watch | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        uniform = noise.last_uniform(n, *self.spec.grid)  # [n, C, H, W]
        return self.draw_from(uniform, context, method, watch, temperature)

    @full_precision
    def draw_from(
        self,
        uniform: Tensor,
        context: Tensor | None,
        method: Method = "auto",
        watch: Watch | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """The images decided by uniform numbers [n, C, H, W]."""
        blank = torch.zeros(uniform.shape, dtype=torch.int64, device=self.device)
        return self._filled(uniform, blank, 0, context, method, watch, temperature)

    def _filled(
        self,
        uniform: Tensor,
        x: Tensor,
        start: int,
        context: Tensor | None,
        method: Method,
        watch: Watch | None,
        temperature: float,
    ) -> Tensor:
        """`ancestral` in the model's own order: its first `start` pixels are kept."""
        shown = watch
        if watch is not None and self.order is not None:

            def shown(row: int, images: Tensor) -> None:
                watch(row, restored(self, images))

        uniform, x = arranged(self, uniform), arranged(self, x)
        view = in_drawing_order(self)
        drawn = ancestral(view, uniform, x, start, context, method, shown, temperature)
        return restored(self, drawn)

    def reach(self, rows: int) -> int | None:
        """How many columns to the right the context of a pixel extends, `rows` >= 1 rows up.

        None (the default): all columns. A model that sees fewer can be drawn in a wavefront over
        several rows.
        """
        return None

    @abc.abstractmethod
    def incremental(self, build: Builder) -> Cells | None:
        """Record the incremental program of `conditionals`: what a new pixel changes in each layer.

        Args:
            build: `build.image()` gives the pixels; layers have an `incremental` method, too.

        Returns:
            The parameters of the head, or None without an incremental program: such a model is
            sampled naively.
        """

    @torch.no_grad()
    @full_precision
    def program(self) -> Program | None:
        """The incremental program with the current weights, or None."""
        groups = 1 if self.head.couples_channels else self.spec.grid[0]
        build = Builder(self.spec.grid, self.spec.levels, groups)
        output = self.incremental(build)
        return None if output is None else build.finish(output)

    @property
    def viewed(self) -> Autoregressive:
        """The model that this one is a view of: itself, unless its class says otherwise."""
        return self

    def stepper(self, batch: int, context: Tensor | None) -> Stepper | None:
        """The incremental form of `conditionals` for a batch, or None."""
        program = self.program()
        if program is None:
            return None
        return Stepper(program, TorchExecutor(program, batch, context))

    @full_precision
    def stream(self, batch: int = 1, context: Tensor | int | None = None) -> Stream:
        """Score images as they arrive dimension by dimension, or inspect the conditionals.

        Args:
            batch: number of images.
            context: labels, as for `sample`.

        Raises:
            InvalidSetting: the model has no incremental form, or draws in an order of its own
                (stream into `in_drawing_order(model)`, which takes arranged images).
        """
        if self.order is not None:
            raise InvalidSetting(
                f"{type(self).__name__} does not draw in raster order: stream images that are "
                "`arranged` in its order into `in_drawing_order(model)`"
            )
        labels = self.labels(context, batch)
        stepper = self.stepper(batch, labels)
        if stepper is None:
            raise InvalidSetting(f"{type(self).__name__} has no incremental form to stream into")
        blank = torch.zeros(batch, *self.spec.grid, dtype=torch.int64, device=self.device)
        return Stream(stepper, self.head, self.spec.grid, blank)

    @torch.no_grad()
    @full_precision
    def conditional(
        self,
        x: Tensor,
        row: int,
        column: int,
        channel: int = 0,
        context: Tensor | int | None = None,
    ) -> Tensor:
        """p(x_i = level | x_<i) at one dimension, for every level.

        Args:
            x: integers [B, *shape]; only what comes before the dimension is read.
            row: of the pixel; 0 for vectors.
            column: of the pixel; the dimension of a vector.
            channel: of the pixel.
            context: labels, as for `sample`.

        Returns:
            Probabilities, [B, levels].

        Raises:
            InvalidSetting: no such dimension.
        """
        x = self.integers(x)
        place, shape = (channel, row, column), self.spec.grid
        if any(not 0 <= at < side for at, side in zip(place, shape, strict=True)):
            raise InvalidSetting(f"no dimension {place} in a shape of {shape}")
        # In raster order rows below are not read.
        rows = x[:, :, : row + 1] if self.order is None else x
        parameters = self.conditionals(rows, self.labels(context, len(x)))
        pixel = (slice(None), slice(None), slice(row, row + 1), slice(column, column + 1))
        table = self.head.log_table(at_least_float(parameters[pixel]), x[pixel], channel)
        return table[..., 0, 0].exp()

    @full_precision
    def complete(
        self,
        x: Tensor,
        observed: Tensor,
        *,
        seed: int = 0,
        context: Tensor | int | None = None,
        temperature: float = 1.0,
        method: Method = "auto",
        watch: Watch | None = None,
    ) -> Tensor:
        """Draw the unobserved pixels from p(rest | observed), exactly.

        Args:
            x: integers [B, *shape]; unobserved values are ignored.
            observed: bool [H, W] ([D] for vectors); must be a prefix of the model's order (of
                raster order: the top rows, and the left part of the next one).
            seed: of the noise.
            context: labels, as for `sample`.
            temperature: as for `sample`.
            method: as for `sample`.
            watch: as for `sample`.

        Raises:
            Unanswerable: the observed pixels are no prefix of the order.
        """
        x = self.integers(x)
        observed = self.mask(observed)
        in_order = arranged(self, observed[None, None]).flatten()
        known = int(in_order.sum())
        if not bool(in_order[:known].all()):
            raise Unanswerable(
                f"{type(self).__name__}: completion is exact only when the observed pixels come "
                f"first in {self._order_name}; p(rest | other pixels) has no closed form in this "
                "factorisation"
            )
        noise = Noise(seed, "complete", device=self.device)
        uniform = noise.uniform(*x.shape)
        labels = self.labels(context, len(x))
        filled = self._filled(uniform, x, known, labels, method, watch, temperature)
        return self.as_data(filled)

    @property
    def _order_name(self) -> str:
        if self.order is not None:
            return "the model's own order (`order`)"
        return "raster order (top rows, then the left part of the next row)"


def arranged(model: Autoregressive, x: Tensor) -> Tensor:
    """An image [B, C, H, W] with the n-th pixel of the model's order at raster position n."""
    if model.order is None:
        return x
    return x.flatten(2)[:, :, model.order.to(x.device)].reshape(x.shape)


def restored(model: Autoregressive, x: Tensor) -> Tensor:
    """The inverse of `arranged`."""
    if model.order is None:
        return x
    return x.flatten(2)[:, :, model.order.argsort().to(x.device)].reshape(x.shape)


def in_drawing_order(model: Autoregressive) -> Autoregressive:
    """The model, or if it has another order, a view of it that draws in raster order."""
    return model if model.order is None else DrawingOrder(model, model.order)


class DrawingOrder(Autoregressive):
    """A view of a model with another order, on images arranged in that order (`arranged`).

    The model's `incremental` already counts in its order: rows and columns are those of the
    arranged image.
    """

    takes_vectors = True

    def __init__(self, model: Autoregressive, order: Tensor) -> None:
        super().__init__(model.spec, model.classes)
        self.model, self.permutation = model, order
        self.settings, self.head = model.settings, model.head
        self.uses_each_weight_once = model.uses_each_weight_once
        self.train(model.training)

    def start_at(self, data: Dataset) -> None:
        """Nothing: it is a view."""

    @property
    def has_blind_spot(self) -> bool:
        return self.model.has_blind_spot

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        _, height, width = self.spec.grid
        drawn = self.permutation[: x.shape[2] * width].to(x.device)
        whole = x.new_zeros(*x.shape[:2], height * width)
        image = whole.index_copy(2, drawn, x.flatten(2)).reshape(*x.shape[:2], height, width)
        parameters = self.model.conditionals(image, context).flatten(2)
        return parameters[:, :, drawn].reshape(len(x), -1, *x.shape[2:])

    @property
    def viewed(self) -> Autoregressive:
        return self.model

    def incremental(self, build: Builder) -> Cells | None:
        return self.model.incremental(build)
