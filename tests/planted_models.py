"""Models with one defect each, for the proofs to find, and small right ones."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from likely.data.spec import DataSpec
from likely.density import Autoregressive, StandardNormal
from likely.heads import Bernoulli
from likely.models.gan.dcgan import DCGAN
from likely.models.gan.settings import DCGANSettings
from likely.models.pixelcnn.gated_pixelcnn import GatedPixelCNN
from likely.models.pixelcnn.settings import GatedPixelCNNSettings
from likely.models.vae.settings import VAESettings
from likely.models.vae.vae import VAE
from likely.nn.flow import AffineCoupling, MaskedAffine
from likely.nn.masked import HorizontalConv
from likely.noise import Noise
from likely.sampling.program import Builder, Cells

GREY = DataSpec("grey", (1, 5, 5), 2)
LEVELS = DataSpec("levels", (1, 4, 4), 5)
COLOUR = DataSpec("colour", (3, 4, 4), 4)

PIXELCNN = GatedPixelCNNSettings(
    channels=12, layers=3, kernel=3, first_kernel=3, head_channels=18, components=2
)
SMALL_VAE = VAESettings(
    latent=3, network="dense", hidden=12, layers=1, components=2, flow_layers=2, flow_hidden=8,
    pseudo_inputs=5,
)  # fmt: skip
SMALL_DCGAN = DCGANSettings(latent=5, channels=4)


def lively(model: nn.Module, seed: int = 0, scale: float = 0.3) -> nn.Module:
    """Random biases and larger weights: fresh ones hide what depends on them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return model


class MaskSwapped(GatedPixelCNN):
    """Mask B where the first layer needs mask A: the pixel sees itself."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        old = self.layers[0].horizontal
        self.layers[0].horizontal = HorizontalConv(
            spec.shape[0], old.weight.shape[0], old.taps, "B", self.groups
        )


class ChannelOrder(GatedPixelCNN):
    """Masks for blue, green, red; the head reads red, green, blue."""

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return super().conditionals(x.flip(1), context)


class CurrentRow(GatedPixelCNN):
    """The vertical stack is not shifted down: it shows the rest of the current row."""

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        above = torch.nn.functional.pad(x, (0, 0, -1, 1))
        return super().conditionals(above, context)


class BatchMean(GatedPixelCNN):
    """Outputs are centred over the batch."""

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        parameters = super().conditionals(x, context)
        return parameters - 0.1 * parameters.mean(0)


class BatchStatistics(GatedPixelCNN):
    """Batch normalisation of the outputs: honest in evaluation, coupled in training."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        self.norm = nn.BatchNorm2d(self.head.parameters)

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        out: Tensor = self.norm(super().conditionals(x, context))
        return out


class ImageMean(GatedPixelCNN):
    """Layer normalisation over the whole image: every pixel sees the future."""

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        parameters = super().conditionals(x, context)
        return parameters - 1e-4 * parameters.mean((2, 3), keepdim=True)


class RoundedPeek(GatedPixelCNN):
    """The last pixel enters by a comparison, which has no derivative."""

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        peek = (x[:, :1, -1:, -1:] > 0).to(x.dtype if x.is_floating_point() else torch.float32)
        return super().conditionals(x, context) + 0.01 * peek


class StaleSampler(GatedPixelCNN):
    """The incremental sampler forgets the last tap of a kernel."""

    def incremental(self, build: Builder) -> Cells:
        twin = copy.deepcopy(self)
        with torch.no_grad():
            twin.layers[1].horizontal.weight[..., 0] = 0
        return GatedPixelCNN.incremental(twin, build)


