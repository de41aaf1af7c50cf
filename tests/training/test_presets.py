"""The same fit from Python and from the command, and weights that are a function of a seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import likely
from likely import data, models
from likely.cli import main
from likely.errors import InvalidSetting
from likely.models import MODELS
from likely.settings import FitSettings
from likely.training.presets import fit_settings


@pytest.mark.parametrize("name", ["fvsbn", "gated-pixelcnn", "vae", "dcgan"])
def test_python_and_the_command_fit_the_same_weights(name: str, tmp_path: Path) -> None:
    command = ["fit", name, "--data", "digits", "--steps", "3", "--out", str(tmp_path / "command")]
    assert main(command) == 0
    train, _ = data.load("digits")
    torch.manual_seed(17)  # nothing depends on what was drawn before
    model = MODELS[name].load()(train.spec)
    likely.fit(model, train, steps=3, out=tmp_path / "python")
    file = "weights.safetensors"
    assert (tmp_path / "command" / file).read_bytes() == (tmp_path / "python" / file).read_bytes()


def test_initial_weights_are_a_function_of_the_seed() -> None:
    train, _ = data.load("digits")

    def weights(global_seed: int, **seed: int) -> list[torch.Tensor]:
        torch.manual_seed(global_seed)
        before = torch.random.get_rng_state()
        state = models.NADE(train.spec, **seed).state_dict()
        assert torch.equal(before, torch.random.get_rng_state())
        return list(state.values())

    first = weights(0)
    assert all(torch.equal(a, b) for a, b in zip(first, weights(1), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, weights(1, seed=0), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, weights(0, seed=1), strict=True))


def test_networks_of_one_model_start_apart() -> None:
    train, _ = data.load("digits")
    one, other = models.GatedPixelCNNEnsemble(train.spec).networks
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_a_preset_is_cut_to_the_data_and_the_steps_and_a_wish_is_not() -> None:
    train, _ = data.load("digits")
    kind = models.VAESettings
    preset = kind.fit_preset(train.spec)
    short = fit_settings(kind, train, {"steps": 2})
    assert short.steps == 2
    assert short.warmup == min(preset.warmup, 2)
    assert fit_settings(kind, train, {"batch_size": 7}).batch_size == 7
    assert fit_settings(kind, train, {}).learning_rate == preset.learning_rate
    assert fit_settings(object, train, {}) == FitSettings()


def test_what_is_no_model_no_objective_and_no_settings_is_named() -> None:
    train, _ = data.load("digits")
    model = models.NADE(train.spec)
    with pytest.raises(InvalidSetting, match=r"NADE is built for a spec.*take its \.spec"):
        models.NADE(train)
    with pytest.raises(InvalidSetting, match=r"expected a model.*given the class NADE"):
        likely.fit(models.NADE, train)  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match=r"expected an objective.*given 'nll'"):
        likely.fit(model, train, "nll")  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match=r"expected settings.*given {'steps': 3}"):
        likely.fit(model, train, settings={"steps": 3})  # type: ignore[arg-type]
