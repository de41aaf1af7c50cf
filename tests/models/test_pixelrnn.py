"""PixelRNN: what a pixel sees, pixel by pixel the same numbers, its label, its colour groups."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from likely.data.spec import DataSpec
from likely.errors import InvalidSetting
from likely.models.pixelcnn.corners import CORNERS, REVERSED
from likely.models.pixelcnn.settings import Corner
from likely.models.recurrent.pixelrnn import (
    DiagonalBiLSTM,
    DiagonalBiLSTMEnsemble,
    PixelRNN,
    RowLSTM,
)
from likely.models.recurrent.settings import (
    DiagonalBiLSTMEnsembleSettings,
    DiagonalBiLSTMSettings,
    RowLSTMSettings,
)
from likely.noise import Noise, noise_for
from likely.sampling.ancestral import ancestral
from pixelrnn_by_pixel import conditionals_by_pixel
from planted_models import lively
from planted_pixelrnn import AsPrinted, RowLeftOnly

ROW = RowLSTMSettings(hidden=6, layers=2, first_kernel=3, head_channels=12, components=2)
DIAGONAL = DiagonalBiLSTMSettings(
    hidden=6, layers=2, first_kernel=3, head_channels=12, components=2
)


def built(kind: type[PixelRNN], spec: DataSpec, **changes: Any) -> Any:
    torch.manual_seed(0)
    settings = ROW if issubclass(kind, RowLSTM) else DIAGONAL
    model = kind(spec, dataclasses.replace(settings, **changes))  # type: ignore[call-arg,arg-type]
    lively(model)
    return model.double().eval()


def seen_from(model: PixelRNN, row: int, column: int) -> Tensor:
    """Pixels that the parameters at (row, column) depend on, bool [H, W].

    Over several images: a rectified unit that is off hides what it sees.
    """
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(12, *model.spec.shape, generator=generator, dtype=torch.float64)
    x.requires_grad_(True)
    out = model.conditionals(x)[:, :, row, column].sum()
    (gradient,) = torch.autograd.grad(out, x)
    return (gradient != 0).any(0).any(0)


def triangle(
    side: int, row: int, column: int, layers: int, first: int, kernel: int, right: bool = True
) -> Tensor:
    """What a Row LSTM sees: rows above widen by k // 2 columns each, layers reach to the left."""
    t, k = first // 2, kernel // 2
    expected = torch.zeros(side, side, dtype=torch.bool)
    for up in range(row + 1):
        # The first convolution brings one row up with t columns to either side.
        sideways = t + k * (up - 1) if right else t
        last = column + (sideways if up else -1)
        begin = column - t - k * (layers + (up if right else 2 * up))
        expected[row - up, max(0, begin) : max(0, min(side, last + 1))] = True
    return expected


@pytest.mark.parametrize(
    ("layers", "first", "kernel"), [(1, 3, 3), (2, 3, 3), (3, 7, 3), (2, 5, 5), (2, 3, 1)]
)
def test_a_row_lstm_sees_the_triangle_above_and_no_more(
    layers: int, first: int, kernel: int
) -> None:
    side = 13
    model = built(
        RowLSTM, DataSpec("t", (1, side, side), 2), layers=layers, first_kernel=first,
        kernel=kernel,
    )  # fmt: skip
    for row, column in ((8, 5), (12, 12), (12, 0), (0, 7)):
        expected = triangle(side, row, column, layers, first, kernel)
        assert torch.equal(seen_from(model, row, column), expected), (row, column)
    assert model.has_blind_spot


def test_padding_on_the_left_only_loses_the_right_half() -> None:
    model = built(RowLeftOnly, DataSpec("t", (1, 9, 9), 2))
    seen, whole = seen_from(model, 7, 3), triangle(9, 7, 3, 2, 3, 3)
    assert not bool(seen[:, 5:].any())
    assert bool((whole & ~seen).any())


