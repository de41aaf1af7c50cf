"""Convolutions of many small images in double precision, as products with a matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Numbers of an image, and images for each of them, from where the product is the faster one.
MOST_NUMBERS = 512
IMAGES_PER_NUMBER = 8


class AsProducts(TorchFunctionMode):
    """Within this context a convolution is the matrix of what it does to each unit image.

    In float64 torch convolves one image after another, and the proofs integrate over thousands of
    images of a few pixels. The matrix comes from the convolution
    itself, so strides, paddings, dilations, groups and gradients are its own.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """A call of any function of torch."""
        if function in (torch.conv2d, torch.conv_transpose2d) and not kwargs:
            x, weight, bias, *rest = (*args, None)[: max(3, len(args))]
            if x.dtype == torch.float64 and x.ndim == 4:
                numbers = x[0].numel()
                if numbers <= MOST_NUMBERS and len(x) >= IMAGES_PER_NUMBER * numbers:
                    return _as_product(function, x, weight, bias, rest)
        return function(*args, **(kwargs or {}))


def _as_product(
    function: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rest: list[Any]
) -> Tensor:
    numbers = x[0].numel()
    units = torch.eye(numbers, dtype=x.dtype, device=x.device).reshape(numbers, *x.shape[1:])
    matrix: Tensor = function(units, weight, None, *rest)
    out = (x.flatten(1) @ matrix.flatten(1)).reshape(len(x), *matrix.shape[1:])
    return out if bias is None else out + bias[:, None, None]
