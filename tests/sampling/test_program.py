"""Every instruction, against the parallel form of the layer that it stands for, at every pixel."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, elu, layer_norm, pad

from likely.errors import InvalidSetting
from likely.nn.masked import conv_taps, pointwise, shift_down
from likely.sampling import lowering
from likely.sampling.compiled import CompiledExecutor
from likely.sampling.lowering import Tables
from likely.sampling.program import Builder, Cells, Moment, Program, Tap, features_of, shifted
from likely.sampling.records import Op
from likely.sampling.torch_executor import TorchExecutor
from likely.sampling.vectors import VECTOR_BYTES

SHAPE, LEVELS = (1, 5, 7), 6


def images(batch: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(LEVELS, (batch, *SHAPE), generator=generator)


def scaled(x: Tensor) -> Tensor:
    return x.double() * (2.0 / (LEVELS - 1)) - 1.0


def lively(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * 0.4


def step_by_step(
    kind: type[TorchExecutor] | type[CompiledExecutor],
    program: Program,
    x: Tensor,
    context: Tensor | None = None,
) -> Tensor:
    """The program's output at every pixel, [B, F, H, W]."""
    output = program.output
    if kind is CompiledExecutor:
        found = CompiledExecutor(program, len(x), context, side_by_side=False)
    else:
        found = kind(program, len(x), context)
    groups, (channels, height, width) = program.groups, program.shape
    size = channels // groups
    out = torch.zeros(len(x), output.features, height, width, dtype=torch.float64)
    part = output.features // groups
    for row in range(height):
        found.begin_row(row)
        for column in range(width):
            for group in range(groups):
                seen = found.pixel(row, column, group)
                own = slice(group * part, (group + 1) * part)
                out[:, own, row, column] = seen[:, own]
                found.put(row, column, x[:, group * size : (group + 1) * size, row, column], group)
        found.end_row(row)
    return out


def row_by_row(
    kind: type[TorchExecutor] | type[CompiledExecutor],
    program: Program,
    x: Tensor,
    context: Tensor | None = None,
) -> Tensor:
    """The same, every row given at once."""
    found = kind(program, len(x), context)
    rows = []
    for row in range(program.shape[1]):
        found.begin_row(row)
        rows.append(found.put_row(row, x[:, :, row]).clone())  # [W, B, F]
        found.end_row(row)
    return torch.stack(rows).permute(2, 3, 0, 1)


def check(
    build: Builder, output: Cells, x: Tensor, expected: Tensor, context: Tensor | None = None
) -> None:
    program = build.finish(output)
    for kind in (TorchExecutor, CompiledExecutor):
        for way in (step_by_step, row_by_row):
            difference = (way(kind, program, x, context) - expected).abs().max()
            assert difference < 1e-12, (kind, way)
    assert expected.std() > 1e-2


def first_layer(build: Builder, features: int = 4) -> tuple[Cells, Tensor]:
    """Taps left of, above, and above right of the pixel, and their parallel form."""
    weight = lively(features, 1, 2, 3)
    taps = conv_taps(build.image(), weight, first=(1, 1))
    h = build.linear(taps[:4], lively(features))
    mask = torch.ones(2, 3, dtype=torch.float64)
    mask[1, 1:] = 0
    x = pad(scaled(images()), (1, 1, 1, 0))
    return h, conv2d(x, weight * mask, lively(features))


def test_a_masked_convolution() -> None:
    build = Builder(SHAPE, LEVELS)
    h, expected = first_layer(build)
    # The row above is summed for the whole row when the row begins.
    assert [one.moment for one in build.instructions] == [Moment.BEFORE, Moment.PIXEL]
    check(build, h, images(), expected)


