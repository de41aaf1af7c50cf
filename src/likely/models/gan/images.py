"""What the models of this family share: a generator that reads uniform codes, a discriminator of
convolutions."""

from __future__ import annotations

import abc
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d

from likely.data.spec import DataSpec
from likely.density import ImplicitDensity, UniformCube
from likely.devices.precision import full_precision
from likely.errors import InvalidSetting
from likely.noise import Noise


class ConvolutionalDiscriminator(nn.Module, abc.ABC):
    """Images in [-1, 1], [B, C, H, W] -> logit that they are real, [B]; shows what it computes."""

    @abc.abstractmethod
    def maps(self, x: Tensor) -> list[Tensor]:
        """The map of every stage, [B, F, H, W] each."""

    def features(self, x: Tensor) -> Tensor:
        """All maps, max-pooled to at most 4 x 4 (DCGAN's sec. 5.1), [B, features]."""
        sides = [(m, (min(4, m.shape[2]), min(4, m.shape[3]))) for m in self.maps(x)]
        return torch.cat([adaptive_max_pool2d(m, side).flatten(1) for m, side in sides], 1)

    def activations(self, x: Tensor) -> dict[str, Tensor]:
        """Every map by name, [B, F, H, W]; x floats in [-1, 1], [B, C, H, W]."""
        return {f"layer-{number}": maps for number, maps in enumerate(self.maps(x), 1)}


def initialise(layer: nn.Module, gain: float | None) -> None:
    """N(0, gain^2 / fan-in), or with None N(0, 0.02) as in DCGAN's paper; biases zero."""
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    fan_in = float(layer.weight[0].numel())
    if isinstance(layer, nn.ConvTranspose2d):
        fan_in = layer.in_channels * (layer.weight[0, 0].numel() / math.prod(layer.stride))
    nn.init.normal_(layer.weight, 0.0, 0.02 if gain is None else gain / math.sqrt(fan_in))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def refuse_small(spec: DataSpec, name: str) -> None:
    """InvalidSetting where a side of the images is shorter than the smallest map."""
    if min(spec.shape[1:]) < 4:
        raise InvalidSetting(f"{name} needs images of at least 4 x 4, given {spec.shape[1:]}")


class FromUniformCodes(ImplicitDensity):
    """x = G(z), z uniform on [-1, 1]^latent. A leaf sets the fields.

    Attributes:
        generator: called with (z [B, latent], context); images in [-1, 1], [B, *shape].
        latent: dimensions of z.
        rounds: whether in a fit D sees the images that are sampled, rounded to levels. The gradient
            passes as if they were not (straight through; Bengio, Leonard and Courville 2013,
            https://arxiv.org/abs/1308.3432). Otherwise D can tell images of few levels from
            generated ones by the values between these alone.
    """

    generator: nn.Module
    latent: int
    rounds: bool = False

    @property
    def prior(self) -> UniformCube:
        return UniformCube(self.latent)

    def latents(self, noise: Noise, n: int) -> Tensor:
        return self.prior.sample(noise, n, next(self.parameters()).dtype)

    @full_precision
    def generate(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        images: Tensor = self.generator(z, context)
        if self.rounds and self.training:
            exact = self.scaled(self.quantised(images.detach()))
            images = images + (exact - images.detach())
        return images
