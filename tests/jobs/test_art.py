"""Pictures of how a model draws: what is seen is what was drawn, and what is kept is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from likely import runs
from likely.cli import main
from likely.data.spec import DataSpec
from likely.density import LatentVariable
from likely.errors import InvalidSetting, Unanswerable
from likely.jobs.art import BLANK, ladder, unfolding, variations
from test_conformance import built

GREY = DataSpec("grey", (1, 6, 4), 6)
COLOUR = DataSpec("colour", (3, 4, 4), 256)


def test_a_frame_holds_the_pixels_that_were_drawn_by_then() -> None:
    for name in ("gated-pixelcnn", "parallel-multiscale"):
        model = built(name, GREY)
        images = model.sample(2, seed=1)  # type: ignore[operator]
        frames = unfolding(model, images)
        blank = [(frame == np.array(BLANK)[:, None, None]).all(1).sum() for frame in frames]
        assert blank[0] == 2 * 24
        assert blank == sorted(blank, reverse=True)
        assert blank[-1] == 0
        assert all(((frame == frames[-1]) | (frame == np.array(BLANK)[:, None, None])).all()
                   for frame in frames)  # fmt: skip
    pyramid = built("haar-pyramid", GREY)
    assert len(unfolding(pyramid, images)) == 24
    assert len(unfolding(built("luma-chroma", COLOUR), torch.zeros(2, 3, 4, 4).long())) == 24
    with pytest.raises(InvalidSetting, match="nothing to watch"):
        unfolding(built("vae", GREY), images)


def test_a_ladder_has_the_model_at_temperature_one() -> None:
    model = built("gated-pixelcnn", GREY)
    rows = ladder(model, (0.05, 1.0), 3, 7, None)
    assert torch.equal(rows[1], model.sample(3, seed=7))  # type: ignore[operator]
    assert not torch.equal(rows[0], rows[1])
    with pytest.raises(InvalidSetting, match="no temperature"):
        ladder(built("vae", GREY), (1.0,), 3, 7, None)


def test_variations_keep_what_they_say() -> None:
    x = torch.randint(6, (1, 1, 6, 4))
    images, how = variations(built("gated-pixelcnn", GREY), x, 5, 2, 0, None)
    assert torch.equal(images[:, :, :2], x[:, :, :2].expand(5, -1, -1, -1))
    assert len(torch.unique(images.flatten(1), dim=0)) > 1
    assert how.endswith("exact")
    pyramid = built("haar-pyramid", GREY)
    images, _ = variations(pyramid, x, 5, 0, 0, None)
    low = pyramid.smaller(x)  # type: ignore[operator]
    assert torch.equal(pyramid.smaller(images), low.expand(5, -1, -1, -1))  # type: ignore[operator]
    vae = built("vae", GREY)
    assert isinstance(vae, LatentVariable)
    images, how = variations(vae, x, 400, 0, 0, None)
    assert images.shape == (400, 1, 6, 4)
    assert "q(z | x)" in how
    with pytest.raises(InvalidSetting, match="has 6"):
        variations(built("gated-pixelcnn", GREY), x, 2, 6, 0, None)
    with pytest.raises(Unanswerable, match="no encoder"):
        variations(built("dcgan", GREY), x, 2, 2, 0, None)


def test_the_command_draws_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, gif, sheet = tmp_path / "run", tmp_path / "drawing.gif", tmp_path / "sheet.png"
    runs.save(run, built("gated-pixelcnn", GREY))
    words = ["sample", str(run), "-n", "3", "-o", str(sheet)]
    assert main([*words, "--gif", str(gif), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gif"] == str(gif)
    with Image.open(gif) as image:
        assert image.n_frames > 20  # type: ignore[attr-defined]
    assert main([*words, "--temperatures", "0.5,1"]) == 0
    assert "0.5 (not the model), 1;" in capsys.readouterr().out
    Image.fromarray(np.zeros((6, 4), np.uint8)).save(tmp_path / "image.png")
    array = tmp_path / "like.npy"
    like = ["--like", str(tmp_path / "image.png"), "--rows", "2", "--npy", str(array)]
    assert main([*words, *like]) == 0
    assert "the upper 2 rows kept" in capsys.readouterr().out
    assert not np.load(array)[:, :, :2].any()
    assert main([*words, "--temperatures", "0.5,x"]) == 2
    assert "expected numbers above 0" in capsys.readouterr().err
