r"""Mixtures of products by EM (Dempster, Laird and Rubin 1977; McLachlan and Peel 2000).

https://doi.org/10.1111/j.2517-6161.1977.tb01600.x

    p(x) = sum_k pi_k prod_d p(x_d | k),   r_k(x) = p(k | x)

The baseline of density estimation on integers: everything about it is known exactly. With
pi_k and theta_k drawn from Dirichlet priors, an update of the whole data never lowers log p(data) +
log p(pi, theta), and without smoothing never the likelihood.

- `ProductMixture`: p(x_d | k) is free, a table of all levels.
- `BernoulliMixture`: x_d counts the heads of levels - 1 tosses of a coin, a Bernoulli variable
  where the data is binary.

The weights are the statistics that EM averages (`likely.density.statistics`): E[r_k] and
E[r_k (the shares of heads and tails, or of levels, of dimension d)]. The probabilities are their
shares after smoothing; of their absolute values, so that any weights are a distribution.

Components start at examples, half-way to the mean of the data; of several starts, after some
updates on a part of the data, the likeliest is kept.
"""

from __future__ import annotations

import abc
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, linear

from likely.data.spec import Dataset, DataSpec
from likely.density import Completions, ExpectedStatistics, HasConditional
from likely.density.completion import CompletesByDraws, Way
from likely.devices.precision import full_precision, without_autocast
from likely.estimate import Relation
from likely.models.classical.settings import BernoulliMixtureSettings, ProductMixtureSettings
from likely.noise import Noise

# Examples, and updates on them, that decide between starts.
TRIED, WARM = 4096, 5


