r"""Heads: the likelihood of one pixel's channels given the network's output there.

A head declares its distribution once, in two forms that must agree (tests hold them to it):
`log_prob` for all pixels at once, and `log_table`, the log-probabilities of every level of one
channel given the channels before it. Sampling inverts the table at a given uniform number, so
one uniform a dimension decides the drawn integers, whichever way the parameters were computed.

Sources: van den Oord et al. 2016 (softmax over levels), Salimans et al. 2017 (discretized
logistic mixture, eqs. 1-3; the mixture index is shared by the channels of a pixel, the means of
green and blue depend linearly on the channels before them).
"""

from __future__ import annotations

import abc
import math

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid, softplus

from likely.data.spec import DataSpec
from likely.errors import InvalidSetting, nearest


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


class Bernoulli(Head):
    """Two levels: p(x = 1) = sigmoid(logit). One logit a channel."""

    def __init__(self, channels: int) -> None:
        self.channels, self.levels, self.parameters = channels, 2, channels
        self.couples_channels = False

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        # log sigmoid(l) = -softplus(-l), log sigmoid(-l) = -softplus(l)
        return -softplus(torch.where(x > 0, -parameters, parameters))

    def log_table(self, parameters: Tensor, x: Tensor, channel: int) -> Tensor:
        logit = parameters[:, channel]
        return torch.stack([logsigmoid(-logit), logsigmoid(logit)], 1)

    def tempered(self, parameters: Tensor, temperature: float) -> Tensor:
        return parameters / temperature

    def bias_for(self, mean: Tensor) -> Tensor:
        p = mean.clamp(1e-3, 1 - 1e-3)
        return p.log() - (-p).log1p()


class Categorical(Head):
    """A softmax over all levels: no notion of order. `levels` logits a channel."""

    def __init__(self, channels: int, levels: int) -> None:
        self.channels, self.levels = channels, levels
        self.parameters = channels * levels
        self.couples_channels = False

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


