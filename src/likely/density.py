r"""The taxonomy of generative models, and what each kind can be asked.

    GenerativeModel
      TractableDensity      log p(x) exactly           (fully visible belief nets, PixelCNN, ...)
        Autoregressive        log p(x) = sum_i log p(x_i | x_<i)
      ApproximateDensity    a bound on log p(x)        (variational autoencoders)
        LatentVariable        log p(x) >= E_q[log p(x|z) + log p(z) - log q(z|x)]
      ImplicitDensity       samples only               (GANs)

The class says what is known: an implicit model has no `log_prob` to misuse. What is generic is
written here once; a model supplies its networks. Every random answer is a function of the
weights and of a seed.

Values are integers in [0, levels), shape [B, *spec.shape]; log-probabilities are in nats per
example, shape [B]. Sources: Goodfellow 2016 (NIPS tutorial on GANs, the taxonomy), Kingma and
Welling 2014 (eqs. 2, 3), Burda, Grosse and Salakhutdinov 2016 (eq. 8).
"""

from __future__ import annotations

import abc
import dataclasses
import enum
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from likely.data.spec import Dataset, DataSpec
from likely.errors import InvalidData, InvalidSetting, Unanswerable
from likely.heads import Head
from likely.noise import Noise
from likely.sampling import Stepper, ancestral, invert

__all__ = [
    "Answer",
    "ApproximateDensity",
    "Autoregressive",
    "DiagonalGaussian",
    "GenerativeModel",
    "Guarantee",
    "ImplicitDensity",
    "LatentVariable",
    "Query",
    "TractableDensity",
]


class Query(enum.Enum):
    """What a fitted model may be asked."""

    SAMPLE = "sample"
    LOG_PROB = "log-likelihood"
    POSTERIOR = "posterior over latents"
    FEATURES = "features"
    RECONSTRUCT = "reconstruction"
    INTERPOLATE = "latent interpolation"
    COMPLETE = "completion"
    CONDITIONAL = "conditional of a pixel"
    COMPRESS = "lossless compression"


class Guarantee(enum.Enum):
    """How an answer relates to the model's true one."""

    EXACT = "exact"
    BOUND = "bound"
    APPROXIMATE = "approximate"
    NONE = "no answer"


@dataclasses.dataclass(frozen=True)
class Answer:
    """The guarantee of an answer and the reason in words."""

    guarantee: Guarantee
    reason: str


