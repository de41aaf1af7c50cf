r"""Heads: the likelihood of the channels of a pixel given the network's output there.

A head implements its distribution in several forms, which the tests compare:
`log_prob` for all pixels at once, `log_table`, the log-probabilities of every level of one channel
given the channels before it, and `quantile` and `mean` of that channel, which need no table where
there are many levels. Sampling takes the quantile of a given uniform number, so one uniform a
dimension decides the drawn integers, whichever way the parameters were computed.

Sources: van den Oord et al. 2016 (softmax over levels), https://arxiv.org/abs/1601.06759; Salimans
et al. 2017 (discretized logistic mixture, eqs. 1-3; the mixture index is shared by the channels of
a pixel, the means of green and blue depend linearly on the channels before them),
https://arxiv.org/abs/1701.05517.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid, softplus

from likely.data.spec import DataSpec
from likely.errors import InvalidSetting
from likely.settings import HEADS


class Head(abc.ABC):
    """A distribution over the integers of one pixel, [C] values in [0, levels).

    Attributes:
        channels: C.
        levels: number of levels.
        parameters: number of network outputs for each pixel.
        couples_channels: the head itself conditions a channel on those before it, so the
            network must hide the whole current pixel. Otherwise the network's masks do that,
            and the parameters of channel c stand in rows [c * parameters / C, ...).
    """

    channels: int
    levels: int
    parameters: int
    couples_channels: bool

    @classmethod
    @abc.abstractmethod
    def for_data(cls, spec: DataSpec, components: int) -> Self:
        """The head for such data.

        Args:
            spec: its grid is (C, H, W), its levels are those of the head.
            components: of a mixture; the setting of that name.

        Raises:
            InvalidSetting: it does not fit the data.
        """

    @abc.abstractmethod
    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """log p of each channel given those before it, nats.

        Args:
            parameters: [B, parameters, H, W], float32 or float64.
            x: int64 [B, C, H, W].

        Returns:
            [B, C, H, W]; their sum over C is the log-probability of the pixel.
        """

    @abc.abstractmethod
    def log_table(self, parameters: Tensor, x: Tensor, channel: int) -> Tensor:
        """log p(x_channel = level | x_<channel) for every level, [B, levels, H, W].

        Args:
            parameters: [B, parameters, H, W].
            x: int64 [B, C, H, W]; only channels before `channel` are read.
            channel: in [0, C).
        """

    def quantile(self, parameters: Tensor, x: Tensor, channel: int, uniform: Tensor) -> Tensor:
        """The smallest level whose CDF, given the channels before, exceeds a uniform number.

        A uniform number becomes a draw of x_channel. The sums are taken in float64.

        Args:
            parameters: [B, parameters, H, W].
            x: int64 [B, C, H, W]; only channels before `channel` are read.
            channel: in [0, C).
            uniform: [B, H, W] in [0, 1).

        Returns:
            int64 [B, H, W].
        """
        return invert(self.log_table(parameters, x, channel), uniform)

    def mean(self, parameters: Tensor, x: Tensor, channel: int) -> Tensor:
        """E[x_channel | x_<channel] in levels, float64 [B, H, W]; arguments of `log_table`."""
        return mean_of(self.log_table(parameters, x, channel))

    @abc.abstractmethod
    def tempered(self, parameters: Tensor, temperature: float) -> Tensor:
        """Parameters of the distribution at a temperature; 1 changes nothing.

        For logits, p(level) becomes proportional to p(level)^(1 / temperature). Below 1 samples
        are more likely and less varied; they no longer follow the model.

        Args:
            parameters: [B, parameters, ...].
            temperature: above 0.
        """

    @abc.abstractmethod
    def bias_for(self, mean: Tensor) -> Tensor:
        """Output biases at which the head's mean is about `mean` (float [C, H, W], in levels).

        Returns:
            [parameters, H, W].
        """


def log_likelihood(head: Head, parameters: Tensor, x: Tensor) -> Tensor:
    """log p(x) of whole examples given the parameters of all their dimensions, nats [B].

    Args:
        head: whose parameters they are.
        parameters: what a network returned, [B, head.parameters, H, W].
        x: int64 [B, C, H, W].

    Raises:
        InvalidSetting: parameters of another shape, which broadcasting would take.
    """
    wanted = (len(x), head.parameters, *x.shape[2:])
    if tuple(parameters.shape) != wanted:
        raise InvalidSetting(
            f"the network's output must have the shape [B, head.parameters, H, W] = {list(wanted)} "
            f"for the {type(head).__name__} head, given {list(parameters.shape)}"
        )
    return head.log_prob(at_least_float(parameters), x).sum((1, 2, 3))


def at_least_float(x: Tensor) -> Tensor:
    """Upcast to at least float32: likelihoods are computed in it whatever the network used."""
    return x if x.dtype == torch.float64 else x.float()


def invert(log_table: Tensor, uniform: Tensor) -> Tensor:
    """Invert a discrete CDF: the level whose cumulative interval contains u.

    Args:
        log_table: log-probabilities of every level, [B, levels, ...].
        uniform: [B, ...] in [0, 1).

    Returns:
        int64 [B, ...].
    """
    cumulative = log_table.double().exp().cumsum(1)
    # Scaled by the last value, which is one up to rounding: the top level cannot be overshot.
    below = uniform.unsqueeze(1) * cumulative[:, -1:]
    return (cumulative[:, :-1] <= below).sum(1)


def mean_of(log_table: Tensor) -> Tensor:
    """The mean of a distribution over levels given as log-probabilities, float64 [B, ...]."""
    levels = torch.arange(log_table.shape[1], dtype=torch.float64, device=log_table.device)
    return torch.einsum("bl...,l->b...", log_table.double().exp(), levels)


class Bernoulli(Head):
    """Two levels: p(x = 1) = sigmoid(logit). One logit per channel."""

    def __init__(self, channels: int) -> None:
        self.channels, self.levels, self.parameters = channels, 2, channels
        self.couples_channels = False

    @classmethod
    def for_data(cls, spec: DataSpec, components: int) -> Self:
        if spec.levels != 2:
            raise InvalidSetting(
                f"head=bernoulli needs data of 2 levels, {spec.name} has {spec.levels}; "
                "binarise the data or take head=categorical or head=logistic-mixture"
            )
        return cls(spec.grid[0])

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        # log sigmoid(l) = -softplus(-l), log sigmoid(-l) = -softplus(l)
        # The sign as a factor: `where` between a tensor and its negative makes three passes more.
        return -softplus(parameters * (1 - 2 * (x > 0).to(parameters.dtype)))

    def log_table(self, parameters: Tensor, x: Tensor, channel: int) -> Tensor:
        logit = parameters[:, channel]
        return torch.stack([logsigmoid(-logit), logsigmoid(logit)], 1)

    def tempered(self, parameters: Tensor, temperature: float) -> Tensor:
        return parameters / temperature

    def bias_for(self, mean: Tensor) -> Tensor:
        p = mean.clamp(1e-3, 1 - 1e-3)
        return p.log() - (-p).log1p()


class Categorical(Head):
    """A softmax over all levels: no notion of order. `levels` logits per channel."""

    def __init__(self, channels: int, levels: int) -> None:
        self.channels, self.levels = channels, levels
        self.parameters = channels * levels
        self.couples_channels = False

    @classmethod
    def for_data(cls, spec: DataSpec, components: int) -> Self:
        return cls(spec.grid[0], spec.levels)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        logits = self._by_channel(parameters)  # [B, C, L, H, W]
        chosen = logits.gather(2, x.unsqueeze(2)).squeeze(2)
        return chosen - logits.logsumexp(2)

    def log_table(self, parameters: Tensor, x: Tensor, channel: int) -> Tensor:
        return log_softmax(self._by_channel(parameters)[:, channel], 1)

    def tempered(self, parameters: Tensor, temperature: float) -> Tensor:
        return parameters / temperature

    def bias_for(self, mean: Tensor) -> Tensor:
        # A wide bump around the mean: the first gradient steps set its width.
        levels = torch.arange(self.levels, dtype=mean.dtype, device=mean.device)
        width = self.levels / 4
        bump = -(((levels[None, :, None, None] - mean[:, None]) / width) ** 2) / 2
        return bump.reshape(self.parameters, *mean.shape[1:])

    def _by_channel(self, parameters: Tensor) -> Tensor:
        b, _, h, w = parameters.shape
        return parameters.reshape(b, self.channels, self.levels, h, w)


# The lowest and the highest level, of all pixels or of each.
Ends = tuple[int | Tensor, int | Tensor]


class Bounds(Protocol):
    """Between which levels each channel of a pixel lies, which something known decides.

    Attributes:
        planes: numbers that are known of each pixel; they stand behind the parameters of the head.
    """

    planes: int

    def __call__(self, known: Tensor, x: Tensor, channel: int) -> tuple[Tensor, Tensor]:
        """The lowest and the highest level of a channel, int64 [B, H, W] each.

        Args:
            known: of each pixel, [B, planes, H, W].
            x: int64 [B, C, H, W]; only channels before `channel` are read.
            channel: in [0, C).
        """


class DiscretizedLogisticMixture(Head):
    r"""A mixture of K logistics on [-1, 1], integrated over the bin of each level.

    P(x) = sum_k pi_k [sigma((x + h - mu_k)/s_k) - sigma((x - h - mu_k)/s_k)], h half a bin; the
    lowest bin reaches to -inf and the highest to +inf, so the levels sum to one. With three
    channels mu_G += a x_R and mu_B += b x_R + c x_G, (a, b, c) = tanh of outputs. log s is
    kept in [floor, 40]; the floor is -7 up to 256 levels, and -3 - log(levels - 1) above, where a
    bin may hold all but a billionth of the mass. Unlike the published code, small bins take no
    density shortcut: the mass is computed as a difference of logs that stays accurate, so it
    always sums to one.

    With `bounds` a channel of a pixel has fewer levels: those from the lowest to the highest that
    the bounds allow there, which reach to -inf and +inf, so that they sum to one.

    Outputs per pixel: K logits, K C means, K C log-scales, K C (C - 1) / 2 couplings; then what the
    bounds know of it.
    """

    # Far above any use: beyond it the mass of a bin underflows and its gradient is NaN.
    CEILING = 40.0
    # Levels on either side of a logistic's mean that its expectation adds up one by one.
    NEAR = 16

    def __init__(
        self, channels: int, levels: int, components: int = 10, bounds: Bounds | None = None
    ) -> None:
        if components < 1:
            raise InvalidSetting(f"a mixture needs at least one component, given {components}")
        self.channels, self.levels, self.components = channels, levels, components
        self.bounds = bounds
        # A bin of 16-bit data is 1/65535 high: at a scale of exp(-7) it would hold a hundredth.
        self.floor = -7.0 if levels <= 256 else -3.0 - math.log(levels - 1)
        self.pairs = channels * (channels - 1) // 2
        k, planes = components, 0 if bounds is None else bounds.planes
        self.sizes = [k, k * channels, k * channels, k * self.pairs, planes]
        self.parameters = sum(self.sizes)
        self.couples_channels = True

    @classmethod
    def for_data(cls, spec: DataSpec, components: int) -> Self:
        return cls(spec.grid[0], spec.levels, components)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        logits, means, log_scales, couplings = self._split(parameters)
        weights = log_softmax(logits, 1)  # [B, K, H, W]: log p(k | channels so far)
        out = []
        for channel in range(self.channels):
            mean = self._mean(means, couplings, x, channel)
            level = x[:, None, channel]  # [B, 1, H, W]
            ends = self._ends(parameters, x, channel)
            mass = self._log_bin(level, mean, log_scales[:, :, channel], ends)  # [B, K, H, W]
            joint = weights + mass
            total = joint.logsumexp(1)
            out.append(total)
            weights = joint - total.unsqueeze(1)
        return torch.stack(out, 1)

    def log_table(self, parameters: Tensor, x: Tensor, channel: int) -> Tensor:
        weights, mean, log_scale = self._mixture(parameters, x, channel)
        levels = torch.arange(self.levels, device=x.device)[None, None, :, None, None]
        low, high = self._ends(parameters, x, channel)
        if isinstance(low, Tensor) and isinstance(high, Tensor):
            low, high = low.unsqueeze(2), high.unsqueeze(2)
        # [B, K, L, H, W]
        mass = self._log_bin(levels, mean.unsqueeze(2), log_scale.unsqueeze(2), (low, high))
        return (weights.unsqueeze(2) + mass).logsumexp(1)

    def quantile(self, parameters: Tensor, x: Tensor, channel: int, uniform: Tensor) -> Tensor:
        """By bisection: the masses of the bins up to level l add up to a sum of K sigmoids.

        P(x <= l) = sum_k pi_k sigma((x_l + h - mu_k) / s_k), and 1 at the highest level.
        """
        weights, mean, log_scale = self._mixture(parameters.double(), x, channel)
        weights, inverse = weights.exp(), (-log_scale).exp()
        level = torch.zeros_like(uniform, dtype=torch.int64)
        step = 1 << (self.levels - 1).bit_length()
        while step := step // 2:
            higher = level + step  # Is it this level at least?
            edge = (higher.double() - 0.5) * (2.0 / (self.levels - 1)) - 1.0
            below = (edge.unsqueeze(1) - mean).mul_(inverse).sigmoid_().mul_(weights).sum(1)
            level = torch.where((higher < self.levels) & (below <= uniform), higher, level)
        if self.bounds is not None:  # the mass beyond an end is the end's
            low, high = self.bounds(self._known(parameters), x, channel)
            level = torch.minimum(torch.maximum(level, low), high)
        return level

    def mean(self, parameters: Tensor, x: Tensor, channel: int) -> Tensor:
        r"""The sum over l of P(x > l), which is one of sigmoids for each component.

        sigma(a - l d), l = 0 ... n - 1: some levels around a / d one by one, and what is far from
        there, where the terms bend little or vanish, by the Euler-Maclaurin formula; right to
        about 1e-9 levels at any scale. With bounds from the table of all levels.
        """
        if self.bounds is not None:
            return mean_of(self.log_table(parameters, x, channel))
        weights, mean, log_scale = self._mixture(parameters.double(), x, channel)
        inverse, count = (-log_scale).exp(), self.levels - 1
        distance, near = inverse * (2.0 / count), min(2 * self.NEAR, count)
        at = (mean + 1.0) * (count / 2.0) - 0.5  # in levels: a / d
        first = (at.clamp(0, count) - self.NEAR).round().clamp(0, count - near)
        total = first.clone()
        for term in range(near):
            total += ((at - first - term) * distance).sigmoid_()
        if near < count:
            total += _sum_of_sigmoids(at - first - near, count - first - near, distance)
            total -= _sum_of_sigmoids(first - 1 - at, first, distance)
        return (weights.exp() * total).sum(1)

    def _mixture(
        self, parameters: Tensor, x: Tensor, channel: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and log-scales of a channel given those before, [B, K, H, W] each."""
        logits, means, log_scales, couplings = self._split(parameters)
        weights = log_softmax(logits, 1)
        for before in range(channel):
            mean = self._mean(means, couplings, x, before)
            ends = self._ends(parameters, x, before)
            mass = self._log_bin(x[:, None, before], mean, log_scales[:, :, before], ends)
            weights = weights + mass
        weights = log_softmax(weights, 1)
        return weights, self._mean(means, couplings, x, channel), log_scales[:, :, channel]

    def tempered(self, parameters: Tensor, temperature: float) -> Tensor:
        """Logits of the components divided by the temperature, scales multiplied by it.

        That is p^(1 / temperature) where components do not overlap and a logistic is near its
        tail; at temperature to zero the likeliest component's mean is left.
        """
        if temperature == 1.0:
            return parameters
        logits, means, scales, *rest = torch.split_with_sizes(parameters, self.sizes, 1)
        return torch.cat([logits / temperature, means, scales + math.log(temperature), *rest], 1)

    def bias_for(self, mean: Tensor) -> Tensor:
        c, h, w = mean.shape
        k = self.components
        centre = mean * (2.0 / (self.levels - 1)) - 1.0  # [C, H, W]
        # A single component needs no spread.
        ends = 0.5 if k > 1 else 0.0
        spread = torch.linspace(-ends, ends, k, dtype=mean.dtype, device=mean.device)
        means = centre[None] + spread[:, None, None, None]  # [K, C, H, W]
        zeros = torch.zeros(k, h, w, dtype=mean.dtype, device=mean.device)
        scales = torch.full((k * c, h, w), -1.5, dtype=mean.dtype, device=mean.device)
        rest = torch.zeros(sum(self.sizes[3:]), h, w, dtype=mean.dtype, device=mean.device)
        return torch.cat([zeros, means.reshape(k * c, h, w), scales, rest])

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        b, _, h, w = parameters.shape
        k, c = self.components, self.channels
        logits, means, log_scales, couplings, _ = torch.split_with_sizes(parameters, self.sizes, 1)
        return (
            logits,
            means.reshape(b, k, c, h, w),
            log_scales.reshape(b, k, c, h, w).clamp(self.floor, self.CEILING),
            torch.tanh(couplings).reshape(b, k, self.pairs, h, w),
        )

    def _known(self, parameters: Tensor) -> Tensor:
        """What the bounds know of each pixel, [B, planes, H, W]."""
        return parameters[:, self.parameters - self.sizes[-1] :]

    def _ends(self, parameters: Tensor, x: Tensor, channel: int) -> Ends:
        """The lowest and the highest level of a channel; of bounds [B, 1, H, W] each."""
        if self.bounds is None:
            return 0, self.levels - 1
        low, high = self.bounds(self._known(parameters), x, channel)
        return low.unsqueeze(1), high.unsqueeze(1)

    def _mean(self, means: Tensor, couplings: Tensor, x: Tensor, channel: int) -> Tensor:
        """Means of a channel given the channels before it, [B, K, H, W]."""
        mean = means[:, :, channel]
        first = channel * (channel - 1) // 2
        for before in range(channel):
            value = self._scaled(x[:, None, before], mean.dtype)
            mean = mean + couplings[:, :, first + before] * value
        return mean

    def _scaled(self, level: Tensor, dtype: torch.dtype) -> Tensor:
        # Converted first: an integer tensor times a number is float32, whatever the means are.
        return level.to(dtype) * (2.0 / (self.levels - 1)) - 1.0

    def _log_bin(self, level: Tensor, mean: Tensor, log_scale: Tensor, ends: Ends) -> Tensor:
        """log mass of the bin of each level under a logistic; open end bins, none beyond.

        sigma(u) - sigma(l) = sigma(u) sigma(-l) (1 - exp(l - u)), and u - l = 2 h / s does not
        depend on x, so the log needs no difference of nearly equal numbers.
        """
        inverse = (-log_scale).exp()
        half = 1.0 / (self.levels - 1)
        if self.levels <= 256:
            centred = self._scaled(level, mean.dtype) - mean
        else:
            # In units of a level the difference to the mean is exact in float32 near the mean.
            centre = (mean + 1.0) * ((self.levels - 1) / 2)
            centred = (level.to(mean.dtype) - centre) * (2.0 * half)
        upper = (centred + half) * inverse
        lower = (centred - half) * inverse
        # log(1 - exp(-d)), d = 2 h / s > 0
        gap = torch.log(-torch.expm1(-2.0 * half * inverse))
        inner = logsigmoid(upper) + logsigmoid(-lower) + gap
        low, high = ends
        mass = torch.where(level == low, logsigmoid(upper), inner)
        mass = torch.where(level == high, logsigmoid(-lower), mass)
        if self.bounds is not None:
            mass = mass.masked_fill((level == low) & (level == high), 0.0)
            mass = mass.masked_fill((level < low) | (level > high), -math.inf)
        return mass


