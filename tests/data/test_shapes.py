"""The drawn shapes: a picture is a function of its factors, and its moments give them back."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from likely.data import Dataset, load
from likely.data.shapes import SLIM, drawn
from likely.errors import InvalidSetting


@functools.cache
def train() -> Dataset:
    return load("shapes")[0]


def test_a_picture_is_a_function_of_its_factors() -> None:
    parts = (train(), train().validation, load("shapes")[1])
    assert [0 if part is None else len(part) for part in parts] == [10_000, 2_000, 2_000]
    for part in parts:
        assert part is not None
        few = part.take(np.array([3, 1, 7]))
        assert np.array_equal(drawn(few.factors), few.values)
        assert np.array_equal(few.labels, few.factors["kind"])
    names = ("kind", "size", "angle", "x", "y", "shade")
    assert tuple(train().factors) == names
    table = np.stack([train().factors[name] for name in names], 1)
    assert np.abs(np.corrcoef(table.T) - np.eye(6)).max() < 0.05  # independent
    # Equal pictures have equal factors.
    pictures = {values.tobytes() for values in train().values}
    assert len(pictures) == len({row.tobytes() for row in table})


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_moments_give_the_factors_back(kind: int) -> None:
    data = train().take(np.flatnonzero(train().factors["kind"] == kind)[:300])
    f = data.factors
    light = data.values[:, 0] / 255.0 / f["shade"][:, None, None]
    mass = light.sum((1, 2))
    area = {0: math.pi, 1: 4.0, 2: 2.0}[kind] * SLIM * (28 * f["size"]) ** 2
    assert np.abs(mass / area - 1).max() < 0.12
    place = (np.arange(28) + 0.5) / 28
    right = (light * place).sum((1, 2)) / mass
    up = (light * place[:, None]).sum((1, 2)) / mass
    turn = np.deg2rad(f["angle"])
    third = f["size"] / 3 if kind == 2 else 0.0  # the centre of mass of a triangle is off
    assert np.abs(right + third * np.cos(turn) - f["x"]).max() < 0.01
    assert np.abs(up - third * np.sin(turn) - f["y"]).max() < 0.01
    dx, dy = place[None, None] - right[:, None, None], up[:, None, None] - place[None, :, None]
    xx, yy, xy = ((light * m).sum((1, 2)) for m in (dx**2, dy**2, dx * dy))
    angle = np.rad2deg(0.5 * np.arctan2(2 * xy, xx - yy))
    assert np.abs(angle - f["angle"]).max() < 6.0


def test_size_and_colour_are_options() -> None:
    colour, _ = load("shapes", size=32, channels=3)
    assert colour.spec.shape == (3, 32, 32)
    assert tuple(colour.factors)[-1] == "hue"
    assert colour.source == {"name": "shapes", "size": 32, "channels": 3}
    red = colour.values[colour.factors["hue"] == 0.0]
    assert red[:, 0].max() == 255
    assert not red[:, 1:].any()
    with pytest.raises(InvalidSetting, match="28 or 32 pixels"):
        load("shapes", size=64)
    with pytest.raises(InvalidSetting, match="names a column"):
        load("shapes", image="picture")
    two, _ = load("shapes", binarize="threshold")
    assert two.spec.levels == 2
    assert np.array_equal(two.factors["x"], train().factors["x"])