class _MixtureOfProducts(HasConditional, CompletesByDraws, ExpectedStatistics):
    """What the mixtures share; a leaf gives the statistics of a dimension and its levels.

    Args:
        spec: of the data.
        settings: of the mixture.
        statistics: numbers that describe a dimension of x, which sum to one.
        draws: how many observations of the statistics a dimension of x is.
    """

    takes_vectors = True
    examples: Tensor

    def __init__(
        self,
        spec: DataSpec,
        settings: BernoulliMixtureSettings | ProductMixtureSettings,
        statistics: int,
        draws: int,
    ) -> None:
        super().__init__(spec, 0)
        self.settings, self.draws = settings, draws
        components = settings.components
        counts = 0.5 + torch.rand(components, spec.dimensions, statistics)
        self.shares = nn.Parameter(torch.full((components,), 1.0 / components))
        self.counts = nn.Parameter(counts / counts.sum(2, keepdim=True) / components)
        # How many examples the prior is weighed against.
        self.register_buffer("examples", torch.tensor(1000.0))
        self._start = int(torch.randint(2**31, (), device="cpu"))

    @abc.abstractmethod
    def _products(self, x: Tensor, table: Tensor) -> Tensor:
        """sum_d <statistics of x_d, table of k and d>, [B, K]; table [K, D, M]."""

    @abc.abstractmethod
    def _log_levels(self, log_theta: Tensor) -> Tensor:
        """log p(x_d = level | k), [..., levels]; log_theta [..., M]."""

    def _log_ways(self, x: Tensor, observed: Tensor | None = None) -> Tensor | float:
        """log of how many outcomes of the draws give the observed dimensions of x, [B]."""
        return 0.0

    def _logs(self) -> tuple[Tensor, Tensor]:
        """(log pi [K], log theta [K, D, M])."""
        prior = self.settings.smoothing / self.examples
        tiny = torch.finfo(self.counts.dtype).tiny
        pi = self.shares.abs() + prior / len(self.shares) + tiny
        theta = self.counts.abs() + prior / self.counts.shape[2] + tiny
        shares = theta / theta.sum(2, keepdim=True)
        # Of large statistics the least share underflows: its logarithm, times no heads, is NaN.
        return (pi / pi.sum()).clamp(min=tiny).log(), shares.clamp(min=tiny).log()

    def _log_joint(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """log p(k, observed dimensions of x) less the ways, [B, K]; observed bool [D] or all."""
        log_pi, log_theta = self._logs()
        if observed is not None:
            log_theta = log_theta * observed[:, None]
        return log_pi + self.draws * self._products(x, log_theta)

    @full_precision
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = self.integers(x)
        self.labels(context, len(x))
        return self._log_joint(x).logsumexp(1) + self._log_ways(x)

    def expectation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.integers(x)
        with without_autocast(self.device):  # in a fit, too: counts need their digits
            with torch.no_grad():
                joint = self._log_joint(x)
                log_prob = joint.logsumexp(1) + self._log_ways(x)
                responsibilities = joint.softmax(1)
            return log_prob, self._match(x, responsibilities)

    def _match(self, x: Tensor, responsibilities: Tensor) -> Tensor:
        """|w|^2 / 2 - <w, E[s(x, k)]>, [B]; responsibilities [B, K]."""
        products = responsibilities * (self.shares + self._products(x, self.counts))
        size = 0.5 * (self.shares.square().sum() + self.counts.square().sum())
        return size - products.sum(1)

    @torch.no_grad()
    def start_at(self, data: Dataset) -> None:
        """The likeliest of several starts at examples of the data."""
        self.examples.fill_(len(data))
        every = np.linspace(0, len(data) - 1, min(len(data), TRIED)).astype(np.int64)
        x = self.integers(torch.from_numpy(data.batch(every).x.astype(np.int64)))
        components, noise = len(self.shares), Noise(self._start, "start")
        kept: list[Tensor] = []
        best = -math.inf
        for _ in range(self.settings.restarts):
            picked = noise.uniform(components).mul(len(x)).long().to(x.device)
            responsibilities = self.counts.new_full((len(x), components), 0.5 / components)
            half = self.counts.new_tensor(0.5 * len(x) / components)
            places = (picked, torch.arange(components, device=x.device))
            responsibilities.index_put_(places, half, accumulate=True)
            self._move_to(x, responsibilities)
            for _ in range(WARM):
                self._move_to(x, self._log_joint(x).softmax(1))
            value = float(self.log_prob(x).mean())
            if value > best or not kept:
                kept, best = [p.clone() for p in self.parameters()], value
        for parameter, value_of in zip(self.parameters(), kept, strict=True):
            parameter.copy_(value_of)

    def _move_to(self, x: Tensor, responsibilities: Tensor) -> None:
        """The weights at the expected statistics: a step of rate 1."""
        with torch.enable_grad():
            parameters = list(self.parameters())
            gradients = torch.autograd.grad(self._match(x, responsibilities).mean(), parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.sub_(gradient)

    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        k = self._picked(self._logs()[0].expand(n, -1), noise.uniform(n))
        return self._drawn(k, noise.uniform(n, self.spec.dimensions))

    @torch.no_grad()
    @full_precision
    def features(self, x: Tensor, context: Tensor | int | None = None) -> Tensor:
        """The probabilities of the components given x, [B, components]."""
        x = self.integers(x)
        self.labels(context, len(x))
        return self._log_joint(x).softmax(1)

    def completed(self, x: Tensor, observed: Tensor, way: Way) -> Completions:
        """Exactly, whichever pixels are observed."""
        seen, n = observed.expand(self.spec.grid), way.n
        noise = Noise(way.seed, "complete", device=self.device)
        joint = self._log_joint(x, seen.flatten())
        rows = x.repeat_interleave(n, 0)
        k = self._picked(joint.repeat_interleave(n, 0), noise.uniform(len(rows)))
        drawn = self._drawn(k, noise.uniform(len(rows), self.spec.dimensions))
        images = self.as_data(torch.where(seen, rows, drawn))
        ways = self._log_ways(x, seen.flatten())
        return Completions(
            images.reshape(len(x), n, *self.spec.shape),
            (joint.logsumexp(1) + ways).double(),
            Relation.EXACT,
            exact=True,
            about="exact: a component from p(k | observed), whichever pixels are observed",
        )

    @torch.no_grad()
    @full_precision
    def log_conditional(
        self,
        x: Tensor,
        row: int,
        column: int,
        channel: int = 0,
        context: Tensor | int | None = None,
    ) -> Tensor:
        x, place, shape = self.integers(x), (channel, row, column), self.spec.grid
        self.labels(context, len(x))
        self.refuse_place(*place)
        pixel = torch.arange(shape[1] * shape[2], device=x.device).reshape(shape[1:])
        at = row * shape[2] + column
        seen = (pixel < at).expand(shape).clone()
        seen[:channel] |= pixel == at
        log_k = self._log_joint(x, seen.flatten()).log_softmax(1)
        place_of = int(torch.arange(self.spec.dimensions).reshape(shape)[place])
        tables = self._log_levels(self._logs()[1][:, place_of])  # [K, levels]
        return (log_k[:, :, None] + tables).logsumexp(1)

    def _picked(self, log_weights: Tensor, uniform: Tensor) -> Tensor:
        """A component for each row of log-weights [B, K], [B]."""
        total = log_weights.double().softmax(1).cumsum(1)
        k = torch.searchsorted(
            total, (uniform.to(total.device) * total[:, -1])[:, None], right=True
        )
        return k[:, 0].clamp(max=total.shape[1] - 1)

    def _drawn(self, k: Tensor, uniform: Tensor) -> Tensor:
        """x from p(x | k), [B, C, H, W]; k [B], uniform [B, D]."""
        x = torch.zeros(uniform.shape, dtype=torch.int64, device=self.device)
        log_theta = self._logs()[1]
        for component in torch.unique(k):
            rows = (k == component).nonzero()[:, 0]
            total = self._log_levels(log_theta[component]).double().exp().cumsum(1)  # [D, levels]
            at = (uniform[rows].T * total[:, -1:]).contiguous()
            level = torch.searchsorted(total, at, right=True).clamp(max=self.spec.levels - 1)
            x[rows] = level.T
        return x.reshape(-1, *self.spec.grid)


class ProductMixture(_MixtureOfProducts):
    """A table of all levels for each dimension of each component; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W) or (D,).
        settings: sizes; `ProductMixtureSettings.preset(spec)` by default.
    """

    def __init__(self, spec: DataSpec, settings: ProductMixtureSettings | None = None) -> None:
        super().__init__(spec, settings or ProductMixtureSettings.preset(spec), spec.levels, 1)

    def _products(self, x: Tensor, table: Tensor) -> Tensor:
        levels, rows = table.shape[2], x.flatten(1)
        first = torch.arange(rows.shape[1], device=x.device) * levels
        lines = table.permute(1, 2, 0).flatten(0, 1)  # [D M, K]
        products: Tensor = embedding_bag(rows + first, lines, mode="sum")
        return products

    def _log_levels(self, log_theta: Tensor) -> Tensor:
        return log_theta


class BernoulliMixture(_MixtureOfProducts):
    """A coin for each dimension of each component; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W) or (D,).
        settings: sizes; `BernoulliMixtureSettings.preset(spec)` by default.
    """

    def __init__(self, spec: DataSpec, settings: BernoulliMixtureSettings | None = None) -> None:
        tosses = spec.levels - 1
        super().__init__(spec, settings or BernoulliMixtureSettings.preset(spec), 2, tosses)

    def _products(self, x: Tensor, table: Tensor) -> Tensor:
        tails, heads = table.unbind(2)
        share = x.flatten(1).to(table.dtype) / self.draws
        return linear(share, heads - tails) + tails.sum(1)

    def _log_levels(self, log_theta: Tensor) -> Tensor:
        heads = torch.arange(self.draws + 1, device=log_theta.device)
        tails, heads_ = log_theta[..., :1], log_theta[..., 1:]
        return self._ways(heads, log_theta.dtype) + heads * heads_ + (self.draws - heads) * tails

    def _log_ways(self, x: Tensor, observed: Tensor | None = None) -> Tensor | float:
        if self.draws == 1:
            return 0.0
        ways = self._ways(x.flatten(1), self.counts.dtype)
        return (ways if observed is None else ways * observed).sum(1)

    def _ways(self, heads: Tensor, dtype: torch.dtype) -> Tensor:
        """log of the binomial coefficient, of the shape of heads."""
        n = torch.arange(self.draws + 2, dtype=torch.float64, device=heads.device)
        log_factorial = torch.lgamma(n + 1)
        table = log_factorial[self.draws] - log_factorial[:-1] - log_factorial[:-1].flip(0)
        return table.to(dtype)[heads]