class GenerativeModel(nn.Module, abc.ABC):
    """p_model(x | context), learned from examples of p_data.

    Attributes:
        spec: of the data it was built for; shapes and levels are those of `spec`.
        classes: number of context labels; 0 for an unconditional model.
        settings: the frozen dataclass it was built from.
    """

    spec: DataSpec
    classes: int
    settings: Any

    def __init__(self, spec: DataSpec, classes: int) -> None:
        super().__init__()
        self.spec = spec
        self.classes = classes

    @property
    @abc.abstractmethod
    def kind(self) -> str:
        """The place in the taxonomy, as "explicit, tractable"."""

    @abc.abstractmethod
    def answers(self) -> dict[Query, Answer]:
        """Every query with what this model can say to it."""

    @abc.abstractmethod
    def start_at(self, data: Dataset) -> None:
        """Set what the training data decides before the first step (an output bias)."""

    @abc.abstractmethod
    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        """Draw n examples from the given noise: integers [n, *shape] (int64)."""

    @torch.no_grad()
    def sample(
        self, n: int, *, seed: int = 0, context: Tensor | int | None = None, chunk: int = 256
    ) -> Tensor:
        """Draw n examples: a function of (weights, n, seed, context).

        Args:
            n: how many.
            seed: of the noise.
            context: class label for all, or int64 [n]; None for an unconditional model.
            chunk: examples drawn together; bounds the memory.

        Returns:
            Integers in [0, levels), int64 [n, *shape].

        Raises:
            InvalidSetting: n < 1, or a context that the model does not have.
        """
        if n < 1:
            raise InvalidSetting(f"sample: n must be at least 1, given {n}")
        labels = self.labels(context, n)
        was_training = self.training
        self.eval()
        try:
            parts = []
            for start in range(0, n, chunk):
                stop = min(n, start + chunk)
                # A stream a chunk, all of the same length: the first images do not depend on n.
                noise = Noise(seed, "sample", start, device=self.device, rows=(0, chunk))
                part = None if labels is None else labels[start:stop]
                parts.append(self.draw(noise, stop - start, part))
            return torch.cat(parts)
        finally:
            self.train(was_training)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def labels(self, context: Tensor | int | None, n: int) -> Tensor | None:
        """The context as int64 [n] on the model's device, or None; refuses what does not fit."""
        if self.classes == 0:
            if context is not None:
                raise InvalidSetting(
                    f"{type(self).__name__} is unconditional: it takes no context; "
                    "fit it with conditional=true to condition on labels"
                )
            return None
        if context is None:
            raise InvalidSetting(
                f"{type(self).__name__} is conditional on {self.classes} classes: "
                "give context=<label> or one label an example"
            )
        given = torch.as_tensor(context)
        if given.is_floating_point() or given.is_complex():
            # Rounding 0.9 (or NaN) to some class would be an answer to another question.
            raise InvalidSetting(f"context: labels must be integers, given {given.dtype}")
        labels = given.to(self.device, torch.int64)
        if labels.ndim == 0:
            labels = labels.expand(n)
        if labels.shape != (n,):
            raise InvalidSetting(f"context: expected {n} labels, given {tuple(labels.shape)}")
        if bool((labels < 0).any()) or bool((labels >= self.classes).any()):
            raise InvalidSetting(
                f"context: labels must be in [0, {self.classes}), given "
                f"{int(labels.min())} to {int(labels.max())}"
            )
        return labels

    def integers(self, x: Tensor) -> Tensor:
        """x as int64 on the model's device; refuses a wrong shape, type or range."""
        if x.is_floating_point() or x.is_complex():
            raise InvalidData(f"expected integers in [0, {self.spec.levels}), given {x.dtype}")
        if tuple(x.shape[1:]) != self.spec.shape:
            raise InvalidData(
                f"expected examples of shape {self.spec.shape}, given {tuple(x.shape[1:])}"
            )
        x = x.to(self.device, torch.int64)
        if x.numel() and (int(x.min()) < 0 or int(x.max()) >= self.spec.levels):
            raise InvalidData(
                f"expected values in [0, {self.spec.levels}), "
                f"given {int(x.min())} to {int(x.max())}"
            )
        return x

    def scaled(self, x: Tensor) -> Tensor:
        """Integers in [0, levels) to floats in [-1, 1], in the dtype of the weights."""
        dtype = next(self.parameters()).dtype
        return x.to(dtype) * (2.0 / (self.spec.levels - 1)) - 1.0

    def unanswerable(self, query: Query) -> Unanswerable:
        """The error for a query that `answers` says NONE to."""
        return Unanswerable(f"{type(self).__name__}: {self.answers()[query].reason}")


