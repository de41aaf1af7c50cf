"""Schedules, warm-up, clipping, optimisers and averaged weights against hand computations."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from fit_cases import differing, end_of, fit_case, stop_at, watching
from likely.runs.checkpoint import read_tensors
from likely.settings import FitSettings
from likely.training.optimizers import (
    ADAM_SHARE,
    AveragedWeights,
    Optimizer,
    is_matrix,
    optimizer_for,
    optimizer_tensors,
    orthogonalized,
    restore_optimizers,
    set_rate,
)


def rates(**changes: object) -> list[float]:
    settings = FitSettings(steps=10, learning_rate=0.1, **changes)  # type: ignore[arg-type]
    return [settings.rate(step) for step in range(10)]


def test_warm_up_rises_in_equal_steps_to_the_rate() -> None:
    assert rates(warmup=4, schedule="constant") == pytest.approx([0.025, 0.05, 0.075] + [0.1] * 7)


def test_cosine_and_linear_fall_to_the_final_rate() -> None:
    cosine = rates(warmup=2, schedule="cosine")
    assert cosine[2] == pytest.approx(0.1)
    assert cosine[6] == pytest.approx(0.05)
    assert cosine[9] == pytest.approx(0.05 * (1 + math.cos(math.pi * 7 / 8)))
    linear = rates(warmup=0, schedule="linear", final_learning_rate=0.2)
    assert linear == pytest.approx([0.1 - 0.008 * step for step in range(10)])


def test_the_loop_uses_and_records_the_schedule() -> None:
    run = fit_case("vae-dense", None, log_every=1)
    expected = [run.settings.rate(step) for step in range(10)]
    assert [record["learning_rate"] for record in run.metrics] == expected


@pytest.mark.parametrize("kind", ["adam", "adamw", "rmsprop"])
def test_each_optimizer_makes_its_first_step(kind: str) -> None:
    """By hand, for weight w and gradient g from zero state."""
    w, g, rate, decay = 2.0, 0.5, 0.1, 0.3
    settings = FitSettings(optimizer=kind, learning_rate=rate, weight_decay=decay, beta2=0.99)  # type: ignore[arg-type]
    parameter = nn.Parameter(torch.tensor([w]))
    parameter.grad = torch.tensor([g])
    optimizer_for(settings, [parameter]).step()
    coupled = g + decay * w
    expected = {
        "adam": w - rate * coupled / abs(coupled),
        "adamw": w * (1 - rate * decay) - rate,
        "rmsprop": w - rate * coupled / math.sqrt(0.01 * coupled**2),
    }[kind]
    assert float(parameter.detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(24, 60), (60, 24), (32, 32)])
def test_an_orthogonalized_matrix_keeps_the_directions_and_levels_the_strengths(
    shape: tuple[int, int],
) -> None:
    """Same singular vectors, all singular values near one, however uneven they were."""
    generator = torch.Generator().manual_seed(1)
    rows, columns = shape
    side = min(shape)
    u = torch.linalg.qr(torch.randn(rows, side, generator=generator).double())[0]
    v = torch.linalg.qr(torch.randn(columns, side, generator=generator).double())[0]
    strengths = torch.logspace(0, -2, side, dtype=torch.float64)
    found = u.t() @ orthogonalized(u @ strengths.diag() @ v.t()) @ v
    levelled = found.diagonal()
    assert torch.allclose(found, levelled.diag(), atol=1e-9)
    assert 0.6 < float(levelled.min()) <= float(levelled.max()) < 1.3


def muon_steps(gradients: list[torch.Tensor], **changes: object) -> torch.Tensor:
    """A weight of zeros after one step a gradient."""
    settings = FitSettings(optimizer="muon", learning_rate=0.1, beta1=0.9, **changes)  # type: ignore[arg-type]
    parameter = nn.Parameter(torch.zeros_like(gradients[0]))
    optimizer = optimizer_for(settings, [parameter])
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


def test_muon_by_hand() -> None:
    """Momentum as in its definition; the scale of the gradient does not matter."""
    generator = torch.Generator().manual_seed(2)
    first, second = torch.randn(2, 40, 10, 3, 1, generator=generator).double()
    moved = -0.1 * (40 / 30) ** 0.5 * orthogonalized(1.9 * first.flatten(1))
    assert torch.allclose(muon_steps([first]), moved.reshape(first.shape))
    assert torch.allclose(muon_steps([7.0 * first]), moved.reshape(first.shape))
    momentum = 0.9 * first + second
    moved -= 0.1 * (40 / 30) ** 0.5 * orthogonalized((second + 0.9 * momentum).flatten(1))
    assert torch.allclose(muon_steps([first, second]), moved.reshape(first.shape))


def test_muon_leaves_small_matrices_and_biases_to_adam() -> None:
    assert is_matrix(torch.zeros(32, 2, 3, 3))
    for shape in ((64,), (1, 64, 1, 1), (64, 1, 3, 3), (10, 128)):
        assert not is_matrix(torch.zeros(shape))
        gradient = torch.full(shape, 0.5)
        # The first step of Adam is its rate, whatever the gradient.
        assert torch.allclose(muon_steps([gradient]), torch.full(shape, -0.01))


# Four matrices, two of one shape, one wide, one with a side of just 16; a bias and a first kernel.
SHAPES = [(40, 2, 3, 3), (16, 20), (24, 20), (24, 20), (20,), (64, 1, 3, 3)]


def test_muon_moves_every_weight_by_its_definition() -> None:
    """Momentum, Adam beside it, decay of both and a changing rate, against plain recursions."""
    generator = torch.Generator().manual_seed(3)
    draw = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
    start = [draw(*shape) for shape in SHAPES]
    settings = FitSettings(
        optimizer="muon", learning_rate=0.1, beta1=0.8, beta2=0.97, weight_decay=0.3
    )
    moved = [nn.Parameter(weight.clone()) for weight in start]
    optimizer = optimizer_for(settings, moved)
    expected, momentum = [weight.clone() for weight in start], [0.0 * weight for weight in start]
    mean, square = [0.0 * weight for weight in start], [0.0 * weight for weight in start]
    for step, rate in enumerate((0.1, 0.05, 0.2), 1):
        gradients = [draw(*shape) for shape in SHAPES]
        for parameter, gradient in zip(moved, gradients, strict=True):
            parameter.grad = gradient.clone()
        set_rate(optimizer, rate)
        optimizer.step()
        for i, gradient in enumerate(gradients):
            kept = expected[i] * (1 - rate * 0.3)
            if i < 4:
                momentum[i] = 0.8 * momentum[i] + gradient
                wanted = (gradient + 0.8 * momentum[i]).flatten(1)
                scale = max(1.0, wanted.shape[0] / wanted.shape[1]) ** 0.5
                change = scale * orthogonalized(wanted).reshape(gradient.shape)
            else:
                mean[i] = 0.9 * mean[i] + 0.1 * gradient
                square[i] = 0.97 * square[i] + 0.03 * gradient**2
                unbiased = (square[i] / (1 - 0.97**step)).sqrt()
                change = ADAM_SHARE * mean[i] / (1 - 0.9**step) / unbiased
            expected[i] = kept - rate * change
    for parameter, value in zip(moved, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["adam", "adamw", "rmsprop"])
def test_later_steps_take_both_betas_the_decay_and_the_rate(kind: str) -> None:
    """Three gradients, three rates, by hand."""
    settings = FitSettings(
        optimizer=kind, learning_rate=0.1, beta1=0.6, beta2=0.95, weight_decay=0.3  # type: ignore[arg-type]
    )  # fmt: skip
    parameter = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = optimizer_for(settings, [parameter])
    w, mean, square = 2.0, 0.0, 0.0
    for step, (rate, g) in enumerate([(0.1, 0.5), (0.05, -2.0), (0.2, 1.0)], 1):
        parameter.grad = torch.tensor([g], dtype=torch.float64)
        set_rate(optimizer, rate)
        optimizer.step()
        if kind == "adamw":
            w -= rate * 0.3 * w
        else:
            g += 0.3 * w
        mean, square = 0.6 * mean + 0.4 * g, 0.95 * square + 0.05 * g * g
        if kind == "rmsprop":
            w -= rate * g / math.sqrt(square)
        else:
            w -= rate * mean / (1 - 0.6**step) / math.sqrt(square / (1 - 0.95**step))
        assert float(parameter.detach()) == pytest.approx(w, rel=1e-6)


@pytest.mark.parametrize("kind", ["adam", "adamw", "rmsprop", "sgd"])
def test_each_optimizer_moves_weights_as_that_of_torch_bit_for_bit(kind: str) -> None:
    """Two kinds of numbers, one weight without a gradient at first, a rate that changes."""
    settings = FitSettings(
        optimizer=kind, learning_rate=0.1, beta1=0.6, beta2=0.95, weight_decay=0.3  # type: ignore[arg-type]
    )  # fmt: skip
    generator = torch.Generator().manual_seed(4)
    shapes = [((5, 7), torch.float32), ((3,), torch.float64), ((), torch.float32)]
    start = [torch.randn(shape, generator=generator, dtype=dtype) for shape, dtype in shapes]
    ours, theirs = ([nn.Parameter(weight.clone()) for weight in start] for _ in range(2))
    betas = {"betas": (0.6, 0.95), "fused": True}
    kinds: dict[str, tuple[type[torch.optim.Optimizer], dict[str, object]]] = {
        "adam": (torch.optim.Adam, betas),
        "adamw": (torch.optim.AdamW, betas),
        "rmsprop": (torch.optim.RMSprop, {"alpha": 0.95}),
        "sgd": (torch.optim.SGD, {}),
    }
    ours_by, (of_torch, changes) = optimizer_for(settings, ours), kinds[kind]
    theirs_by = of_torch(theirs, lr=0.1, weight_decay=0.3, **changes)  # type: ignore[call-arg]
    for step, rate in enumerate([0.1, 0.03, 0.2, 0.07, 0.05]):
        set_rate(ours_by, rate)
        theirs_by.param_groups[0]["lr"] = rate
        for a, b in zip(ours[step < 2 :], theirs[step < 2 :], strict=True):
            a.grad = torch.randn(a.shape, generator=generator, dtype=a.dtype)
            b.grad = a.grad.clone()
        ours_by.step()
        theirs_by.step()
    state = theirs_by.state_dict()["state"]
    kept = {f"player.{i}.{slot}": t for i, slots in state.items() for slot, t in slots.items()}
    kept = {name: tensor for name, tensor in kept.items() if tensor is not None}
    saved = optimizer_tensors({"player": ours_by})
    assert saved.keys() == kept.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in kept.items())
    # What torch kept is read back and goes on alike.
    another = optimizer_for(settings, ours)
    set_rate(another, rate)
    restore_optimizers({"player": another}, kept)
    another.step()
    theirs_by.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    if kind == "adam":
        less = {name: tensor for name, tensor in kept.items() if name != "player.1.exp_avg"}
        with pytest.raises(KeyError, match=r"player\.1\.exp_avg'"):
            restore_optimizers({"player": another}, less)
        with pytest.raises(ValueError, match=r"player\.2\.step is torch\.int64"):
            restore_optimizers({"player": another}, {**kept, "player.2.step": torch.tensor(3)})
        with pytest.raises(ValueError, match=r"player\.3\.step: player has 3 parameters"):
            restore_optimizers({"player": another}, {**kept, "player.3.step": torch.tensor(3.0)})


def test_muon_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Ten steps are four and six with its momentum written and read between."""
    changes = {"optimizer": "muon", "learning_rate": 0.01, "weight_decay": 0.1}
    fit_case("vae-wide", tmp_path / "whole", **changes)
    assert fit_case("vae-wide", tmp_path / "parts", progress=stop_at(4), **changes).step == 4
    fit_case("vae-wide", tmp_path / "parts", **changes)
    whole = end_of(tmp_path / "whole")
    assert any("momentum" in name for name in whole)
    assert any("square" in name for name in whole)
    assert differing(whole, end_of(tmp_path / "parts")) == []