def test_shifts_put_zeros_not_biases() -> None:
    """A convolution that sees the pixel itself, shifted down or right (PixelCNN++)."""
    build = Builder(SHAPE, LEVELS)
    weight, bias = lively(4, 1, 2, 3), lively(4, seed=1)
    u = build.linear(conv_taps(build.image(), weight, first=(1, 1)), bias)
    tall = lively(4, 1, 2, 1, seed=2)
    left = build.linear(conv_taps(build.image(), tall, first=(1, 0)), bias)
    assert (u.moment, left.moment) == (Moment.AFTER, Moment.LATE)
    out = build.add(shifted(u, 1), shifted(left, left=1))
    x = scaled(images())
    down = shift_down(conv2d(pad(x, (1, 1, 1, 0)), weight, bias))
    right = pad(conv2d(pad(x, (0, 0, 1, 0)), tall, bias), (1, -1))
    check(build, out, images(), down + right)


def test_strided_and_transposed_layers() -> None:
    """Coarse cells are computed when they begin; odd sides leave a part of the last ones."""
    build = Builder(SHAPE, LEVELS)
    h, fine = first_layer(build)
    weight, bias = lively(6, 4, 2, 2), lively(6)
    coarse = build.linear(conv_taps(h, weight, first=(1, 1)), bias, stride=2)
    up = lively(6, 4, 2, 2, seed=3)  # [in, out, 2, 2] of a transposed convolution
    kernels = {(i, j): [(0, 0, up[:, :, i, j])] for i in range(2) for j in range(2)}
    back = build.upsample(build.elu(coarse), kernels, lively(4), 2)
    out = build.add(back, h)
    low = conv2d(pad(fine, (1, 0, 1, 0)), weight, bias, stride=2)
    high = conv_transpose2d(elu(low), up, lively(4), stride=2)[:, :, : SHAPE[1], : SHAPE[2]]
    check(build, out, images(), high + fine)


def test_a_stream_of_rows_goes_down_and_up() -> None:
    """The vertical stream of PixelCNN++: 2 x 3 kernels, stride 2 and back."""
    build = Builder(SHAPE, LEVELS)
    weight, bias = lively(4, 1, 2, 3), lively(4)
    u = shifted(build.linear(conv_taps(build.image(), weight, first=(1, 1)), bias), 1)
    down = lively(6, 4, 2, 3)
    low = build.linear(conv_taps(u, down, first=(1, 1)), lively(6), stride=2)
    assert low.moment is Moment.BEFORE
    up = lively(6, 4, 2, 3, seed=4)
    kernels = {}
    for i in range(2):
        kernels[i, 0] = [(0, 0, up[:, :, i, 1])]
        kernels[i, 1] = [(0, 0, up[:, :, i, 2]), (0, -1, up[:, :, i, 0])]
    out = build.upsample(low, kernels, lively(4), 2)
    fine = shift_down(conv2d(pad(scaled(images()), (1, 1, 1, 0)), weight, bias))
    coarse = conv2d(pad(fine, (1, 1, 1, 0)), down, lively(6), stride=2)
    high = conv_transpose2d(coarse, up, lively(4), stride=2)
    check(build, out, images(), high[:, :, : SHAPE[1], 1 : SHAPE[2] + 1])


def recurrence(x: Tensor, across: Tensor, down: Tensor, above: Tensor, side: Tensor) -> Tensor:
    """h(r, c) = tanh(x + A h(r, c - 1) + D h(r - 1, c)), with given borders."""
    batch, features, height, width = x.shape
    h = torch.zeros_like(x)
    for r in range(height):
        for c in range(width):
            before = h[:, :, r, c - 1] if c else side[r].expand(batch, features)
            over = h[:, :, r - 1, c] if r else above.expand(batch, features)
            h[:, :, r, c] = torch.tanh(x[:, :, r, c] + before @ across + over @ down)
    return h


