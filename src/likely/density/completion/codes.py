r"""The rest of an image given any of its pixels, by weighed codes of a latent-variable model.

Given z the pixels are independent, so p(observed | z) is a product over the observed ones, and

    p(rest | observed) = integral of p(rest | z) p(z | observed) dz.

Codes are drawn from a proposal r(z) and weighed, w = p(z) p(observed | z) / r(z). The mean weight
is an unbiased estimate of p(observed); a code resampled by its weight, decoded, is a draw of the
rest, up to an error that falls as 1 / N. The proposal is half the prior and half the encoder's,

    r(z) = p(z) / 2 + (1 / F) sum_f q(z | x_f) / 2,

where x_f are the observed pixels filled in by codes that were weighed before (population Monte
Carlo); a posterior that is no Gaussian is replaced by the Gaussian of its moments. Weighing the
codes of the last round alone, with r fixed before, keeps the estimate unbiased. Where N is no
multiple of 2 F the shares are those in which codes are drawn of each part.

Where few codes carry the weight, the draws are nearly one draw. Hamiltonian Monte Carlo starts
from them: a chain for each draw, whose trajectories follow the gradient of
log p(z) + log p(observed | z) and are accepted by the exact ratio, so that p(z | observed) is left
as it is. The mass of a coordinate is its precision under the Gaussians of the proposal; the step is
tuned on trajectories that do not count.

Sources: Rezende, Mohamed and Wierstra 2014 (imputation by a VAE), https://arxiv.org/abs/1401.4082;
Cappe et al. 2004 (population Monte Carlo), https://doi.org/10.1198/106186004X12803; Owen and Zhou
2000 (mixtures as proposals), https://doi.org/10.1080/01621459.2000.10473909; Neal 2011 (Hamiltonian
Monte Carlo), https://arxiv.org/abs/1206.1901.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from likely.density.completion import Completions, Way
from likely.density.completion.blocks import autocorrelation, log_probs_of
from likely.density.completion.particles import effective, systematic
from likely.density.decoded import AutoregressiveLikelihood
from likely.errors import Unanswerable
from likely.estimate import Relation
from likely.noise import Noise

if TYPE_CHECKING:
    from likely.density.latent import LatentVariable

# Rounds that fit the proposal, images that are filled in by each, draws that tell a posterior.
ROUNDS, FILLED, SPREAD = 4, 16, 64
# Steps of a trajectory; trajectories that tune the step, for each that counts; wanted acceptance.
LEAPFROGS, TUNING, ACCEPTED = 8, 3, 0.8


class Weighed(NamedTuple):
    """Codes of an image, [N, Z], and their log-weights, [N]."""

    z: Tensor
    log_weights: Tensor


class Imputer:
    """What is observed of an image, and the codes that explain it.

    Args:
        model: with latent variables.
        x: the image, int64 [1, C, H, W]; unobserved values are ignored.
        observed: bool [H, W].
        context: of the image, as the model takes it, or None.
        noise: of all draws.
    """

    def __init__(
        self,
        model: LatentVariable,
        x: Tensor,
        observed: Tensor,
        context: Tensor | None,
        noise: Noise,
    ) -> None:
        self.model, self.observed, self.context, self.noise = model, observed, context, noise
        self.x = x.masked_fill(~observed, 0)
        self.dtype = next(model.parameters()).dtype
        self.mean, self.scale = self._normal(0), self._normal(0)  # of the Gaussians, [F, Z]

    def _normal(self, *shape: int) -> Tensor:
        return self.noise.normal(*shape, self.model.latent, dtype=self.dtype)

    def _labels(self, n: int) -> Tensor | None:
        return None if self.context is None else self.context.repeat_interleave(n, 0)

    def log_observed(self, z: Tensor) -> Tensor:
        """log p(observed | z), float64 [N]."""
        out = torch.zeros(len(z), dtype=torch.float64, device=z.device)
        likelihood = self.model.likelihood_given_z
        for part, output in self.model.decoded(z, self._labels(len(z))):
            x = self.x.expand(len(output), -1, -1, -1)
            each = log_probs_of(likelihood.head, likelihood.conditionals(x, output), x)
            out[part] = each.masked_fill(~self.observed, 0.0).sum((1, 2))
        return out

    def log_proposal(self, z: Tensor) -> Tensor:
        """log r(z) of codes that `proposed` drew together, float64 [N]."""
        prior, turns = self.model.prior.log_prob(z).double(), self._turns(len(z))
        if not len(turns):
            return prior
        off = (z[:, None].double() - self.mean) / self.scale
        each = -0.5 * off**2 - self.scale.log() - 0.5 * math.log(2 * math.pi)
        # The parts as often as they are drawn of: the mean weight is unbiased for any N.
        counts = turns.bincount(minlength=len(self.mean)).double()
        encoder = (each.sum(-1) + counts.log()).logsumexp(1)
        return torch.logaddexp(prior + math.log(len(z) - len(turns)), encoder) - math.log(len(z))

    def _turns(self, n: int) -> Tensor:
        """Of n codes those that come from the Gaussians: which one each, in turn."""
        many = n // 2 if len(self.mean) else 0
        return torch.arange(many, device=self.mean.device) % max(1, len(self.mean))

    def proposed(self, n: int) -> Tensor:
        """n codes from r(z), [n, Z]: the halves are drawn apart, the Gaussians in turn."""
        turns = self._turns(n)
        codes = self.model.latents(self.noise, n - len(turns))
        if not len(turns):
            return codes
        near = self.mean[turns] + self.scale[turns] * self._normal(len(turns)).double()
        return torch.cat([codes, near.to(codes.dtype)])

    def weighed(self, n: int) -> Weighed:
        """n codes from r(z) with their log-weights."""
        z = self.proposed(n)
        joint = self.model.prior.log_prob(z).double() + self.log_observed(z)
        return Weighed(z, joint - self.log_proposal(z))

    def resampled(self, codes: Weighed, n: int) -> Tensor:
        """n codes in proportion to their weights, [n, Z]."""
        index = systematic(codes.log_weights[None], self.noise.uniform(1), n)
        return codes.z[index[0]]

    def log_joint(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(log p(z) + log p(observed | z), float64 [N]; its gradient, [N, Z])."""
        with torch.enable_grad():
            z = z.detach().requires_grad_(True)
            likelihood = self.model.likelihood_given_z
            output = self.model.decoder_output(z, self._labels(len(z)))
            x = self.x.expand(len(z), -1, -1, -1)
            each = log_probs_of(likelihood.head, likelihood.conditionals(x, output), x)
            inside = each.masked_fill(~self.observed, 0.0).sum((1, 2))
            value = self.model.prior.log_prob(z).double() + inside
            (gradient,) = torch.autograd.grad(value.sum(), z)
        return value.detach(), gradient

    def trajectories(self, z: Tensor, sweeps: int) -> tuple[Tensor, float, Tensor]:
        """Chains that leave p(z | observed) as it is; see the module's docstring.

        Args:
            z: starts of the chains, [N, Z].
            sweeps: trajectories that count.

        Returns:
            (the codes; share of the trajectories that were accepted; log p(z, observed) after each,
            the start first, [sweeps + 1, N]).
        """
        scale = self.scale.mean(0).to(z) if len(self.scale) else torch.ones_like(z[0])
        value, gradient = self.log_joint(z)
        step, taken, trace = 0.5, 0.0, []
        for number in range((1 + TUNING) * sweeps):
            counts = number >= TUNING * sweeps
            if number == TUNING * sweeps:
                trace.append(value)
            # Trajectories of one length may come back to where they began.
            length = step * (0.8 + 0.4 * float(self.noise.uniform(1)))
            momentum = self._normal(len(z)).to(z)
            moved, at, slope = z, value, gradient
            speed = momentum + 0.5 * length * scale * slope
            for leap in range(LEAPFROGS):
                moved = moved + length * scale * speed
                at, slope = self.log_joint(moved)
                last = leap == LEAPFROGS - 1
                speed = speed + (0.5 if last else 1.0) * length * scale * slope
            energy = 0.5 * (momentum.double().square() - speed.double().square()).sum(1)
            log_ratio = (at - value + energy).nan_to_num(nan=-math.inf)
            take = self.noise.uniform(len(z)).log() < log_ratio
            z = torch.where(take[:, None], moved, z)
            value = torch.where(take, at, value)
            gradient = torch.where(take[:, None], slope, gradient)
            share = float(take.double().mean())
            if counts:
                taken += share / sweeps
                trace.append(value)
            else:
                step *= math.exp(0.3 * (share - ACCEPTED))
        return z, taken, torch.stack(trace)

    def filled(self, z: Tensor) -> Tensor:
        """The image with the rest drawn from p(rest | z, observed), [N, C, H, W]."""
        model, likelihood = self.model, self.model.likelihood_given_z
        x = self.x.repeat_interleave(len(z), 0)
        uniform = self.noise.uniform(*x.shape)
        for part, output in model.decoded(z, self._labels(len(z))):
            if isinstance(likelihood, AutoregressiveLikelihood):
                known = likelihood.network.known_ranks(self.observed)
                assert known is not None
                x[part] = likelihood.network.fill(x[part], uniform[part], known, output)
            else:
                drawn = likelihood.draw(output, uniform[part])
                x[part] = torch.where(self.observed, x[part], drawn)
        return x

    def fit_proposal(self, n: int) -> None:
        """Move the Gaussians of the proposal to the codes of filled-in images."""
        for _ in range(ROUNDS):
            x = self.filled(self.resampled(self.weighed(n), FILLED))
            q = self.model.posterior(self.model.as_data(x), self._labels(FILLED))
            draws = torch.stack([q.sample(self._normal(FILLED)) for _ in range(SPREAD)]).double()
            self.mean, self.scale = draws.mean(0), draws.std(0).clamp(min=1e-3)


