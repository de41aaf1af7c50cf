"""What a pixel sees: the picture tells past, future, a blind spot and a leak apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import planted_models as planted
from likely.density import Autoregressive
from likely.errors import InvalidSetting
from likely.report.context import (
    LEAK,
    NOT_SEEN,
    PAPER,
    context_map,
    context_picture,
    save_context_picture,
)
from planted_models import GREY, lively


def built(kind: type) -> Autoregressive:
    model = lively(kind(GREY, planted.PIXELCNN).eval())
    assert isinstance(model, Autoregressive)
    return model


def test_the_map_is_the_jacobian() -> None:
    seen = context_map(built(planted.GatedPixelCNN), [(2, 2), (0, 0)])
    flat = seen.flatten(1)
    assert seen.shape == (2, 5, 5)
    assert bool((flat[0, :12] > 0).all())
    assert not bool(flat[0, 12:].any())
    assert not bool(flat[1].any())


@pytest.mark.parametrize(
    ("kind", "colour", "there"),
    [
        (planted.GatedPixelCNN, LEAK, False),
        (planted.CurrentRow, LEAK, True),
        (planted.GatedPixelCNN, NOT_SEEN, False),
        (planted.HonestOldPixelCNN, NOT_SEEN, True),
    ],
)
def test_colours_of_a_leak_and_of_a_blind_spot(
    kind: type, colour: tuple[int, int, int], there: bool
) -> None:
    picture = context_picture(built(kind), [(3, 1)])
    colours = {pixel for _, pixel in picture.getcolors(1 << 16) or []}
    assert (colour in colours) == there
    assert PAPER in colours


def test_a_picture_is_written_and_a_place_outside_refused(tmp_path: Path) -> None:
    model = built(planted.GatedPixelCNN)
    save_context_picture(model, tmp_path / "context.png")
    with Image.open(tmp_path / "context.png") as image:
        assert image.width > 3 * image.height * 0.9
    with pytest.raises(InvalidSetting, match=r"no pixel \(5, 0\)"):
        context_map(model, [(5, 0)])
