"""PixelRNN as a loop over pixels, with its masks as the paper words them: for tests and timing.

It shares the weights of a model and none of its code for convolutions, masks, skewing and sweeps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from likely.models.recurrent.pixelrnn import DiagonalBiLSTM, PixelRNN, RowLSTM

Place = tuple[int, int]
Maps = dict[Place, Tensor]  # features of each pixel, [F, B]


def group_of(feature: int, features: int, groups: int) -> int:
    return feature * groups // features


def masked(weight: Tensor, groups: int, mask: str, gates: int = 1) -> Tensor:
    """A weight [out, in] on the pixel itself; the outputs are `gates` runs of features."""
    outputs, inputs = weight.shape
    size = outputs // gates
    seen = torch.ones_like(weight)
    for out in range(outputs):
        for given in range(inputs):
            a, b = group_of(out % size, size, groups), group_of(given, inputs, groups)
            if not (a > b or (a == b and mask == "B")):
                seen[out, given] = 0
    return weight * seen


def cell(gates: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    o, f, i, g = gates.chunk(4)
    memory = torch.sigmoid(f) * before + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(memory), memory


def first_layer(model: PixelRNN, image: Maps, height: int, width: int) -> Maps:
    conv, groups = model.first, model.groups
    taps, out = conv.taps, {}
    batch = next(iter(image.values())).shape[1]
    for row in range(height):
        for column in range(width):
            total = conv.row.bias[:, None].expand(-1, batch)
            for up in range(taps, -1, -1):
                for left in range(taps, -taps - 1, -1):
                    place = (row - up, column - left)
                    if place not in image or (up == 0 and left < 0):
                        continue
                    if up:
                        weight = conv.above[:, :, taps - up, taps - left]
                    elif left:
                        weight = conv.row.weight[:, :, 0, taps - left]
                    elif groups > 1:
                        weight = masked(conv.row.weight[:, :, 0, taps], groups, "A")
                    else:
                        continue
                    total = total + weight @ image[place]
            out[row, column] = total
    return out


def labels_of(lstm: torch.nn.Module, context: Tensor | None, direction: int) -> Tensor | float:
    if lstm.label is None or context is None:
        return 0.0
    size = 4 * lstm.hidden
    return lstm.label(context)[:, direction * size : (direction + 1) * size].t()


def row_layer(
    layer: torch.nn.Module, x: Maps, height: int, width: int, context: Tensor | None
) -> Maps:
    lstm, taps = layer.lstm, layer.taps
    batch = next(iter(x.values())).shape[1]
    kernel = lstm.kernels[0].chunk(taps + 1, 1)
    current = masked(kernel[taps], lstm.groups, "B", 4)
    weights = lstm.weights[0].chunk(2 * taps + 1, 1)
    states: Maps = {}
    memories: Maps = {}
    out = {}
    for column in range(width):
        states[-1, column] = lstm.h0[0][:, None].expand(-1, batch)
        memories[-1, column] = lstm.c0[0][:, None].expand(-1, batch)
    for row in range(height):
        for column in range(width):
            gates = lstm.bias[0][:, None] + labels_of(lstm, context, 0)
            gates = gates + current @ x[row, column]
            for left in range(1, taps + 1):
                if column >= left:
                    gates = gates + kernel[taps - left] @ x[row, column - left]
            for tap in range(-taps, taps + 1):
                if 0 <= column + tap < width:
                    gates = gates + weights[taps + tap] @ states[row - 1, column + tap]
            found = cell(gates, memories[row - 1, column])
            states[row, column], memories[row, column] = found
            out[row, column] = upsampled(layer, x[row, column], states[row, column])
    return out


def upsampled(layer: torch.nn.Module, x: Tensor, states: Tensor) -> Tensor:
    weight = masked(layer.up.weight[:, :, 0, 0], layer.lstm.groups, "B")
    return x + weight @ states + layer.up.bias[:, None]


def diagonal_layer(
    layer: torch.nn.Module, x: Maps, image: Maps, height: int, width: int, context: Tensor | None
) -> Maps:
    lstm = layer.lstm
    batch = next(iter(x.values())).shape[1]
    maps: list[Maps] = []
    for direction, step in ((0, 1), (1, -1)):
        kernel = masked(lstm.kernels[direction], lstm.groups, "B", 4)
        beside, above = lstm.weights[direction].chunk(2, 1)
        h0 = lstm.h0[direction][:, None].expand(-1, batch)
        c0 = lstm.c0[direction][:, None].expand(-1, batch)
        states: Maps = {}
        memories: Maps = {}
        for row in range(height):
            for column in range(width)[::step]:
                gates = lstm.bias[direction][:, None] + labels_of(lstm, context, direction)
                gates = gates + kernel @ x[row, column]
                if direction and layer.pixels is not None:
                    gates = gates + layer.pixels @ image[row, column]
                gates = gates + beside @ states.get((row, column - step), h0)
                if row:
                    gates = gates + above @ states[row - 1, column]
                found = cell(gates, memories.get((row, column - step), c0))
                states[row, column], memories[row, column] = found
        maps.append(states)
    left, right = maps
    return {
        (row, column): upsampled(
            layer, x[row, column],
            left[row, column] + (right[row - 1, column] if row else 0.0),
        )
        for row, column in x
    }  # fmt: skip


def conditionals_by_pixel(model: PixelRNN, x: Tensor, context: Tensor | None = None) -> Tensor:
    """What `model.conditionals` must give."""
    _, _, height, width = x.shape
    scaled = model.scaled(x)
    image = {
        (row, column): scaled[:, :, row, column].t()
        for row in range(height)
        for column in range(width)
    }
    maps = first_layer(model, image, height, width)
    for layer in model.layers:
        if isinstance(model, RowLSTM):
            maps = row_layer(layer, maps, height, width, context)
        else:
            assert isinstance(model, DiagonalBiLSTM)
            maps = diagonal_layer(layer, maps, image, height, width, context)
    ends = [
        (masked(conv.weight[:, :, 0, 0], model.groups, "B"), conv.bias[:, None])
        for conv in (model.before_head, model.output)
    ]
    found = []
    for features in maps.values():
        for weight, bias in ends:
            features = weight @ torch.relu(features) + bias
        found.append(features)
    return torch.stack(found, 2).unflatten(2, (height, width)).permute(1, 0, 2, 3)
