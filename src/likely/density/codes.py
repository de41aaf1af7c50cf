"""Models that make x from a code z: codes are drawn, encoded, and moved between."""

from __future__ import annotations

import abc
from collections.abc import Iterator

import torch
from torch import Tensor

from likely.density.fittable import Fittable, as_tensor
from likely.density.taxonomy import chunks
from likely.devices.precision import full_precision
from likely.errors import InvalidSetting, Unanswerable
from likely.heads import at_least_float
from likely.noise import Noise

# Pairs of codes: how many to draw, or the examples [B, *shape] at either end.
Ends = int | tuple[Tensor, Tensor]
# Parameters of p(x | z) in memory at a time, so that what is computed from them stays in cache.
DECODED = 2**20
# Values of images that are encoded at a time.
ENCODED = 2**20


class Decoder(Fittable):
    """A model whose examples are decoded from codes."""

    @abc.abstractmethod
    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The example that a code stands for: int64 [B, *shape]."""

    def latents(self, noise: Noise, n: int) -> Tensor:
        """Codes z drawn from their distribution, [n, latent].

        Raises:
            Unanswerable: a model whose codes have none.
        """
        raise Unanswerable(
            f"{type(self).__name__}: its codes have no distribution to draw from; give examples"
        )

    def codes(self, x: Tensor, context: Tensor | int | None = None) -> Tensor:
        """The codes of examples, [B, latent].

        Raises:
            Unanswerable: a model without an encoder.
        """
        raise Unanswerable(
            f"{type(self).__name__}: it has no encoder: the code of a given image is not known; "
            "give a number of pairs to draw"
        )

    @torch.no_grad()
    @full_precision
    def interpolate(
        self,
        ends: Ends,
        steps: int = 8,
        *,
        spherical: bool = False,
        seed: int = 0,
        context: Tensor | int | None = None,
    ) -> Tensor:
        """Decode points on the line between pairs of codes, or on a great circle.

        Args:
            ends: how many pairs to draw, or the two ends, integers [B, *shape] each.
            steps: points, both ends included.
            spherical: turn from one code to the other in place of the straight line. Codes drawn
                from N(0, I) in many dimensions have norms near the square root of these, and the
                middle of a line is nearer to 0 than any of them (White 2016, sec. 2.1,
                https://arxiv.org/abs/1609.04468).
            seed: of the codes that are drawn.
            context: labels, as for `sample`.

        Returns:
            int64 [B, steps, *shape].

        Raises:
            Unanswerable: codes are asked of a model without an encoder, or are to be drawn by one
                without a distribution of them.
            InvalidSetting: fewer than two steps, or no pairs.
        """
        if steps < 2:
            raise InvalidSetting(
                f"an interpolation needs at least its two ends, given {steps} steps"
            )
        was_training = self.training
        self.eval()
        try:
            if isinstance(ends, int):
                if ends < 1:
                    raise InvalidSetting(f"an interpolation needs at least a pair, given {ends}")
                noise = Noise(seed, "interpolate", device=self.device)
                first, last = self.latents(noise, ends), self.latents(noise, ends)
            else:
                first, last = (self.codes(x, context) for x in ends)
            labels = self.labels(context, len(first))
            shares = [index / (steps - 1) for index in range(steps)]
            between = slerp if spherical else torch.lerp
            path = [self.decode(between(first, last, share), labels) for share in shares]
        finally:
            self.train(was_training)
        return torch.stack(path, 1)


class EncoderDecoder(Decoder):
    """A decoder with an encoder: what an autoencoder and a latent-variable model share.

    A subclass implements `encode`, `decoder_output`, and `read`, which makes images of that.

    Attributes:
        latent: dimensions of a code.
    """

    latent: int

    @abc.abstractmethod
    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The code of each example, [B, latent]; x integers [B, *shape], as many as fit at once."""

    @abc.abstractmethod
    def decoder_output(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """What is known of the example, as parameters of a head, [B, K, H, W]; z [B, latent]."""

    @torch.no_grad()
    @full_precision
    def features(self, x: Tensor, context: Tensor | int | None = None) -> Tensor:
        """The code of each example, [B, latent]."""
        x = self.integers(x)
        labels = self.labels(context, len(x))
        size = max(1, ENCODED // self.spec.dimensions)
        return torch.cat(
            [
                self.encode(x[part], None if labels is None else labels[part])
                for part in chunks(len(x), size)
            ]
        )

    def codes(self, x: Tensor, context: Tensor | int | None = None) -> Tensor:
        return self.features(x, context)

    @torch.no_grad()
    @full_precision
    def reconstruct(self, x: Tensor, context: Tensor | int | None = None) -> Tensor:
        """Decode the code of each example: int64 [B, *shape]."""
        return self.decode(self.features(x, context), self.labels(context, len(x)))

    @torch.no_grad()
    @full_precision
    def decode_mean(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """E[x | z] in level units, not rounded: float [B, *shape] (what papers show)."""
        return self.as_data(self.decoded_means(z, context)[0])

    @property
    @abc.abstractmethod
    def decoded_features(self) -> int:
        """Numbers of a pixel that the decoder gives, to plan memory with."""

    @abc.abstractmethod
    def read(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """What the decoder's output stands for: means in levels and integers near them.

        Both [B, C, H, W], float64 and int64; each mean is given the integers before it.
        """

    def decoded_means(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """`read` of all codes."""
        shape = (len(z), *self.spec.grid)
        means = torch.zeros(shape, dtype=torch.float64, device=self.device)
        x = torch.zeros(shape, dtype=torch.int64, device=self.device)
        for part, output in self.decoded(z, context):
            means[part], x[part] = self.read(output)
        return means, x

    def decoded(self, z: Tensor, context: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
        """The decoder's output for some examples after others."""
        z = as_tensor(z, f"codes [B, {self.latent}]")
        z = z.to(self.device, next(self.parameters()).dtype)
        _, height, width = self.spec.grid
        for part in chunks(len(z), max(1, DECODED // (self.decoded_features * height * width))):
            labels = None if context is None else context[part]
            yield part, at_least_float(self.decoder_output(z[part], labels))


def slerp(first: Tensor, last: Tensor, share: float) -> Tensor:
    """A point on the arc between two codes, whose norm moves evenly, too, [B, Z] (Shoemake 1985).

    Where they point the same way or opposite ways it is a point on the line.
    """
    norms = [z.norm(dim=-1, keepdim=True) for z in (first, last)]
    cosine = (first * last).sum(-1, keepdim=True) / (norms[0] * norms[1]).clamp(min=1e-12)
    angle = cosine.clamp(-1.0, 1.0).acos()
    sine = angle.sin()
    plain = sine < 1e-4
    weights = [torch.where(plain, s, (s * angle).sin() / sine.clamp(min=1e-4))
               for s in (1.0 - share, share)]  # fmt: skip
    turned = weights[0] * first / norms[0].clamp(min=1e-12)
    turned = turned + weights[1] * last / norms[1].clamp(min=1e-12)
    norm = torch.lerp(norms[0], norms[1], share)
    return torch.where(plain, first.lerp(last, share), turned * norm)
