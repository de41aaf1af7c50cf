r"""Hierarchical VAE: a ladder of stochastic layers, inferred from the top down.

Sonderby et al. 2016 (ladder VAE), https://arxiv.org/abs/1602.02282; Kingma et al. 2016 (sec. 4 and
app. C: bidirectional inference), https://arxiv.org/abs/1606.04934; Maaloe et al. 2019 (BIVA),
https://arxiv.org/abs/1902.02102.

    p(x, z) = p(x | z_1 ... z_L) prod_l p(z_l | z_>l),      q(z | x) = prod_l q(z_l | z_>l, x)

A bottom-up network makes features d_l(x) at each resolution. One top-down network serves prior and
posterior: h at the top is learned; at layer l it gives `p(z_l | z_>l)` and, with d_l,
`q(z_l | z_>l, x)`, diagonal Gaussians whose coordinates are the channels of each cell; z_l is added
to h, which feeds the next finer resolution and in the end to the parameters of the head.

Mean and log-scale of q are those of p plus what d_l changes, so that a layer that learned nothing
has a KL of zero (Vahdat and Kautz 2020, https://arxiv.org/abs/2007.03898). The KL of a layer has a
closed form given the layers above.

Layer 1 is nearest to the image. A code is the layers from the top down, flat, one after another.

Deviations: no skip connections to higher layers' codes beside h, no normalisation, one path of
inference instead of BIVA's two.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from likely.data.spec import Dataset, DataSpec
from likely.density import ChooseCode, DiagonalGaussian, LatentVariable, Passed, at_least_float
from likely.devices.precision import full_precision
from likely.heads import head_for
from likely.models.vae.settings import HierarchicalVAESettings
from likely.nn.residual import Down, ResidualBlock, Up, sizes
from likely.noise import Noise

# z of a layer, from p, q (None where there is no image) and the number of the layer from the top.
Choice = Callable[[DiagonalGaussian, DiagonalGaussian | None, int], Tensor]


class StochasticLayer(nn.Module):
    """p(z_l | z_>l), q(z_l | z_>l, x), and how z_l enters h; cells of one resolution."""

    def __init__(self, features: int, latent: int) -> None:
        super().__init__()
        self.prior = nn.Conv2d(features, 2 * latent, 3, padding=1)
        self.meet = nn.Conv2d(2 * features, features, 3, padding=1)
        self.change = nn.Conv2d(features, 2 * latent, 3, padding=1)
        self.enter = nn.Conv2d(latent, features, 1)
        with torch.no_grad():
            for layer in (self.prior, self.change):
                layer.weight.mul_(0.1)

    def densities(
        self, h: Tensor, d: Tensor | None
    ) -> tuple[DiagonalGaussian, DiagonalGaussian | None]:
        """(p, q) of z [B, cells times channels]; q is None without features d of an image."""
        active = silu(h)
        mean, log_scale = at_least_float(self.prior(active)).flatten(1).chunk(2, 1)
        p = DiagonalGaussian(mean, _bounded(log_scale))
        if d is None:
            return p, None
        met = silu(self.meet(torch.cat([active, silu(d)], 1)))
        by, scaled = at_least_float(self.change(met)).flatten(1).chunk(2, 1)
        return p, DiagonalGaussian(p.mean + by, p.log_scale + _bounded(scaled))

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        """h [B, F, H, W] with z [B, cells times channels] in it."""
        entered: Tensor = h + self.enter(z.reshape(len(z), -1, *h.shape[2:]).to(h.dtype))
        return entered


def _bounded(log_scale: Tensor) -> Tensor:
    """Between -5 and 5: scales far outside only overflow."""
    return 5.0 * (log_scale / 5.0).tanh()


@dataclasses.dataclass(frozen=True, eq=False)
class LadderPrior:
    """p(z) = prod_l p(z_l | z_>l)."""

    model: HierarchicalVAE

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, [...]; z [..., Z]."""
        flat = z.reshape(-1, z.shape[-1])
        parts = self.model.split(flat)
        return self.model.passed(len(flat), None, lambda p, q, i: parts[i]).log_p.reshape(
            z.shape[:-1]
        )

    def chosen(self, n: int, choose: ChooseCode) -> Passed:
        """See `LayeredPrior`."""
        return self.model.passed(n, None, lambda p, q, index: choose(p, p))

    def sample(self, noise: Noise, n: int, dtype: torch.dtype) -> Tensor:
        """Codes, layer by layer from the top, [n, Z]."""
        parts = self.model.split(noise.normal(n, self.model.latent, dtype=dtype))
        return self.model.passed(n, None, lambda p, q, i: p.sample(parts[i])).z


