"""PixelCNN: its reach, its blind spot, its colour groups, its label."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from likely.data.spec import DataSpec
from likely.errors import InvalidSetting
from likely.models.pixelcnn.gated_pixelcnn import GatedPixelCNN
from likely.models.pixelcnn.pixelcnn import PixelCNN
from likely.models.pixelcnn.settings import GatedPixelCNNSettings, PixelCNNSettings
from likely.noise import Noise
from likely.sampling.ancestral import ancestral
from likely.verify import verify

SMALL = PixelCNNSettings(channels=6, layers=2, kernel=3, first_kernel=3, head_channels=12)


def built(spec: DataSpec, **changes: object) -> PixelCNN:
    torch.manual_seed(0)
    return PixelCNN(spec, dataclasses.replace(SMALL, **changes)).double().eval()  # type: ignore[arg-type]


def seen_from(model: PixelCNN | GatedPixelCNN, row: int, column: int, images: int = 20) -> Tensor:
    """Pixels that the parameters at (row, column) depend on, bool [H, W].

    Over several images: a rectified unit that is off hides what it sees.
    """
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(images, *model.spec.shape, generator=generator, dtype=torch.float64)
    x.requires_grad_(True)
    out = model.conditionals(x)[:, :, row, column].sum()
    (gradient,) = torch.autograd.grad(out, x)
    return (gradient != 0).any(0).any(0)


@pytest.mark.parametrize(
    ("layers", "first", "kernel", "dilations"),
    [
        (1, 3, 3, (1,)), (3, 3, 3, (1,)), (4, 7, 3, (1,)), (3, 5, 5, (1,)), (3, 3, 5, (1,)),
        (3, 3, 3, (1, 2)), (3, 5, 3, (1, 2, 4)), (2, 7, 3, (3,)),
    ],
)  # fmt: skip
def test_what_is_seen_is_what_the_reach_says(
    layers: int, first: int, kernel: int, dilations: tuple[int, ...]
) -> None:
    side, row, column = 21, 12, 9
    model = built(
        DataSpec("t", (1, side, side), 2),
        layers=layers, first_kernel=first, kernel=kernel, dilations=dilations, channels=12,
        head_channels=24,
    )  # fmt: skip
    seen = seen_from(model, row, column)
    expected = torch.zeros(side, side, dtype=torch.bool)
    back = first // 2 + sum(model.dilations) * (kernel // 2)  # left and up
    expected[row, max(0, column - back) : column] = True
    for up in range(1, min(back, row) + 1):
        right = min(side, column + model.reach(up) + 1)
        expected[row - up, max(0, column - back) : right] = True
    assert torch.equal(seen, expected)


def test_a_wavefront_of_four_columns_a_row_never_waits() -> None:
    model = PixelCNN(DataSpec("t", (1, 28, 28), 2), PixelCNNSettings(channels=1, head_channels=1))
    assert max(-(-(model.reach(rows) + 1) // rows) for rows in range(1, 28)) == 4


def test_the_blind_spot_is_a_share_of_the_past_that_depth_does_not_cure() -> None:
    """Of the past within reach of the centre of a 21 x 21 image, what is not seen."""
    spec, middle = DataSpec("t", (1, 21, 21), 2), 10
    past = middle * 21 + middle
    shares = []
    for layers in (9, 14):
        model = built(spec, layers=layers, channels=12, head_channels=24)
        seen = int(seen_from(model, middle, middle).sum())
        shares.append((past - seen) / past)
    # m rows up, nothing beyond m columns to the right: 9 + 8 + ... + 1 pixels.
    assert shares == [pytest.approx(45 / 220)] * 2
    gated = GatedPixelCNN(
        spec, GatedPixelCNNSettings(channels=8, layers=10, first_kernel=3, head_channels=12)
    ).double()
    assert int(seen_from(gated, middle, middle, 4).sum()) == past


def test_the_blind_spot_of_the_preset_on_28_x_28() -> None:
    """The shares that the documentation gives, measured."""
    model = PixelCNN(DataSpec("t", (1, 28, 28), 2)).double()
    reach = 3 + 15
    for row, column, missed, past in ((14, 14, 55, 406), (14, 7, 119, 371)):
        seen = seen_from(model, row, column, 4)
        near = torch.zeros(28, 28, dtype=torch.bool)
        near[max(0, row - reach) : row, max(0, column - reach) : column + reach + 1] = True
        near[row, max(0, column - reach) : column] = True
        assert int(near.sum()) == past
        assert int((near & ~seen).sum()) == missed


def test_it_says_that_it_has_a_blind_spot() -> None:
    model = built(DataSpec("t", (1, 7, 7), 2), layers=4)
    assert model.has_blind_spot
    proofs = verify(model)
    assert proofs.passed, str(proofs)
    assert "the past is seen" not in {proof.name for proof in proofs.proofs}


@pytest.mark.parametrize("channels", [1, 3])
def test_the_incremental_sampler_draws_the_same_integers(channels: int) -> None:
    spec = DataSpec("t", (channels, 6, 5), 4)
    model = built(spec, channels=6, layers=3)
    uniform = Noise("t").uniform(3, *spec.shape)
    blank = torch.zeros(3, *spec.shape, dtype=torch.int64)
    naive = ancestral(model, uniform, blank, 0, method="naive")
    assert torch.equal(naive, ancestral(model, uniform, blank, 0, method="incremental"))
    # From the middle of a row: what comes before is given, not drawn.
    given = ancestral(model, uniform.flip(0), naive, 13, method="incremental")
    assert torch.equal(given, ancestral(model, uniform.flip(0), naive, 13, method="naive"))


def test_the_first_pixel_depends_on_nothing_and_green_on_red() -> None:
    model = built(DataSpec("t", (3, 4, 4), 4), channels=24, head_channels=24)
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(4, (5, 3, 4, 4), generator=generator)
    red, green = model.conditionals(x)[:, :8, 0, 0].chunk(2, 1)
    assert torch.equal(red, red[:1].expand_as(red))
    assert not torch.equal(green, green[:1].expand_as(green))


def test_the_published_small_model_has_about_its_number_of_weights() -> None:
    """15 blocks of 16 maps, head of 32: 53,569 with masked taps counted; they are cropped here."""
    model = PixelCNN(DataSpec("t", (1, 28, 28), 2), PixelCNNSettings(channels=16, head_channels=32))
    count = sum(p.numel() for p in model.parameters())
    cropped = 53_569 - 15 * 16 * 16 * 4 - 25 * 32
    assert abs(count - cropped) / cropped < 0.1


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="multiples of the 3 colour channels"):
        built(DataSpec("t", (3, 4, 4), 4), channels=8)
    assert built(DataSpec("t", (3, 4, 4), 4), channels=8, head="logistic-mixture").groups == 1
    with pytest.raises(InvalidSetting, match="odd kernel"):
        built(DataSpec("t", (1, 4, 4), 2), kernel=4)
