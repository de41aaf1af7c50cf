"""Colouring and enlarging as jobs and commands: known answers, guarantees, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import likely
from likely import models, runs
from likely.ask.colorize import colourings
from likely.cli import main
from likely.data.spec import DataSpec
from likely.density.colouring import grey_of
from likely.errors import InvalidData, InvalidSetting, Unanswerable
from likely.jobs.restoration import (
    calibrated,
    coverage,
    diversity,
    eccentricity,
    floors,
    intervals,
    psnr,
    resized,
)
from likely.jobs.restore import Task, restore
from sizes import SMALL
from test_conformance import built

COLOUR = DataSpec("colour", (3, 4, 4), 256)


def test_measures_have_their_known_answers() -> None:
    truth = np.zeros((2, 1, 2, 2))
    wrong = truth.copy()
    wrong[0] += 255.0
    wrong[1, 0, 0, 0] = 25.5
    np.testing.assert_allclose(psnr(wrong, truth, 256), [0.0, 20.0 + 10 * np.log10(4)])
    assert psnr(truth, truth, 256).tolist() == [60.0, 60.0]
    random = np.random.Generator(np.random.Philox(1))
    draws = random.integers(0, 8, (40, 64, 3, 6, 6))
    same = random.integers(0, 8, (40, 3, 6, 6))
    masses = eccentricity(draws, same)  # ties by eight levels
    assert coverage(masses) == pytest.approx(0.9, abs=0.02)
    assert coverage(masses, 0.5) == pytest.approx(0.5, abs=0.02)
    assert coverage(eccentricity(draws, same + 20)) == 0.0
    assert diversity(draws, same) == pytest.approx(1.0, abs=0.01)
    assert diversity(draws // 8, same) == 0.0
    x = np.arange(16).reshape(1, 1, 4, 4)
    np.testing.assert_array_equal(resized(x, (2, 2), "area", 16)[0, 0], [[2, 4], [10, 12]])
    assert set(floors(x[:, :, ::2, ::2], x, 16)) == {"nearest", "bilinear", "bicubic"}
    assert set(floors(x, np.repeat(x, 3, 1), 16)) == {"grey"}


@pytest.mark.parametrize("spread", [0.7, 1.0, 1.5])
def test_calibrated_intervals_hold_what_they_claim(spread: float) -> None:
    """Draws that spread too much, or too little, on images that did not choose the width."""
    random = np.random.Generator(np.random.Philox(2))

    def gaussian(scale: float, *shape: int) -> np.ndarray:
        return np.rint(500 + 100 * scale * random.normal(size=shape)).astype(np.int64)

    held = []
    for _ in range(2):
        draws, truth = gaussian(spread, 60, 200, 1, 8, 8), gaussian(1.0, 60, 1, 8, 8)
        held.append(eccentricity(draws, truth))
    mass = calibrated(held[0])
    assert (mass > 0.9) == (spread < 1) or spread == 1.0
    assert coverage(held[1], mass) == pytest.approx(0.9, abs=0.02)
    assert (abs(coverage(held[1]) - 0.9) > 0.04) == (spread != 1.0)
    low, high = intervals(draws, mass, 1001)
    inside = ((low <= truth) & (truth <= high)).mean()
    assert inside == pytest.approx(0.9, abs=0.03)


def test_an_interval_of_few_draws_is_all_levels() -> None:
    draws = np.arange(19).reshape(1, 19, 1, 1, 1)
    assert intervals(draws, 0.9, 30).ravel().tolist() == [0, 18]  # a twentieth beyond each
    assert intervals(draws, 0.8, 30).ravel().tolist() == [1, 17]
    assert intervals(draws[:, :18], 0.9, 30).ravel().tolist() == [0, 29]


def test_draws_of_the_model_s_own_conditional_are_exact_and_others_say_they_are_not() -> None:
    x = torch.randint(256, (3, 3, 4, 4))
    for name, task in (("luma-chroma", Task()), ("haar-pyramid", Task(2))):
        model = built(name, COLOUR)
        result = restore(model, task, None, x, 4, seed=1)
        assert result.exact
        assert result.consistency == 0.0
        assert result.bits is not None
        assert result.bits.relation.value == "="
        missing = 32 if task.times == 1 else 36
        with torch.no_grad():
            _, rest = model.log_parts(x)  # type: ignore[operator]
        expected = -float(rest.mean()) / missing / np.log(2)
        assert result.bits.value == pytest.approx(expected, rel=1e-5)
        assert result.sheet("sheet").width > 0
        other = restore(
            model, Task(task.times, "rec601" if task.times == 1 else "area"), None, x, 2
        )
        assert not other.exact
        assert other.consistency > 0
        assert other.bits is None
    multiscale = restore(built("parallel-multiscale", COLOUR), Task(2), None, x, 2)
    assert multiscale.exact
    assert multiscale.known.sum() == 4


def test_a_chain_rule_colours_grey_of_rec_601_approximately() -> None:
    x = torch.randint(256, (2, 3, 4, 4))
    model = built("pixelcnn", COLOUR)
    result = restore(model, Task(), None, x, 2, particles=4)
    assert not result.exact
    assert result.consistency == 0.0
    assert result.bits is not None
    assert result.bits.relation.value == ">="
    base = grey_of(x)
    assert restore(model, Task(), base, None, 2, particles=4).truth is None
    with pytest.raises(Unanswerable, match="no colours"):
        restore(built("pixelcnn", DataSpec("grey", (1, 4, 4), 6)), Task(), base, None)
    with pytest.raises(Unanswerable, match="no small image comes first"):
        restore(model, Task(2), None, x)
    with pytest.raises(InvalidSetting, match="times=4: this model enlarges by 2"):
        restore(built("haar-pyramid", COLOUR), Task(4), None, x)
    with pytest.raises(InvalidSetting, match="unknown kernel"):
        restore(built("haar-pyramid", COLOUR), Task(2, "cubic"), None, x)


def test_what_particles_were_worth_is_the_least_of_all_images() -> None:
    x = torch.cat([torch.zeros(1, 3, 4, 4, dtype=torch.int64), torch.randint(256, (3, 3, 4, 4))])
    model = built("pixelcnn", COLOUR)
    for order in (x, x.flip(0)):
        result = restore(model, Task(), None, order, 2, particles=16, block=1)
        every = [
            float(colourings(model, grey_of(image[None]), 2, seed=i, particles=16).effective.min())  # type: ignore[union-attr]
            for i, image in enumerate(order)
        ]
        assert f"worth at least {min(every):.1f};" in result.notes[1]


@pytest.mark.parametrize("grey", [-1, 256])
def test_grey_that_no_colour_has_is_refused(grey: int) -> None:
    with pytest.raises(InvalidData, match=rf"grey levels in \[0, 256\), given {grey}"):
        colourings(built("pixelcnn", COLOUR), torch.full((1, 1, 4, 4), grey))


def test_the_commands_take_a_split_a_folder_and_an_array(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, _ = likely.data.load("digits")
    scale = tmp_path / "scale"
    model = models.HaarPyramid(train.spec, models.HaarPyramidSettings(**SMALL["haar-pyramid"]))
    likely.fit(model, train, steps=1, out=scale)
    array = tmp_path / "draws.npy"
    words = ["upscale", str(scale), "test", "-n", "3", "--images", "2", "--npy", str(array)]
    assert main([*words, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["guarantee"], record["consistency"], record["images"]) == ("exact", 0.0, 2)
    assert np.load(array).shape == (2, 3, 1, 8, 8)
    assert (record["interval-mass"], record["calibrated-on"]) == (0.9, 0)
    held = tmp_path / "held.npy"
    words += ["--calibrate", "4", "--intervals", str(held)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "of the draws held 90 % of 4 validation images, and " in said
    assert f"and {held}" in said
    low, high = np.load(held)
    assert low.shape == (2, 1, 8, 8)
    assert (low <= high).all()
    assert main([*words, "-n", "1"]) == 2
    assert "--calibrate: intervals need at least 2 draws" in capsys.readouterr().err
    assert (scale / "samples" / "upscale.png").is_file()
    np.save(tmp_path / "small.npy", np.load(array)[:, 0, :, ::2, ::2])
    assert main(["upscale", str(scale), str(tmp_path / "small.npy"), "-n", "2"]) == 0
    assert "exact: p(details | low)" in capsys.readouterr().out
    assert main(["upscale", str(scale), "test", "--images", "2", "--kernel", "bicubic"]) == 0
    assert "approximate: bicubic kernel" in capsys.readouterr().out
    assert main(["colorize", str(scale), "test"]) == 2
    assert "its images have no colours" in capsys.readouterr().err
    assert main(["upscale", str(scale), "nowhere"]) == 2
    assert "expected test, validation or train" in capsys.readouterr().err
    np.save(tmp_path / "odd.npy", np.zeros((2, 5, 5), np.uint8))
    assert main(["upscale", str(scale), str(tmp_path / "odd.npy")]) == 2
    assert "or small images of [1, 4, 4], given [1, 5, 5]" in capsys.readouterr().err
    colour, folder = tmp_path / "colour", tmp_path / "pictures"
    runs.save(colour, built("luma-chroma", COLOUR))
    folder.mkdir()
    for number in range(2):
        pixels = np.random.Generator(np.random.Philox(number)).integers(0, 256, (4, 4, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    assert main(["colorize", str(colour), str(folder), "-n", "2"]) == 0
    said = capsys.readouterr().out
    assert "exact: p(Cg, Co | Y)" in said
    assert "consistency error 0 levels" in said
    for file in folder.iterdir():
        Image.open(file).convert("L").save(file)
    assert main(["colorize", str(colour), str(folder), "-n", "2"]) == 0
    assert "2 images coloured" in capsys.readouterr().out
