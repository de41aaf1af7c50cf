"""What the loop reports, keeps and updates, against computations that are not the loop's."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fit_cases import CASES, SETTINGS, fit_case, model_of, stop_at, training_data, watching
from likely import runs
from likely.data.spec import Dataset
from likely.density import Autoregressive, ImplicitDensity, LatentVariable
from likely.noise import Noise
from likely.runs.checkpoint import read_tensors
from likely.settings import FitSettings
from likely.training.loop import fit
from likely.training.objectives import ImportanceWeighted, Loss, NegativeELBO, Step
from likely.training.optimizers import Optimizer

# -- validation, and the weights that it chooses -----------------------------------------------


def test_validation_is_the_mean_over_every_held_out_example() -> None:
    """More than one part of 256, labels and all, with the weights that are kept."""
    data = training_data()
    few = data.take(slice(0, 64))
    few.validation = data.take(slice(100, 500))
    model = model_of("pixelcnn")
    settings = FitSettings(
        steps=3, batch_size=16, ema=0.9, validate_every=3, validation_examples=300,
        precision="float32",
    )  # fmt: skip
    run = fit(model, few, settings=settings)
    assert isinstance(model, Autoregressive)
    assert not model.training
    batch = few.validation.batch(slice(0, 300))
    x = torch.from_numpy(batch.x.astype(np.int64))
    with torch.no_grad():
        by_hand = -model.log_prob(x, torch.from_numpy(batch.label)).double().mean()
    assert run.metrics[-1]["validation"] == pytest.approx(float(by_hand), rel=1e-6)


def test_an_importance_weighted_fit_is_validated_by_its_bound() -> None:
    """Its ELBO may rise while the bound falls, which chose the wrong weights."""
    data = training_data()
    model = model_of("vae-dense")
    assert isinstance(model, LatentVariable)
    settings = dataclasses.replace(SETTINGS, steps=4, batch_size=8, validation_examples=8)
    run = fit(model, data, ImportanceWeighted(k=64), settings)
    batch = data.validation.batch(slice(0, 8))
    x = torch.from_numpy(batch.x.astype(np.int64))
    with torch.no_grad():
        bound = -model.importance_bound(x, 64, Noise("validation", 0)).mean()
        elbo = -model.elbo(x, Noise("validation", 0)).mean()
    assert run.metrics[-1]["validation"] == pytest.approx(float(bound), rel=1e-6)
    assert float(bound) < float(elbo) - 0.1
    assert ImportanceWeighted(k=1).importance_samples is None


@pytest.mark.parametrize("kept", ["in memory", "in a directory"])
def test_the_best_weights_are_kept_though_worse_ones_follow(kept: str, tmp_path: Path) -> None:
    def fitted(steps: int) -> Any:
        out = tmp_path / str(steps) if kept == "in a directory" else None
        # The rate rises until the fit falls apart.
        return fit_case("vae-dense", out, steps=steps, learning_rate=1.0, warmup=40, ema=0.5)

    run = fitted(40)
    values = [record["validation"] for record in run.metrics if "validation" in record]
    best = values.index(min(values)) + 1
    assert best < len(values)
    shorter = fitted(best * SETTINGS.validate_every).model.state_dict()
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(tensor, shorter[name])
    if kept == "in a directory":
        whole, about = read_tensors(tmp_path / "40" / "weights.safetensors")
        assert int(about["step"]) == best * SETTINGS.validate_every
        assert all(torch.equal(whole[name], shorter[name]) for name in whole)


def test_of_equal_validations_the_first_is_kept(tmp_path: Path) -> None:
    run = fit_case("vae-dense", tmp_path, learning_rate=1e-30, validation_examples=8)
    assert len({record["validation"] for record in run.metrics if "validation" in record}) == 1
    assert read_tensors(tmp_path / "best.safetensors")[1]["step"] == "4"


def test_the_average_begins_at_the_weights_that_the_data_give() -> None:
    """Not at those before: an average of many steps would remember them."""
    run = fit_case("vae-dense", None, learning_rate=1e-30, steps=2, ema=0.999)
    started = model_of("vae-dense")
    started.start_at(training_data())
    for name, tensor in run.model.state_dict().items():
        torch.testing.assert_close(tensor, started.state_dict()[name], rtol=1e-6, atol=1e-9)


# -- records -----------------------------------------------------------------------------------


def test_a_record_is_the_mean_since_the_one_before_the_last_too() -> None:
    each = fit_case("vae-dense", None, log_every=1).metrics
    few = fit_case("vae-dense", None, log_every=4).metrics
    assert [record["step"] for record in few] == [4, 8, 10]
    first = 0
    for record in few:
        last = int(record["step"])
        for name in ("kl", "distortion", "negative_elbo", "gradient_norm_model"):
            mean = np.mean([record[name] for record in each[first:last]])
            assert record[name] == pytest.approx(mean, rel=1e-6), (name, last)
        first = last


def test_the_logged_terms_are_what_the_bound_is_made_of() -> None:
    for record in fit_case("vae-dense", None, log_every=1).metrics:
        assert record["negative_elbo"] == pytest.approx(record["distortion"] + record["kl"])
        assert min(record["distortion"], record["kl"]) >= 0


def test_the_seconds_of_a_resumed_run_are_those_of_all_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that ticks once a call: each step takes one second."""
    ticks = itertools.count()
    clock = types.SimpleNamespace(monotonic=lambda: float(next(ticks)))
    monkeypatch.setattr(importlib.import_module("likely.training.loop"), "time", clock)
    assert fit_case("vae-dense", tmp_path, progress=stop_at(4)).seconds == 4.0
    assert fit_case("vae-dense", tmp_path).seconds == 10.0
    clocks = [json.loads(line) for line in (tmp_path / "timing.jsonl").read_text().splitlines()]
    assert clocks == [{"step": step, "seconds": float(step)} for step in (2, 4, 6, 8, 10)]


