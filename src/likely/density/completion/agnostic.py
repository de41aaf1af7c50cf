"""The rest of an image by an order-agnostic network: exactly, whichever pixels are observed."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from likely.density.completion import Completions, Way
from likely.estimate import Relation
from likely.heads import Head
from likely.noise import Noise

if TYPE_CHECKING:
    from likely.density.chain import Autoregressive
    from likely.density.mixture import Mixture


class OrderAgnostic(abc.ABC):
    """A network that predicts every dimension from any known ones."""

    head: Head

    @abc.abstractmethod
    def predictions(self, x: Tensor, known: Tensor, context: Tensor | None = None) -> Tensor:
        """Parameters of p(x_i | known dimensions) for all i.

        Args:
            x: levels, [B, C, H, W]; only known ones are read.
            known: bool [B, C, H, W]; [B, 1, H, W] where the head couples the channels.
            context: int64 [B] or None.

        Returns:
            [B, head.parameters, H, W].
        """


@torch.no_grad()
def agnostic_completions(
    model: Autoregressive | Mixture,
    x: Tensor,
    observed: Tensor,
    rank: Tensor,
    way: Way,
) -> Completions:
    """Draws by an order-agnostic network, in the order that begins with what is observed.

    Args:
        model: which is `OrderAgnostic`; a pass for each pixel, and for each channel where the head
            does not couple them.
        x: int64 [B, C, H, W].
        observed: bool [H, W].
        rank: by which the observed pixels are ordered, and the others, int64 [H, W].
        way: of drawing.
    """
    assert isinstance(model, OrderAgnostic)
    head, (channels, height, width) = model.head, x.shape[1:]
    groups = [range(channels)]
    if not head.couples_channels:
        groups = [range(c, c + 1) for c in range(channels)]
    order = [divmod(at, width) for at in rank.flatten().argsort().tolist()]
    order.sort(key=lambda at: not bool(observed[at]))
    log_observed = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    n, labels = way.n, way.context
    uniform = Noise(way.seed, "complete", device=x.device).uniform(len(x) * n, *x.shape[1:])
    x = x.masked_fill(~observed, 0)
    known = torch.zeros(
        len(x), 1 if head.couples_channels else channels, height, width,
        dtype=torch.bool, device=x.device,
    )  # fmt: skip
    for row, column in order:
        if not observed[row, column] and len(x) < len(uniform):
            x, known = x.repeat_interleave(n, 0), known.repeat_interleave(n, 0)
            labels = way.repeated
        at = (slice(None), slice(None), slice(row, row + 1), slice(column, column + 1))
        for some in groups:
            parameters = model.predictions(x, known, labels)[at].double()
            for c in some:
                if observed[row, column]:
                    table = head.log_table(parameters, x[at], c)[..., 0, 0]
                    log_observed += table.gather(1, x[:, c, row, column, None])[:, 0]
                else:
                    place = uniform[:, c, row : row + 1, column : column + 1]
                    drawn = head.quantile(parameters, x[at], c, place)
                    x[:, c, row, column] = drawn[:, 0, 0]
            known[:, : 1 if head.couples_channels else some.stop, row, column] = True
    if len(x) < len(uniform):  # all pixels are observed
        x = x.repeat_interleave(n, 0)
    images = x.reshape(-1, n, channels, height, width)
    places = torch.tensor([row * width + column for row, column in order])
    return Completions(
        model.as_data(images),
        log_observed,
        Relation.EXACT,
        exact=True,
        about="exact: of the network's density in the order that begins with what is observed",
        rank=places.argsort().reshape(height, width),
    )
