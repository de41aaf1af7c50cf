"""Gated PixelCNN: its reach, its gate, its label, its colour groups."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from likely.data.spec import DataSpec
from likely.errors import InvalidSetting, Unanswerable
from likely.models.pixelcnn.corners import CORNERS, REVERSED, turned, turned_back
from likely.models.pixelcnn.gated_pixelcnn import (
    GatedPixelCNN,
    GatedPixelCNNEnsemble,
    GatedPixelCNNOrders,
    gate,
    halves,
)
from likely.models.pixelcnn.settings import (
    Corner,
    GatedPixelCNNEnsembleSettings,
    GatedPixelCNNOrdersSettings,
    GatedPixelCNNSettings,
)
from likely.noise import Noise

SMALL = GatedPixelCNNSettings(channels=6, layers=2, kernel=3, first_kernel=3, head_channels=12)


def built(spec: DataSpec, **changes: object) -> GatedPixelCNN:
    torch.manual_seed(0)
    return GatedPixelCNN(spec, dataclasses.replace(SMALL, **changes)).double().eval()  # type: ignore[arg-type]


def seen_from(model: GatedPixelCNN, row: int, column: int) -> Tensor:
    """Pixels that the parameters at (row, column) depend on, bool [H, W]."""
    x = torch.rand(1, *model.spec.shape, dtype=torch.float64, requires_grad=True)
    out = model.conditionals(x)[0, :, row, column].sum()
    (gradient,) = torch.autograd.grad(out, x)
    return (gradient[0] != 0).any(0)


@pytest.mark.parametrize(
    ("layers", "first", "kernel"), [(1, 3, 3), (2, 3, 3), (2, 5, 3), (3, 3, 5)]
)
def test_the_reach_is_the_sum_of_the_taps(layers: int, first: int, kernel: int) -> None:
    """A block of rows above, as wide to the right as to the left, and the row to the left."""
    model = built(
        DataSpec("t", (1, 21, 21), 2), layers=layers, first_kernel=first, kernel=kernel,
        head_channels=24,
    )  # fmt: skip
    reach = first // 2 + (layers - 1) * (kernel // 2)
    seen = seen_from(model, 10, 10)
    assert bool(seen[10, 10 - reach : 10].all())
    assert not bool(seen[10, 10:].any())
    assert not bool(seen[11:].any())
    assert bool(seen[10 - reach : 10, 10 - reach : 11 + reach].all())
    assert not bool(seen[10, : 10 - reach].any())
    # Vertical features of the row itself reach one row further up once they are shifted down.
    assert not bool(seen[: 10 - reach - 1].any())
    assert not bool(seen[:, 11 + reach :].any())


def test_dilation_widens_the_reach() -> None:
    plain, wide = (
        built(DataSpec("t", (1, 15, 15), 2), dilations=(d,), head_channels=24) for d in (1, 3)
    )
    assert int(seen_from(wide, 12, 7).sum()) > int(seen_from(plain, 12, 7).sum())
    assert bool(seen_from(wide, 12, 7)[12, 3])
    assert not bool(seen_from(plain, 12, 7)[12, 3])


def test_the_gate_is_tanh_times_sigmoid_within_each_colour_group() -> None:
    x = torch.arange(12, dtype=torch.float64).reshape(1, 12, 1, 1) / 10 - 0.5
    expected = torch.tanh(x[:, :6]) * torch.sigmoid(x[:, 6:])
    torch.testing.assert_close(gate(x), expected)
    first, second = halves(x, 3)
    assert (first.flatten() * 10 + 5).round().tolist() == [0, 1, 4, 5, 8, 9]
    assert (second.flatten() * 10 + 5).round().tolist() == [2, 3, 6, 7, 10, 11]


def test_the_first_pixel_depends_on_nothing() -> None:
    model = built(DataSpec("t", (3, 4, 4), 4), channels=24, head_channels=24)
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(4, (5, 3, 4, 4), generator=generator)
    red = model.conditionals(x)[:, :4, 0, 0]
    assert torch.equal(red, red[:1].expand_as(red))
    green = model.conditionals(x)[:, 4:8, 0, 0]
    assert not torch.equal(green, green[:1].expand_as(green))


def test_a_label_moves_every_pixel() -> None:
    model = built(DataSpec("t", (1, 4, 4), 2, classes=("a", "b")), conditional=True)
    x = torch.zeros(2, 1, 4, 4, dtype=torch.int64)
    a, b = model.conditionals(x, torch.tensor([0, 1]))
    assert bool((a != b).any(0).all())


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="multiples of the 3 colour channels"):
        built(DataSpec("t", (3, 4, 4), 4), channels=8)
    # A head that couples the channels has no groups to divide into.
    assert built(DataSpec("t", (3, 4, 4), 4), channels=8, head="logistic-mixture").groups == 1
    with pytest.raises(InvalidSetting, match="odd kernel"):
        built(DataSpec("t", (1, 4, 4), 2), kernel=4)


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("shape", [(1, 5, 4), (3, 4, 6)])
def test_a_corner_is_a_reversed_image(corner: Corner, shape: tuple[int, int, int]) -> None:
    """The same weights give a reversed image what they give the image from the top left."""
    spec = DataSpec("t", shape, 3)
    plain, other = built(spec), built(spec, start=corner)
    other.load_state_dict(plain.state_dict())
    x = torch.randint(3, (4, *shape))
    reversed_x = x.flip(REVERSED[corner])
    torch.testing.assert_close(other.log_prob(reversed_x), plain.log_prob(x), rtol=1e-12, atol=0)
    assert torch.equal(other.sample(5, method="naive"), other.sample(5, method="incremental"))


def test_completion_goes_from_the_corner() -> None:
    spec = DataSpec("t", (1, 6, 4), 2)
    model = built(spec, start="bottom-right")
    x = torch.randint(2, (3, 1, 6, 4))
    observed = torch.zeros(6, 4, dtype=torch.bool)
    observed[4:] = True
    assert torch.equal(model.complete(x, observed)[:, :, 4:], x[:, :, 4:])
    with pytest.raises(Unanswerable, match="the model's own order"):
        model.complete(x, observed.flip(0), method="exact")


def test_a_map_counts_its_places_from_the_top_left() -> None:
    spec = dataclasses.replace(DataSpec("t", (1, 4, 4), 2), context=(2, 4, 4))
    built(spec, conditional=True)
    with pytest.raises(InvalidSetting, match="start=top-right cannot be combined with a map"):
        built(spec, conditional=True, start="top-right")


def test_an_ensemble_is_the_mean_of_its_networks_densities() -> None:
    settings = GatedPixelCNNEnsembleSettings(
        corners=4, channels=6, layers=2, first_kernel=3, head_channels=12
    )
    model = GatedPixelCNNEnsemble(DataSpec("t", (1, 4, 5), 2), settings).double().eval()
    members = [m for m in model.members() if isinstance(m, GatedPixelCNN)]
    assert [m.settings.start for m in members] == list(CORNERS)
    x = torch.randint(2, (6, 1, 4, 5))
    mean = torch.stack([m.log_prob(x).exp() for m in members]).mean(0)
    torch.testing.assert_close(model.log_prob(x).exp(), mean, rtol=1e-12, atol=0)
    one = model.train().surrogate(x, Noise(0))
    assert any(torch.equal(one, m.log_prob(x)) for m in members)
    with pytest.raises(InvalidSetting, match="4 corners"):
        GatedPixelCNNEnsembleSettings(corners=5)


def orders(**changes: object) -> GatedPixelCNNOrders:
    settings = GatedPixelCNNOrdersSettings(
        channels=6,
        layers=2,
        first_kernel=3,
        head_channels=12,
        **changes,  # type: ignore[arg-type]
    )
    torch.manual_seed(1)
    return GatedPixelCNNOrders(DataSpec("t", (1, 4, 4), 2), settings).double().eval()


def test_eight_orders_are_eight_and_each_is_undone() -> None:
    x = torch.arange(16).reshape(1, 1, 4, 4)
    seen = [tuple(turned(x, number).flatten().tolist()) for number in range(8)]
    assert len(set(seen)) == 8
    assert seen[1][:5] == (3, 2, 1, 0, 7)  # from the top right, by rows
    assert seen[4][:5] == (0, 4, 8, 12, 1)  # from the top left, by columns
    for number in range(8):
        assert torch.equal(turned_back(turned(x, number), number), x)
    members = orders().members()
    for member, order in zip(members, seen, strict=True):
        assert tuple(member.rank.flatten().argsort().tolist()) == order


def test_each_order_sees_what_it_drew_before_and_nothing_else() -> None:
    for member in orders().members():
        order = member.rank.flatten().argsort()
        x = torch.rand(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
        parameters = member.conditionals(x).flatten()
        for place in (1, 6, 15):
            (gradient,) = torch.autograd.grad(parameters[order[place]], x, retain_graph=True)
            seen = set(torch.nonzero(gradient.flatten())[:, 0].tolist())
            assert seen <= set(order[:place].tolist())
            assert order[place - 1].item() in seen


def test_training_draws_an_order_for_each_example() -> None:
    """Every value is that of one member, all members occur, and the mean is the mixture's bound."""
    model = orders()
    x = torch.randint(2, (300, 1, 4, 4))
    each = torch.stack([member.log_prob(x) for member in model.members()])  # [8, B]
    torch.testing.assert_close(model.log_prob(x), each.logsumexp(0) - torch.tensor(8.0).log())
    drawn = model.surrogate(x, Noise(3))
    assert torch.equal(model.surrogate(x, Noise(3)), drawn)
    part = model.surrogate(x[100:], Noise(3, rows=(100, 300)))
    torch.testing.assert_close(part, drawn[100:])
    near = (each - drawn).abs() < 1e-9
    assert bool(near.any(0).all())
    assert len(set(near.float().argmax(0).tolist())) == 8


def test_an_image_that_is_not_square_has_four_orders() -> None:
    spec = DataSpec("t", (1, 4, 5), 2)
    assert GatedPixelCNNOrdersSettings.preset(spec).orders == 4
    with pytest.raises(InvalidSetting, match="four orders"):
        GatedPixelCNNOrders(spec, GatedPixelCNNOrdersSettings(orders=8))
    with pytest.raises(InvalidSetting, match="8 orders"):
        GatedPixelCNNOrdersSettings(orders=9)
