r"""VQ-VAE (van den Oord, Vinyals and Kavukcuoglu 2017), https://arxiv.org/abs/1711.00937.

    z = encoder(x),  c = argmin_k |z - e_k|^2 at each place,  p(x | c) = decoder(e_c)

The number is the bound of two stages, log p(x) >= log p(c(x)) + log p(x | c(x)), with the prior
that is fitted (`likely.density.DiscreteLatent`). A uniform prior, -h w log K, would be hundreds of
nats worse, and no model of anything.

The prior is a Gated PixelCNN over the codes (`CodePrior`), whose input is a learned vector for
each code: numbers of codes have no order. It learns beside the autoencoder, on the codes as they
are; `likely.training.objectives.QuantisedBound` can then hold the codes still and fit prior and
decoder to the bound itself.

Deviations: vectors of codes as in `likely.nn.quantiser`; networks are residual convolutions without
normalisation; the likelihood of a pixel is a head of the house, in nats, not a squared error.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from likely.data.spec import Dataset, DataSpec
from likely.density import DiscreteLatent, QuantisedTerms, at_least_float
from likely.devices import of_all_processes
from likely.devices.precision import full_precision, without_autocast
from likely.heads import Categorical, head_for, log_likelihood
from likely.models.codes.settings import CodePriorSettings, VQVAESettings
from likely.models.pixelcnn.gated_pixelcnn import GatedLayer
from likely.nn.masked import GroupedPointwise
from likely.nn.quantiser import Codes, GridCodes, MappedCodes, MovingCodes, distances
from likely.nn.residual import Down, ResidualBlock, Up
from likely.noise import Noise
from likely.sampling.incremental import Incremental
from likely.sampling.program import Builder, Cells, Tap

# Of the logistic functions that stand for steps between integers: exact in float32.
STEEP = 64.0
# Examples whose vectors the codes start at.
FIRST = 512


class CodePrior(Incremental):
    """p(c), a Gated PixelCNN over maps of codes.

    Args:
        spec: of the codes, shape (1, h, w).
        settings: sizes.
    """

    def __init__(self, spec: DataSpec, settings: CodePriorSettings) -> None:
        super().__init__(spec, 0)
        self.settings, channels = settings, settings.channels
        self.head = Categorical(1, spec.levels)
        self.embedding = nn.Embedding(spec.levels, channels)
        self.layers = nn.ModuleList(
            GatedLayer(
                channels, channels, 5 if index == 0 else 3, 1,
                first=index == 0, groups=1, dropout=settings.dropout, context=(0, ()),
            )
            for index in range(settings.layers)
        )  # fmt: skip
        self.hidden = GroupedPointwise(channels, 2 * channels, 1)
        self.output = GroupedPointwise(2 * channels, spec.levels, 1)

    @property
    def has_blind_spot(self) -> bool:
        return False

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        v = h = self._embedded(x)
        total: Tensor | None = None
        for layer in self.layers:
            v, h, skip = layer(v, h, None)
            total = skip if total is None else total + skip
        assert total is not None
        parameters: Tensor = self.output(relu(self.hidden(relu(total))))
        return parameters

    def _embedded(self, x: Tensor) -> Tensor:
        """The vectors of codes, [B, channels, h, w]; between two integers on the line."""
        lower = x[:, 0].detach().floor().long().clamp(0, max(0, self.spec.levels - 2))
        upper = (lower + 1).clamp(max=self.spec.levels - 1)
        share = (x[:, 0] - lower).to(self.embedding.weight.dtype)
        vectors = self.embedding(lower).lerp(self.embedding(upper), share.unsqueeze(-1))
        by_feature: Tensor = vectors.movedim(-1, 1)
        return by_feature

    def incremental(self, build: Builder) -> Cells:
        # A vector is that of code 0, and the steps from one code to the next up to its own.
        table = self.embedding.weight
        step = torch.arange(1, len(table), dtype=table.dtype, device=table.device)
        number = build.image(factor=1.0, offset=0.0)
        reached = build.linear(
            [Tap(number, torch.full_like(step, STEEP)[None])], STEEP * (0.5 - step)
        )
        v = h = build.linear([Tap(build.map("sigmoid", reached), table.diff(dim=0))], table[0])
        total: Cells | None = None
        for layer in self.layers:
            assert isinstance(layer, GatedLayer)
            v, h, total = layer.incremental(build, v, h, total)
        assert total is not None
        hidden = self.hidden.incremental(build, build.relu(total))
        return self.output.incremental(build, build.relu(hidden))


class VQVAE(DiscreteLatent):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W).
        settings: sizes; `VQVAESettings.preset(spec)` by default.
    """

    def __init__(self, spec: DataSpec, settings: VQVAESettings | None = None) -> None:
        super().__init__(spec, 0)
        self.settings = s = settings or VQVAESettings.preset(spec)
        self.head = head_for(s.head, spec, s.components)
        self.quantiser: Codes
        if s.quantiser == "fsq":
            self.quantiser = GridCodes(s.grid_levels)
        else:
            kind = MovingCodes if s.quantiser == "ema" else MappedCodes
            self.quantiser = kind(s.codes, s.dimensions)
        _, height, width = spec.grid
        steps = [(height, width)]
        for _ in range(s.halvings):
            height, width = (height + 1) // 2, (width + 1) // 2
            steps.append((height, width))
        widths = [min(4, 2**index) * s.channels for index in range(len(steps))]
        blocks = [ResidualBlock(widths[-1]) for _ in range(2 * s.blocks)]
        pairs = list(itertools.pairwise(widths))
        self.encoder = nn.Sequential(
            nn.Conv2d(spec.grid[0], widths[0], 3, padding=1),
            *(Down(a, b) for a, b in pairs),
            *blocks[: s.blocks],
            nn.SiLU(),
            nn.Conv2d(widths[-1], self.quantiser.dimensions, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(self.quantiser.dimensions, widths[-1], 3, padding=1),
            *blocks[s.blocks :],
            *(Up(b, a, (h, w)) for (a, b), (h, w) in zip(pairs[::-1], steps[-2::-1], strict=True)),
            nn.SiLU(),
            nn.Conv2d(widths[0], self.head.parameters, 3, padding=1),
        )
        # Per pixel, filled by `start_at`; the networks then learn what differs from the mean.
        self.output_bias = nn.Parameter(torch.zeros(self.head.parameters, *spec.grid[1:]))
        self.prior = CodePrior(DataSpec("codes", (1, *steps[-1]), s.count), s.prior)

    @torch.no_grad()
    def start_at(self, data: Dataset) -> None:
        """Start the decoder at the mean image of the data, and codes at what the encoder gives."""
        mean = torch.from_numpy(np.asarray(data.pixel_mean(), np.float64)).reshape(self.spec.grid)
        self.output_bias.copy_(self.head.bias_for(mean))
        x = torch.from_numpy(data.batch(slice(0, FIRST)).x.astype(np.int64))
        self.quantiser.start_at(self._vectors(x).flatten(0, 2))

    @full_precision
    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self._nearest(self._vectors(x)).unsqueeze(1)

    @full_precision
    def decoder_output(self, codes: Tensor, context: Tensor | None = None) -> Tensor:
        return self._decoded(self.quantiser.vectors()[codes[:, 0]])

    @torch.no_grad()
    @full_precision
    def features(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.quantiser.vectors()[self.encode(x)[:, 0]].flatten(1)

    def quantised_terms(
        self, x: Tensor, noise: Noise, *, moves: bool, pull: bool
    ) -> QuantisedTerms:
        x = self.integers(x)
        with torch.set_grad_enabled(moves and torch.is_grad_enabled()):
            z = self._vectors(x)  # [B, h, w, D]
        with without_autocast(x.device):
            away = distances(z, self.quantiser.vectors().detach())  # [B, h, w, K]
            codes = away.detach().argmin(-1)
            e = self.quantiser.vectors()[codes]
        decoded = self._decoded(z + (e - z).detach() if moves else e.detach())
        distortion = -log_likelihood(self.head, decoded, x)
        table = self.prior.conditionals(codes.unsqueeze(1))
        rate = -log_likelihood(self.prior.head, table, codes.unsqueeze(1))
        zero = torch.zeros_like(rate)
        if not moves:
            return QuantisedTerms(distortion, rate, zero, zero, zero)
        codebook, commitment = self.quantiser.penalties(z.flatten(1, 2), e.flatten(1, 2))
        pulled = zero
        if pull:
            # Codes about as near as those that are taken, where the prior finds others likelier.
            width = 6 * of_all_processes(away.detach().amin(-1)).mean() + 1e-6
            near = (-away / width).softmax(-1)  # [B, h, w, K]
            cost = -at_least_float(table.detach()).log_softmax(1).movedim(1, -1)
            pulled = (near * cost).sum((1, 2, 3))
        self.quantiser.update(z.detach().flatten(1, 2), codes.flatten(1), noise)
        return QuantisedTerms(distortion, rate, codebook, commitment, pulled)

    def _vectors(self, x: Tensor) -> Tensor:
        """The encoder's output, float [B, h, w, D]."""
        z = at_least_float(self.encoder(self.scaled(self.integers(x))))
        return self.quantiser.bounded(z.movedim(1, -1))

    def _nearest(self, z: Tensor) -> Tensor:
        """Numbers of the nearest codes, int64 [B, h, w]."""
        return distances(z, self.quantiser.vectors()).argmin(-1)

    def _decoded(self, e: Tensor) -> Tensor:
        """Parameters of p(x | c) from the vectors of the codes, [B, h, w, D]."""
        parameters: Tensor = self.decoder(e.movedim(-1, 1))
        return parameters + self.output_bias