@dataclasses.dataclass(frozen=True, eq=False)
class LadderPosterior:
    """q(z | x) = prod_l q(z_l | z_>l, x) of some images.

    Attributes:
        model: whose top-down network it goes through.
        features: d_l of the images from the top down, [B, F, H, W] each.
        lead: the sides before Z that the images stand for: (B,) or (B, 1).
    """

    model: HierarchicalVAE
    features: list[Tensor]
    lead: tuple[int, ...]

    @property
    def mean(self) -> Tensor:
        """The code whose every layer is the mean given those above, [B, Z]."""
        return self._of_means()[0]

    @property
    def log_scale(self) -> Tensor:
        """Of each layer given the means above, [B, Z]."""
        return self._of_means()[1]

    def _of_means(self) -> tuple[Tensor, Tensor]:
        scales: list[Tensor] = []

        def choose(p: DiagonalGaussian, q: DiagonalGaussian | None, index: int) -> Tensor:
            assert q is not None
            scales.append(q.log_scale)
            return q.mean

        z = self.model.passed(len(self.features[0]), self.features, choose).z
        return z.reshape(*self.lead, -1), torch.cat(scales, 1).reshape(*self.lead, -1)

    def chosen(self, choose: ChooseCode) -> Passed:
        """See `LayeredPosterior`; without a side for several draws."""

        def of_layer(p: DiagonalGaussian, q: DiagonalGaussian | None, index: int) -> Tensor:
            assert q is not None
            return choose(p, q)

        return self.model.passed(len(self.features[0]), self.features, of_layer)

    def through(self, noise: Tensor) -> Passed:
        """Draw, and all that the same pass of the network tells; noise [..., Z]."""

        def choose(
            p: DiagonalGaussian, q: DiagonalGaussian | None, index: int, parts: tuple[Tensor, ...]
        ) -> Tensor:
            assert q is not None
            return q.sample(parts[index])

        return self._passed(noise, choose)

    def sample(self, noise: Tensor) -> Tensor:
        """z; noise standard normal, [..., Z]."""
        return self.through(noise).z

    def draw(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(z, log q(z | x))."""
        passed = self.through(noise)
        return passed.z, passed.log_q

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z | x) in nats."""
        return self._passed(z, lambda p, q, index, parts: parts[index]).log_q

    def unsqueezed(self) -> LadderPosterior:
        """The same with a side for several draws of each image."""
        return dataclasses.replace(self, lead=(*self.lead, 1))

    def _passed(self, values: Tensor, choose: Callable[..., Tensor]) -> Passed:
        """The pass for values [..., Z], whose first sides are broadcast with the images'."""
        lead = torch.broadcast_shapes(values.shape[:-1], self.lead)  # type: ignore[no-untyped-call]
        flat = values.expand(*lead, -1).reshape(-1, values.shape[-1])
        parts = self.model.split(flat)
        features = [
            d.reshape(*self.lead, *d.shape[1:])
            .expand(*lead, *d.shape[1:])
            .flatten(0, len(lead) - 1)
            for d in self.features
        ]
        passed = self.model.passed(
            len(flat), features, lambda p, q, index: choose(p, q, index, parts)
        )
        return Passed(
            passed.z.reshape(*lead, -1),
            passed.log_q.reshape(lead),
            passed.log_p.reshape(lead),
            passed.kl.reshape(*lead, -1),
            passed.output,
        )


class HierarchicalVAE(LatentVariable):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W).
        settings: sizes; `HierarchicalVAESettings.preset(spec)` by default.
    """

    def __init__(self, spec: DataSpec, settings: HierarchicalVAESettings | None = None) -> None:
        s = settings or HierarchicalVAESettings.preset(spec)
        super().__init__(spec, 0)
        self.settings = s
        self.head = head_for(s.head, spec, s.components)
        channels, height, width = spec.grid
        steps = sizes(height, width)
        widths = [min(4, 2**index) * s.channels for index in range(len(steps))]
        # Of the layers from the top down: the coarsest resolution may hold several.
        levels = [min(layer, len(steps) - 1) for layer in range(s.layers, 0, -1)]
        self.layer_sizes = [s.latent * steps[level][0] * steps[level][1] for level in levels]
        self.latent, self.layers, self.levels = sum(self.layer_sizes), s.layers, levels
        self.first = nn.Conv2d(channels, s.channels, 3, padding=1)
        self.down = nn.ModuleList(Down(a, b) for a, b in itertools.pairwise(widths))
        self.bottom_up = nn.ModuleList(_blocks(w, s.blocks) for w in widths[1:])
        top = levels[0]
        self.start = nn.Parameter(0.1 * torch.randn(widths[top], *steps[top]))
        self.stochastic = nn.ModuleList(
            StochasticLayer(widths[level], s.latent) for level in levels
        )
        self.top_down = nn.ModuleList(_blocks(widths[level], s.blocks) for level in levels)
        self.up = nn.ModuleList(
            Up(widths[level], widths[level - 1], steps[level - 1]) for level in range(top, 0, -1)
        )
        self.output = nn.Conv2d(s.channels, self.head.parameters, 3, padding=1)
        self.output_bias = nn.Parameter(torch.zeros(self.head.parameters, height, width))

    @torch.no_grad()
    def start_at(self, data: Dataset) -> None:
        """Start the decoder at the mean image of the data."""
        mean = np.asarray(data.pixel_mean(), np.float64).reshape(self.spec.grid)
        self.output_bias.copy_(self.head.bias_for(torch.from_numpy(mean)))

    @property
    def prior(self) -> LadderPrior:
        return LadderPrior(self)

    @full_precision
    def posterior(self, x: Tensor, context: Tensor | None = None) -> LadderPosterior:
        x = self.integers(x)
        self.labels(context, len(x))  # refuses any
        d = self.first(self.scaled(x))
        features = [d]
        for down, blocks in zip(self.down, self.bottom_up, strict=True):
            d = blocks(down(d))
            features.append(d)
        return LadderPosterior(self, [features[level] for level in self.levels], (len(x),))

    @full_precision
    def decoder_output(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        parts = self.split(z)
        return self.passed(len(z), None, lambda p, q, index: parts[index]).output

    def split(self, z: Tensor) -> tuple[Tensor, ...]:
        """The codes of each layer, top first, of flat ones [..., Z]."""
        return z.tensor_split(tuple(itertools.accumulate(self.layer_sizes[:-1])), -1)

    @full_precision
    def passed(self, n: int, features: list[Tensor] | None, choose: Choice) -> Passed:
        """The top-down network with the codes that are chosen, layer by layer.

        Args:
            n: rows.
            features: d_l of images from the top down, [n, F, H, W] each; None for the prior alone.
            choose: z_l [n, Z_l] from (p, q, layer counted from the top).
        """
        h = self.start.expand(n, *self.start.shape)
        codes, log_p, log_q, kl = [], [], [], []
        ups = iter(self.up)
        for index, (layer, blocks) in enumerate(zip(self.stochastic, self.top_down, strict=True)):
            assert isinstance(layer, StochasticLayer)
            p, q = layer.densities(h, None if features is None else features[index])
            z = choose(p, q, index)
            codes.append(z)
            log_p.append(p.log_prob(z))
            if q is not None:
                log_q.append(q.log_prob(z))
                kl.append(q.kl_to(p).sum(-1))
            h = blocks(layer(h, z))
            following = self.levels[index + 1] if index + 1 < len(self.levels) else 0
            for _ in range(self.levels[index] - following):
                h = next(ups)(h)
        output: Tensor = self.output(silu(h)) + self.output_bias
        total = torch.stack(log_p).sum(0)
        return Passed(
            torch.cat(codes, 1),
            torch.stack(log_q).sum(0) if log_q else torch.zeros_like(total),
            total,
            torch.stack(kl, 1) if kl else total[:, None],
            output,
        )


def _blocks(features: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(features) for _ in range(count)))
