"""Mixtures: of networks with weights of their own, and of one network's densities in many orders.

Source: Uria, Murray and Larochelle 2014 (order-agnostic training, ensembles of orders),
https://arxiv.org/abs/1310.1757.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from likely.data.spec import Dataset, DataSpec
from likely.density.chain import Autoregressive, raster
from likely.density.completion import CompletesByDraws, Completions, Way
from likely.density.completion.agnostic import OrderAgnostic, agnostic_completions
from likely.density.taxonomy import TractableDensity
from likely.devices.precision import full_precision
from likely.errors import Unanswerable
from likely.estimate import Relation
from likely.noise import Noise


class Subsampled(TractableDensity):
    """A density of several alternatives, of which training draws one at a time.

    `log_prob` is log p(x), of all alternatives together. What an update costs grows with them, so
    `likely.training.objectives.SubsampledLikelihood` maximises `surrogate` instead.
    """

    @property
    @abc.abstractmethod
    def alternatives(self) -> int:
        """How many there are; with one the surrogate is log p(x)."""

    @abc.abstractmethod
    def choices(self, noise: Noise) -> tuple[int, ...]:
        """What is drawn for a whole batch (`Noise.pick`); which kernels run depends on it alone."""

    @abc.abstractmethod
    def surrogate(self, x: Tensor, noise: Noise, context: Tensor | None = None) -> Tensor:
        """The log-likelihood by the alternatives that the noise draws, nats [B].

        Args:
            x: integers [B, *shape].
            noise: its first numbers decide.
            context: labels [B] or None.
        """


class Mixture(CompletesByDraws, Subsampled):
    """log p(x) = log (1/K) sum_k p_k(x), an equal mixture of autoregressive densities.

    The mixture is a density, so its likelihood is exact; it has no tractable conditionals in a
    single order. The surrogate is the log-likelihood of one member; its mean over members is at
    most log p(x) (Jensen's inequality).
    """

    completes_by = ("exact", "smc")

    @abc.abstractmethod
    def members(self) -> Sequence[Autoregressive]:
        """The K densities."""

    @full_precision
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        members = self.members()
        each = torch.stack([member.log_prob(x, context) for member in members])  # [K, B]
        return each.logsumexp(0) - math.log(len(members))

    def choices(self, noise: Noise) -> tuple[int, ...]:
        return noise.pick(self.alternatives)

    @full_precision
    def surrogate(self, x: Tensor, noise: Noise, context: Tensor | None = None) -> Tensor:
        (number,) = self.choices(noise)
        return self.members()[number].log_prob(x, context)

    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        members = self.members()
        chosen = (noise.uniform(n) * len(members)).long()  # [n]
        uniform = noise.uniform(n, *self.spec.grid)
        out = torch.zeros(n, *self.spec.grid, dtype=torch.int64, device=self.device)
        for index, member in enumerate(members):
            rows = (chosen == index).nonzero()[:, 0]
            if len(rows):
                labels = None if context is None else context[rows]
                out[rows] = member.draw_from(uniform[rows], labels)
        return out

    def completed(self, x: Tensor, observed: Tensor, way: Way) -> Completions:
        """A member from p(k | observed), then the rest by it."""
        members = self.members()
        first = [member for member in members if member.known_ranks(observed) is not None]
        if not first and isinstance(self, OrderAgnostic) and way.method != "smc":
            return agnostic_completions(self, x, observed, raster(self.spec), way)
        if not first and way.method == "exact":
            raise Unanswerable(
                f"{type(self).__name__}: completion is exact only when the observed pixels come "
                "first in the order of a member: take method=smc"
            )
        is_exact = bool(first) and way.method != "smc"
        taken, method = (first, "exact") if is_exact else (members, "smc")
        each = [member.completed(x, observed, way._replace(method=method)) for member in taken]
        logs = torch.stack([part.log_observed for part in each])  # [K, B]
        uniform = Noise(way.seed, "member", device=self.device).uniform(len(x), way.n)
        chances = logs.softmax(0).cumsum(0).T.contiguous()  # [B, K]
        chosen = torch.searchsorted(chances, uniform, right=True).clamp(max=len(taken) - 1)
        images = torch.stack([part.images for part in each])  # [K, B, n, ...]
        images = images[chosen, torch.arange(len(x))[:, None], torch.arange(way.n)]
        log_observed = logs.logsumexp(0) - math.log(len(taken))
        count = f"{len(taken)} of {len(members)} members"
        if not is_exact:
            worth = [part.effective for part in each if part.effective is not None]
            about = f"{each[0].about}, in each of {len(members)} members, chosen by p(observed)"
            return Completions(
                images,
                log_observed,
                Relation.UPPER,
                exact=False,
                about=about,
                particles=way.particles,
                effective=torch.stack(worth).amin(0),
            )
        about = (
            "exact: a member from p(k | observed), in whose order the observed pixels come first"
        )
        if len(taken) < len(members):
            about = (
                f"exact of the mixture of the {count} in whose order the observed pixels come first"
            )
        return Completions(images, log_observed, Relation.EXACT, True, about)


class Ensemble(Mixture):
    """A mixture of networks, each with its own weights; they may have been trained apart.

    While it is trained, each update draws one of them, so K networks need K times the steps of one.

    Args:
        networks: of the same data and context.
        settings: of the ensemble.
    """

    def __init__(self, networks: Sequence[Autoregressive], settings: Any) -> None:
        first = networks[0]
        super().__init__(first.spec, first.classes, first.context_shape)
        self.settings = settings
        self.networks = nn.ModuleList(networks)

    def start_at(self, data: Dataset) -> None:
        """As each network."""
        for member in self.members():
            member.start_at(data)

    @property
    def alternatives(self) -> int:
        return len(self.networks)

    def members(self) -> list[Autoregressive]:
        return [network for network in self.networks if isinstance(network, Autoregressive)]


class OrderMixture(Mixture):
    """A mixture of one network's densities in several orders: its members are views of it.

    A leaf gives `conditionals_in`.

    Args:
        spec: of the data.
        classes: number of context labels.
        network: whose weights all members share.
        ranks: of the pixels in each of the K orders, int64 [K, H, W].
        settings: of the mixture.
    """

    ranks: Tensor

    def __init__(
        self, spec: DataSpec, classes: int, network: Autoregressive, ranks: Tensor, settings: Any
    ) -> None:
        super().__init__(spec, classes)
        self.settings, self.head = settings, network.head
        self.network = network
        self.register_buffer("ranks", ranks, persistent=False)

    def start_at(self, data: Dataset) -> None:
        """As the network."""
        self.network.start_at(data)

    @property
    def alternatives(self) -> int:
        return len(self.ranks)

    @abc.abstractmethod
    def conditionals_in(self, number: int, x: Tensor, context: Tensor | None = None) -> Tensor:
        """`Autoregressive.conditionals` of the member of that number."""
