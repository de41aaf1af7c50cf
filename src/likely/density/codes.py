"""Models that make x from a code z: codes are drawn, encoded, and moved between."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from likely.density.fittable import Fittable, as_tensor, chunks, evaluating
from likely.density.inversion import DRAWN, RATE, Inversion, descend, nearest_draws
from likely.density.shell import Prior, Shell, StandardNormal, UniformCube, around, turned
from likely.density.taxonomy import CHUNK, GenerativeModel
from likely.devices.precision import full_precision
from likely.errors import InvalidSetting, Unanswerable
from likely.heads import at_least_float
from likely.noise import Noise

# Pairs of codes: how many to draw, or the examples [B, *shape] at either end.
Ends = int | tuple[Tensor, Tensor]
# Codes, floats [n, latent], or examples that have them, integers [n, *shape].
Group = Tensor
# Fewer codes than these have a mean that says more of them than of what they share.
FEWEST = 3
# Parameters of p(x | z) in memory at a time, so that what is computed from them stays in cache.
DECODED = 2**20
# Values of images that are encoded at a time.
ENCODED = 2**20


@dataclasses.dataclass(frozen=True, repr=False)
class Arithmetic:
    """Codes added and subtracted.

    Attributes:
        code: of the result, [latent].
        images: 3 x 3 in rows, the result in the middle and codes near it around; int64 [9, *shape].
        groups: the codes of each group, those added first, [n, latent] each.
        means: what the mean of each group decodes to, int64 [G, *shape].
        shell: that the result and the means were brought to.
        clipped: share of the result's coordinates that were outside the cube of a uniform prior.
    """

    code: Tensor
    images: Tensor
    groups: tuple[Tensor, ...]
    means: Tensor
    shell: Shell
    clipped: float

    def __repr__(self) -> str:
        return f"Arithmetic({len(self.groups)} groups, {self.about})"

    @property
    def about(self) -> str:
        """What was done to the sum, in words."""
        words = f"rescaled to length {self.shell.radius:.3g}, {self.shell.about}"
        if self.shell.is_cube:
            words += f"; {self.clipped:.0%} of the coordinates clipped to [-1, 1]"
        return words


class Decoder(Fittable):
    """A model whose examples are decoded from codes."""

    @abc.abstractmethod
    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The example that a code stands for: int64 [B, *shape]."""

    @abc.abstractmethod
    def image(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The same as a differentiable function of the code: floats in [-1, 1], [B, *shape]."""

    @property
    def prior(self) -> Prior | None:
        """p(z); None where no more is known of it than draws."""
        return None

    def latents(self, noise: Noise, n: int) -> Tensor:
        """Codes z drawn from their distribution, [n, latent].

        Raises:
            Unanswerable: a model whose codes have none.
        """
        raise Unanswerable(
            f"{type(self).__name__}: its codes have no distribution to draw from; give examples"
        )

    @torch.no_grad()
    def drawn_codes(self, n: int, *, seed: int = 0) -> Tensor:
        """The codes behind `sample(n, seed=seed)`, [n, latent].

        Raises:
            Unanswerable: a model whose codes have no distribution.
        """
        parts = []
        for part in chunks(n, CHUNK):
            noise = Noise(seed, "sample", part.start, device=self.device, rows=(0, CHUNK))
            parts.append(self.latents(noise, part.stop - part.start))
        return torch.cat(parts)

    def codes(self, x: Tensor, context: Tensor | int | None = None) -> Tensor:
        """The codes of examples, [B, latent]: of the encoder, or else found by `invert`."""
        return self.invert(x, context=context).codes

    @torch.no_grad()
    def shell(self) -> Shell:
        """Where drawn codes lie: in closed form for N(0, I) and a cube, else as 4,096 draws do.

        Raises:
            Unanswerable: a model whose codes have no distribution.
        """
        prior = self.prior
        if isinstance(prior, StandardNormal | UniformCube):
            d, is_cube = prior.dimensions, isinstance(prior, UniformCube)
            centre = torch.zeros(d, dtype=next(self.parameters()).dtype, device=self.device)
            about = (
                "the root of a third of the number of coordinates, as codes drawn from a cube have"
                if is_cube
                else "the root of the number of coordinates, as codes drawn from N(0, I) have"
            )
            return Shell(centre, math.sqrt(d / 3 if is_cube else d), is_cube, about)
        drawn = self.latents(Noise("shell", device=self.device), 4096)
        return Shell.of(drawn, "that of drawn codes from their mean")

    @torch.no_grad()
    @full_precision
    def arithmetic(
        self,
        plus: Sequence[Group],
        minus: Sequence[Group] = (),
        *,
        reach: float = 0.25,
        seed: int = 0,
        context: Tensor | int | None = None,
    ) -> Arithmetic:
        """Add and subtract mean codes; see `likely.ask.arithmetic`."""
        if not plus:
            raise InvalidSetting("nothing is added: give at least one group of codes or examples")
        with evaluating(self):
            # A model that is not generative has no codes but those of examples.
            is_drawn = isinstance(self, GenerativeModel)
            groups: list[Tensor] = []
            for group in (*plus, *minus):
                if len(group) < FEWEST:
                    raise InvalidSetting(
                        f"a group needs at least {FEWEST} codes, given {len(group)}: the mean of "
                        "fewer says more of these images than of what they have in common"
                    )
                has_codes = torch.is_floating_point(group)
                groups.append(group.to(self.device) if has_codes else self.codes(group, context))
                is_drawn &= has_codes or not isinstance(self, EncoderDecoder)
            shell = self.shell() if is_drawn else self._shell_around(torch.cat(groups))
            means = torch.stack([group.mean(0) for group in groups])
            signs = means.new_tensor([1.0] * len(plus) + [-1.0] * len(minus))
            total = shell.centre + (signs[:, None] * (means - shell.centre)).sum(0)
            code = shell.settled(total)
            around_it = shell.near(code, Noise(seed, "arithmetic", device=self.device), 9, reach)
            around_it[4] = code
            return Arithmetic(
                code,
                self.decode(around_it, self.labels(context, 9)),
                tuple(groups),
                self.decode(shell.settled(means), self.labels(context, len(means))),
                shell,
                shell.outside(total),
            )

    def _shell_around(self, codes: Tensor) -> Shell:
        """That of the codes of examples: means of q(z | x) are shorter than draws."""
        known = isinstance(self.prior, StandardNormal | UniformCube)
        centre = torch.zeros_like(codes[0]) if known else None
        return Shell.of(codes, "as the codes of these examples have", centre)

    @torch.no_grad()
    @full_precision
    def invert(
        self,
        x: Tensor,
        *,
        steps: int = 200,
        restarts: int = 4,
        seed: int = 0,
        context: Tensor | int | None = None,
    ) -> Inversion:
        """Find the codes whose images are nearest to examples; see `likely.ask.invert`."""
        if steps < 0 or restarts < 1:
            raise InvalidSetting(
                f"invert needs steps >= 0 and restarts >= 1, given {steps} and {restarts}"
            )
        x = self.integers(x)
        labels = self.labels(context, len(x))
        with evaluating(self):
            target = self.as_data(self.scaled(x))
            parts, rate, is_cube = [], RATE, False
            if isinstance(self, EncoderDecoder):
                parts.append(self.features(x, context)[:, None])
            if not isinstance(self, EncoderDecoder) or isinstance(self, GenerativeModel):
                shell = self.shell()
                rate, is_cube = RATE * shell.scale, shell.is_cube
                missing = restarts - len(parts)
                if missing:
                    noise = Noise(seed, "invert", device=self.device)
                    drawn = self.latents(noise, max(DRAWN, missing))
                    parts.append(nearest_draws(self.image, drawn, target, labels, missing))
            cube = Noise(seed, "clip", device=self.device) if is_cube else None
            codes = descend(
                self.image, torch.cat(parts, 1), target, labels, steps=steps, rate=rate, cube=cube
            )
            images = torch.cat(
                [
                    self.decode(codes[part], None if labels is None else labels[part])
                    for part in chunks(len(codes), CHUNK)
                ]
            )
        difference = (images - self.as_data(x)).double() / (self.spec.levels - 1)
        return Inversion(codes, images, difference.square().flatten(1).sum(1))

    @torch.no_grad()
    @full_precision
    def walk(
        self,
        ends: Ends = 1,
        steps: int = 48,
        *,
        seed: int = 0,
        context: Tensor | int | None = None,
    ) -> Tensor:
        """Decode closed loops in planes of the codes; see `likely.ask.walk`."""
        if steps < 3 or (isinstance(ends, int) and ends < 1):
            raise InvalidSetting(
                f"a walk has at least three steps and there is at least one, given {steps} and "
                f"{ends if isinstance(ends, int) else 'examples'}"
            )
        with evaluating(self):
            if isinstance(ends, int):
                noise = Noise(seed, "walk", device=self.device)
                shell = self.shell()
                if isinstance(self.prior, StandardNormal | UniformCube):
                    if len(shell.centre) < 2:
                        raise InvalidSetting("a walk needs a plane: codes of two numbers or more")
                    path = turned(*shell.circle(noise, ends), shell.centre, steps)
                else:
                    first, last = self.latents(noise, ends), self.latents(noise, ends)
                    path = around(first, last, shell.centre, steps)
            else:
                first, last = self._pair(ends, context)
                known = isinstance(self.prior, StandardNormal | UniformCube)
                centre = torch.zeros_like(first[0]) if known else torch.cat([first, last]).mean(0)
                path = around(first, last, centre, steps)
            if isinstance(self.prior, UniformCube):
                path = path.clamp(-1.0, 1.0)
            labels = self.labels(context, len(path))
            # A step of all loops at a time.
            images = [self.decode(z, labels) for z in path.unbind(1)]
        return torch.stack(images, 1)

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
        """Decode points on the line between pairs of codes; see `likely.ask.interpolate`."""
        if steps < 2:
            raise InvalidSetting(
                f"an interpolation needs at least its two ends, given {steps} steps"
            )
        with evaluating(self):
            if isinstance(ends, int):
                if ends < 1:
                    raise InvalidSetting(f"an interpolation needs at least a pair, given {ends}")
                noise = Noise(seed, "interpolate", device=self.device)
                first, last = self.latents(noise, ends), self.latents(noise, ends)
            else:
                first, last = self._pair(ends, context)
            labels = self.labels(context, len(first))
            shares = [index / (steps - 1) for index in range(steps)]
            between = slerp if spherical else torch.lerp
            path = [self.decode(between(first, last, share), labels) for share in shares]
        return torch.stack(path, 1)

    def _pair(
        self, ends: tuple[Tensor, Tensor], context: Tensor | int | None
    ) -> tuple[Tensor, Tensor]:
        """The codes of the examples at either end."""
        first, last = (self.integers(x) for x in ends)
        if len(first) != len(last):
            raise InvalidSetting(
                "the two ends are pairs, an example of either: as many are needed of both, given "
                f"{len(first)} and {len(last)}"
            )
        return self.codes(first, context), self.codes(last, context)


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

    def image(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        means = self.decoded_means(z, context)[0]
        return self.as_data(means.to(z.dtype) * (2.0 / (self.spec.levels - 1)) - 1.0)

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
