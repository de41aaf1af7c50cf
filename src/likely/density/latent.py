"""Densities with latent variables: a bound on log p(x), and codes."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor, nn

from likely.density.codes import EncoderDecoder
from likely.density.completion import CompletesByDraws, Completions, Way
from likely.density.completion.codes import latent_completions
from likely.density.decoded import FactorizedLikelihood, Likelihood
from likely.density.shell import Prior, StandardNormal
from likely.density.taxonomy import ApproximateDensity
from likely.devices.precision import full_precision
from likely.errors import InvalidSetting
from likely.heads import Head, mean_of
from likely.noise import Noise

# Parameters of p(x | z) of a pass without a gradient: of more, the maps of convolutions leave the
# cache.
PASS = 2**19


class Posterior(Protocol):
    """q(z | x) of some examples, a function of standard normal noise."""

    @property
    def mean(self) -> Tensor:
        """The code of each example, [B, Z]: the mean, or what the mean of a base maps to."""

    @property
    def log_scale(self) -> Tensor:
        """Of the Gaussian, or of the base, [B, Z]."""

    def sample(self, noise: Tensor) -> Tensor:
        """z; noise standard normal, [..., B, Z]."""

    def draw(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(z, log q(z | x))."""

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z | x) in nats."""

    def unsqueezed(self) -> Posterior:
        """The same with a side for several draws of each example, [B, 1, Z]."""


class Passed(NamedTuple):
    """What one pass of a network that prior, posterior and decoder share tells of drawn codes.

    Attributes:
        z: the codes, [..., Z].
        log_q: log q(z | x), [...].
        log_p: log p(z), [...].
        kl: KL of each stochastic layer given the codes above it, nats [..., layers].
        output: of the decoder, [N, K, H, W], N the codes in one row.
    """

    z: Tensor
    log_q: Tensor
    log_p: Tensor
    kl: Tensor
    output: Tensor


@runtime_checkable
class SharesItsPass(Protocol):
    """A posterior whose draw tells the prior's density and the decoder's output, too."""

    def through(self, noise: Tensor) -> Passed:
        """Draw at standard normal noise [..., B, Z]."""


# The codes of a layer, [B, Z_l], given p(z_l | codes above) and q(z_l | codes above, x).
ChooseCode = Callable[["DiagonalGaussian", "DiagonalGaussian"], Tensor]


@runtime_checkable
class LayeredPrior(Protocol):
    """p(z) = prod_l p(z_l | z_>l), each factor Gaussian."""

    def chosen(self, n: int, choose: ChooseCode) -> Passed:
        """Choose the codes of n examples layer by layer from the top; q is p there."""


@runtime_checkable
class LayeredPosterior(Protocol):
    """q(z | x) = prod_l q(z_l | z_>l, x), each factor Gaussian."""

    def chosen(self, choose: ChooseCode) -> Passed:
        """Choose the codes layer by layer from the top."""


@dataclasses.dataclass(frozen=True)
class DiagonalGaussian:
    """N(mean, exp(2 log_scale)) with independent coordinates; both [B, Z]."""

    mean: Tensor
    log_scale: Tensor

    def __repr__(self) -> str:
        shape = list(self.mean.shape)
        return f"DiagonalGaussian(mean {shape}, log_scale {shape})"

    def sample(self, noise: Tensor) -> Tensor:
        """mean + scale * noise (the reparameterisation trick); noise standard normal."""
        return self.mean + self.log_scale.exp() * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """log density in nats, summed over the last side."""
        standard = (z - self.mean) * (-self.log_scale).exp()
        return (-0.5 * standard**2 - self.log_scale - 0.5 * math.log(2 * math.pi)).sum(-1)

    def draw(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(z, its log density in nats)."""
        z = self.sample(noise)
        return z, self.log_prob(z)

    def unsqueezed(self) -> DiagonalGaussian:
        """The same with a side for several draws, [B, 1, Z]."""
        return DiagonalGaussian(self.mean[:, None], self.log_scale[:, None])

    def kl_to(self, other: DiagonalGaussian) -> Tensor:
        """KL(self || other) in nats, one for each coordinate, [B, Z]."""
        ratio = (2 * (self.log_scale - other.log_scale)).exp()
        distance = (self.mean - other.mean) ** 2 * (-2 * other.log_scale).exp()
        return 0.5 * (ratio + distance - 1.0) - (self.log_scale - other.log_scale)

    def kl_to_standard(self) -> Tensor:
        """KL(self || N(0, I)) in nats, one for each coordinate, [B, Z] (Kingma 2014, app. B)."""
        variance = (2 * self.log_scale).exp()
        return 0.5 * (self.mean**2 + variance - 1.0) - self.log_scale