class NoRightTaps(GatedPixelCNN):
    """A blind spot: nothing above and to the right is seen."""

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            for layer in self.layers:
                weight = layer.vertical.weight
                weight[..., weight.shape[-1] // 2 + 1 :] = 0
        return super().conditionals(x, context)


class Dropped(GatedPixelCNN):
    """A parameter that nothing uses."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        self.forgotten = nn.Parameter(torch.zeros(3))


class OldPixelCNN(Autoregressive):
    """Masked square convolutions, as in 2016: a blind spot, although it claims none."""

    CLAIM = False

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, 0)
        self.settings = settings or PIXELCNN
        self.head = Bernoulli(1)
        self.convs = nn.ModuleList(nn.Conv2d(1 if i == 0 else 6, 6, 3, padding=1) for i in range(4))
        self.output = nn.Conv2d(6, 1, 1)
        mask = torch.ones(3, 3)
        mask[1, 1:], mask[2] = 0, 0
        self.register_buffer("first", mask)
        later = mask.clone()
        later[1, 1] = 1
        self.register_buffer("later", later)

    def start_at(self, data: object) -> None:
        """Nothing."""

    @property
    def has_blind_spot(self) -> bool:
        return self.CLAIM

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = self.scaled(x)
        for index, conv in enumerate(self.convs):
            weight = conv.weight * (self.later if index else self.first)
            h = torch.tanh(nn.functional.conv2d(h, weight, conv.bias, padding=1))
        out: Tensor = self.output(h)
        return out


class HonestOldPixelCNN(OldPixelCNN):
    """The same, and it says so."""

    CLAIM = True


class LooseBernoulli(Bernoulli):
    """p(0) + p(1) = 1.01."""

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        return super().log_prob(parameters, x) + 0.00995

    def log_table(self, parameters: Tensor, x: Tensor, channel: int) -> Tensor:
        return super().log_table(parameters, x, channel) + 0.00995


class SwappedBernoulli(Bernoulli):
    """`log_prob` is of the flipped image: a distribution, but not the one that is sampled."""

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        return super().log_prob(parameters, 1 - x)


class LooseHead(GatedPixelCNN):
    """A head that is not normalised."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        self.head = LooseBernoulli(1)


class SwappedHead(GatedPixelCNN):
    """A head whose two forms disagree."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        self.head = SwappedBernoulli(1)


class WrongSign(VAE):
    """ELBO = reconstruction + KL."""

    def elbo_terms(
        self, x: Tensor, noise: Noise, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        reconstruction, kl = super().elbo_terms(x, noise, context)
        return reconstruction, -kl


class HalfKL(VAE):
    """A beta of one half in what is reported."""

    def elbo_terms(
        self, x: Tensor, noise: Noise, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        reconstruction, kl = super().elbo_terms(x, noise, context)
        return reconstruction, kl / 2


class PriorOnlyDrawnFrom(VAE):
    """Codes are drawn from the flow, and the bound is computed with N(0, I)."""

    def elbo_terms(
        self, x: Tensor, noise: Noise, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        q = self.posterior(x, context)
        z, log_q = q.draw(noise.normal(*q.mean.shape, dtype=q.mean.dtype))
        kl = log_q - StandardNormal(self.latent).log_prob(z)
        parameters = self.decoder_output(z, context)
        return self.head.log_prob(parameters, x).sum((1, 2, 3)), kl[:, None]


class PriorOnlyInTheBound(VAE):
    """The bound is computed with the flow, and codes are drawn from N(0, I)."""

    def latents(self, noise: Noise, n: int) -> Tensor:
        return noise.normal(n, self.latent, dtype=torch.float64)


class ForgetfulCoupling(AffineCoupling):
    """A coupling without its determinant."""

    def _sum(self, log_scale: Tensor) -> Tensor:
        return torch.zeros_like(log_scale[..., 0])


class ForgetfulMasked(MaskedAffine):
    """A masked map without its determinant."""

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().forward(z, context)[0], torch.zeros_like(z[..., 0])


class WithoutDeterminant(VAE):
    """The flow of the prior or the posterior forgets the determinants of its maps."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        for layer in self.modules():
            if isinstance(layer, AffineCoupling):
                layer.__class__ = ForgetfulCoupling
            if isinstance(layer, MaskedAffine):
                layer.__class__ = ForgetfulMasked


class SumOfWeights(VAE):
    """The importance bound without its 1 / k."""

    def importance_bound(
        self, x: Tensor, k: int, noise: Noise, context: Tensor | None = None, chunk: int = 2048
    ) -> Tensor:
        return super().importance_bound(x, k, noise, context, chunk) + math.log(k)


class CoupledEncoder(VAE):
    """The posterior's mean is centred over the batch."""

    def posterior(self, x: Tensor, context: Tensor | None = None) -> Any:
        q = super().posterior(x, context)
        return type(q)(q.mean - q.mean.mean(0), q.log_scale)


class CoupledGenerator(DCGAN):
    """Batch statistics in generation."""

    def generate(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        images = super().generate(z, context)
        return images - 0.1 * images.mean(0)


class LoudGenerator(DCGAN):
    """Images outside [-1, 1]."""

    def generate(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return super().generate(z, context) + 1.5