@pytest.mark.parametrize("backwards", [False, True])
def test_a_state_recurs_along_the_row_and_down(backwards: bool) -> None:
    """Left to right at the pixel; right to left when the row is complete, shifted down."""
    build = Builder(SHAPE, LEVELS)
    across, down, above, side = lively(4, 4), lively(4, 4, seed=1), lively(4), lively(5, 4)
    h, fine = first_layer(build)
    if backwards:
        with build.backwards():
            state = build.state(4, above=above, side=side)
            taps = [Tap(state, across, 0, -1), Tap(state, down, 1, 0)]
            build.define(state, build.map("tanh", build.linear(taps, plus=[h])))
        out = build.add(shifted(state, 1), h)
        mirrored = recurrence(fine.flip(3), across, down, above, side).flip(3)
        # Row -1 is what was said to stand above the first row.
        first = above[None, :, None, None].expand(3, 4, 1, SHAPE[2])
        expected = torch.cat([first, mirrored[:, :, :-1]], 2) + fine
    else:
        state = build.state(4, above=above, side=side)
        taps = [Tap(state, across, 0, 1), Tap(state, down, 1, 0)]
        out = build.map("tanh", build.linear(taps, plus=[h]))
        build.define(state, out)
        expected = recurrence(fine, across, down, above, side)
    check(build, out, images(), expected)


def test_a_row_lstm() -> None:
    """States of the row above through a centred kernel; cells side by side."""
    build = Builder(SHAPE, LEVELS)
    weight = lively(12, 3, 1, 3)
    x, fine = first_layer(build, 12)
    h_state, c_state = build.state(3), build.state(3)
    gates = build.linear(conv_taps(h_state, weight, first=(1, 1)), plus=[x])
    h, c = build.lstm(gates, shifted(c_state, 1))
    build.define(h_state, h)
    build.define(c_state, c)
    h_above = c_above = torch.zeros(3, 3, 1, SHAPE[2], dtype=torch.float64)
    rows = []
    for row in range(SHAPE[1]):
        total = fine[:, :, row : row + 1] + conv2d(pad(h_above, (1, 1)), weight)
        o, f, i, g = total.chunk(4, 1)
        c_above = torch.sigmoid(f) * c_above + torch.sigmoid(i) * torch.tanh(g)
        h_above = torch.sigmoid(o) * torch.tanh(c_above)
        rows.append(h_above)
    assert build.finish(h).parallel_rows
    check(build, h, images(), torch.cat(rows, 2))


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_over_what_came_before(heads: int) -> None:
    """Keys see the pixel itself, so the mask is strict; the first pixel attends to nothing."""
    build = Builder(SHAPE, LEVELS)
    h, fine = first_layer(build)
    place = lively(2, *SHAPE[1:])
    # Above the image there are zeros.
    joined = build.concat([h, shifted(build.constant(place), 1)])
    query = pointwise(build, joined, lively(4, 6, 1, 1), None)
    sees = build.concat([build.image(), joined])
    key = pointwise(build, sees, lively(4, 7, 1, 1, seed=2), None)
    value = pointwise(build, sees, lively(6, 7, 1, 1), None)
    assert key.moment is Moment.LATE
    out = build.attend(query, key, value, heads=heads, scale=0.7)

    whole = torch.cat([fine, shift_down(place).expand(3, -1, -1, -1)], 1)
    seen = torch.cat([scaled(images()), whole], 1)
    q = conv2d(whole, lively(4, 6, 1, 1)).flatten(2)
    k = conv2d(seen, lively(4, 7, 1, 1, seed=2)).flatten(2)
    v = conv2d(seen, lively(6, 7, 1, 1)).flatten(2)
    q, k, v = (t.reshape(3, heads, -1, t.shape[2]) for t in (q, k, v))
    scores = torch.einsum("bhfq,bhfk->bhqk", q, k) * 0.7
    count = scores.shape[-1]
    strict = torch.ones(count, count, dtype=torch.bool).tril(-1)
    weights = scores.masked_fill(~strict, -1e300).softmax(-1) * strict
    expected = torch.einsum("bhqk,bhfk->bhfq", weights, v).reshape(3, 6, *SHAPE[1:])
    check(build, out, images(), expected)


