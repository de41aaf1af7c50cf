r"""Densities whose weights are means of statistics of the data, re-estimated by EM.

With hidden k and statistics s(x, k), the weights are w = mean_i E[s(x_i, k) | x_i]; probabilities
are a function of w, the M-step. The E-step at the present weights gives the mean for a batch, and

    w <- w - rate (w - mean_i E[s(x_i, k) | x_i])

is EM where the batch is the whole data and the rate is 1 (Dempster, Laird and Rubin 1977), and
stepwise EM otherwise (Cappe and Moulines 2009), https://arxiv.org/abs/0712.4273. Its direction is
the gradient of |w|^2 / 2 - mean_i <w, E[s(x_i, k) | x_i]>, the expectation held fixed, so plain
gradient descent makes these updates.
"""

from __future__ import annotations

import abc

from torch import Tensor

from likely.density.taxonomy import TractableDensity


class HasExpectation(abc.ABC):
    """What EM fits: `expectation` gives its gradient."""

    @abc.abstractmethod
    def expectation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The E-step for a batch.

        Args:
            x: integers [B, *shape].

        Returns:
            (log p(x) without gradient; |w|^2 / 2 - <w, E[s(x, k) | x]>, whose gradient is w less
            the expected statistics), [B] each.
        """


class ExpectedStatistics(TractableDensity, HasExpectation):
    """A density whose hidden variable is one of a few components."""