@pytest.mark.parametrize(("height", "width"), [(7, 9), (9, 7)])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_diagonal_bilstm_sees_the_whole_past(height: int, width: int, layers: int) -> None:
    model = built(DiagonalBiLSTM, DataSpec("t", (1, height, width), 2), layers=layers)
    for row, column in ((6, 0), (6, 4), (6, 6), (3, 0), (0, 5)):
        seen = seen_from(model, row, column).flatten()
        expected = torch.arange(height * width) < row * width + column
        assert torch.equal(seen, expected), (row, column)
    assert not model.has_blind_spot


@pytest.mark.parametrize("layers", [1, 3])
def test_as_printed_the_last_pixel_of_the_row_above_is_lost(layers: int) -> None:
    """Whatever the depth: no feature of the rows above shows it, and none that is read."""
    model = built(AsPrinted, DataSpec("t", (1, 6, 8), 2), layers=layers)
    for column in range(8):
        past = torch.arange(48) < 4 * 8 + column
        missing = (past & ~seen_from(model, 4, column).flatten()).nonzero().flatten().tolist()
        # The first convolution (3 x 3) sees one column to the right.
        assert missing == ([3 * 8 + 7] if column + 1 < 7 else [])


CASES = [
    ((1, 4, 5), 2, "bernoulli", True),
    ((3, 3, 4), 4, "categorical", True),
    ((3, 4, 3), 256, "logistic-mixture", False),
    ((1, 1, 4), 3, "categorical", False),
    ((1, 4, 1), 3, "categorical", False),
]


@pytest.mark.parametrize("kind", [RowLSTM, DiagonalBiLSTM])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_loop_over_pixels_gives_the_same(
    kind: type[PixelRNN], case: tuple[tuple[int, ...], int, str, bool]
) -> None:
    shape, levels, head, conditional = case
    spec = DataSpec("t", shape, levels, classes=("a", "b"))
    model = built(kind, spec, head=head, conditional=conditional)
    x = torch.randint(levels, (3, *shape), generator=torch.Generator().manual_seed(2))
    context = torch.tensor([0, 1, 1]) if conditional else None
    with torch.no_grad():
        expected = conditionals_by_pixel(model, x, context)
        found = model.conditionals(x, context)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", [1, 5])
