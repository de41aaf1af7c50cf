"""The recurrent GAN: samples, refusals, numbers of simulations, and what `verify` finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from test_sequence_models import SETS
from torch import Tensor

import likely
from likely import runs
from likely.ask import Guarantee
from likely.cli import main
from likely.data.sequences import Sequences
from likely.density import ImplicitSequence, State
from likely.errors import InvalidSetting, Unanswerable
from likely.evaluate.sequences.simulated import energy_distance, simulated
from likely.models import RecurrentGAN, RecurrentGANSettings
from likely.noise import Noise
from likely.training.adversarial import RelativisticGAN, WassersteinGAN
from likely.training.objectives import default_objective
from likely.verify import verify

SMALL = {"hidden": 8, "discriminator_hidden": 6, "latent": 3, "window": 8}


def built(kind: str) -> tuple[RecurrentGAN, Sequences, Sequences]:
    train, test = SETS[kind]()
    sizes = {**SMALL, "conditional": kind == "mixed"}
    model = cast(RecurrentGAN, runs.build("recurrent-gan", train.spec, sizes))
    model.start_at(train)
    with torch.no_grad():
        model.out.weight *= 4  # so that draws differ
    return model.eval(), train, test


@pytest.mark.parametrize("kind", SETS)
def test_samples_proofs_and_refusals(kind: str, tmp_path: Path) -> None:
    model, train, test = built(kind)
    context = torch.arange(5) % 2 if model.classes else None
    x = model.sample(5, seed=1, context=context, steps=9)
    assert torch.equal(x, model.sample(5, seed=1, context=context, steps=9))
    assert not torch.equal(x, model.sample(5, seed=2, context=context, steps=9))
    proofs = verify(model, test, train=train, quick=True)
    assert proofs.passed, str(proofs)
    answers = likely.answers(model)
    assert answers["sample"].guarantee is Guarantee.EXACT
    assert [n for n, a in answers.items() if a.guarantee is not Guarantee.NONE] == ["sample"]
    with pytest.raises(Unanswerable, match="defines no density"):
        likely.nats(model, test)
    runs.save(tmp_path / "run", model, train)
    again = cast(ImplicitSequence, likely.load(tmp_path / "run").model)
    assert torch.equal(x, again.sample(5, seed=1, context=context, steps=9))


@pytest.mark.parametrize("kind", SETS)
def test_any_game_moves_both_networks(kind: str) -> None:
    model, train, _ = built(kind)
    assert isinstance(default_objective(model), RelativisticGAN)
    settings = likely.FitSettings(steps=2, batch_size=4, warmup=0, ema=0.0)
    for game in (RelativisticGAN(), WassersteinGAN()):
        before = model.out.weight.clone()
        run = likely.fit(model, train, game, settings=settings, progress=False)
        assert run.adversary is not None
        assert not torch.equal(before, model.out.weight)
        assert np.isfinite(run.metrics[-1]["discriminator_loss"])
    with pytest.raises(InvalidSetting, match="packing=2 is of images"):
        RelativisticGAN(packing=2).players(model)
    with pytest.raises(InvalidSetting, match="are sequences"):
        RelativisticGAN(augment=("translation",)).players(model)


def test_the_adversary_sees_integers_and_gradients_reach_the_generator() -> None:
    model, train, _ = built("mixed")
    batch = train.batch(slice(0, 3))
    x, context = torch.from_numpy(batch.x), model.batch_context(batch)
    real, generated = model.against(x, Noise(0), context)
    assert real.shape == generated.shape
    assert torch.equal(real[..., -1] > 0, torch.from_numpy(batch.x[..., 0] != -1))
    binary = generated[..., 0][real[..., -1] > 0]
    assert bool((binary.abs() == 1).all())
    # Its steps look as they would if they were real ones, a category of every level, too.
    drawn, _, _ = model.generate(
        Noise(0).normal(*x.shape[:2], model.latent), context, model.begin(len(x))
    )
    assert {column.kind for column in model.spec.columns} >= {"categorical", "angle"}
    assert torch.equal(generated[..., :-1], model.seen(drawn, model.steps(x, context).known))
    generated.sum().backward()  # type: ignore[no-untyped-call]
    assert model.begins.grad is not None
    assert bool(model.begins.grad.any())


class ForgetsItsState(RecurrentGAN):
    def draw_step(
        self, state: State, context: Tensor | None, uniform: Tensor
    ) -> tuple[Tensor, State]:
        return super().draw_step(self.begin(len(uniform)), context, uniform)


class JudgesPadding(RecurrentGAN):
    def seen(self, x: Tensor, known: Tensor) -> Tensor:
        return super().seen(x, torch.ones_like(known))


@pytest.mark.parametrize(
    ("kind", "proof"),
    [
        (ForgetsItsState, "the sampler is the generator that was judged"),
        (JudgesPadding, "no padding is judged"),
    ],
)
def test_defects_are_found(kind: type[RecurrentGAN], proof: str) -> None:
    honest, train, test = built("mixed")
    model = kind(train.spec, honest.settings)
    model.load_state_dict(honest.state_dict())
    assert not verify(model, test, train=train, quick=True)[proof].passed


class Repeats(RecurrentGAN):
    """Draws the training set itself."""

    def sample(self, n: int, **options: object) -> Tensor:  # type: ignore[override]
        return self.drawn[:n]

    drawn: Tensor


def test_simulations_are_held_against_a_floor_and_copies_show() -> None:
    generator = np.random.default_rng(0)
    x, y, shifted = (generator.normal(size=(200, 4)) + s for s in (0.0, 0.0, 1.0))
    assert abs(energy_distance(x, y)) < 0.03
    assert energy_distance(x, shifted) > 0.5
    # Of two points each: E|X - Y| = 1, nothing within.
    assert energy_distance(np.zeros((2, 1)), np.ones((2, 1))) == pytest.approx(2.0)
    train, test = likely.data.load("regimes")
    model = Repeats(train.spec, RecurrentGANSettings(**SMALL))
    steps = min(int(train.lengths.min()), 256)
    model.drawn = torch.from_numpy(np.stack([train[i % len(train)][:steps] for i in range(64)]))
    copied = {e.quantity: e for e in simulated(model, test, train)}
    assert "training data in their place have" in copied["window-energy"].about
    ratio = copied.pop("copy-ratio")
    assert ratio.value < 0.5
    assert copied["window-energy"].value < 0.1
    assert max(e.value for e in copied.values()) < 0.4
    # The same steps in another order: only what follows what is wrong.
    shuffled = generator.permuted(model.drawn.numpy(), axis=1)
    model.drawn = torch.from_numpy(shuffled)
    mixed = {e.quantity: e for e in simulated(model, test, train)}
    for name in ("autocorrelation-error", "spectrum-error", "run-length-error"):
        assert mixed[name].value > 2 * copied[name].value


def test_fit_sample_and_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "gan")
    small = ["--hidden", "8", "--discriminator-hidden", "8", "--latent", "4"]
    fit = ["fit", "recurrent-gan", "--data", "regimes", "--steps", "3", "--batch-size", "8"]
    assert main([*fit, "--out", run, *small]) == 0
    assert "series.csv" in capsys.readouterr().out
    assert main(["sample", run, "-n", "2", "--steps", "7"]) == 0
    capsys.readouterr()
    assert main(["evaluate", run, "--json", "--split", "validation"]) == 0
    report = json.loads(capsys.readouterr().out)["evaluations"]["validation"]
    assert "no density" in report["unanswerable"]["nll"]
    measured = [(e["quantity"], e["relation"]) for e in report["estimates"]]
    errors = [f"{name}-error" for name in ("autocorrelation", "spectrum", "run-length")]
    names = ("window-energy", *errors, "copy-ratio")
    assert measured == [(name, "~") for name in names]
    assert main(["forecast", run, "--horizon", "3"]) == 2
    assert "noise" in capsys.readouterr().err
