"""The five guidelines of DCGAN: kept by the paper's networks, each planted breach caught."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, elu, relu

from likely import runs
from likely.data.spec import DataSpec
from likely.models.gan import dcgan
from likely.models.gan.dcgan import DCGAN, Discriminator
from likely.models.gan.settings import DCGANSettings
from likely.models.pixelcnn.settings import PixelCNNSettings
from likely.nn.normalization import BatchNorm2d
from likely.verify import Guideline, Proofs, verify
from likely.verify.guidelines import guidelines
from likely.verify.subject import subject_of

PAPER = DCGANSettings(latent=5, channels=4, kernel=5, normalize="batch")
SPEC = DataSpec("t", (1, 16, 16), 4, classes=("a", "b"))


def of(model: DCGAN, adversary: nn.Module | None = None) -> tuple[Guideline, ...]:
    return guidelines(subject_of(model, None, True, 0), adversary)


def breached(rules: tuple[Guideline, ...]) -> dict[int, str]:
    return {n: rule.about for n, rule in enumerate(rules, 1) if not rule.kept}


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 16, 16), (3, 28, 28), (1, 33, 20)])
@pytest.mark.parametrize("conditional", [False, True])
def test_the_paper_keeps_all_five(shape: tuple[int, ...], conditional: bool) -> None:
    settings = dataclasses.replace(PAPER, conditional=conditional)
    rules = of(DCGAN(dataclasses.replace(SPEC, shape=shape), settings))
    assert [rule.about for rule in rules] == [""] * 5
    assert all(str(rule).startswith("kept: ") for rule in rules)


@pytest.mark.parametrize("normalize", ["none", "spectral"])
def test_what_a_setting_asks_for_is_a_breach_with_its_reason(normalize: str) -> None:
    model = DCGAN(SPEC, dataclasses.replace(PAPER, normalize=normalize))
    rules = of(model)
    assert [*breached(rules)] == [2]
    assert f'normalize="{normalize}"' in rules[1].reason
    assert ("generator" in rules[1].about) == (normalize == "none")
    proofs = verify(model, quick=True)
    assert proofs.passed
    assert "4 of 5 guidelines kept" in str(proofs)
    assert Proofs.from_json(proofs.to_json()) == proofs


def pooled(model: DCGAN, critic: Discriminator) -> None:
    critic.downs[1] = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.MaxPool2d(2))


def pooled_in_passing(model: DCGAN, critic: Discriminator) -> None:
    critic.downs[1] = nn.Conv2d(4, 8, 3, padding=1)
    critic.downs[1].register_forward_hook(lambda module, args, out: avg_pool2d(out, 2))


def every_second_pixel(model: DCGAN, critic: Discriminator) -> None:
    critic.downs[1] = nn.Conv2d(4, 8, 3, padding=1)
    critic.norms[1].register_forward_hook(lambda module, args, out: out[..., ::2, ::2])


def enlarged(model: DCGAN, critic: Discriminator) -> None:
    up = nn.Upsample(scale_factor=2)
    model.generator.last = nn.Sequential(up, nn.ConvTranspose2d(4, 1, 3, padding=1))


def normalised_input(model: DCGAN, critic: Discriminator) -> None:
    critic.norms[0] = BatchNorm2d(4)


def normalised_output(model: DCGAN, critic: Discriminator) -> None:
    model.generator.last = nn.Sequential(model.generator.last, nn.BatchNorm2d(1))


def one_without(model: DCGAN, critic: Discriminator) -> None:
    model.generator.norms[0] = nn.Identity()


def another_norm(model: DCGAN, critic: Discriminator) -> None:
    critic.norms[1] = nn.GroupNorm(2, 8)


def hidden_dense(model: DCGAN, critic: Discriminator) -> None:
    critic.last = nn.Sequential(
        nn.Flatten(), nn.Linear(8 * 16, 6), nn.LeakyReLU(0.2), nn.Linear(6, 1)
    )


def dense_as_a_convolution(model: DCGAN, critic: Discriminator) -> None:
    whole, again = nn.ConvTranspose2d(5, 5, 1), model.generator.first
    model.generator.first = nn.Sequential(whole, nn.BatchNorm2d(5), nn.ReLU(), again)


def twice_activated(model: DCGAN, critic: Discriminator) -> None:
    model.generator.last = nn.Sequential(model.generator.last, nn.Sigmoid())


@pytest.mark.parametrize(
    ("plant", "number", "words"),
    [
        (pooled, 1, "discriminator: max_pool2d_with_indices in downs.1.1"),
        (pooled_in_passing, 1, "avg_pool2d"),
        (every_second_pixel, 1, "the map goes from 8x8 to 4x4 between downs.1 and last"),
        (enlarged, 1, "generator: upsample_nearest2d in last.0"),
        (normalised_input, 2, "discriminator: batch norm at its input (downs.0)"),
        (normalised_output, 2, "generator: batch norm at its output (last.0)"),
        (one_without, 2, "generator: no batch norm behind first"),
        (another_norm, 2, "discriminator: GroupNorm behind downs.1"),
        (hidden_dense, 3, "discriminator: last.1 is a dense layer"),
        (dense_as_a_convolution, 3, "generator: first.3 is a dense layer"),
        (twice_activated, 4, "sigmoid and tanh at the output"),
    ],
)
def test_a_planted_breach_is_caught(
    plant: Callable[[DCGAN, Discriminator], None], number: int, words: str
) -> None:
    model = DCGAN(SPEC, PAPER)
    critic = model.adversary()
    plant(model, critic)
    rules = of(model, critic)
    assert words in rules[number - 1].about
    assert not rules[number - 1].reason
    # A dense layer has no norm behind it, either, and an exchanged layer may have another stride.
    assert breached(rules).keys() <= {number, 1, 2}
    assert not verify(model, quick=True, adversary=critic).passed


@pytest.mark.parametrize(
    ("name", "other", "breaches"), [("relu", elu, {4: "elu"}), ("leaky_relu", relu, {5: "relu"})]
)
def test_another_activation_is_caught(
    name: str, other: Callable[..., torch.Tensor], breaches: dict[int, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(dcgan, name, lambda x, *_: other(x))
    rules = breached(of(DCGAN(SPEC, PAPER)))
    assert rules.keys() == breaches.keys()
    for number, word in breaches.items():
        assert f"{word} behind" in rules[number]


def test_nothing_at_the_output_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dcgan.torch, "tanh", lambda x: x.clamp(-1, 1))
    assert "nothing at the output" in breached(of(DCGAN(SPEC, PAPER)))[4]


def test_the_networks_are_left_as_they_were() -> None:
    model = DCGAN(SPEC, PAPER).eval()
    critic = model.adversary()
    before = [t.clone() for t in (*model.state_dict().values(), *critic.state_dict().values())]
    verify(model, quick=True, adversary=critic)
    after = (*model.state_dict().values(), *critic.state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any(m._forward_hooks for m in (*model.modules(), *critic.modules()))


def test_other_models_have_none_and_older_files_are_read() -> None:
    spec = dataclasses.replace(SPEC, shape=(1, 4, 4))
    settings = PixelCNNSettings(channels=4, layers=1, first_kernel=3, head_channels=4)
    pixelcnn = runs.build("pixelcnn", spec, dataclasses.asdict(settings))
    assert guidelines(subject_of(pixelcnn, None, True, 0)) == ()
    record = Proofs("DCGAN", "0", True, 0, ()).to_json()
    del record["guidelines"]
    assert Proofs.from_json(record).guidelines == ()


def test_the_networks_of_a_run_are_those_that_are_checked() -> None:
    run = runs.load(Path(__file__).parents[2] / "bench" / "results" / "mnist-static-dcgan")
    rules = verify(run.model, quick=True, adversary=run.adversary).guidelines
    assert [rule.kept for rule in rules] == [True, False, True, True, True]