def test_colour_groups_come_in_sub_steps() -> None:
    """NADE in three colours: a running vector, and one dimension's output at a time."""
    shape = (3, 3, 4)
    size = 3 * 3 * 4
    build = Builder(shape, LEVELS, groups=3)
    x = torch.randint(LEVELS, (2, *shape), generator=torch.Generator().manual_seed(2))
    into, out_of, start, bias = lively(size, 8), lively(8, size), lively(8), lively(size)
    a = build.running(start)
    build.accumulate(a, build.image(factor=1.0, offset=0.0), into)
    order = range(size)
    logits = build.grow(
        build.map("sigmoid", a), out_of, bias, order, range(1, size + 1), [8] * size
    )
    output = build.pick(logits, 1)
    flat = x.permute(0, 2, 3, 1).flatten(1).double()  # channels innermost
    expected = torch.zeros(2, size, dtype=torch.float64)
    for i in range(size):
        h = torch.sigmoid(start + flat[:, :i] @ into[:i])
        expected[:, i] = h @ out_of[:, i] + bias[i]
    check(build, output, x, expected.reshape(2, 3, 4, 3).permute(0, 3, 1, 2))


def test_a_head_that_couples_channels_takes_in_whole_pixels() -> None:
    """NADE with two outputs per pixel: three values come in at once, a dimension is a pixel."""
    shape = (3, 3, 4)
    pixels, size = 12, 36
    build = Builder(shape, LEVELS)
    x = torch.randint(LEVELS, (2, *shape), generator=torch.Generator().manual_seed(2))
    into, out_of, start, bias = lively(size, 8), lively(8, 24), lively(8), lively(24)
    a = build.running(start)
    build.accumulate(a, build.image(factor=1.0, offset=0.0), into)
    logits = build.grow(a, out_of, bias, range(0, 24, 2), range(2, 26, 2), [8] * pixels)
    output = build.pick(logits, 2)
    flat = x.permute(0, 2, 3, 1).flatten(1).double()  # channels innermost
    expected = torch.zeros(2, pixels, 2, dtype=torch.float64)
    for i in range(pixels):
        h = start + flat[:, : 3 * i] @ into[: 3 * i]
        expected[:, i] = h @ out_of[:, 2 * i : 2 * i + 2] + bias[2 * i : 2 * i + 2]
    check(build, output, x, expected.reshape(2, 3, 4, 2).permute(0, 3, 1, 2))


@pytest.mark.parametrize("channels", [1, 3])
def test_vectors_begin_with_what_belongs_to_the_label(channels: int) -> None:
    """A running vector, what grows from it, and what grows on top of that; with channels too."""
    shape = (channels, 3, 4)
    size = 12 * channels
    build = Builder(shape, LEVELS, groups=channels)
    x = torch.randint(LEVELS, (3, *shape), generator=torch.Generator().manual_seed(2))
    context = torch.tensor([2, 0, 1])
    into, out_of, again = lively(size, 8), lively(8, size), lively(8, size, seed=1)
    starts, biases = lively(3, 8), lively(3, size + 2)
    a = build.running(build.map("square", build.by_label(starts)))
    build.accumulate(a, build.image(factor=1.0, offset=0.0), into)
    ends = range(1, size + 1)
    # A part of what is known with the label.
    bias = features_of(build.by_label(biases), 2, size + 2)
    first = build.grow(a, out_of, bias, range(size), ends, [8] * size)
    output = build.grow(build.relu(a), again, first, range(size), ends, [5] * size)
    flat = x.permute(0, 2, 3, 1).flatten(1).double()  # channels innermost
    expected = torch.zeros(3, size, dtype=torch.float64)
    for i in range(size):
        now = starts[context] ** 2 + flat[:, :i] @ into[:i]
        expected[:, i] = biases[context, 2 + i] + now @ out_of[:, i]
        expected[:, i] += now.relu()[:, :5] @ again[:5, i]
    expected = expected.reshape(3, 3, 4, channels).permute(0, 3, 1, 2)
    check(build, build.pick(output, 1), x, expected, context)
    with pytest.raises(InvalidSetting, match="before the first row"):
        build.running(build.image())
    for wrong in (build.image(), first_layer(build, size)[0]):
        with pytest.raises(InvalidSetting, match="joined with a feature map"):
            build.grow(a, out_of, wrong, range(size), ends, [8] * size)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_matrix_applied_to_a_vector_gives_a_vector(channels: int) -> None:
    """A hidden layer that is recomputed at each dimension, with a term of the label."""
    shape = (channels, 3, 4)
    size = 12 * channels
    build = Builder(shape, LEVELS, groups=channels)
    x = torch.randint(LEVELS, (3, *shape), generator=torch.Generator().manual_seed(2))
    context, table = torch.tensor([2, 0, 1]), lively(3, 20)
    into, deeper, out_of = lively(size, 8), lively(8, 20), lively(20, size)
    start, shift, bias = lively(8), lively(20), lively(size)
    a = build.running(start)
    build.accumulate(a, build.image(factor=1.0, offset=0.0), into)
    h = build.linear([Tap(build.relu(a), deeper)], shift, plus=[build.by_label(table)])
    ends = range(1, size + 1)
    output = build.pick(build.grow(h, out_of, bias, range(size), ends, [20] * size), 1)
    flat = x.permute(0, 2, 3, 1).flatten(1).double()  # channels innermost
    expected = torch.zeros(3, size, dtype=torch.float64)
    for i in range(size):
        now = (start + flat[:, :i] @ into[:i]).relu() @ deeper + shift + table[context]
        expected[:, i] = now @ out_of[:, i] + bias[i]
    expected = expected.reshape(3, 3, 4, channels).permute(0, 3, 1, 2)
    check(build, output, x, expected, context)
    with pytest.raises(InvalidSetting, match="joined with a feature map"):
        build.linear([Tap(a, deeper)], plus=[build.image()])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("run", [1, 2, 5, 32])
