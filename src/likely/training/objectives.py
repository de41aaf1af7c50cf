r"""Training objectives of densities and autoencoders.

Each returns a loss per example; the loop averages over the batch. Losses may be weighted and
annealed; reported numbers never are (`likely.evaluate`).

Sources:

- Kingma and Welling 2014, https://arxiv.org/abs/1312.6114 (ELBO);
- Higgins et al. 2017, https://openreview.net/forum?id=Sy2fzU9gl (beta);
- Burda et al. 2016, https://arxiv.org/abs/1509.00519 (eq. 8);
- Roeder, Wu and Duvenaud 2017, https://arxiv.org/abs/1703.09194, and Tucker et al. 2019,
  https://arxiv.org/abs/1810.04152 (gradients without the score of q);
- He, Spokoyny, Neubig and Berg-Kirkpatrick 2019, https://arxiv.org/abs/1901.05534 (updates of the
  encoder alone);
- van den Oord, Vinyals and Kavukcuoglu 2017, https://arxiv.org/abs/1711.00937 (discrete codes);
- Dempster, Laird and Rubin 1977, https://doi.org/10.1111/j.2517-6161.1977.tb01600.x (EM);
- Hinton 2002, https://www.cs.toronto.edu/~hinton/absps/tr00-004.pdf, and Tieleman 2008,
  https://www.cs.toronto.edu/~tijmen/pcd/pcd.pdf (contrastive divergence).

The games of generators are in `likely.training.adversarial`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from likely.data.spec import Dataset
from likely.density import (
    ApproximateDensity,
    DiscreteLatent,
    EnergyBased,
    Fittable,
    HasExpectation,
    ImplicitDensity,
    LatentSequence,
    LatentVariable,
    OrderAgnostic,
    PlaysAgainst,
    SequenceDensity,
    Subsampled,
    TractableDensity,
    at_least_float,
    scored_steps,
)
from likely.devices import of_all_processes
from likely.errors import InvalidSetting
from likely.noise import Noise
from likely.training.adversarial import RelativisticGAN
from likely.training.players import MODEL as MODEL
from likely.training.players import Loss as Loss
from likely.training.players import Objective as Objective
from likely.training.players import Step as Step
from likely.training.players import windows_of
from likely.training.registry import (
    CodeLikelihoodSettings,
    ContrastiveSettings,
    ELBOSettings,
    ExpectationSettings,
    ImportanceSettings,
    LikelihoodSettings,
    OrderAgnosticSettings,
    QuantisedSettings,
    ReconstructionSettings,
    SequenceBoundSettings,
    SequenceLikelihoodSettings,
    SubsampledSettings,
)

ENCODER = "encoder"
AUTOENCODER, DENSITY = "autoencoder", "density"


class NegativeLogLikelihood(LikelihoodSettings, Objective):
    """-log p(x), for tractable densities."""

    fits = TractableDensity
    needs = "a tractable density"

    def loss(self, step: Step) -> Loss:
        nll = -step.model.log_prob(step.x, step.context)
        return Loss(nll, {"nll": nll.detach()})


class SequenceLikelihood(SequenceLikelihoodSettings, Objective):
    """-log p(x) per step, for densities of sequences, by windows of them (truncated in time).

    A window of a long sequence is given the steps before it, so that its state is not empty; every
    step of the data counts once an epoch.
    """

    capturable = False
    fits = SequenceDensity
    needs = "a density of sequences"

    def examples(self, model: Fittable, data: Dataset) -> Dataset:
        return windows_of(model, data)

    def loss(self, step: Step) -> Loss:
        value = -step.model.log_prob(step.x, step.context) * _a_step(step.x)
        return Loss(value, {"nll": value.detach()})


class SequenceBound(SequenceBoundSettings, Objective):
    """The negative ELBO per step, or FIVO, for sequences with latents, by windows of them.

    FIVO is Maddison et al. 2017, https://arxiv.org/abs/1705.09279, whose gradient leaves out that
    of resampling, as there.
    """

    capturable = False
    fits = LatentSequence
    needs = "a model of sequences with latents"

    @property
    def importance_samples(self) -> int | None:
        return self.particles if self.particles > 1 else None

    def examples(self, model: Fittable, data: Dataset) -> Dataset:
        return windows_of(model, data)

    def loss(self, step: Step) -> Loss:
        a_step = _a_step(step.x)
        if self.particles > 1:
            bound = step.model.fivo(step.x, step.noise, step.context, self.particles)
            value = -bound * a_step
            return Loss(value, {"negative_elbo": value.detach()})
        terms = step.model.elbo_terms(step.x, step.noise, step.context)
        distortion, kl = -terms.reconstruction.sum(1) * a_step, terms.kl.sum(1) * a_step
        share = min(1.0, (int(step.number) + 1) / self.warmup) if self.warmup else 1.0
        weight = self.first_weight + (1.0 - self.first_weight) * share
        parts = {"negative_elbo": distortion + kl, "kl": kl, "distortion": distortion}
        return Loss(distortion + weight * kl, {name: p.detach() for name, p in parts.items()})


def _a_step(x: Tensor) -> Tensor:
    """What sums over sequences are multiplied by, so that every step of the batch weighs the same,
    whatever the length of its sequence."""
    steps = of_all_processes(scored_steps(x))
    return len(steps) / steps.sum()


class ExpectationMaximization(ExpectationSettings, Objective):
    """-log p(x), whose gradient is replaced by the step of EM (`likely.density.statistics`).

    With optimizer="sgd", a rate of 1 and the whole data in a batch an update is one step of EM;
    with less it is stepwise EM.
    """

    fits = HasExpectation
    needs = "a density of expected statistics, as a mixture of products or a hidden Markov model"

    def loss(self, step: Step) -> Loss:
        log_prob, match = step.model.expectation(step.x)
        return Loss(match - match.detach() - log_prob, {"nll": -log_prob})


class SubsampledLikelihood(SubsampledSettings, Objective):
    """-log p(x) by what is drawn of a density of many parts: a member of a mixture, a mask.

    For a mixture it is at least -log p(x) on average, and each update costs as much as for one
    member (Germain, Gregor, Murray and Larochelle 2015, secs. 4.2 and 4.3,
    https://arxiv.org/abs/1502.03509).
    """

    fits = Subsampled
    needs = "a mixture, or a network with several masks"

    def loss(self, step: Step) -> Loss:
        nll = -step.model.surrogate(step.x, step.noise, step.context)
        return Loss(nll, {"nll": nll.detach()})

    def choices(self, model: Fittable, noise: Noise) -> tuple[int, ...]:
        assert isinstance(model, Subsampled)
        return model.choices(noise)


class NegativeELBO(ELBOSettings, Objective):
    """-(E_q log p(x|z) - beta KL(q(z|x) || p(z))), for densities with a bound.

    Where the two terms are not known apart (no `LatentVariable`), only the bound itself.
    """

    fits = ApproximateDensity
    needs = "an approximate density"

    def players(self, model: Fittable) -> dict[str, nn.Module]:
        players = super().players(model)
        if self != NegativeELBO() and not isinstance(model, LatentVariable):
            raise InvalidSetting(
                "NegativeELBO: beta, warmup, free_nats, gradient and encoder_updates need a "
                f"latent-variable model, and {type(model).__name__} is none"
            )
        if not self.encoder_updates:
            return players
        assert isinstance(model, LatentVariable)
        encoder = model.inference_network
        if encoder is None:
            raise InvalidSetting(
                f"encoder_updates: {type(model).__name__} has no network for q(z|x) alone"
            )
        return {ENCODER: encoder, **players}

    def updates(self, player: str, number: int) -> int:
        if player != ENCODER:
            return 1
        return self.encoder_updates if not self.encoder_until or number < self.encoder_until else 0

    def enough(self, player: str, losses: Sequence[float]) -> bool:
        """Whether the last ten losses are on average no lower than the ten before."""
        if player != ENCODER or len(losses) % 10 or len(losses) < 20:
            return False
        return sum(losses[-10:]) >= sum(losses[-20:-10])

    def loss(self, step: Step) -> Loss:
        model = step.model
        if not isinstance(model, LatentVariable):
            bound = model.elbo(step.x, step.noise, step.context)
            return Loss(-bound, {"negative_elbo": -bound.detach()})
        score = {} if self.gradient == "plain" else {"score": False}
        reconstruction, columns = model.elbo_terms(step.x, step.noise, step.context, **score)
        layers = columns if model.layers > 1 else columns.sum(-1, keepdim=True)  # [B, layers]
        kl = layers.sum(-1)
        weight: float | Tensor = self.beta
        if self.warmup:
            share = (step.number + 1) / self.warmup
            rising = share.clamp(max=1.0) if isinstance(share, Tensor) else min(1.0, share)
            weight = self.beta * rising
        penalised = kl
        if self.free_nats:
            # Of the mean over the batch: an example may have less where others have more.
            above = of_all_processes(layers).mean(0) > self.free_nats
            penalised = torch.where(above, layers, self.free_nats).sum(-1)
        value = -reconstruction + weight * penalised
        if step.player == ENCODER:
            return Loss(value, {"encoder_updates": torch.ones_like(kl)})
        terms = {"negative_elbo": kl - reconstruction, "kl": kl, "distortion": -reconstruction}
        if model.layers > 1:
            terms |= {f"kl_layer_{model.layers - i}": layers[:, i] for i in range(model.layers)}
        return Loss(value, {name: term.detach() for name, term in terms.items()})


@runtime_checkable
class Reconstructs(Protocol):
    """An autoencoder."""

    def reconstruction_terms(self, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """(loss of the reconstruction of corrupted examples, penalty of their codes), both [B]."""


class ReconstructionError(ReconstructionSettings, Objective):
    """The loss of what is decoded from the codes of corrupted examples, and a penalty of the codes.

    The sum weighs them as the settings of the autoencoder say.
    """

    fits = Reconstructs
    needs = "an autoencoder"

    def loss(self, step: Step) -> Loss:
        error, penalty = step.model.reconstruction_terms(step.x, step.noise)
        terms = {"reconstruction_error": error, "sparsity": penalty}
        return Loss(error + penalty, {name: term.detach() for name, term in terms.items()})


@runtime_checkable
class HasCodeDensity(Protocol):
    """A model whose codes have a density that is learned.

    Attributes:
        code_density: with `log_prob`; None where nothing is learned.
    """

    code_density: Any

    def codes_drawn(self, x: Tensor, noise: Noise, context: Tensor | None = None) -> Tensor:
        """The codes of examples that the density is fitted to, [B, latent]."""


class CodeLikelihood(CodeLikelihoodSettings, Objective):
    """-log p(z) of the codes of examples, which moves the density of the codes alone.

    With it the codes of a fitted autoencoder get a density, and those of a latent-variable model a
    new prior: the gradient of the bound with respect to the prior is that of E_q log p(z).
    """

    capturable = False
    fits = HasCodeDensity
    needs = "a model whose codes have a density that is learned"

    @property
    def validates(self) -> bool:
        return not self.autoencoder

    def players(self, model: Fittable) -> dict[str, nn.Module]:
        super().players(model)
        assert isinstance(model, HasCodeDensity)
        if model.code_density is None:
            raise InvalidSetting(
                f"{type(self).__name__} needs {self.needs}, and the prior of this "
                f"{type(model).__name__} is none: give it prior=flow"
            )
        players: dict[str, nn.Module] = {DENSITY: model.code_density}
        if self.autoencoder:
            if not isinstance(getattr(model, AUTOENCODER, None), Reconstructs):
                raise InvalidSetting(
                    f"{type(model).__name__} has no autoencoder beside its density: leave out "
                    "autoencoder"
                )
            players = {AUTOENCODER: model.get_submodule(AUTOENCODER), **players}
        return players

    def loss(self, step: Step) -> Loss:
        if step.player == AUTOENCODER:
            error, penalty = step.model.autoencoder.reconstruction_terms(step.x, step.noise)
            return Loss(error + penalty, {"reconstruction_error": error.detach()})
        with torch.no_grad():
            z = step.model.codes_drawn(step.x, step.noise, step.context)
        nll = -step.model.code_density.log_prob(at_least_float(z))
        return Loss(nll, {"code_nll": nll.detach()})


class ImportanceWeighted(ImportanceSettings, Objective):
    """-L_k, the importance-weighted bound with k samples (Burda et al. 2016).

    The signal of the encoder's plain gradient falls faster with k than its noise (Rainforth et al.
    2018, https://arxiv.org/abs/1802.04537). `gradient="dreg"` has the same mean and less noise;
    `"stl"` has less noise, and another mean for k > 1.
    """

    fits = LatentVariable
    needs = "a latent-variable model"

    @property
    def importance_samples(self) -> int | None:
        return self.k if self.k > 1 else None

    def loss(self, step: Step) -> Loss:
        log_weights = step.model.log_weights(
            step.x,
            self.k,
            step.noise,
            step.context,
            score=self.gradient == "plain",
            squared=self.gradient == "dreg",
        )
        value = math.log(self.k) - log_weights.logsumexp(1)
        return Loss(value, {"negative_importance_bound": value.detach()})


class QuantisedBound(QuantisedSettings, Objective):
    """-log p(x | c) - log p(c), and what moves encoder and codes, for models with discrete codes.

    The prior learns on the codes as they are. Where `encoder_steps` is given, the codes of every
    example are fixed from then on, and the loss is the bound itself.
    """

    capturable = False
    fits = DiscreteLatent
    needs = "a model with discrete codes"

    def loss(self, step: Step) -> Loss:
        moves = not self.encoder_steps or bool(step.number < self.encoder_steps)
        pull = self.rate > 0
        terms = step.model.quantised_terms(step.x, step.noise, moves=moves, pull=pull)
        value = terms.distortion + terms.rate + terms.codebook
        share = min(1.0, float(step.number + 1) / self.warmup) if self.warmup else 1.0
        value = value + self.commitment * terms.commitment + share * self.rate * terms.pull
        return Loss(
            value,
            {
                "negative_elbo": (terms.distortion + terms.rate).detach(),
                "rate": terms.rate.detach(),
                "distortion": terms.distortion.detach(),
                "commitment": terms.commitment.detach(),
            },
        )


class ContrastiveDivergence(ContrastiveSettings, Objective):
    """F(x) less the mean of F at the ends of Markov chains, whose gradient is that of -log p(x).

    Its value is no likelihood: F has an arbitrary zero.
    """

    capturable = False
    fits = EnergyBased
    needs = "a model known up to a constant"

    def loss(self, step: Step) -> Loss:
        model = step.model
        ends = model.negative(step.x, self.k, step.noise, persistent=self.persistent)
        gap = model.free_energy(step.x) - model.free_energy(model.as_data(ends)).mean()
        return Loss(gap, {"free_energy_gap": gap.detach()})


class OrderAgnosticLikelihood(OrderAgnosticSettings, Objective):
    """-log p(x) on average over all orders of the dimensions, for order-agnostic networks.

    A dimension is a channel of a pixel, or a pixel where the head couples its channels. An order
    and a number d of known dimensions are drawn for each example, d in {0, ..., D - 1}; the
    others are predicted from them, all at once, and D / (D - d) times the sum of their -log p is
    an unbiased estimate (Uria, Murray and Larochelle 2014, eq. 13).
    """

    fits = OrderAgnostic
    needs = "a network for all orders"

    def loss(self, step: Step) -> Loss:
        model, noise = step.model, step.noise
        x = model.integers(step.x)
        batch, channels, height, width = x.shape
        groups = 1 if model.head.couples_channels else channels
        total = groups * height * width
        rank = noise.uniform(batch, total).argsort(1).argsort(1)  # of each dimension
        count = (noise.uniform(batch) * total).long()  # known dimensions, [B]
        known = (rank < count[:, None]).reshape(batch, groups, height, width)
        each = model.head.log_prob(at_least_float(model.predictions(x, known, step.context)), x)
        unknown = -(each * ~known).sum((1, 2, 3))
        nll = unknown * total / (total - count)
        return Loss(nll, {"nll": nll.detach()})


def default_objective(model: Fittable) -> Objective:
    """The objective of the kind: NLL, EM, ELBO, the relativistic game, a reconstruction error.

    Of a density of several alternatives each update takes one.

    Raises:
        InvalidSetting: a class of none of the kinds.
    """
    if isinstance(model, SequenceDensity):
        return (
            ExpectationMaximization() if isinstance(model, HasExpectation) else SequenceLikelihood()
        )
    if isinstance(model, LatentSequence):
        return SequenceBound()
    if isinstance(model, OrderAgnostic):
        return OrderAgnosticLikelihood()
    if isinstance(model, Subsampled) and model.alternatives > 1:
        return SubsampledLikelihood()
    if isinstance(model, HasExpectation):
        return ExpectationMaximization()
    if isinstance(model, TractableDensity):
        return NegativeLogLikelihood()
    if isinstance(model, EnergyBased):
        return ContrastiveDivergence()
    if isinstance(model, DiscreteLatent):
        return QuantisedBound()
    if isinstance(model, ApproximateDensity):
        return NegativeELBO()
    if isinstance(model, ImplicitDensity):
        return CodeLikelihood(True) if isinstance(model, HasCodeDensity) else RelativisticGAN()
    if isinstance(model, PlaysAgainst):
        return RelativisticGAN()
    if isinstance(model, Reconstructs):
        return ReconstructionError()
    raise InvalidSetting(
        f"{type(model).__name__} is of no kind that has an objective: derive it from "
        "TractableDensity, ApproximateDensity or ImplicitDensity, or give an objective"
    )
