r"""p(x | z): the distribution of an example given what a decoder makes of its code.

- factorised: the decoder gives the parameters of a head at every pixel, p(x|z) = prod_i p(x_i|z);
- autoregressive: it gives maps that condition a network on the pixels before,
  p(x|z) = prod_i p(x_i | x_<i, z) (Gulrajani et al. 2017, https://arxiv.org/abs/1611.05013; Chen et
  al. 2017, https://arxiv.org/abs/1611.02731).
"""

from __future__ import annotations

import abc
import dataclasses

import torch
from torch import Tensor

from likely.density.chain import Autoregressive
from likely.heads import Head, at_least_float, log_likelihood


class Likelihood(abc.ABC):
    """p(x | z), a function of `LatentVariable.decoder_output`, [B, K, H, W].

    Attributes:
        head: the distribution of a pixel.
        features: numbers of a pixel that the decoder gives, or the pixel's parameters if more.
    """

    head: Head

    @property
    @abc.abstractmethod
    def features(self) -> int:
        """See the class."""

    @abc.abstractmethod
    def conditionals(self, x: Tensor, output: Tensor) -> Tensor:
        """Parameters of p(x_i | z, x of lower rank) for all i, [B, head.parameters, H, W].

        Args:
            x: integers [B, C, H, W].
            output: of the decoder, [B, K, H, W].
        """

    @abc.abstractmethod
    def draw(self, output: Tensor, uniform: Tensor) -> Tensor:
        """x at uniform numbers in [0, 1), [B, C, H, W]; int64 of that shape."""

    @abc.abstractmethod
    def mean(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """(E[x_i | z, pixels before], x): the means in levels, float64, and integers near them.

        Where pixels depend on each other, those before are the integers that are returned.
        """

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """log p(x | z) in nats, [B]; arguments of `conditionals`."""
        return log_likelihood(self.head, self.conditionals(x, output), x)


@dataclasses.dataclass(frozen=True)
class FactorizedLikelihood(Likelihood):
    """Pixels that are independent given z; the decoder gives their parameters."""

    head: Head

    @property
    def features(self) -> int:
        return self.head.parameters

    def conditionals(self, x: Tensor, output: Tensor) -> Tensor:
        return output

    def draw(self, output: Tensor, uniform: Tensor) -> Tensor:
        x, parameters = torch.zeros_like(uniform, dtype=torch.int64), at_least_float(output)
        for channel in range(self.head.channels):
            x[:, channel] = self.head.quantile(parameters, x, channel, uniform[:, channel])
        return x

    def mean(self, output: Tensor) -> tuple[Tensor, Tensor]:
        parameters = at_least_float(output)
        shape = (len(output), self.head.channels, *output.shape[2:])
        means = torch.zeros(shape, dtype=torch.float64, device=output.device)
        x = torch.zeros(shape, dtype=torch.int64, device=output.device)
        for channel in range(self.head.channels):
            means[:, channel] = self.head.mean(parameters, x, channel)
            x[:, channel] = means[:, channel].round().to(torch.int64)
        return means, x


@dataclasses.dataclass(frozen=True, eq=False)
class AutoregressiveLikelihood(Likelihood):
    """An autoregressive density that is conditioned on the decoder's output, a map.

    Attributes:
        network: whose context has the shape of that map, (K, H, W).
    """

    network: Autoregressive

    @property
    def head(self) -> Head:  # type: ignore[override]
        return self.network.head

    @property
    def features(self) -> int:
        return max(self.network.context_shape[0], self.head.parameters)

    def conditionals(self, x: Tensor, output: Tensor) -> Tensor:
        return self.network.conditionals(x, output)

    def draw(self, output: Tensor, uniform: Tensor) -> Tensor:
        return self.network.draw_from(uniform, output)

    def mean(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Of each conditional given the medians before it; the integers are those medians."""
        half = torch.full((len(output), *self.network.spec.grid), 0.5, dtype=torch.float64)
        x = self.draw(output, half.to(output.device))
        parameters = at_least_float(self.conditionals(x, output))
        each = [self.head.mean(parameters, x, channel) for channel in range(x.shape[1])]
        return torch.stack(each, 1), x
