"""A fit inside something larger: a signal ends the whole, and nothing is built on half a fit."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import likely
from likely import models, world
from likely.cli import main
from likely.data.made import digits
from likely.training.optimizers import AveragedWeights


def stopped_at_two(patch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    update = AveragedWeights.update

    def stop(self: AveragedWeights, step: int) -> None:
        update(self, step)
        if step == 2:
            signal.raise_signal(number)

    patch.setattr(AveragedWeights, "update", stop)


def encoder() -> Any:
    pytest.importorskip("sklearn")
    from likely.sklearn import Encoder

    settings = {"latent": 2, "hidden": 4, "layers": 1}
    x = np.random.default_rng(0).normal(size=(40, 6))
    return Encoder("autoencoder", settings=settings, steps=5, levels=4).fit(x)


INSIDE: dict[str, Callable[[], Any]] = {
    "codes of pictures": lambda: world.fit(world.collect("cartpole-pixels", n=60, seed=0)),
    "a memory": lambda: world.fit(
        world.collect("cartpole-hidden", n=120, seed=0), "vrnn", updates=5, hidden=4
    ),
    "an estimator": encoder,
    "a density of codes": lambda: likely.with_prior(
        models.VAE(digits()[0].spec), digits()[0], density="flow", steps=5, progress=False
    ),
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", INSIDE)
def test_a_signal_ends_what_the_fit_is_a_part_of(
    name: str, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_at_two(monkeypatch, number)
    with pytest.raises(KeyboardInterrupt, match=rf"^stopped by {number.name} after 2 of \d+ steps"):
        INSIDE[name]()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_world_whose_fit_was_stopped_is_not_saved(
    number: signal.Signals, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "camera"
    words = ["world", "fit", "cartpole-pixels", "--transitions", "60", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        stopped_at_two(patch, number)
        assert main(words) == code
    printed = capsys.readouterr()
    assert printed.err == f"likely: stopped by {number.name} after 2 of 5000 steps\n"
    assert printed.out == ""
    assert not out.exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_same_command_resumes_a_prior_that_was_stopped(
    number: signal.Signals, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, out = tmp_path / "vae", tmp_path / "prior"
    train, _ = likely.data.load("digits")
    likely.fit(models.VAE(train.spec), train, steps=2, out=base)
    words = ["prior", str(base), "--density", "flow", "--steps", "5", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        stopped_at_two(patch, number)
        assert main(words) == code
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1] == (
        f"likely: stopped by {number.name} after 2 of 5 steps; saved in {out}; "
        "run the same command again to resume"
    )
    assert printed.out == ""
    assert "warning" not in printed.err
    assert main(words) == 0
    resumed = likely.load(out).model.state_dict()
    assert main([*words[:-1], str(tmp_path / "whole")]) == 0
    whole = likely.load(tmp_path / "whole").model.state_dict()
    assert all((whole[name] == value).all() for name, value in resumed.items())


def test_an_interrupt_without_a_status_is_one_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: AveragedWeights, step: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AveragedWeights, "update", interrupted)
    words = ["world", "fit", "cartpole-pixels", "--transitions", "60"]
    assert main([*words, "--out", str(tmp_path / "camera")]) == 130
    assert capsys.readouterr().err == "likely: interrupted\n"
