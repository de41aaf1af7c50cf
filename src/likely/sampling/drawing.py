"""From the head's parameters and uniform numbers to integers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from likely.heads import Head


class Draw:
    """How dimensions are drawn: the head at a temperature, and the uniform numbers.

    Args:
        head: of the model.
        uniform: [B, C, H, W] in [0, 1).
        temperature: see `Head.tempered`.
    """

    def __init__(self, head: Head, uniform: Tensor, temperature: float = 1.0) -> None:
        self.head, self.uniform, self.temperature = head, uniform, temperature

    def part(self, images: slice) -> Draw:
        """The same for some images of the batch."""
        return Draw(self.head, self.uniform[images], self.temperature)

    def __call__(
        self, parameters: Tensor, x: Tensor, row: int, columns: slice, channels: Sequence[int]
    ) -> None:
        """Draw some channels of some pixels of a row, in place.

        Args:
            parameters: of these pixels, [B, P, columns].
            x: int64 [B, C, H, W].
            row: of the pixels.
            columns: of the pixels.
            channels: in order.
        """
        wide = self.head.tempered(parameters.double(), self.temperature).unsqueeze(2)
        for channel in channels:
            pixels = x[:, :, row : row + 1, columns]
            at = self.uniform[:, channel, row : row + 1, columns]
            x[:, channel, row : row + 1, columns] = self.head.quantile(wide, pixels, channel, at)