def test_what_grows_from_the_drawn_values_is_begun_for_a_run_of_pixels(
    channels: int, run: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hidden units and outputs that read all values before them, as a MADE's, run by run."""
    monkeypatch.setattr(lowering, "RUN", run)
    shape = (channels, 3, 4)
    size = 12 * channels
    build = Builder(shape, LEVELS, groups=channels)
    x = torch.randint(LEVELS, (3, *shape), generator=torch.Generator().manual_seed(2))
    context = torch.tensor([2, 0, 1])
    # Some dimensions have no hidden unit, others several.
    ends = list(itertools.accumulate(3 * i % 4 for i in range(size)))
    first = [0, *ends[:-1]]
    hidden = ends[-1]
    into, deeper = lively(size, hidden), lively(hidden, hidden)
    read, direct = lively(hidden, size), lively(size, size)
    biases, shift = lively(3, hidden), lively(hidden)
    order, one_more = range(size), range(1, size + 1)
    values = build.drawn(build.image(factor=1.0, offset=0.0))
    below = build.grow(values, into, build.by_label(biases), first, ends, order)
    below = build.map("sigmoid", below)
    above = build.map("tanh", build.grow(below, deeper, shift, first, ends, ends), 0.5)
    output = build.grow(values, direct, lively(size), order, one_more, order)
    output = build.grow(above, read, output, order, one_more, ends)
    flat = x.permute(0, 2, 3, 1).flatten(1).double()  # channels innermost
    h, g = (torch.zeros(3, hidden, dtype=torch.float64) for _ in range(2))
    expected = torch.zeros(3, size, dtype=torch.float64)
    for i in range(size):
        new, seen = slice(first[i], ends[i]), slice(0, ends[i])
        h[:, new] = torch.sigmoid(flat[:, :i] @ into[:i, new] + biases[context][:, new])
        g[:, new] = 0.5 * torch.tanh(h[:, seen] @ deeper[seen, new] + shift[new])
        expected[:, i] = flat[:, :i] @ direct[:i, i] + lively(size)[i] + g[:, seen] @ read[seen, i]
    expected = expected.reshape(3, 3, 4, channels).permute(0, 3, 1, 2)
    check(build, build.pick(output, 1), x, expected, context)
    codes = Tables(build.finish(build.pick(output, 1)), 2).code["kind"]
    assert (codes == Op.GROW_RUN).sum() == 4 * channels
    assert (codes == Op.MAP_NEW).sum() == 2 * channels


def test_what_is_read_before_it_is_final_is_not_begun_early() -> None:
    """A vector that changes as a whole, or of which more is read than is known by then."""
    size = 12
    build = Builder((1, 3, 4), LEVELS)
    image = build.image(factor=1.0, offset=0.0)
    x = torch.randint(LEVELS, (3, 1, 3, 4), generator=torch.Generator().manual_seed(2))
    values, order, ends = build.drawn(image), range(size), range(1, size + 1)
    everything = build.map("sigmoid", values)  # one half where nothing is known
    first = build.grow(everything, lively(size, size), lively(size), order, ends, [size] * size)
    running = build.running(lively(size))
    build.accumulate(running, image, lively(size, size))
    output = build.grow(running, lively(size, size), first, order, ends, [size] * size)
    flat = x.flatten(1).double()
    expected = torch.zeros(3, size, dtype=torch.float64)
    for i in range(size):
        known = torch.where(torch.arange(size) < i, flat, 0.0)
        now = lively(size) + known @ lively(size, size)
        expected[:, i] = known.sigmoid() @ lively(size, size)[:, i] + lively(size)[i]
        expected[:, i] += now @ lively(size, size)[:, i]
    check(build, build.pick(output, 1), x, expected.reshape(3, 1, 3, 4))


@pytest.mark.parametrize("features", [4, 8, 16, 21])
def test_layer_normalisation_and_labels(features: int) -> None:
    build = Builder(SHAPE, LEVELS)
    h, fine = first_layer(build, features)
    table, gain, shift = lively(3, features), lively(features), lively(features, seed=1)
    out = build.normalize(build.add(h, build.by_label(table)), gain, shift)
    context = torch.tensor([2, 0, 1])
    summed = fine + table[context][:, :, None, None]
    expected = layer_norm(summed.permute(0, 2, 3, 1), (features,), gain, shift).permute(0, 3, 1, 2)
    check(build, out, images(), expected, context)


def test_memory_is_as_large_as_what_is_read() -> None:
    def rows(height: int) -> list[int]:
        build = Builder((1, height, 7), LEVELS)
        x = build.image()
        h = build.linear(conv_taps(x, lively(4, 1, 3, 5), 2, (5, 4)))
        return [memory.rows for memory in build.finish(build.relu(h)).memories]

    assert rows(9) == rows(90)
    assert rows(9)[0] == 6  # a kernel of three rows, two apart, that begins five rows up


def test_what_sees_the_future_is_refused() -> None:
    build = Builder(SHAPE, LEVELS)
    with pytest.raises(InvalidSetting, match="rows below"):
        build.linear([Tap(build.image(), lively(1, 2), up=-1)])
    peek = build.linear([Tap(build.image(), lively(1, 2))])
    with pytest.raises(InvalidSetting, match="not drawn yet"):
        build.finish(peek)
    right = build.linear([Tap(build.image(), lively(1, 2), left=-1)])
    with pytest.raises(InvalidSetting, match="not drawn yet"):
        build.finish(right)
    with pytest.raises(InvalidSetting, match="before it is defined"):
        build.add(build.state(2), peek)
    with pytest.raises(InvalidSetting, match="no features"):
        features_of(peek, 1, 3)


@pytest.mark.parametrize("vectors", range(1, 14))
def test_a_single_image_has_the_sums_of_a_batch(vectors: int) -> None:
    """Outputs of every number of vectors, several taps, with and without what is added first."""
    lanes = VECTOR_BYTES // 8
    outputs = vectors * lanes - vectors % 2
    build = Builder(SHAPE, LEVELS)
    h, fine = first_layer(build, outputs)
    weight, bias = lively(outputs, outputs, 1, 2), lively(outputs)
    wide = build.linear(conv_taps(h, weight, first=(0, 1)), bias, plus=[h])
    out = build.linear(conv_taps(wide, lively(outputs, outputs, 1, 1), first=(0, 0)))
    x = images()
    middle = conv2d(pad(fine, (1, 0)), weight, bias) + fine
    expected = conv2d(middle, lively(outputs, outputs, 1, 1))
    program = build.finish(out)
    together = step_by_step(CompiledExecutor, program, x)
    assert (together - expected).abs().max() < 1e-11
    for image in range(len(x)):
        alone = step_by_step(CompiledExecutor, program, x[image : image + 1])
        assert torch.equal(alone, together[image : image + 1])
