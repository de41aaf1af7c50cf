r"""Weights between the pixels of an image, under a hierarchical Gaussian prior.

Natural images are nearly stationary and their dependences fall with distance, which a dense layer
does not know: each of its weights is learned alone, and far too many of them from noise. Here the
weight from pixel b to pixel a is

    w(a, b) = s(|b - a|) (c_0 t(b - a) + sum_k c_k m_k(block_k(a), b - a) + c v(a, b)),
    s(d) = 1 / (1 + d / 2),

with t, m, v ~ N(0, 1): a part that all pixels share, parts that the pixels of a block of side k
share, and a part of its own. So every weight is free, but what data do not decide is borrowed from
the neighbours, then from the whole image, and is small where pixels are far apart. (Multilevel
regression: Gelman and Hill 2007, ch. 12; sharing by offset is that of a convolution, LeCun 1989.)

A fit under the prior is that of the maximum a posteriori: `likely.fit` adds -log p(weights) / N
to the mean loss of N training examples. What results is an ordinary weight matrix.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

REACH = 2.0  # pixels at which the standard deviation has halved


@dataclasses.dataclass(frozen=True)
class Spread:
    """Standard deviations of the parts of a weight, at distance 0.

    Attributes:
        shared: of the part that all pixels share.
        blocks: (side, standard deviation) of the parts shared by square blocks of pixels.
        each: of the part of a weight alone.
    """

    shared: float
    blocks: tuple[tuple[int, float], ...]
    each: float


# Of a regression on pixels; chosen by the validation likelihood of an FVSBN on static MNIST.
REGRESSION = Spread(shared=4.0, blocks=((4, 2.0), (2, 2.0)), each=0.5)


class LocalWeights(nn.Module):
    """The shared parts of a matrix [H W A, H W B] from B features of each pixel to A.

    Rows and columns are pixels in raster order, features innermost. The part of each weight alone
    is the caller's, who may store only those that a mask keeps.

    Args:
        height: H.
        width: W.
        above: A.
        below: B.
        spread: of the prior.
        start: standard deviation of the part that all pixels share at the start, in units of its
            prior's; features that start alike would stay alike.

    >>> weights = LocalWeights(28, 28, 1, 1, Spread(4.0, ((4, 2.0),), 0.5))
    >>> weights(torch.zeros(784, 784)).shape
    torch.Size([784, 784])
    >>> [tuple(part.shape) for part in weights.parts]  # blocks, pairs of features, offsets
    [(1, 1, 3025), (49, 1, 961)]
    """

    nearness: Tensor

    def __init__(
        self, height: int, width: int, above: int, below: int, spread: Spread, start: float = 0.0
    ) -> None:
        super().__init__()
        self.height, self.width, self.above, self.below = height, width, above, below
        self.spread = spread
        self.sides = [(height, width), *((side, side) for side, _ in spread.blocks)]
        self.deviations = [spread.shared, *(deviation for _, deviation in spread.blocks)]
        # In a block of side k every offset from one of its pixels into the image has its place.
        self.parts = nn.ParameterList(
            torch.zeros(
                -(-height // down) * -(-width // across),
                above * below,
                (height + down - 1) * (width + across - 1),
            )
            for down, across in self.sides
        )
        if start:
            nn.init.normal_(self.parts[0], std=start)
        self.register_buffer("nearness", nearness(height, width), persistent=False)

    def forward(self, residual: Tensor) -> Tensor:
        """The weights, [H W A, H W B], from the part of each alone, [H W A, H W B]."""
        pixels = self.height * self.width
        total = residual.reshape(pixels, self.above, pixels, self.below) * self.spread.each
        for part, sides, deviation in zip(self.parts, self.sides, self.deviations, strict=True):
            total = total + self.spread_out(part, *sides) * deviation
        return (total * self.nearness[:, None, :, None]).reshape(residual.shape)

    def spread_out(self, part: Tensor, down: int, across: int) -> Tensor:
        """What the pixels of each block share, for each of them, [H W, A, H W, B]."""
        rows, columns = self.height, self.width
        blocks = part.view(
            -(-rows // down),
            -(-columns // across),
            self.above * self.below,
            rows + down - 1,
            columns + across - 1,
        )
        # A block's pixel p from its end reads the offsets from p on: [R, C, A B, k, k, H, W].
        windows = blocks.unfold(3, rows, 1).unfold(4, columns, 1).flip(3, 4)
        by_pixel = windows.permute(0, 3, 1, 4, 2, 5, 6).reshape(
            len(blocks) * down, -1, self.above, self.below, rows * columns
        )
        # Blocks may reach over the edge.
        inside = by_pixel[:rows, :columns].flatten(0, 1)  # [H W, A, B, H W]
        return inside.transpose(2, 3)

    def negative_log_prior(self, residual: Tensor) -> Tensor:
        """-log p of the parts and of those of each weight alone, but for a constant."""
        return torch.stack([0.5 * (part * part).sum() for part in (*self.parts, residual)]).sum()


def nearness(height: int, width: int) -> Tensor:
    """s(d) of the distance d between all pixels, [H W, H W]."""
    down, across = torch.meshgrid(
        torch.arange(height, dtype=torch.float32),
        torch.arange(width, dtype=torch.float32),
        indexing="ij",
    )
    down, across = down.flatten(), across.flatten()
    distance = torch.hypot(down[:, None] - down, across[:, None] - across)
    return 1 / (1 + distance / REACH)
