"""The health monitor speaks when something is wrong, names it, and is silent otherwise."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fit_cases import fit_case, model_of, training_data
from likely import runs
from likely.density import LatentVariable
from likely.settings import FitSettings
from likely.training.health import Finding, active_units, diagnose, trained_through
from likely.training.loop import fit
from likely.training.objectives import NegativeELBO
from likely.training.run import Run

N = 40
STEPS = np.arange(1, N + 1) * 10.0
FALLING = 100.0 * np.exp(-STEPS / 100.0) + 80.0


def records(**series: np.ndarray | float) -> list[dict[str, float]]:
    columns = {name: np.broadcast_to(value, N) for name, value in series.items()}
    return [
        {"step": float(step), **{name: float(values[i]) for name, values in columns.items()}}
        for i, step in enumerate(STEPS)
    ]


def gan(**changes: np.ndarray | float) -> list[dict[str, float]]:
    """A healthy game, with some series changed."""
    noise = np.random.default_rng(0).normal(0.0, 0.05, N)
    healthy: dict[str, np.ndarray | float] = {
        "generator_loss": 0.8 + noise, "discriminator_accuracy": 0.65, "real_logit": 0.4,
        "fake_logit": -0.4, "gradient_norm_generator": 0.5,
    }  # fmt: skip
    return records(**{**healthy, **changes})


def words(findings: list[Finding]) -> str:
    return " | ".join(str(finding) for finding in findings)


def test_healthy_runs_and_short_runs_are_left_in_peace() -> None:
    assert diagnose(gan()) == []
    assert diagnose(records(nll=FALLING)) == []
    assert diagnose(records(negative_elbo=FALLING, kl=12.0, validation=FALLING + 2)) == []
    assert diagnose([]) == []
    assert diagnose(records(nll=100.0)[:3]) == []


def test_not_a_number_is_a_failure_with_its_step() -> None:
    bad = FALLING.copy()
    bad[20] = math.nan
    findings = diagnose(records(nll=bad))
    assert findings[0].severity == "failure"
    assert "nll is not finite at step 210" in findings[0].sentence


@pytest.mark.parametrize("name", ["nll", "negative_elbo", "negative_importance_bound"])
def test_a_loss_that_does_not_fall(name: str) -> None:
    scatter = np.random.default_rng(0).normal(0.0, 1.0, N)
    assert "does not fall" in words(diagnose(records(**{name: 100.0 + scatter})))
    assert "does not fall" in words(diagnose(records(**{name: 100.0 + STEPS})))
    assert diagnose(records(**{name: 100.0 + scatter - STEPS / 20})) == []


def test_overfitting_names_the_best_step() -> None:
    validation = 80.0 + np.abs(np.arange(N) - 15) * 0.5
    found = words(diagnose(records(nll=FALLING, validation=validation)))
    assert "overfitting: validation was best at step 160 (80)" in found
    # Both rise: the learning rate is at fault, not the amount of data.
    assert "overfitting" not in words(diagnose(records(nll=validation, validation=validation)))
    # Noise around the best is no rise.
    flat = 80.0 + np.where(np.arange(N) == 15, 0.0, 0.1)
    assert diagnose(records(nll=FALLING, validation=flat)) == []


def test_a_kl_near_zero_is_posterior_collapse() -> None:
    found = diagnose(records(negative_elbo=FALLING, kl=5.0 * np.exp(-STEPS / 20.0)))
    assert [f.severity for f in found] == ["failure"]
    assert "posterior collapse" in found[0].sentence


def test_a_discriminator_that_is_too_strong() -> None:
    growing = 0.8 + STEPS / 80.0
    found = diagnose(gan(generator_loss=growing, discriminator_accuracy=0.99))
    assert "discriminator is too strong: accuracy 0.990" in words(found)
    # A relativistic game shifts both logits: the gap counts, not the sign.
    assert "too strong" in words(diagnose(gan(generator_loss=growing, real_logit=9.0)))
    assert diagnose(gan(generator_loss=growing)) == []
    assert diagnose(gan(generator_loss=2.0, discriminator_accuracy=0.99)) == []
    assert diagnose(gan(discriminator_accuracy=0.99)) == []


def test_a_discriminator_loss_of_zero_is_said_in_words() -> None:
    lost = {"discriminator_loss": 0.01, "discriminator_accuracy": 0.999}
    (only,) = diagnose(gan(**lost, gradient_norm_generator=0.02))
    assert only.severity == "failure"
    assert "discriminator has won: its loss is 0.01, and it is right 99.9% of" in only.sentence
    assert "gradient norm is 0.02" in only.sentence
    # It says more than that D is too strong.
    assert len(diagnose(gan(**lost, generator_loss=0.8 + STEPS / 80.0))) == 1
    for silent in ({"discriminator_loss": 0.06}, {"discriminator_accuracy": 0.97},
                   {"discriminator_loss": -3.0}):  # fmt: skip
        assert diagnose(gan(**{**lost, **silent})) == []


def test_a_vanishing_generator_gradient() -> None:
    norm = 0.5 * np.exp(-STEPS / 20.0)
    assert "gradient vanishes" in words(diagnose(gan(gradient_norm_generator=norm)))
    assert diagnose(gan(gradient_norm_generator=0.5 * np.exp(-STEPS / 200.0))) == []


def test_oscillation_is_wide_slow_and_repeated() -> None:
    swing = np.sin(np.arange(N) / 1.2)
    found = words(diagnose(gan(generator_loss=1.0 + 0.8 * swing)))
    assert "the players oscillate" in found
    assert diagnose(gan(generator_loss=1.0 + 0.1 * swing)) == []
    scatter = np.random.default_rng(0).uniform(0.2, 1.8, N)
    assert diagnose(gan(generator_loss=scatter)) == []


def overfitting_by(share: float) -> list[dict[str, float]]:
    """Validation ends higher than its best, 80 nats, by that share of it."""
    return records(nll=FALLING, validation=80.0 * (1 + share * (np.arange(N) > 15)))


def vanishing_to(share: float) -> list[dict[str, float]]:
    """The generator's gradient falls to that share of what it was."""
    return gan(gradient_norm_generator=np.where(np.arange(N) < N // 2, 0.5, 0.5 * share))


GROWING = np.where(np.arange(N) < N // 2, 1.0, 1.3)


@pytest.mark.parametrize(
    ("silent", "speaks", "said"),
    [
        (overfitting_by(0.0045), overfitting_by(0.0055), "overfitting"),
        (records(kl=0.105), records(kl=0.095), "posterior collapse"),
        # Seven records say nothing, eight do.
        (records(kl=0.0)[:7], records(kl=0.0)[:8], "posterior collapse"),
        # The last quarter counts, ten records.
        (
            records(kl=np.where(np.arange(N) < N - 10, 0.0, 0.2)),
            records(kl=np.where(np.arange(N) < N - 10, 0.2, 0.0)),
            "posterior collapse",
        ),
        (
            gan(generator_loss=GROWING, discriminator_accuracy=0.945),
            gan(generator_loss=GROWING, discriminator_accuracy=0.955),
            "too strong",
        ),
        (
            gan(generator_loss=GROWING, real_logit=4.9, fake_logit=0.0),
            gan(generator_loss=GROWING, real_logit=5.1, fake_logit=0.0),
            "too strong",
        ),
        (
            gan(generator_loss=GROWING - 0.15 * (GROWING > 1), discriminator_accuracy=0.99),
            gan(generator_loss=GROWING - 0.05 * (GROWING > 1), discriminator_accuracy=0.99),
            "too strong",
        ),
        (vanishing_to(1.1e-3), vanishing_to(0.9e-3), "gradient vanishes"),
    ],
)
def test_each_threshold_on_both_sides(
    silent: list[dict[str, float]], speaks: list[dict[str, float]], said: str
) -> None:
    assert said not in words(diagnose(silent))
    assert said in words(diagnose(speaks))


@pytest.mark.parametrize(("active", "warns"), [(0, True), (1, True), (2, False)])
def test_fewer_than_a_tenth_of_the_latents_are_too_few(
    active: int, warns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 latents; a mean of variance 0.011 over the data is active, one of 0.009 is not."""
    model = runs.build("vae", training_data().spec, {"latent": 20, "hidden": 8}, 0)
    assert isinstance(model, LatentVariable)
    sign = torch.where(torch.arange(500) % 2 == 0, 1.0, -1.0)[:, None]
    spread = torch.where(torch.arange(20) < active, 0.011, 0.009).sqrt()

    def posterior(x: torch.Tensor, *_: object) -> torch.distributions.Normal:
        return torch.distributions.Normal(sign[: len(x)] * spread, 1.0)

    monkeypatch.setattr(model, "posterior", posterior)
    assert active_units(model, training_data()) == active
    found = diagnose([], model, training_data())
    assert ("posterior collapse" in words(found)) == warns
    assert [f.severity for f in found] == ["failure" if active == 0 else "warning"] * warns


def test_findings_are_sorted_and_say_what_to_do() -> None:
    bad = FALLING.copy()
    bad[-1] = math.inf
    validation = 80.0 + np.abs(np.arange(N) - 15) * 0.5
    findings = diagnose(records(nll=bad, negative_elbo=FALLING, validation=validation))
    assert [f.severity for f in findings] == ["failure", "warning"]
    assert all(f.remedy for f in findings)
    assert str(findings[0]).startswith("failure: ")


# -- real fits on digits ---------------------------------------------------------------------


def test_a_kl_weight_that_is_too_high_collapses_the_posterior() -> None:
    torch.set_num_threads(1)
    settings = FitSettings(steps=160, batch_size=32, log_every=8, validate_every=80, ema=0.9)
    collapsed = fit(model_of("vae-dense"), training_data(), NegativeELBO(beta=50.0), settings)
    assert "0 of 3 latent units are active" in words(collapsed.findings)
    assert "the KL of q(z|x)" in words(collapsed.findings)
    (short,) = diagnose(collapsed.metrics[:4], collapsed.model, training_data())
    assert (short.severity, short.remedy) == ("warning", "more steps")
    assert "not fitted yet: 0 of 3 latent units are active" in short.sentence
    healthy = runs.build("vae", training_data().spec, {"latent": 3, "hidden": 64}, 0)
    learned = fit(healthy, training_data(), NegativeELBO(), settings)
    assert words(learned.findings) == ""
    assert active_units(healthy, training_data()) >= 1


def test_a_constant_generator_has_collapsed_and_diverse_data_has_not() -> None:
    model = model_of("dcgan-r1")
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.mul_(0.01)
    found = diagnose([], model, training_data())
    assert [f.severity for f in found] == ["failure"]
    assert "mode collapse" in found[0].sentence


def test_samples_as_diverse_as_the_data_are_no_collapse(monkeypatch: pytest.MonkeyPatch) -> None:
    data = training_data()
    model = model_of("dcgan-r1")
    assert data.validation is not None
    images = torch.from_numpy(data.validation.x.astype(np.int64))
    monkeypatch.setattr(type(model), "sample", lambda self, n, **_: images[:n])
    assert diagnose([], model, data) == []
    # Ten images, each drawn many times: far apart on average, yet collapsed.
    few = images[torch.arange(250) % 10]
    monkeypatch.setattr(type(model), "sample", lambda self, n, **_: few[:n])
    assert "mode collapse" in words(diagnose([], model, data))


def test_copies_of_training_images_are_memorised(monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = training_data(), model_of("dcgan-r1")
    assert data.validation is not None
    images = torch.from_numpy(data.batch(slice(300, 550)).x.astype(np.int64))
    new = torch.from_numpy(data.validation.x.astype(np.int64))

    def said(samples: torch.Tensor) -> str:
        monkeypatch.setattr(type(model), "sample", lambda self, n, **_: samples[:n])
        return words(diagnose([], model, data))

    noise = torch.randint(-1, 2, images.shape, generator=torch.Generator().manual_seed(0))
    assert "100% of 250 samples are copies of training examples" in said(images)
    assert "the generator memorises" in said((images + noise).clamp(0, 16))
    # A few copies are no wonder, and blurred samples are near to many.
    assert said(torch.cat([images[:25], new[25:]])) == ""
    assert "memorises" not in said((new.float() * 0.5 + new.float().mean(0) * 0.5).long())


def test_a_generator_is_watched_while_it_is_fitted() -> None:
    model = model_of("dcgan-r1")
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.mul_(0.01)
    told: dict[int, str] = {}
    settings = FitSettings(
        steps=12, batch_size=8, log_every=1, validate_every=4, learning_rate=1e-9, warmup=0,
        precision="float32",
    )  # fmt: skip

    def note(run: Run, record: dict[str, float]) -> None:
        told[run.step] = words(run.findings)

    run = fit(model, training_data(), settings=settings, progress=note)
    assert "mode collapse" in told[12]
    assert not trained_through(run)
    run.findings = []
    assert trained_through(run)
    run.finished = False
    assert not trained_through(run)


def test_a_fit_on_few_images_overfits() -> None:
    torch.set_num_threads(1)
    data = training_data()
    few = data.take(slice(0, 32))
    few.validation = data.validation
    model = runs.build("vae", data.spec, {"latent": 8, "hidden": 128}, 0)
    settings = FitSettings(
        steps=300, batch_size=32, learning_rate=3e-3, log_every=10, validate_every=20, ema=0.9,
        validation_examples=128,
    )  # fmt: skip
    run = fit(model, few, settings=settings)
    assert "overfitting: validation was best at step" in words(run.findings)


def test_the_loop_writes_what_it_found(tmp_path: Path) -> None:
    fit_case("vae-dense", tmp_path / "short", steps=2)
    assert json.loads((tmp_path / "short" / "health.json").read_text()) == []
    run = fit_case("vae-dense", tmp_path / "still", log_every=1, learning_rate=1e-9)
    written = json.loads((tmp_path / "still" / "health.json").read_text())
    assert [Finding(**finding) for finding in written] == run.findings
    assert "posterior collapse: 0 of 3" in words(run.findings)
