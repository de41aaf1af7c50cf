r"""Densities of sequences with a latent variable at each step: bounds by one draw or by particles.

    p(x, z | c) = prod_t p(z_t | z_<t, x_<t, c) p(x_t | z_<=t, x_<t, c)

log p(x) is an integral over all z, which q(z_t | z_<t, x) bounds:

    ELBO    E_q sum_t [log p(x_t | z_<=t, x_<t) - KL(q(z_t | z_<t, x) || p(z_t | z_<t, x_<t))]
    FIVO    E log p^(x),  log p^(x) = sum_t log sum_i w_t-1^i a_t^i,
            a_t^i = p(z_t^i | .) p(x_t | z_t^i, .) / q(z_t^i | .),  w_t^i ~ w_t-1^i a_t^i

FIVO (Maddison et al. 2017, https://arxiv.org/abs/1705.09279) is a particle filter: N particles,
resampled in proportion to their weights where the effective number 1 / sum_i w_i^2 is below N / 2.
E p^(x) = p(x) for every N, so the mean of log p^(x) bounds log p(x) from below (Jensen); with one
particle it is the ELBO, and it tightens as N grows. Resampling is systematic (Kitagawa 1996,
https://doi.org/10.1080/10618600.1996.10474692), which is without bias and varies less than the
multinomial draws of the paper.

Steps that are given and not scored are filtered, too, with a q that sees no scored step: what is
reported for the steps after them bounds the density that begins with the particles they leave.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from likely.data.spec import DataSpec
from likely.density.latent import DiagonalGaussian
from likely.density.sequence.model import Continues
from likely.density.sequence.steps import State, Steps
from likely.density.taxonomy import ApproximateDensity
from likely.devices.precision import full_precision
from likely.noise import Noise

# Particles where none are asked for, and steps of all particles that are read in one piece.
PARTICLES, PIECE = 64, 65_536


class Terms(NamedTuple):
    """The parts of the ELBO at each step, nats, float64 [B, T]; 0 where a step is not scored.

    Attributes:
        reconstruction: log p(x_t | z_<=t, x_<t) at z drawn from q.
        kl: KL(q(z_t | z_<t, x) || p(z_t | z_<t, x_<t)).
    """

    reconstruction: Tensor
    kl: Tensor


class Pass(NamedTuple):
    """What a pass over some steps leaves at each, in the order of time, [B, T, N, ...]."""

    prior: DiagonalGaussian
    posterior: DiagonalGaussian
    z: Tensor
    hidden: Tensor


class LatentSequence(Continues, ApproximateDensity):
    """A bound on log p of sequences, a latent variable at each step.

    A state is (last step, what is known of it, what depends on no latent ..., log-weights [B, N],
    what depends on latents [B, N, ...] ...), of N particles; of one where it is drawn from.

    Attributes:
        latent: dimensions of z_t.
        BODY: tensors of a state that depend on no latent.
    """

    BODY: ClassVar[int] = 0

    def __init__(self, spec: DataSpec, latent: int, conditional: bool = False) -> None:
        """As `SequenceModel`, with so many dimensions of a latent."""
        super().__init__(spec, conditional)
        self.latent = latent
        self.uniforms = len(self.spec.columns) + latent

    # -- what a leaf says ------------------------------------------------------------------

    @abc.abstractmethod
    def first(self, n: int) -> tuple[State, State]:
        """Before the first step: what depends on no latent, [n, ...]; what does, [n, 1, ...]."""

    @abc.abstractmethod
    def ahead(self, steps: Steps) -> Tensor:
        """What q reads of each step, and where the step is scored of later ones, [B, T, A]."""

    @abc.abstractmethod
    def read(
        self, last: Tensor, known: Tensor, context: Tensor | None, body: State
    ) -> tuple[State, State]:
        """What p reads of the steps before each step, without latents.

        Args:
            last: the step before each, int64 [B, T, K].
            known: which of its values are known.
            context: of each step, floats [B, T, C], or None.
            body: before the first of them.

        Returns:
            Tensors [B, T, ...], and the body after the last step.
        """

    @abc.abstractmethod
    def transition(self, now: State, chain: State) -> tuple[DiagonalGaussian, Tensor]:
        """p(z_t | z_<t, x_<t), and what the rest of the step reads; [B, N, ...] each.

        `now` are the tensors of `read` at the step, [B, 1, ...]; `chain` what depends on latents.
        """

    @abc.abstractmethod
    def proposal(self, prior: DiagonalGaussian, hidden: Tensor, ahead: Tensor) -> DiagonalGaussian:
        """q(z_t | z_<t, x); `ahead` of the step, [B, 1, A]."""

    @abc.abstractmethod
    def chained(self, hidden: Tensor, z: Tensor) -> State:
        """What depends on latents after the step, [B, N, ...] each."""

    @abc.abstractmethod
    def emission(self, now: State, hidden: Tensor, z: Tensor) -> Tensor:
        """What p(x_t | z_<=t, x_<t) reads, [..., H]; the sides before are those of z."""

    @abc.abstractmethod
    def score(
        self, output: Tensor, last: Tensor, last_known: Tensor, x: Tensor, known: Tensor
    ) -> Tensor:
        """log p(x_t | z_<=t, x_<t) of M steps, nats, float64 [M]; `output` [M, H], others [M, K].

        Values that are not known count nothing.
        """

    @abc.abstractmethod
    def draw_columns(
        self, output: Tensor, last: Tensor, last_known: Tensor, uniform: Tensor
    ) -> Tensor:
        """x_t from p(x_t | z_<=t, x_<t) and uniform numbers [M, K]: int64 [M, K]."""

    # -- the bounds ----------------------------------------------------------------------------

    @full_precision
    def elbo(self, x: Tensor, noise: Noise, context: Tensor | int | None = None) -> Tensor:
        """A one-sample estimate of the ELBO of the scored steps, nats, float64 [B]."""
        terms = self.elbo_terms(x, noise, context)
        return (terms.reconstruction - terms.kl).sum(1)

    def elbo_terms(
        self, x: Tensor, noise: Noise, context: Tensor | int | None = None, piece: int = PIECE
    ) -> Terms:
        """Its parts at every step, at one draw from q; the KL terms in closed form.

        Args:
            x: integers [B, T, K], padded; as `Sequences.batch` gives them.
            noise: of the latents.
            context: as of every model of sequences.
            piece: steps of all sequences together that are read at a time.
        """
        steps = self.steps(x, context)
        ahead, state, parts = self.ahead(steps), self.begin(len(x)), []
        for span in _spans(steps, piece):
            part = steps.part(slice(None), span.start, span.stop)
            now, body, last, last_known = self._read(part, state)
            chain, passed = self._passed(now, state, ahead[:, span], noise)
            scored = part.scored
            output = self.emission(now, passed.hidden[:, :, 0], passed.z[:, :, 0])[scored]
            reconstruction = torch.zeros(scored.shape, dtype=torch.float64, device=self.device)
            if bool(scored.any()):
                reconstruction[scored] = self.score(
                    output, last[scored], last_known[scored], part.x[scored], part.known[scored]
                )
            kl = divergence(passed.posterior, passed.prior)[:, :, 0].double() * scored
            parts.append(Terms(reconstruction, kl))
            state = (part.x[:, -1], part.known[:, -1], *body, state[2 + self.BODY], *chain)
        if not parts:
            return Terms(*[torch.zeros(steps.scored.shape, dtype=torch.float64)] * 2)
        return Terms(*(torch.cat(side, 1) for side in zip(*parts, strict=True)))

    @full_precision
    def fivo(
        self,
        x: Tensor,
        noise: Noise,
        context: Tensor | int | None = None,
        particles: int = PARTICLES,
    ) -> Tensor:
        """log p^ of the scored steps by a particle filter, nats, float64 [B]; E p^(x) = p(x)."""
        return self.fivo_per_step(x, noise, context, particles).sum(1)

    def fivo_per_step(
        self,
        x: Tensor,
        noise: Noise,
        context: Tensor | int | None = None,
        particles: int = PARTICLES,
        piece: int = PIECE,
    ) -> Tensor:
        """What each step adds to log p^, nats, float64 [B, T]; arguments as of `elbo_terms`."""
        steps = self.steps(x, context)
        ahead, parts = self.ahead(steps), []
        state = self._several(self.begin(len(x)), particles)
        for span in _spans(steps, max(1, piece // particles)):
            part = steps.part(slice(None), span.start, span.stop)
            scores, state = self._filtered(part, state, ahead[:, span], noise)
            parts.append(scores)
        return torch.cat(parts, 1) if parts else torch.zeros(steps.scored.shape).double()

    def score_after(self, steps: Steps, state: State, noise: Noise) -> tuple[Tensor, State]:
        """What scored steps add to log p^ after a state, float64 [B, T], and the state then."""
        return self._filtered(steps, state, self.ahead(steps), noise)

    def joint(
        self, x: Tensor, z: Tensor, context: Tensor | int | None = None
    ) -> tuple[Tensor, Tensor, State]:
        """log p(z_t | z_<t, x_<t) and log p(x_t | z_<=t, x_<t) at given latents.

        Args:
            x: integers [B, T, K].
            z: [B, T, Z].
            context: as of every model of sequences.

        Returns:
            float64 [B, T] each, and the state after the last step, to draw what follows.
        """
        steps = self.steps(x, context)
        state = self.begin(len(x))
        now, body, last, last_known = self._read(steps, state)
        chain, priors, outputs = state[3 + self.BODY :], [], []
        for at_step, (latent,) in zip(_each(now, z.shape[1]), _each((z,)), strict=True):
            prior, hidden = self.transition(at_step, chain)
            priors.append(prior.log_prob(latent).double())
            outputs.append(self.emission(at_step, hidden, latent))
            chain = self.chained(hidden, latent)
        output = torch.cat(outputs, 1).flatten(0, 1)
        flat = (side.flatten(0, 1) for side in (last, last_known, steps.x, steps.known))
        emission = self.score(output, *flat).reshape(z.shape[:2]) * steps.scored
        after = (steps.x[:, -1], steps.known[:, -1], *body, state[2 + self.BODY], *chain)
        return torch.cat(priors, 1) * steps.scored, emission, after

    # -- the state -----------------------------------------------------------------------------

    def begin(self, n: int) -> State:
        """No last step, one particle."""
        last = torch.zeros(n, len(self.spec.columns), dtype=torch.int64, device=self.device)
        body, chain = self.first(n)
        weight = torch.zeros(n, 1, dtype=torch.float64, device=self.device)
        return (last, torch.zeros_like(last, dtype=torch.bool), *body, weight, *chain)

    def draw_step(
        self, state: State, context: Tensor | None, uniform: Tensor
    ) -> tuple[Tensor, State]:
        """z_t from its prior, then x_t given it; of a state of one particle."""
        x, after, _ = self.draw_with_latent(state, context, uniform)
        return x, after

    def draw_with_latent(
        self, state: State, context: Tensor | None, uniform: Tensor
    ) -> tuple[Tensor, State, Tensor]:
        """As `draw_step`, and the latent that was drawn, [B, Z]."""
        (last, known), body, chain = state[:2], state[2 : 2 + self.BODY], state[3 + self.BODY :]
        told = None if context is None else context[:, None]
        now, body = self.read(last[:, None], known[:, None], told, body)
        prior, hidden = self.transition(now, chain)
        columns = len(self.spec.columns)
        drawn = torch.special.ndtri(uniform[:, None, columns:].clamp(1e-12, 1 - 1e-12))
        z = prior.sample(drawn.to(prior.mean))
        output = self.emission(now, hidden, z)[:, 0]
        x = self.draw_columns(output, last, known, uniform[:, :columns])
        chain = self.chained(hidden, z)
        after = (x, torch.ones_like(known), *body, state[2 + self.BODY], *chain)
        return x, after, z[:, 0]

    def state_after(
        self, steps: Steps, state: State | None = None, noise: Noise | None = None
    ) -> State:
        """As `Continues.state_after`: the weighted particles of a filter, `PARTICLES` at first."""
        batch = len(steps.x)
        steps = steps._replace(scored=torch.zeros_like(steps.scored))
        noise = Noise("filter", device=self.device) if noise is None else noise
        state = self._several(self.begin(batch), PARTICLES) if state is None else state
        particles = state[2 + self.BODY].shape[1]
        for span in _spans(steps, max(1, PIECE // particles)):
            part = steps.part(slice(None), span.start, span.stop)
            _, state = self._filtered(part, state, self.ahead(part), noise)
        return state

    def spread(self, state: State, draws: int, noise: Noise) -> State:
        """As `Continues.spread`: particles drawn in proportion to their weights."""
        shared, weight, chain = self._apart(state)
        picked = _systematic(weight, noise.uniform(len(weight), 1), draws)
        many = [part.repeat_interleave(draws, 0) for part in shared]
        drawn = [_taken(part, picked).flatten(0, 1)[:, None] for part in chain]
        return (*many, weight.new_zeros(len(weight) * draws, 1), *drawn)

    def _apart(self, state: State) -> tuple[State, Tensor, State]:
        middle = 2 + self.BODY
        return state[:middle], state[middle], state[middle + 1 :]

    def _several(self, state: State, particles: int) -> State:
        """A state of one particle as one of many alike."""
        shared, weight, chain = self._apart(state)
        many = (part.expand(-1, particles, *part.shape[2:]) for part in chain)
        return (*shared, (weight - math.log(particles)).expand(-1, particles), *many)

    # -- over time -----------------------------------------------------------------------------

    def _read(self, part: Steps, state: State) -> tuple[State, State, Tensor, Tensor]:
        """The tensors of `read`, the body after it, and the step before each with what is known."""
        last = torch.cat([state[0][:, None], part.x[:, :-1]], 1)
        known = torch.cat([state[1][:, None], part.known[:, :-1]], 1)
        now, body = self.read(last, known, part.context, state[2 : 2 + self.BODY])
        return now, body, last, known

    def _passed(self, now: State, state: State, ahead: Tensor, noise: Noise) -> tuple[State, Pass]:
        """One pass with a draw from q at each step, of as many particles as the state has."""
        chain = state[3 + self.BODY :]
        sides: list[tuple[Tensor, ...]] = []
        for at_step, seen in zip(_each(now, ahead.shape[1]), _each((ahead,)), strict=True):
            prior, hidden = self.transition(at_step, chain)
            q = self.proposal(prior, hidden, *seen)
            z = q.sample(noise.normal(*q.mean.shape).to(q.mean))
            chain = self.chained(hidden, z)
            sides.append((prior.mean, prior.log_scale, q.mean, q.log_scale, z, hidden))
        prior_mean, prior_scale, mean, scale, z, hidden = (
            torch.stack(side, 1) for side in zip(*sides, strict=True)
        )
        prior = DiagonalGaussian(prior_mean, prior_scale)
        return chain, Pass(prior, DiagonalGaussian(mean, scale), z, hidden)

    def _filtered(
        self, part: Steps, state: State, ahead: Tensor, noise: Noise
    ) -> tuple[Tensor, State]:
        """Filter a piece: what each scored step adds to log p^, float64 [B, T], and the state."""
        now, body, last, last_known = self._read(part, state)
        _, weight, chain = self._apart(state)
        batch, particles = weight.shape
        scores = []
        moments = zip(_each(now, ahead.shape[1]), _each((ahead,)), strict=True)
        for t, (at_step, seen) in enumerate(moments):
            prior, hidden = self.transition(at_step, chain)
            q = self.proposal(prior, hidden, *seen)
            z = q.sample(noise.normal(batch, particles, self.latent).to(q.mean))
            output = self.emission(at_step, hidden.expand(*z.shape[:2], -1), z).flatten(0, 1)
            step = (side[:, t] for side in (last, last_known, part.x, part.known))
            many = (side.repeat_interleave(particles, 0) for side in step)
            score = self.score(output, *many).view(batch, particles)
            # Of a step that nothing is known of, too: its z is drawn from q as well.
            weight = weight + score + (prior.log_prob(z) - q.log_prob(z)).double()
            total = weight.logsumexp(1)
            scores.append(torch.where(part.scored[:, t], total, 0.0))
            weight, chain = _resampled(
                weight - total[:, None], self.chained(hidden, z), noise.uniform(batch, 1)
            )
        return torch.stack(scores, 1), (part.x[:, -1], part.known[:, -1], *body, weight, *chain)


def divergence(q: DiagonalGaussian, p: DiagonalGaussian) -> Tensor:
    """KL(q || p) in nats, summed over the last side."""
    ratio = (2 * (q.log_scale - p.log_scale)).exp()
    far = ((q.mean - p.mean) * (-p.log_scale).exp()).square()
    return (0.5 * (ratio + far - 1.0) - (q.log_scale - p.log_scale)).sum(-1)


def _each(parts: State, length: int = 0) -> list[State]:
    """Tensors [B, T, ...] step by step, [B, 1, ...]; of none, `length` times nothing."""
    # Unbound at once: the gradient of an index by t would be as long as the whole, T times.
    unbound = [part.unbind(1) for part in parts]
    return [tuple(part[:, None] for part in step) for step in zip(*unbound, strict=True)] or [
        ()
    ] * length


def _spans(steps: Steps, piece: int) -> Iterator[slice]:
    """Pieces of time in which all sequences together have as many steps at most."""
    batch, length = steps.scored.shape
    size = max(1, piece // max(1, batch))
    for first in range(0, length, size):
        yield slice(first, min(length, first + size))


def _resampled(weight: Tensor, chain: State, uniform: Tensor) -> tuple[Tensor, State]:
    """Particles in proportion to their weights, where few have most of the weight."""
    particles = weight.shape[1]
    effective = (-(2 * weight.detach()).logsumexp(1)).exp()
    few = effective < particles / 2
    if particles == 1 or not bool(few.any()):
        return weight, chain
    picked = _systematic(weight.detach(), uniform, particles)
    each = torch.arange(particles, device=weight.device).expand_as(picked)
    picked = torch.where(few[:, None], picked, each)
    even = torch.full_like(weight, -math.log(particles))
    return torch.where(few[:, None], even, weight), tuple(_taken(part, picked) for part in chain)


def _systematic(weight: Tensor, uniform: Tensor, draws: int) -> Tensor:
    """Numbers of particles, [B, draws]; each as often as draws times its weight, on average."""
    cumulative = weight.softmax(1).cumsum(1)
    places = (torch.arange(draws, device=weight.device) + uniform) / draws
    last = weight.shape[1] - 1
    return torch.searchsorted(cumulative, places.to(cumulative), right=True).clamp(max=last)


def _taken(part: Tensor, picked: Tensor) -> Tensor:
    """The picked particles of [B, N, ...]."""
    index = picked.reshape(*picked.shape, *[1] * (part.ndim - 2))
    return part.gather(1, index.expand(*picked.shape, *part.shape[2:]))
