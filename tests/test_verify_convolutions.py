"""Convolutions as products: the numbers and gradients of torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d

from likely.verify import convolutions
from likely.verify.convolutions import IMAGES_PER_NUMBER, AsProducts

N, C = 1200, 4


@pytest.mark.parametrize(
    ("function", "shape", "options"),
    [
        (conv2d, (6, C, 3, 3), (1, 1)),
        (conv2d, (6, C, 2, 3), (2, (1, 2), 1)),
        (conv2d, (6, C // 2, 3, 3), (1, 2, 2, 2)),
        (conv2d, (2, C, 1, 1), ()),
        (conv_transpose2d, (C, 6, 4, 4), (2, 1)),
        (conv_transpose2d, (C, 3, 3, 3), (2, 1, 1, 2)),
    ],
)
@pytest.mark.parametrize("biased", [False, True])
def test_they_are_the_convolutions_of_torch(
    function: Any,
    shape: tuple[int, ...],
    options: tuple[Any, ...],
    biased: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(0)
    draw = {"generator": generator, "dtype": torch.float64}
    x = torch.randn(N, C, 3, 4, **draw).requires_grad_()
    weight = torch.randn(shape, **draw).requires_grad_()
    outputs = function(x, weight, None, *options).shape[1]
    bias = torch.randn(outputs, **draw).requires_grad_() if biased else None
    assert len(x) >= IMAGES_PER_NUMBER * x[0].numel()
    inputs = [x, weight, *([bias] if bias is not None else [])]
    made: list[torch.Size] = []

    def counted(*arguments: Any) -> Tensor:
        made.append(arguments[1].shape)
        return product(*arguments)

    product = convolutions._as_product
    monkeypatch.setattr(convolutions, "_as_product", counted)
    expected = function(x, weight, bias, *options)
    with AsProducts():
        result = function(x, weight, bias, *options)
    assert made == [x.shape]
    assert result.shape == expected.shape
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
    towards = torch.randn(result.shape, **draw)
    for a, b in zip(
        torch.autograd.grad(result, inputs, towards),
        torch.autograd.grad(expected, inputs, towards),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_few_images_and_single_precision_are_left_to_torch() -> None:
    weight = torch.ones(3, C, 3, 3)
    for x in (torch.ones(N, C, 3, 4), torch.ones(5, C, 3, 4, dtype=torch.float64)):
        kernel = weight.to(x.dtype)
        with AsProducts():
            assert torch.equal(conv2d(x, kernel), conv2d(x, kernel))