# -- updates -----------------------------------------------------------------------------------


def test_every_update_of_every_player_has_the_rate_of_its_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[float] = []
    watching(monkeypatch, lambda optimizer: seen.append(optimizer.rate))
    run = fit_case("dcgan-r1", None, warmup=3, final_learning_rate=0.5)
    assert not run.model.training
    rates = [run.settings.rate(step) for step in range(10)]
    assert seen == [rate for rate in rates for _ in run_players()]
    assert rates[:3] == pytest.approx([2e-3 / 3, 4e-3 / 3, 2e-3])
    # The schedule would reach its end at the step after the last.
    assert FitSettings(steps=10, warmup=3, final_learning_rate=0.5).rate(10) == pytest.approx(5e-4)


def run_players() -> list[str]:
    objective = CASES["dcgan-r1"][2]
    assert objective is not None
    return list(objective.players(model_of("dcgan-r1")))


def test_every_update_trains_the_model_also_after_a_validation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dropout and batch statistics are those of training, though validation switched them off."""
    training: list[bool] = []
    loss = NegativeELBO.loss

    def noted(self: NegativeELBO, step: Step) -> Loss:
        training.append(step.model.training)
        return loss(self, step)

    monkeypatch.setattr(NegativeELBO, "loss", noted)
    fit_case("vae-dense", None, validate_every=2)
    assert training == [True] * 10


def test_no_two_updates_share_their_noise() -> None:
    """Of two players and five steps; the next fit has the same noise again."""
    drawn: list[list[bytes]] = []
    for _ in range(2):
        model = model_of("dcgan-r1")
        assert isinstance(model, ImplicitDensity)
        latents, seen = model.latents, []

        def noted(noise: Noise, n: int, latents: Any = latents, seen: Any = seen) -> Tensor:
            z: Tensor = latents(noise, n)
            seen.append(z.numpy().tobytes())
            return z

        model.latents = noted  # type: ignore[method-assign]
        fit(model, training_data(), CASES["dcgan-r1"][2], SETTINGS, steps=5)
        drawn.append(seen[:10])
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 10


def test_an_update_leaves_the_other_player_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """No gradient stays with it, which its own next update would add to."""
    players: list[Optimizer] = []

    def check(optimizer: Optimizer) -> None:
        players.extend([optimizer] if optimizer not in players else [])
        for other in players:
            gradients = [p.grad for p in other.parameters]
            assert (other is optimizer) == any(g is not None for g in gradients)

    watching(monkeypatch, check)
    run = fit_case("dcgan-r1", None, steps=3)
    assert len(players) == 2
    assert all(parameter.requires_grad for parameter in run.model.parameters())


def test_each_player_is_clipped_by_its_own_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def note(optimizer: Optimizer) -> None:
        gradients = [p.grad for p in optimizer.parameters if p.grad is not None]
        seen.append(float(torch.stack([g.double().square().sum() for g in gradients]).sum().sqrt()))

    watching(monkeypatch, note)
    free = fit_case("dcgan-r1", None, steps=1, clip=0.0).metrics[0]
    norms = [free[f"gradient_norm_{player}"] for player in run_players()]
    assert seen == pytest.approx(norms, rel=1e-5)
    assert norms[0] != pytest.approx(norms[1], rel=0.1)
    seen.clear()
    between = (min(norms) * max(norms)) ** 0.5
    # The discriminator moves first, and alike where it is not clipped.
    fit_case("dcgan-r1", None, steps=1, clip=between)
    assert seen[norms.index(max(norms))] == pytest.approx(between, rel=1e-4)


def test_players_read_all_examples_once_an_epoch_and_never_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """64 examples, batches of 8, two players: an epoch is four steps."""
    data = training_data().take(slice(0, 64))
    read: list[tuple[int, ...]] = []
    batch = Dataset.batch

    def noted(self: Dataset, index: Any, *rest: Any) -> Any:
        if self is data:
            read.append(tuple(np.arange(64)[index]))
        return batch(self, index, *rest)

    model = model_of("dcgan-r1")
    model.start_at(data)
    settings = FitSettings(steps=8, batch_size=8, validate_every=100, log_every=100)
    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "batch", noted)
        fit(model, data, CASES["dcgan-r1"][2], settings)
    read = [rows for rows in read if len(rows) == 8]
    assert len(read) == 16
    assert sorted(sum(read[:8], ())) == sorted(sum(read[8:], ())) == list(range(64))
    assert read[:8] != read[8:]


@pytest.mark.parametrize("parts", [2, 4])
def test_the_prior_counts_once_however_a_batch_is_divided(parts: int) -> None:
    ends, records = [], []
    for micro_batches in (1, parts):
        model = runs.build("fvsbn", training_data().spec, {"prior": "local"}, 0)
        few = training_data().take(slice(0, 32))  # so that the prior weighs something
        settings = FitSettings(
            steps=4, batch_size=16, micro_batches=micro_batches, learning_rate=0.1,
            optimizer="rmsprop", validate_every=100, precision="float32",
        )  # fmt: skip
        records.append(fit(model, few, settings=settings).metrics[-1])
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)
    assert records[0] == pytest.approx(records[1], rel=1e-4)


def test_the_prior_counts_once_for_all_training_examples() -> None:
    """The gradient of one example's loss and of the prior over 32, on 32 copies of an image."""
    copies = training_data().take(np.zeros(32, np.int64))
    settings = FitSettings(
        batch_size=8, learning_rate=0.1, schedule="constant", warmup=0, ema=0.0, clip=0.0,
        log_every=1, precision="float32",
    )  # fmt: skip
    models = [runs.build("fvsbn", copies.spec, {"prior": "local"}, 0) for _ in range(2)]
    fit(models[0], copies, settings=settings, steps=5)
    norm = fit(models[1], copies, settings=settings, steps=6).metrics[5]["gradient_norm_model"]
    x = torch.from_numpy(copies.batch(slice(0, 1)).x.astype(np.int64))
    assert isinstance(models[0], Autoregressive)
    prior = models[0].negative_log_prior()
    assert prior is not None
    loss = -models[0].log_prob(x).mean() + prior / 32
    gradients = torch.autograd.grad(loss, list(models[0].parameters()))
    by_hand = torch.stack([g.double().square().sum() for g in gradients]).sum().sqrt()
    assert norm == pytest.approx(float(by_hand), rel=1e-4)
