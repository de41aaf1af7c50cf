"""What the models of this family share: a convolutional generator that reads uniform codes."""

from __future__ import annotations

from torch import Tensor, nn

from likely.density import ImplicitDensity, UniformCube
from likely.devices.precision import full_precision
from likely.noise import Noise


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
