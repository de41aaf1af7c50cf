r"""What a model is conditioned on, as something to add to its features.

Source: van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu 2016, eqs. 4 and 5,
https://arxiv.org/abs/1606.05328: a
label or a vector h enters as V^T h, the same at every pixel; a map s enters as V * s, an
unmasked 1 x 1 convolution, so that it may depend on the place. What is given may be seen
everywhere, so no mask is needed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from likely.sampling.program import Builder, Cells


class Condition(nn.Module):
    """V h: context to [B, features, 1, 1] for a label or a vector, [B, features, H, W] for a map.

    Args:
        classes: number of labels; 0 where the context is a vector or a map.
        shape: of a vector (K,) or a map (K, H, W); () for labels.
        features: of the result.
    """

    def __init__(self, classes: int, shape: tuple[int, ...], features: int) -> None:
        super().__init__()
        self.is_label, self.is_map = not shape, len(shape) == 3
        inputs = shape[0] if shape else classes
        self.weight = nn.Parameter(torch.randn(inputs, features))
        if shape:
            with torch.no_grad():
                self.weight.mul_(inputs**-0.5)

    def forward(self, context: Tensor, rows: int, stride: int = 1) -> Tensor:
        """The term to add.

        Args:
            context: int64 [B], or floats [B, K] or [B, K, H, W].
            rows: of the features; of a map no more are read.
            stride: of the features; a map is read at every stride-th place.
        """
        if self.is_label:
            return nn.functional.embedding(context, self.weight)[:, :, None, None]
        if self.is_map:
            cells = context[:, :, ::stride, ::stride][:, :, :rows]
            return conv2d(cells, self.weight.t()[:, :, None, None])
        return (context @ self.weight)[:, :, None, None]

    def incremental(
        self,
        build: Builder,
        stride: int = 1,
        features: slice = slice(None),
        labels: slice = slice(None),
    ) -> Cells:
        """The term to add, pixel by pixel.

        Args:
            build: takes it down.
            stride: of the features.
            features: which of them.
            labels: those that the context counts; one alone is every image's.
        """
        weight = self.weight[:, features]
        if self.is_label:
            weight = weight[labels]
            if len(weight) == 1 < len(self.weight):
                _, height, width = build.shape
                place = weight[0][:, None, None]
                return build.constant(place.expand(-1, -(-height // stride), -(-width // stride)))
        if self.is_label:
            return build.by_label(weight)
        return build.by_map(weight, stride) if self.is_map else build.by_vector(weight)


def optional_condition(classes: int, shape: tuple[int, ...], features: int) -> Condition | None:
    """A `Condition`, or None for an unconditional model."""
    return Condition(classes, shape, features) if classes or shape else None