@torch.no_grad()
def latent_completions(model: LatentVariable, x: Tensor, observed: Tensor, way: Way) -> Completions:
    """`LatentVariable.completions`.

    Args:
        model: with latent variables.
        x: int64 [B, C, H, W].
        observed: bool [H, W].
        way: of drawing.
    """
    likelihood = model.likelihood_given_z
    if (
        isinstance(likelihood, AutoregressiveLikelihood)
        and likelihood.network.known_ranks(observed) is None
    ):
        raise Unanswerable(
            f"{type(model).__name__}: given z the pixels depend on each other, so p(observed | z) "
            f"is known only where the observed pixels come first in {likelihood.network.order_name}"
        )
    images, logs, worth = [], [], []
    accepted, traces = [], []
    for index in range(len(x)):
        labels = None if way.context is None else way.context[index : index + 1]
        noise = Noise(way.seed, "codes", index, device=x.device)
        imputer = Imputer(model, x[index : index + 1], observed, labels, noise)
        imputer.fit_proposal(max(FILLED, way.particles // 4))
        codes = imputer.weighed(way.particles)
        z = imputer.resampled(codes, way.n)
        if way.method == "hmc":
            z, share, trace = imputer.trajectories(z, way.sweeps)
            accepted.append(share)
            traces.append(trace)
        images.append(imputer.filled(z))
        logs.append(codes.log_weights.logsumexp(0) - math.log(way.particles))
        worth.append(effective(codes.log_weights[None])[0])
    about = "importance resampling of codes, drawn from the prior and by the encoder"
    drawn = Completions(
        model.as_data(torch.stack(images)),
        torch.stack(logs),
        Relation.UPPER,
        exact=False,
        about=about,
        particles=way.particles,
        effective=torch.stack(worth),
    )
    if way.method != "hmc":
        return drawn
    # The chains leave the codes that they began with, so those say nothing of the draws.
    least = float(torch.stack(worth).min())
    return dataclasses.replace(
        drawn,
        about=f"{way.sweeps} Hamiltonian trajectories of {LEAPFROGS} steps in z, a chain for each "
        f"draw, after {TUNING * way.sweeps} that tuned the step, from {about} ({way.particles:,} "
        f"were worth {least:.1f})",
        effective=None,
        acceptance=sum(accepted) / len(accepted),
        autocorrelation=autocorrelation(torch.cat(traces, 1)),
    )
