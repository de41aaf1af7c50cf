"""Densities known up to a constant: p(x) = exp(-F(x)) / Z, with binary hidden units."""

from __future__ import annotations

import abc
import dataclasses

from torch import Tensor

from likely.density.taxonomy import GenerativeModel
from likely.noise import Noise


@dataclasses.dataclass(frozen=True)
class LogPartition:
    """log Z, or an estimate of it.

    Attributes:
        value: nats.
        standard_error: of the estimate; 0 where it is exact.
        exact: whether it is a sum over all states.
        about: how it was computed.
    """

    value: float
    standard_error: float
    exact: bool
    about: str

    def __str__(self) -> str:
        if self.exact:
            return f"log Z = {self.value:.2f}, {self.about}"
        return f"log Z >= {self.value:.2f} +- {self.standard_error:.2f}, {self.about}"


class EnergyBased(GenerativeModel):
    r"""p(x) = sum_h exp(-E(x, h)) / Z = exp(-F(x)) / Z, h of binary units.

    F, the free energy, has a closed form; Z is a sum over all x and h. Where the hidden units are
    few, Z is summed. Elsewhere it is estimated by weights with E[w] = Z, so that E[log w] <= log Z
    (Jensen): log p(x) = -F(x) - log Z then comes out too high, and -log p(x) is printed with ">=".
    That is the other side than a variational bound's.

    Attributes:
        hidden: number of hidden units.
    """

    hidden: int

    @property
    def kind(self) -> str:
        return "explicit, approximate"

    @abc.abstractmethod
    def free_energy(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """F(x) in nats, [B]; x integers [B, *shape]."""

    @abc.abstractmethod
    def energy(self, x: Tensor, h: Tensor) -> Tensor:
        """E(x, h) in nats, [B], but for a constant that F has, too; h of 0 and 1, [B, hidden]."""

    @abc.abstractmethod
    def advanced(self, x: Tensor, steps: int, noise: Noise) -> Tensor:
        """Markov chains that leave p as it is, from x on, int64 [B, C, H, W]."""

    @abc.abstractmethod
    def negative(self, x: Tensor, steps: int, noise: Noise, *, persistent: bool) -> Tensor:
        """Ends of chains: from x, or the model's own, which then continue from there."""

    @property
    @abc.abstractmethod
    def is_summed(self) -> bool:
        """Whether Z is a sum over all hidden states, and so exact."""

    @property
    @abc.abstractmethod
    def draws_exactly(self) -> bool:
        """Whether `sample` follows p, and not only the end of a Markov chain."""

    @abc.abstractmethod
    def log_partition(self, noise: Noise, *, temperatures: int, chains: int) -> LogPartition:
        """log Z: exact where `is_summed`, else annealed.

        Args:
            noise: of the chains.
            temperatures: densities from independent pixels to p, both counted.
            chains: weights that are averaged.
        """

    @abc.abstractmethod
    def log_weights(
        self, noise: Noise, *, temperatures: int, chains: int, start: Tensor | None = None
    ) -> Tensor:
        """Annealed estimates of log Z by single chains, float64 [chains].

        exp of them has the mean Z. With exact samples of p to start from, int64 [chains, C, H, W],
        chains run backwards, and exp of minus them has the mean 1 / Z: an upper bound on log Z.
        """