class DiscretizedLogisticMixture(Head):
    r"""A mixture of K logistics on [-1, 1], integrated over the bin of each level.

    P(x) = sum_k pi_k [sigma((x + h - mu_k)/s_k) - sigma((x - h - mu_k)/s_k)], h half a bin; the
    lowest bin reaches to -inf and the highest to +inf, so the levels sum to one. With three
    channels mu_G += a x_R and mu_B += b x_R + c x_G, (a, b, c) = tanh of outputs. log s is
    kept in [-7, 40]. Unlike the published code, small bins take no density shortcut: the mass is
    computed as a difference of logs that stays accurate, so it always sums to one.

    Outputs a pixel: K logits, K C means, K C log-scales, K C (C - 1) / 2 couplings.
    """

    FLOOR = -7.0
    # Far above any use: beyond it the mass of a bin underflows and its gradient is NaN.
    CEILING = 40.0

    def __init__(self, channels: int, levels: int, components: int = 10) -> None:
        if components < 1:
            raise InvalidSetting(f"a mixture needs at least one component, given {components}")
        self.channels, self.levels, self.components = channels, levels, components
        self.pairs = channels * (channels - 1) // 2
        self.parameters = components * (1 + 2 * channels + self.pairs)
        self.couples_channels = True

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        logits, means, log_scales, couplings = self._split(parameters)
        weights = log_softmax(logits, 1)  # [B, K, H, W]: log p(k | channels so far)
        out = []
        for channel in range(self.channels):
            mean = self._mean(means, couplings, x, channel)
            level = x[:, None, channel]  # [B, 1, H, W]
            mass = self._log_bin(level, mean, log_scales[:, :, channel])  # [B, K, H, W]
            joint = weights + mass
            total = joint.logsumexp(1)
            out.append(total)
            weights = joint - total.unsqueeze(1)
        return torch.stack(out, 1)

    def log_table(self, parameters: Tensor, x: Tensor, channel: int) -> Tensor:
        logits, means, log_scales, couplings = self._split(parameters)
        weights = log_softmax(logits, 1)
        for before in range(channel):
            mean = self._mean(means, couplings, x, before)
            weights = weights + self._log_bin(x[:, None, before], mean, log_scales[:, :, before])
        weights = log_softmax(weights, 1)
        mean = self._mean(means, couplings, x, channel)
        levels = torch.arange(self.levels, device=x.device)[None, None, :, None, None]
        mass = self._log_bin(
            levels, mean.unsqueeze(2), log_scales[:, :, channel].unsqueeze(2)
        )  # [B, K, L, H, W]
        return (weights.unsqueeze(2) + mass).logsumexp(1)

    def tempered(self, parameters: Tensor, temperature: float) -> Tensor:
        """Logits of the components divided by the temperature, scales multiplied by it.

        That is p^(1 / temperature) where components do not overlap and a logistic is near its
        tail; at temperature to zero the likeliest component's mean is left.
        """
        if temperature == 1.0:
            return parameters
        k, c = self.components, self.channels
        logits, means, scales, couplings = torch.split_with_sizes(
            parameters, [k, k * c, k * c, k * self.pairs], 1
        )
        cooler = scales + math.log(temperature)
        return torch.cat([logits / temperature, means, cooler, couplings], 1)

    def bias_for(self, mean: Tensor) -> Tensor:
        c, h, w = mean.shape
        k = self.components
        centre = mean * (2.0 / (self.levels - 1)) - 1.0  # [C, H, W]
        # One component has nobody to stand apart from.
        ends = 0.5 if k > 1 else 0.0
        spread = torch.linspace(-ends, ends, k, dtype=mean.dtype, device=mean.device)
        means = centre[None] + spread[:, None, None, None]  # [K, C, H, W]
        zeros = torch.zeros(k, h, w, dtype=mean.dtype, device=mean.device)
        scales = torch.full((k * c, h, w), -1.5, dtype=mean.dtype, device=mean.device)
        couplings = torch.zeros(k * self.pairs, h, w, dtype=mean.dtype, device=mean.device)
        return torch.cat([zeros, means.reshape(k * c, h, w), scales, couplings])

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        b, _, h, w = parameters.shape
        k, c = self.components, self.channels
        sizes = [k, k * c, k * c, k * self.pairs]
        logits, means, log_scales, couplings = torch.split_with_sizes(parameters, sizes, 1)
        return (
            logits,
            means.reshape(b, k, c, h, w),
            log_scales.reshape(b, k, c, h, w).clamp(self.FLOOR, self.CEILING),
            torch.tanh(couplings).reshape(b, k, self.pairs, h, w),
        )

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

    def _log_bin(self, level: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        """log mass of the bin of each level under a logistic; open end bins.

        sigma(u) - sigma(l) = sigma(u) sigma(-l) (1 - exp(l - u)), and u - l = 2 h / s does not
        depend on x, so the log needs no difference of nearly equal numbers.
        """
        inverse = (-log_scale).exp()
        half = 1.0 / (self.levels - 1)
        centred = self._scaled(level, mean.dtype) - mean
        upper = (centred + half) * inverse
        lower = (centred - half) * inverse
        # log(1 - exp(-d)), d = 2 h / s > 0
        gap = torch.log(-torch.expm1(-2.0 * half * inverse))
        inner = logsigmoid(upper) + logsigmoid(-lower) + gap
        mass = torch.where(level == 0, logsigmoid(upper), inner)
        return torch.where(level == self.levels - 1, logsigmoid(-lower), mass)


HEADS = ("auto", "bernoulli", "categorical", "logistic-mixture")


def head_for(name: str, spec: DataSpec, components: int = 10) -> Head:
    """The head of that name for that data.

    "auto" takes a Bernoulli for two levels, a softmax for up to 32 levels, and a discretized
    logistic mixture above.

    Raises:
        InvalidSetting: an unknown name, or a Bernoulli for more than two levels.
    """
    channels = spec.shape[0]
    if name == "auto":
        name = "bernoulli" if spec.levels == 2 else "categorical"
        name = name if spec.levels <= 32 else "logistic-mixture"
    if name == "bernoulli":
        if spec.levels != 2:
            raise InvalidSetting(
                f"head=bernoulli needs data of 2 levels, {spec.name} has {spec.levels}; "
                "binarise the data or take head=categorical or head=logistic-mixture"
            )
        return Bernoulli(channels)
    if name == "categorical":
        return Categorical(channels, spec.levels)
    if name == "logistic-mixture":
        return DiscretizedLogisticMixture(channels, spec.levels, components)
    raise InvalidSetting(f'unknown head "{name}": {nearest(name, HEADS)}')