class TractableDensity(GenerativeModel):
    """A model whose log p(x) is computed exactly."""

    @abc.abstractmethod
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x | context) in nats, [B]; x integers [B, *shape]."""


class Autoregressive(TractableDensity):
    r"""log p(x) = sum_i log p(x_i | x_<i), in raster order, channels innermost.

    A leaf gives `conditionals`: the parameters of every conditional in one pass, each a
    function of the dimensions before it only (`likely.verify` proves that). The head turns
    parameters into a distribution over levels.
    """

    head: Head

    @abc.abstractmethod
    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Parameters of p(x_i | x_<i) for all i at once.

        Args:
            x: values in [0, levels), [B, C, H, W]; integers, or floats in the same units where
                a derivative is wanted.
            context: int64 [B] or None.

        Returns:
            [B, head.parameters, H, W].
        """

    @property
    @abc.abstractmethod
    def has_blind_spot(self) -> bool:
        """Whether some earlier dimensions are not seen (the 2016 PixelCNN's flaw)."""

    @property
    def kind(self) -> str:
        return "explicit, tractable"

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = self.integers(x)
        parameters = self.conditionals(x, self.labels(context, len(x)))
        return self.head.log_prob(at_least_float(parameters), x).sum((1, 2, 3))

    def answers(self) -> dict[Query, Answer]:
        no_latent = "it has no latent variables: every hidden unit is a function of x"
        exact = Guarantee.EXACT
        return {
            Query.SAMPLE: Answer(exact, "ancestral sampling, one dimension after another"),
            Query.LOG_PROB: Answer(exact, "the chain rule: a sum of log-conditionals"),
            Query.CONDITIONAL: Answer(exact, "p(x_i | x_<i) is what the network computes"),
            Query.COMPLETE: Answer(exact, "given the first pixels in raster order"),
            Query.COMPRESS: Answer(exact, "its conditionals drive an entropy coder"),
            Query.POSTERIOR: Answer(Guarantee.NONE, no_latent),
            Query.FEATURES: Answer(
                Guarantee.APPROXIMATE, "hidden activations can be read, but none is a code of x"
            ),
            Query.RECONSTRUCT: Answer(Guarantee.NONE, no_latent),
            Query.INTERPOLATE: Answer(Guarantee.NONE, no_latent),
        }

    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        uniform = noise.uniform(n, *self.spec.shape)  # [n, C, H, W]
        blank = torch.zeros(n, *self.spec.shape, dtype=torch.int64, device=self.device)
        return ancestral(self, uniform, blank, 0, context)

    @abc.abstractmethod
    def stepper(self, batch: int, context: Tensor | None) -> Stepper | None:
        """The incremental form of `conditionals` for a batch, or None where there is none."""

    def complete(
        self, x: Tensor, observed: Tensor, *, seed: int = 0, context: Tensor | int | None = None
    ) -> Tensor:
        """Draw the unobserved pixels from p(rest | observed), exactly.

        Args:
            x: integers [B, *shape]; unobserved values are ignored.
            observed: bool [H, W]; must be a prefix of the raster order (the top rows, and the
                left part of the next one).
            seed: of the noise.
            context: labels, as for `sample`.

        Raises:
            Unanswerable: the observed pixels are no raster prefix.
        """
        x = self.integers(x)
        order = observed.flatten()
        known = int(order.sum())
        if not bool(order[:known].all()):
            raise Unanswerable(
                f"{type(self).__name__}: completion is exact only when the observed pixels come "
                "first in raster order (top rows, then the left part of the next row); p(rest | "
                "other pixels) has no closed form in this factorisation"
            )
        noise = Noise(seed, "complete", device=self.device)
        uniform = noise.uniform(*x.shape)
        return ancestral(self, uniform, x, known, self.labels(context, len(x)))