def test_wider_kernels_give_the_same(kernel: int) -> None:
    model = built(RowLSTM, DataSpec("t", (3, 4, 5), 4), kernel=kernel)
    x = torch.randint(4, (2, 3, 4, 5), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = conditionals_by_pixel(model, x)
        torch.testing.assert_close(model.conditionals(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [RowLSTM, DiagonalBiLSTM])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_both_samplers_draw_the_same_integers(
    kind: type[PixelRNN], case: tuple[tuple[int, ...], int, str, bool]
) -> None:
    shape, levels, head, conditional = case
    spec = DataSpec("t", shape, levels, classes=("a", "b"))
    model = built(kind, spec, head=head, conditional=conditional)
    uniform = Noise(7).uniform(3, *shape)
    blank = torch.zeros(3, *shape, dtype=torch.int64)
    context = torch.tensor([0, 1, 1]) if conditional else None
    naive = ancestral(model, uniform, blank, 0, context, "naive")
    assert torch.equal(ancestral(model, uniform, blank, 0, context, "incremental"), naive)
    assert len(torch.unique(naive)) > 1


@pytest.mark.parametrize("kind", [RowLSTM, DiagonalBiLSTM])
def test_the_initial_state_is_learned(kind: type[PixelRNN]) -> None:
    model = built(kind, DataSpec("t", (1, 4, 4), 2))
    x = torch.zeros(1, 1, 4, 4, dtype=torch.int64)
    torch.autograd.backward(model.log_prob(x))
    for layer in model.layers:
        assert bool(layer.lstm.h0.grad.any(1).all())
        assert bool(layer.lstm.c0.grad.any(1).all())


@pytest.mark.parametrize("kind", [RowLSTM, DiagonalBiLSTM])
def test_orders_made_in_inference_mode_serve_training(kind: type[PixelRNN]) -> None:
    # A size that no other test has: the orders are kept from the first call on.
    model = built(kind, DataSpec("t", (1, 2, 11), 2), layers=1)
    x = torch.zeros(1, 1, 2, 11, dtype=torch.int64)
    with torch.inference_mode():
        model.log_prob(x)
    torch.autograd.backward(model.log_prob(x))
    assert model.output.bias.grad is not None


@pytest.mark.parametrize("kind", [RowLSTM, DiagonalBiLSTM])
def test_sizes_that_do_not_divide_are_refused(kind: type[PixelRNN]) -> None:
    with pytest.raises(InvalidSetting, match="multiples of the 3 colour channels"):
        built(kind, DataSpec("t", (3, 4, 4), 4), hidden=8)
    # A head that couples the channels has no groups to divide into.
    assert built(kind, DataSpec("t", (3, 4, 4), 256), hidden=8).groups == 1
    with pytest.raises(InvalidSetting, match="odd kernel"):
        built(kind, DataSpec("t", (1, 4, 4), 2), first_kernel=4)
    with pytest.raises(InvalidSetting, match="odd kernel"):
        built(RowLSTM, DataSpec("t", (1, 4, 4), 2), kernel=2)


@pytest.mark.parametrize("kind", [RowLSTM, DiagonalBiLSTM])
def test_dropout_acts_in_training_and_a_part_of_the_batch_has_its_rows(
    kind: type[PixelRNN],
) -> None:
    model = built(kind, DataSpec("t", (1, 4, 4), 2), dropout=0.3)
    x = torch.randint(2, (6, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    plain = model.log_prob(x)
    model.train()
    with noise_for(model, Noise(3)):
        whole = model.log_prob(x)
    assert not torch.isclose(whole, plain).any()
    with noise_for(model, Noise(3, rows=(2, 6))):
        torch.testing.assert_close(model.log_prob(x[2:5]), whole[2:5])
    assert torch.equal(model.eval().log_prob(x), plain)


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("shape", [(1, 5, 4), (3, 4, 6)])
def test_a_corner_is_a_reversed_image(corner: Corner, shape: tuple[int, int, int]) -> None:
    """The same weights give a reversed image what they give the image from the top left."""
    spec = DataSpec("t", shape, 3)
    plain, other = built(DiagonalBiLSTM, spec), built(DiagonalBiLSTM, spec, start=corner)
    other.load_state_dict(plain.state_dict())
    x = torch.randint(3, (4, *shape))
    reversed_x = x.flip(REVERSED[corner])
    torch.testing.assert_close(other.log_prob(reversed_x), plain.log_prob(x), rtol=1e-12, atol=0)
    assert torch.equal(other.sample(5, method="naive"), other.sample(5, method="incremental"))


def test_an_ensemble_is_the_mean_of_its_networks_densities() -> None:
    settings = DiagonalBiLSTMEnsembleSettings(
        corners=4, hidden=6, layers=2, first_kernel=3, head_channels=12
    )
    model = DiagonalBiLSTMEnsemble(DataSpec("t", (1, 4, 5), 2), settings).double().eval()
    members = [m for m in model.members() if isinstance(m, DiagonalBiLSTM)]
    assert [m.settings.start for m in members] == list(CORNERS)  # type: ignore[union-attr]
    x = torch.randint(2, (6, 1, 4, 5))
    mean = torch.stack([m.log_prob(x).exp() for m in members]).mean(0)
    torch.testing.assert_close(model.log_prob(x).exp(), mean, rtol=1e-12, atol=0)
    one = model.train().surrogate(x, Noise(0))
    assert any(torch.equal(one, m.log_prob(x)) for m in members)
    with pytest.raises(InvalidSetting, match="4 corners"):
        DiagonalBiLSTMEnsembleSettings(corners=5)