def test_clipping_bounds_the_gradient_and_only_when_it_is_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the optimiser sees has at most the norm `clip`; the record holds the norm before."""
    seen: list[float] = []

    def note(optimizer: Optimizer) -> None:
        gradients = [p.grad for p in optimizer.parameters if p.grad is not None]
        seen.append(float(torch.stack([g.double().square().sum() for g in gradients]).sum().sqrt()))

    watching(monkeypatch, note)
    recorded = [
        fit_case("vae-dense", None, steps=1, clip=clip).metrics[0]["gradient_norm_model"]
        for clip in (0.0, 0.5, 1e9)
    ]
    assert recorded[0] == recorded[1] == recorded[2] > 1.0
    assert seen[0] == pytest.approx(recorded[0], rel=1e-5)
    assert seen[1] == pytest.approx(0.5, rel=1e-4)
    assert seen[2] == seen[0]


def test_averaged_weights_follow_their_recursion() -> None:
    model = nn.BatchNorm1d(1)
    average = AveragedWeights({"": model}, 0.5)
    by_hand, counter = 1.0, 0
    for step in range(1, 8):
        with torch.no_grad():
            model.weight.fill_(float(step**2))
        model.num_batches_tracked += 3
        counter += 3
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        by_hand = decay * by_hand + (1 - decay) * step**2
        assert float(average.tensors["weight"]) == pytest.approx(by_hand, rel=1e-6)
        assert int(average.tensors["num_batches_tracked"]) == counter
    with average.applied():
        assert float(model.weight.detach()) == pytest.approx(by_hand, rel=1e-6)
        assert not model.training
    assert float(model.weight.detach()) == 49.0


def test_without_averaging_the_average_is_the_last_weight() -> None:
    model = nn.Linear(2, 1)
    average = AveragedWeights({"": model}, 0.0)
    with torch.no_grad():
        model.weight.fill_(3.0)
    average.update(1)
    assert torch.equal(average.tensors["weight"], model.weight)


def test_validation_measures_and_keeps_the_averaged_weights(tmp_path: Path) -> None:
    """The model that is returned has the lowest validation of all that was recorded."""
    run = fit_case("vae-dense", tmp_path, learning_rate=0.05, steps=40, ema=0.5)
    values = [r["validation"] for r in run.metrics if "validation" in r]
    again = fit_case("vae-dense", None, learning_rate=0.05, steps=40, ema=0.5)
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name])
    assert len(values) == 10
    best, about = read_tensors(tmp_path / "best.safetensors")
    assert float(about["validation"]) == min(values)
    assert torch.equal(best["output_bias"], run.model.state_dict()["output_bias"])
