"""Sampling: the incremental way draws the integers of the naive one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from likely.data.spec import DataSpec
from likely.errors import InvalidSetting, Unanswerable
from likely.models.gated_pixelcnn import GatedPixelCNN
from likely.models.settings import GatedPixelCNNSettings
from likely.noise import Noise
from likely.sampling import ancestral, invert

# (channels, levels, head, conditional): grey and colour, masked groups and coupled channels.
CASES = [
    (1, 2, "bernoulli", False),
    (1, 17, "categorical", True),
    (3, 4, "categorical", True),
    (3, 256, "logistic-mixture", False),
]


def model_for(channels: int, levels: int, head: str, conditional: bool) -> GatedPixelCNN:
    spec = DataSpec("t", (channels, 5, 6), levels, n=1, classes=("a", "b"))
    settings = GatedPixelCNNSettings(
        channels=12,
        layers=4,
        kernel=5,
        first_kernel=7,
        dilations=(1, 2),
        head_channels=12,
        components=2,
        conditional=conditional,
        head=head,  # type: ignore[arg-type]
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = GatedPixelCNN(spec, settings).double().eval()
        for parameter in model.parameters():
            parameter.data.normal_(0.0, 0.3)
    return model


def drawn(model: GatedPixelCNN, method: str, batch: int = 3, start: int = 0) -> Tensor:
    uniform = Noise(7).uniform(batch, *model.spec.shape)
    generator = torch.Generator().manual_seed(5)
    x = torch.randint(0, model.spec.levels, (batch, *model.spec.shape), generator=generator)
    context = torch.arange(batch) % 2 if model.classes else None
    return ancestral(model, uniform, x, start, context, method)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", [1, 3, 17])
def test_both_ways_draw_the_same_integers(case: tuple[int, int, str, bool], batch: int) -> None:
    model = model_for(*case)
    naive = drawn(model, "naive", batch)
    assert torch.equal(drawn(model, "incremental", batch), naive)
    assert naive.double().std() > 0.1  # a constant image would prove little


@pytest.mark.parametrize("case", CASES)
def test_the_parameters_agree_at_every_pixel(case: tuple[int, int, str, bool]) -> None:
    """First row, last column and all borders: 1e-12 in float64, 1e-4 of a logit in float32."""
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        model = model_for(*case).to(dtype)
        x = drawn(model_for(*case), "naive")
        context = torch.arange(3) % 2 if model.classes else None
        with torch.no_grad():
            whole = model.conditionals(x, context)
            stepper = model.stepper(3, context)
            channels, height, width = model.spec.shape
            size = model.head.parameters // model.groups
            for row in range(height):
                stepper.begin_row(x[:, :, row - 1] if row else None)
                for column in range(width):
                    for channel in range(channels):
                        found = stepper.pixel(x[:, :, row], column, channel)
                        first = channel * size if model.groups > 1 else 0
                        part = slice(first, first + size)
                        difference = found[:, part] - whole[:, part, row, column]
                        assert difference.abs().max() <= tolerance


@pytest.mark.parametrize("method", ["naive", "incremental"])
@pytest.mark.parametrize("start", [1, 6, 13, 29])
def test_a_given_beginning_is_kept_and_continued(method: str, start: int) -> None:
    """The rest is a function of the beginning and the noise: it draws the same rest again."""
    model = model_for(*CASES[1])
    whole = drawn(model, "naive")
    uniform = Noise(7).uniform(3, *model.spec.shape)
    spoiled = whole.clone()
    spoiled.flatten(2)[:, :, start:] = 16 - spoiled.flatten(2)[:, :, start:]
    again = ancestral(model, uniform, spoiled, start, torch.arange(3) % 2, method)  # type: ignore[arg-type]
    assert torch.equal(again, whole)


def test_an_image_does_not_depend_on_its_batch() -> None:
    model = model_for(*CASES[2])
    together = drawn(model, "incremental", 5)
    alone = drawn(model, "incremental", 2)
    assert torch.equal(together[:2], alone)


def test_every_row_is_shown_once_complete() -> None:
    model = model_for(*CASES[0])
    seen: list[Tensor] = []
    uniform = Noise(7).uniform(2, *model.spec.shape)
    blank = torch.zeros(2, *model.spec.shape, dtype=torch.int64)
    final = ancestral(model, uniform, blank, 0, watch=lambda row, x: seen.append(x.clone()))
    for row, image in enumerate(seen):
        assert torch.equal(image[:, :, : row + 1], final[:, :, : row + 1])
        assert not image[:, :, row + 1 :].any()
    assert len(seen) == 5


def test_inversion_is_the_inverse_of_the_distribution_function() -> None:
    p = torch.tensor([0.2, 0.0, 0.5, 0.3], dtype=torch.float64)
    uniform = torch.tensor([0.0, 0.1999, 0.2, 0.6999, 0.7001, 1 - 1e-16])
    levels = invert(p.log().expand(6, 4), uniform.double())
    assert levels.tolist() == [0, 0, 2, 2, 3, 3]


def test_an_unknown_method_and_a_hole_are_refused() -> None:
    model = model_for(*CASES[0])
    with pytest.raises(InvalidSetting, match='did you mean "naive"'):
        drawn(model, "naiv")
    observed = torch.zeros(5, 6, dtype=torch.bool)
    observed[2, 3] = True
    x = torch.zeros(1, 1, 5, 6, dtype=torch.int64)
    with pytest.raises(Unanswerable, match="raster order"):
        model.complete(x, observed)