@dataclasses.dataclass(frozen=True)
class GaussianMixture:
    """p(z) = (1/K) sum_k N(z; mean_k, scale_k^2).

    Attributes:
        components: its K Gaussians, mean and log-scale [K, Z].
    """

    components: DiagonalGaussian

    def log_prob(self, z: Tensor) -> Tensor:
        """log density in nats, [...]; z [..., Z]."""
        each = self.components.log_prob(z[..., None, :])  # [..., K]
        return each.logsumexp(-1) - math.log(each.shape[-1])

    def sample(self, noise: Noise, n: int, dtype: torch.dtype) -> Tensor:
        """A component for each row, then a draw from it, [n, Z]."""
        means, log_scales = self.components.mean, self.components.log_scale
        which = (noise.uniform(n) * len(means)).long()
        at = noise.normal(n, means.shape[1], dtype=dtype)
        return DiagonalGaussian(means[which], log_scales[which]).sample(at)


class LatentVariable(CompletesByDraws, ApproximateDensity, EncoderDecoder):
    r"""p(x) = integral of p(x|z) p(z) dz, fitted through q(z|x).

    A subclass implements `posterior` (the encoder) and `decoder_output`, `prior` where that is not
    N(0, I), and `likelihood_given_z` where pixels depend on each other given z. The head makes
    p(x|z) a distribution over the same integers as in autoregressive models, so that the bound is
    on the same quantity.

    Attributes:
        head: the distribution of a pixel.
        layers: stochastic layers; with several, the KL term has a column for each, top first.
        layer_sizes: coordinates of each, in the same order; empty for one layer.
    """

    head: Head
    layers: int = 1
    layer_sizes: Sequence[int] = ()
    completes_by = ("importance", "hmc")

    @property
    def prior(self) -> Prior:
        """p(z); N(0, I) unless a subclass has another."""
        return StandardNormal(self.latent)

    @abc.abstractmethod
    def posterior(self, x: Tensor, context: Tensor | None = None) -> Posterior:
        """q(z | x); x integers [B, *shape]; mean and log-scale [B, latent]."""

    @property
    def likelihood_given_z(self) -> Likelihood:
        """p(x | z) given the decoder's output; factorised unless a subclass has another."""
        return FactorizedLikelihood(self.head)

    @abc.abstractmethod
    def decoder_output(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """What `likelihood_given_z` takes of z [B, latent]: [B, K, H, W].

        K is `head.parameters` where pixels are independent given z.
        """

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.posterior(x, context).mean

    @property
    def inference_network(self) -> nn.Module | None:
        """The part of the network that q(z|x) alone goes through; None where there is none."""
        return None

    @full_precision
    def elbo_terms(
        self, x: Tensor, noise: Noise, context: Tensor | None = None, *, score: bool = True
    ) -> tuple[Tensor, Tensor]:
        """(reconstruction log p(x|z) [B], KL term [B, latent], [B, layers] or [B, 1]), nats.

        ELBO = reconstruction - KL.sum(-1) (Kingma and Welling 2014, eq. 10 with L = 1). Between
        a Gaussian and N(0, I) the KL is known by coordinate, in a hierarchy by layer given the
        codes above; otherwise it is estimated by log q(z|x) - log p(z) at the z that is drawn.

        Args:
            x: integers [B, *shape].
            noise: the source of z.
            context: labels [B] or None.
            score: False for the estimate whose gradient leaves out the score of q
                (`log_weights`).
        """
        x = self.integers(x)
        labels = self.labels(context, len(x))
        q, prior = self.posterior(x, labels), self.prior
        if isinstance(q, SharesItsPass):
            _refuse_without_score(score)
            passed = q.through(self._normal(noise, len(x), self.latent))
            return self.likelihood_given_z.log_prob(x, passed.output), passed.kl
        at = noise.normal(*q.mean.shape, dtype=q.mean.dtype)
        if score and self.knows_kl(q):
            z, kl = q.sample(at), q.kl_to_standard()
        else:
            z, log_q = _drawn(q, at, score)
            kl = (log_q - prior.log_prob(z)).unsqueeze(-1)
        return self.likelihood_given_z.log_prob(x, self.decoder_output(z, labels)), kl

    def knows_kl(self, q: Posterior) -> TypeGuard[DiagonalGaussian]:
        """Whether KL(q || p(z)) is a formula: of a Gaussian to N(0, I). Else it is estimated."""
        return isinstance(q, DiagonalGaussian) and isinstance(self.prior, StandardNormal)

    def _normal(self, noise: Noise, *shape: int) -> Tensor:
        return noise.normal(*shape, dtype=next(self.parameters()).dtype)

    @full_precision
    def elbo(self, x: Tensor, noise: Noise, context: Tensor | None = None) -> Tensor:
        reconstruction, kl = self.elbo_terms(x, noise, context)
        return reconstruction - kl.sum(-1)

    @full_precision
    def importance_bound(
        self, x: Tensor, k: int, noise: Noise, context: Tensor | None = None, chunk: int = 2048
    ) -> Tensor:
        r"""L_k = log (1/k) sum_j p(x, z_j) / q(z_j | x), z_j ~ q; nats [B].

        E[L_k] <= log p(x), increasing in k (Burda et al. 2016, Theorem 1).

        Args:
            x: integers [B, *shape].
            k: importance samples.
            noise: the source of z.
            context: labels [B] or None.
            chunk: decoder rows at a time; bounds the memory.
        """
        weights = self.log_weights(x, k, noise, context, chunk)
        return weights.logsumexp(1) - math.log(k)

    @full_precision
    def log_weights(
        self,
        x: Tensor,
        k: int,
        noise: Noise,
        context: Tensor | None = None,
        chunk: int = 2048,
        *,
        score: bool = True,
        squared: bool = False,
    ) -> Tensor:
        r"""log p(x, z_j) - log q(z_j | x) for k draws z_j ~ q(z | x), nats [B, k].

        Args:
            x, k, noise, context, chunk: as for `importance_bound`.
            score: False leaves d log q(z; phi) / d phi at a fixed z out of the gradient: phi is
                reached through z alone (Roeder, Wu and Duvenaud 2017, sec. 3,
                https://arxiv.org/abs/1703.09194).
            squared: multiply what reaches z_j by its normalised weight w_j. With `score=False` the
                gradient of the bound is then doubly reparameterised (Tucker et al. 2019, eq. 8,
                https://arxiv.org/abs/1810.04152).
        """
        if k < 1:
            raise InvalidSetting(f"the importance-weighted bound needs k >= 1, given {k}")
        x = self.integers(x)
        labels = self.labels(context, len(x))
        q, prior = self.posterior(x, labels), self.prior
        parts: list[Tensor] = []
        total: list[Tensor] = []
        step = max(1, chunk // max(1, len(x)))
        rows = PASS // (self.decoded_features * math.prod(self.spec.grid[1:]))
        for start in range(0, k, step):
            end = min(k, start + step)
            at = self._normal(noise, len(x), end - start, self.latent)
            reached = None
            if squared:

                def reached(slope: Tensor, columns: slice = slice(start, end)) -> Tensor:
                    weighted: Tensor = slope * total[0][:, columns, None]
                    return weighted

            width = end - start if torch.is_grad_enabled() else max(1, rows // max(1, len(x)))
            for draws in torch.split(at, width, 1):
                parts.append(self._log_weights(x, labels, q, prior, draws, score, reached))
        log_weights = torch.cat(parts, 1)
        total.append(log_weights.detach().softmax(1))
        return log_weights

    def _log_weights(
        self,
        x: Tensor,
        labels: Tensor | None,
        q: Posterior,
        prior: Prior,
        at: Tensor,
        score: bool,
        reached: Callable[[Tensor], Tensor] | None,
    ) -> Tensor:
        """log p(x, z) - log q(z | x) at noise [B, k, Z]; `reached` changes the slope at z."""
        b, k, latent = at.shape
        repeated = None if labels is None else labels.repeat_interleave(k)
        if isinstance(q, SharesItsPass):
            _refuse_without_score(score)
            passed: Passed = q.unsqueezed().through(at)  # type: ignore[attr-defined]
            output, ratio = passed.output, passed.log_p - passed.log_q
        else:
            z, log_q = _drawn(q.unsqueezed(), at, score, reached)  # [B, k, Z]
            output = self.decoder_output(z.reshape(b * k, latent), repeated)
            ratio = prior.log_prob(z) - log_q
        given_z = self.likelihood_given_z.log_prob(x.repeat_interleave(k, 0), output)
        return given_z.reshape(b, k) + ratio

    def latents(self, noise: Noise, n: int) -> Tensor:
        return self.prior.sample(noise, n, next(self.parameters()).dtype)

    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        z = self.latents(noise, n)
        uniform = noise.uniform(n, *self.spec.grid)
        return self.decode(z, context, uniform)

    @torch.no_grad()
    def sample_means(
        self, n: int, *, seed: int = 0, context: Tensor | int | None = None, chunk: int = 256
    ) -> Tensor:
        """E[x | z] for the codes behind `sample`: what papers show as samples.

        A sample adds the noise of p(x | z), which real images of many levels drown in.

        Args:
            n, seed, context, chunk: as for `sample`, whose codes these are.

        Returns:
            In levels, not rounded: float64 [n, *shape].
        """

        def draw(noise: Noise, count: int, labels: Tensor | None) -> Tensor:
            return self.decoded_means(self.latents(noise, count), labels)[0]

        return self.in_chunks(n, seed, context, chunk, draw, dtype=torch.float64)

    @torch.no_grad()
    @full_precision
    def decode(
        self, z: Tensor, context: Tensor | None = None, uniform: Tensor | None = None
    ) -> Tensor:
        """x from p(x | z): drawn at the given uniform numbers, or the mean, rounded.

        Args:
            z: [B, latent].
            context: labels [B] or None.
            uniform: [B, C, H, W] in [0, 1), or None for the mean.

        Returns:
            int64 [B, *shape].
        """
        if uniform is None:
            return self.as_data(self.decoded_means(z, context)[1])
        x = torch.zeros(len(z), *self.spec.grid, dtype=torch.int64, device=self.device)
        for part, output in self.decoded(z, context):
            x[part] = self.likelihood_given_z.draw(output, uniform[part])
        return self.as_data(x)

    def completed(self, x: Tensor, observed: Tensor, way: Way) -> Completions:
        """By weighed codes; see `likely.density.completion.codes`."""
        return latent_completions(self, x, observed, way)

    @property
    def decoded_features(self) -> int:
        return self.likelihood_given_z.features

    def read(self, output: Tensor) -> tuple[Tensor, Tensor]:
        return self.likelihood_given_z.mean(output)


def mean_level(log_table: Tensor) -> Tensor:
    """The mean of a distribution over levels, rounded: int64 [B, ...]."""
    return mean_of(log_table).round().to(torch.int64)


def _drawn(
    q: Posterior, at: Tensor, score: bool, reached: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """(z, log q(z)) at standard normal noise; see `LatentVariable.log_weights`."""
    if score:
        return q.draw(at)
    if not isinstance(q, DiagonalGaussian):
        _refuse_without_score(score)
    assert isinstance(q, DiagonalGaussian)
    z = q.sample(at)
    if reached is not None and z.requires_grad:
        z.register_hook(reached)  # type: ignore[no-untyped-call]
    return z, DiagonalGaussian(q.mean.detach(), q.log_scale.detach()).log_prob(z)


def _refuse_without_score(score: bool) -> None:
    if not score:
        raise InvalidSetting(
            "gradient=stl and gradient=dreg need a posterior that is a Gaussian given x "
            "(posterior=normal, no hierarchy); take gradient=plain"
        )