def _sum_of_sigmoids(start: Tensor, terms: Tensor, distance: Tensor) -> Tensor:
    """sum of sigma((start - l) distance), l = 0 ... terms - 1, by the midpoint rule.

    Its error falls as exp(start distance) where start is below zero, and with the distance.
    """
    upper, lower = (start + 0.5) * distance, (start + 0.5 - terms) * distance
    # Where they are near each other, log (1 + e^upper) / (1 + e^lower) without a difference.
    gap = terms * distance
    close = torch.log1p(lower.sigmoid() * torch.expm1(gap.clamp(max=1.0)))
    integral = torch.where(gap < 1.0, close, softplus(upper) - softplus(lower)) / distance

    def correction(t: Tensor) -> Tensor:
        s = t.sigmoid()
        slope = s * (1.0 - s)
        third = slope * (1.0 - 6.0 * slope)
        return distance * (-slope / 24 + distance**2 * third * (7 / 5760))

    return integral + correction(upper) - correction(lower)


Kind = TypeVar("Kind", bound=type[Head])


def head(name: str) -> Callable[[Kind], Kind]:
    """Register the decorated class of a head under a name, which the setting `head` takes then.

    Raises:
        InvalidSetting: the name is taken by another head.
    """

    def register(kind: Kind) -> Kind:
        HEADS.join(name, f"{kind.__module__}:{kind.__qualname__}", kind.__module__)
        return kind

    return register


def head_for(name: str, spec: DataSpec, components: int = 10) -> Head:
    """The head of that name for that data.

    Args:
        name: "bernoulli", "categorical", "logistic-mixture", one that `head` registered, as
            "module:name" where its module is not imported yet; or "auto": a Bernoulli for two
            levels, a softmax for up to 32 levels, and a discretized logistic mixture above.
        spec: of the data.
        components: of a mixture.

    Raises:
        InvalidSetting: an unknown name, or a Bernoulli for more than two levels.
    """
    if not isinstance(spec, DataSpec):
        raise InvalidSetting('head_for takes the name first, then the spec: head_for("auto", spec)')
    if name == "auto":
        name = "bernoulli" if spec.levels == 2 else "categorical"
        name = name if spec.levels <= 32 else "logistic-mixture"
    made: Head = HEADS.entry(name).load().for_data(spec, components)
    return made