@dataclasses.dataclass(frozen=True)
class DiagonalGaussian:
    """N(mean, exp(2 log_scale)) with independent coordinates; both [B, Z]."""

    mean: Tensor
    log_scale: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + scale * noise (the reparameterisation trick); noise standard normal."""
        return self.mean + self.log_scale.exp() * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """log density in nats, summed over the last side."""
        standard = (z - self.mean) * (-self.log_scale).exp()
        return (-0.5 * standard**2 - self.log_scale - 0.5 * math.log(2 * math.pi)).sum(-1)

    def kl_to_standard(self) -> Tensor:
        """KL(self || N(0, I)) in nats, one for each coordinate, [B, Z] (Kingma 2014, app. B)."""
        variance = (2 * self.log_scale).exp()
        return 0.5 * (self.mean**2 + variance - 1.0) - self.log_scale


class ApproximateDensity(GenerativeModel):
    """A model of which a lower bound on log p(x) is computed."""

    @abc.abstractmethod
    def elbo(self, x: Tensor, noise: Noise, context: Tensor | None = None) -> Tensor:
        """A one-sample estimate of the evidence lower bound, nats [B]."""


class LatentVariable(ApproximateDensity):
    r"""p(x) = integral of p(x|z) p(z) dz with p(z) = N(0, I), fitted through q(z|x).

    A leaf gives `posterior` (the encoder) and `likelihood` (the decoder); the head makes the
    decoder a distribution over the same integers as an autoregressive model's, so that the
    bound is on the same quantity.
    """

    head: Head
    latent: int

    @abc.abstractmethod
    def posterior(self, x: Tensor, context: Tensor | None = None) -> DiagonalGaussian:
        """q(z | x); x integers [B, *shape]; mean and log-scale [B, latent]."""

    @abc.abstractmethod
    def likelihood(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Parameters of p(x | z), [B, head.parameters, H, W]; z [B, latent]."""

    @property
    def kind(self) -> str:
        return "explicit, approximate"

    def elbo_terms(
        self, x: Tensor, noise: Noise, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(reconstruction log p(x|z) [B], KL by coordinate [B, latent]), nats.

        ELBO = reconstruction - KL.sum(-1) (Kingma and Welling 2014, eq. 10 with L = 1).
        """
        x = self.integers(x)
        labels = self.labels(context, len(x))
        q = self.posterior(x, labels)
        z = q.sample(noise.normal(*q.mean.shape, dtype=q.mean.dtype))
        parameters = self.likelihood(z, labels)
        reconstruction = self.head.log_prob(at_least_float(parameters), x).sum((1, 2, 3))
        return reconstruction, q.kl_to_standard()

    def elbo(self, x: Tensor, noise: Noise, context: Tensor | None = None) -> Tensor:
        reconstruction, kl = self.elbo_terms(x, noise, context)
        return reconstruction - kl.sum(-1)

    def importance_bound(
        self, x: Tensor, k: int, noise: Noise, context: Tensor | None = None, chunk: int = 2048
    ) -> Tensor:
        r"""L_k = log (1/k) sum_j p(x, z_j) / q(z_j | x), z_j ~ q; nats [B].

        E[L_k] <= log p(x), rising in k (Burda et al. 2016, Theorem 1).

        Args:
            x: integers [B, *shape].
            k: importance samples.
            noise: the source of z.
            context: labels [B] or None.
            chunk: decoder rows at a time; bounds the memory.
        """
        if k < 1:
            raise InvalidSetting(f"the importance-weighted bound needs k >= 1, given {k}")
        x = self.integers(x)
        labels = self.labels(context, len(x))
        q = self.posterior(x, labels)
        weights = []
        step = max(1, chunk // max(1, len(x)))
        for start in range(0, k, step):
            weights.append(self._log_weights(x, labels, q, min(step, k - start), noise))
        return torch.cat(weights, 1).logsumexp(1) - math.log(k)

    def _log_weights(
        self, x: Tensor, labels: Tensor | None, q: DiagonalGaussian, k: int, noise: Noise
    ) -> Tensor:
        """log p(x, z) - log q(z | x) for k draws of z, [B, k]."""
        b, latent = q.mean.shape
        wide = DiagonalGaussian(q.mean[:, None], q.log_scale[:, None])
        z = wide.sample(noise.normal(b, k, latent, dtype=q.mean.dtype))  # [B, k, Z]
        repeated = None if labels is None else labels.repeat_interleave(k)
        parameters = at_least_float(self.likelihood(z.reshape(b * k, latent), repeated))
        log_likelihood = self.head.log_prob(parameters, x.repeat_interleave(k, 0)).sum((1, 2, 3))
        zero = torch.zeros_like(z)
        log_prior = DiagonalGaussian(zero, zero).log_prob(z)
        return log_likelihood.reshape(b, k) + log_prior - wide.log_prob(z)

    def answers(self) -> dict[Query, Answer]:
        bound, approximate = Guarantee.BOUND, Guarantee.APPROXIMATE
        return {
            Query.SAMPLE: Answer(Guarantee.EXACT, "z from the prior, then x from p(x|z)"),
            Query.LOG_PROB: Answer(bound, "p(x) is an integral over z; ELBO and L_k bound it"),
            Query.POSTERIOR: Answer(approximate, "q(z|x), the encoder's Gaussian"),
            Query.FEATURES: Answer(approximate, "the mean of q(z|x)"),
            Query.RECONSTRUCT: Answer(approximate, "decode the mean of q(z|x)"),
            Query.INTERPOLATE: Answer(approximate, "decode points between two codes"),
            Query.COMPLETE: Answer(
                Guarantee.NONE, "p(unobserved | observed) is an integral over z without closed form"
            ),
            Query.CONDITIONAL: Answer(
                Guarantee.NONE, "p(x_i | x_<i) is an integral over z without closed form"
            ),
            Query.COMPRESS: Answer(bound, "bits-back coding reaches the ELBO, not log p(x)"),
        }

    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        dtype = next(self.parameters()).dtype
        z = noise.normal(n, self.latent, dtype=dtype)
        uniform = noise.uniform(n, *self.spec.shape)
        return self.decode(z, context, uniform)

    @torch.no_grad()
    def decode(
        self, z: Tensor, context: Tensor | None = None, uniform: Tensor | None = None
    ) -> Tensor:
        """x from p(x | z): drawn at the given uniform numbers, or the mean, rounded.

        Args:
            z: [B, latent].
            context: labels [B] or None.
            uniform: [B, *shape] in [0, 1), or None for the mean.

        Returns:
            int64 [B, *shape].
        """
        parameters = at_least_float(self.likelihood(z, context))
        x = torch.zeros(len(z), *self.spec.shape, dtype=torch.int64, device=z.device)
        for channel in range(self.spec.shape[0]):
            table = self.head.log_table(parameters, x, channel)  # [B, levels, H, W]
            if uniform is None:
                x[:, channel] = mean_level(table)
            else:
                x[:, channel] = invert(table, uniform[:, channel])
        return x

    @torch.no_grad()
    def decode_mean(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """E[x | z] in level units, not rounded: float [B, *shape] (what papers show)."""
        parameters = at_least_float(self.likelihood(z, context))
        x = torch.zeros(len(z), *self.spec.shape, dtype=torch.int64, device=z.device)
        means = []
        for channel in range(self.spec.shape[0]):
            table = self.head.log_table(parameters, x, channel)
            means.append(_mean_of(table))
            x[:, channel] = means[-1].round().to(torch.int64)
        return torch.stack(means, 1)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, context: Tensor | int | None = None) -> Tensor:
        """Decode the mean of q(z | x): int64 [B, *shape]."""
        x = self.integers(x)
        labels = self.labels(context, len(x))
        return self.decode(self.posterior(x, labels).mean, labels)


class ImplicitDensity(GenerativeModel):
    """A model that only produces samples: x = G(z), z from a fixed distribution.

    A leaf gives `generate`; its density, if it has one, is not known. A second network may
    come with it (a GAN's discriminator), which is a player of the objective, not of the model.
    """

    latent: int

    @abc.abstractmethod
    def latents(self, noise: Noise, n: int) -> Tensor:
        """Codes z, [n, latent]."""

    @abc.abstractmethod
    def generate(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """G(z): floats in [-1, 1], [n, *shape]."""

    @abc.abstractmethod
    def criticise(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The discriminator's logit that x (floats in [-1, 1], [n, *shape]) is real, [n]."""

    @abc.abstractmethod
    def player_modules(self) -> dict[str, nn.Module]:
        """The networks by player: "generator" and "discriminator"."""

    @property
    def kind(self) -> str:
        return "implicit"

    def answers(self) -> dict[Query, Answer]:
        no_density = "it defines no density: it only maps noise to samples"
        no_encoder = "it has no encoder: the code of a given image is not known"
        none = Guarantee.NONE
        return {
            Query.SAMPLE: Answer(Guarantee.EXACT, "one pass of the generator"),
            Query.LOG_PROB: Answer(none, no_density),
            Query.POSTERIOR: Answer(none, no_encoder),
            Query.FEATURES: Answer(
                Guarantee.APPROXIMATE, "the discriminator's activations (Radford 2016, sec. 5.1)"
            ),
            Query.RECONSTRUCT: Answer(none, no_encoder),
            Query.INTERPOLATE: Answer(
                Guarantee.APPROXIMATE, "decode points between two drawn codes"
            ),
            Query.COMPLETE: Answer(none, no_density),
            Query.CONDITIONAL: Answer(none, no_density),
            Query.COMPRESS: Answer(none, no_density),
        }

    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        images = self.generate(self.latents(noise, n), context)
        return self.quantised(images)

    def quantised(self, images: Tensor) -> Tensor:
        """Floats in [-1, 1] to the nearest integers in [0, levels)."""
        top = self.spec.levels - 1
        return ((images.double() + 1.0) * (top / 2.0)).round().clamp(0, top).to(torch.int64)


def _mean_of(log_table: Tensor) -> Tensor:
    levels = torch.arange(log_table.shape[1], dtype=torch.float64, device=log_table.device)
    return torch.einsum("bl...,l->b...", log_table.double().exp(), levels)


def mean_level(log_table: Tensor) -> Tensor:
    """The mean of a distribution over levels, rounded: int64 [B, ...]."""
    return _mean_of(log_table).round().to(torch.int64)


def at_least_float(x: Tensor) -> Tensor:
    """Likelihoods are computed in float32 or better, whatever the network ran in."""
    return x if x.dtype == torch.float64 else x.float()


def chunks(n: int, size: int) -> Iterator[slice]:
    """Slices that cover range(n), `size` at a time."""
    for start in range(0, n, size):
        yield slice(start, min(n, start + size))
