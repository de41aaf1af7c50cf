"""The networks of the second part of a split image, given the first."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from likely.data.spec import Dataset, DataSpec, digest_of
from likely.density.split import Lifting
from likely.heads import DiscretizedLogisticMixture
from likely.models.pixelcnn.gated_pixelcnn import GatedLayer, GatedPixelCNN
from likely.models.pixelcnn.settings import GatedPixelCNNSettings
from likely.nn.residual import Down, Enlarge, ResidualBlock, Up, sizes
from likely.sampling.ancestral import Stepper
from likely.sampling.incremental import Incremental
from likely.sampling.program import Builder, Cells
from likely.sampling.small_first import SmallFirst

# Halvings of the reader: a place of its coarsest map is 4 x 4 places of the base.
DEPTH = 2


class Reader(nn.Module):
    """Feature maps of what is known, which see all of it: down to a quarter of the sides and up.

    Args:
        inputs: planes that are known.
        features: of the result; twice as many below the full size.
        blocks: residual blocks at each size.
        classes: number of labels.
        size: of the maps, (h, w).
    """

    def __init__(
        self, inputs: int, features: int, blocks: int, classes: int, size: tuple[int, int]
    ) -> None:
        super().__init__()
        steps = sizes(*size)[: DEPTH + 1]
        widths = [features, *[2 * features] * (len(steps) - 1)]
        self.first = nn.Conv2d(inputs, features, 3, padding=1)
        self.label = nn.Embedding(classes, widths[-1]) if classes else None
        pairs = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(Down(fine, coarse) for fine, coarse in pairs)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(blocks))) for width in widths
        )
        self.up = nn.ModuleList(
            Up(coarse, fine, step) for (fine, coarse), step in zip(pairs, steps, strict=False)
        )

    def forward(self, known: Tensor, context: Tensor | None) -> Tensor:
        h = self.first(known)
        skips = []
        for down in self.down:
            skips.append(h)
            h = down(h)
        if self.label is not None and context is not None:
            h = h + self.label(context)[:, :, None, None]
        h = self.blocks[-1](h)
        for level in reversed(range(len(self.up))):
            h = self.blocks[level](skips[level] + self.up[level](h))
        return silu(h)


@dataclasses.dataclass(frozen=True)
class DifferenceSettings:
    """What a network of differences is built from.

    Attributes:
        network: its sizes.
        lifting: whose differences they are.
        scales: 1 for raster order; 2 begins with every second place, 3 with every fourth.
        features: feature maps of the differences that are known, where there are scales.
    """

    network: GatedPixelCNNSettings
    lifting: Lifting
    scales: int = 1
    features: int = 1


class BoundedPixelCNN(Incremental):
    """A Gated PixelCNN of differences, given a map; its head holds those that are possible.

    Differences are small beside the levels: their means leave the network in units of `gain`,
    their spread in the data.

    Args:
        spec: of the differences, its context the map: features, then what the bounds read.
        settings: sizes and the lifting.
    """

    gain: Tensor  # of each parameter of the head, [P]

    def __init__(self, spec: DataSpec, settings: DifferenceSettings) -> None:
        super().__init__(spec, 0, spec.context)
        self.settings, self.lifting = settings, settings.lifting
        self.network = GatedPixelCNN(spec, settings.network)
        self.head = DiscretizedLogisticMixture(
            spec.grid[0], spec.levels, settings.network.components, self.lifting
        )
        self.register_buffer("gain", torch.ones(self.network.head.parameters))

    @property
    def has_blind_spot(self) -> bool:
        return False

    def start_at(self, data: Dataset) -> None:
        """Differences read in units of their spread; the mixture around zero, as wide as they."""
        spread = spread_of(data).to(self.device)
        k, c = self.settings.network.components, self.spec.grid[0]
        first, output = self.network.layers[0], self.network.output
        assert isinstance(first, GatedLayer)
        assert output.bias is not None
        ends = torch.linspace(-1.0, 1.0, k, device=self.device) if k > 1 else spread.new_zeros(1)
        with torch.no_grad():
            for conv in (first.vertical, first.horizontal):
                conv.weight.mul_((0.5 / spread).to(conv.weight)[None, :, None, None])
            means, scales = slice(k, k + k * c), slice(k + k * c, k + 2 * k * c)
            self.gain[means] = spread.repeat(k).to(self.gain)
            output.bias.zero_()
            output.bias[means] = ends.repeat_interleave(c).to(output.bias)
            output.bias[scales] = (spread.repeat(k) / 2).log().to(output.bias)

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        assert context is not None
        known = context[:, context.shape[1] - self.lifting.planes :, : x.shape[2]]
        parameters = self.network.conditionals(x, context) * self.gain[:, None, None]
        return torch.cat([parameters, known], 1)

    def incremental(self, build: Builder) -> Cells:
        inputs, planes = self.context_shape[0], self.lifting.planes
        chosen = torch.eye(inputs, dtype=self.network.output.weight.dtype, device=self.device)
        known = build.by_map(chosen[:, inputs - planes :])
        gain = build.constant(self.gain[:, None, None].expand(-1, *self.spec.grid[1:]))
        parameters = build.multiply(self.network.incremental(build), gain)
        return build.concat([parameters, known])


class LatticePixelCNN(SmallFirst):
    """Differences of every second place first, then of the others, given a map.

    The former again in this order, where there are more than two scales: few places far apart
    decide what is alike over the whole image, before the many between them are drawn.

    Args:
        spec: as for `BoundedPixelCNN`.
        settings: sizes and the lifting, of the network of each scale; at least two of these.
    """

    def __init__(self, spec: DataSpec, settings: DifferenceSettings) -> None:
        super().__init__(spec, 0, spec.context)
        self.settings, features = settings, settings.features
        channels, *size = spec.shape
        maps, half = spec.context[0], [(side + 1) // 2 for side in size]
        small = dataclasses.replace(spec, shape=(channels, *half), context=(maps, *half))
        fewer = dataclasses.replace(settings, scales=settings.scales - 1)
        self.begin_with(of_differences(small, fewer), 2)
        self.enlarge = Enlarge(channels, features, 2, (size[0], size[1]))
        told = dataclasses.replace(spec, context=(features + maps, *size))
        self.others = BoundedPixelCNN(told, settings)
        self.head = self.others.head

    def start_at(self, data: Dataset) -> None:
        """Every scale at the differences of its places."""
        self.others.start_at(data)
        with torch.no_grad():
            seen = self.enlarge.seen.weight
            seen.mul_((0.5 / spread_of(data)).to(seen)[:, None, None])
        few = np.ascontiguousarray(data.values[:, :, ::2, ::2])
        spec = dataclasses.replace(data.spec, shape=few.shape[1:], digest=digest_of(few))
        self.small.start_at(Dataset(spec, few))

    def told(self, x: Tensor, context: Tensor | None) -> Tensor:
        """The map of the second network: what the known differences say, and `context`."""
        assert context is not None
        return torch.cat([self.enlarge(self.of_small(self.scaled(x))), context], 1)

    def other_conditionals(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.others.conditionals(x, self.told(x, context))

    def other_stepper(self, x: Tensor, context: Tensor | None) -> Stepper:
        return self.others.stepper(len(x), self.told(x, context))


def spread_of(data: Dataset) -> Tensor:
    """Root mean square of each channel's differences, scaled, at least that of a level; [C]."""
    x = data.values.astype("float64") * (2.0 / (data.spec.levels - 1)) - 1.0
    spread = torch.from_numpy(x).square().mean((0, 2, 3)).sqrt()
    return spread.clamp(min=1.0 / (data.spec.levels - 1))


def of_differences(
    spec: DataSpec, settings: DifferenceSettings
) -> BoundedPixelCNN | LatticePixelCNN:
    """The density of differences: in raster order, or scale by scale."""
    if settings.scales > 1 and spec.side > 1:
        return LatticePixelCNN(spec, settings)
    return BoundedPixelCNN(spec, settings)


def rest_network(
    spec: DataSpec,
    lifting: Lifting,
    features: int,
    network: GatedPixelCNNSettings,
    scales: int = 1,
) -> BoundedPixelCNN | LatticePixelCNN:
    """The density of the second part, given this many feature maps and what is known."""
    context = (features + lifting.planes, *lifting.rest[1:])
    of_rest = DataSpec(spec.name, lifting.rest, 2 * lifting.levels - 1, context=context)
    return of_differences(of_rest, DifferenceSettings(network, lifting, scales, features))
