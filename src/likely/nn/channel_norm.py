"""Layer normalisation for causal networks: over the features of one pixel (Ba et al. 2016).

The statistics are those of one place and one colour group alone. Over an image or a batch they
would show later pixels, over all colour groups later channels of the pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from likely.sampling.program import Builder, Cells


class ChannelNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) * gain over the features of a colour group of a pixel."""

    EPS = 1e-6

    def __init__(self, features: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.gain = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, H, W] to [B, F, H, W]."""
        last = x.permute(0, 2, 3, 1)  # contiguous where x is in channels_last order
        size = len(self.gain) // self.groups
        if self.groups == 1:
            y = layer_norm(last, (size,), self.gain, None, self.EPS)
        else:
            split = last.reshape(*last.shape[:-1], self.groups, size)
            y = layer_norm(split, (size,), None, None, self.EPS).flatten(-2) * self.gain
        return y.permute(0, 3, 1, 2)

    def incremental(self, build: Builder, x: Cells) -> Cells:
        """`forward`."""
        return build.normalize(x, self.gain, torch.zeros_like(self.gain), self.EPS, self.groups)
