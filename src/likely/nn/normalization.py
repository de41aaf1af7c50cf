"""Batch normalisation over all processes (Ioffe and Szegedy 2015).

Under torchrun the statistics are those of the whole batch, so two processes with half of it
each compute what one process with all of it does; torch's own synchronised layer needs CUDA.
Not for densities: batch statistics couple the examples of a batch.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class BatchNorm2d(nn.Module):
    """(x - mean) / sqrt(variance + eps) * gain + shift, over (B, H, W) of each feature."""

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, features: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(features))
        self.shift = nn.Parameter(torch.zeros(features))
        self.momentum, self.eps = momentum, eps
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_variance", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.running_mean, self.running_variance
        if self.training:
            mean, variance = self._batch_statistics(x)
        scale = self.gain * (variance + self.eps).rsqrt()
        shift = self.shift - mean * scale
        return x * scale[:, None, None] + shift[:, None, None]

    def _batch_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.to(torch.promote_types(x.dtype, self.gain.dtype))  # sums in no less than float32
        moments = torch.stack([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))])
        count = x.numel() // x.shape[1]
        if dist.is_initialized() and dist.get_world_size() > 1:
            total: Tensor = all_reduce(moments)  # type: ignore[no-untyped-call]
            moments = total / dist.get_world_size()
            count *= dist.get_world_size()
        mean = moments[0]
        variance = (moments[1] - mean.square()).clamp(min=0.0)
        with torch.no_grad():
            unbiased = variance * (count / max(1, count - 1))
            self.running_mean.lerp_(mean, self.momentum)
            self.running_variance.lerp_(unbiased, self.momentum)
        return mean, variance
