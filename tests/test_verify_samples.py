"""Samplers, priors and densities with one defect each: do the proofs of verify notice?"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from likely import runs
from likely.data.spec import DataSpec
from likely.density import Fittable
from likely.density.chain import PLAIN, Drawing
from likely.models.autoencoder.generative import GenerativeAutoencoder
from likely.models.classical.mixtures import BernoulliMixture
from likely.models.flow.flow import Flow
from likely.models.gan.dcgan import DCGAN
from likely.models.pixelcnn.gated_pixelcnn import GatedPixelCNN
from likely.models.split.haar_pyramid import HaarPyramid
from likely.models.vae.vae import VAE
from likely.noise import Noise
from likely.verify import verify
from planted_models import lively
from sizes import SMALL

COUNTS = "samples are as frequent as the density says"
BINARY, LEVELS = DataSpec("grey", (1, 5, 5), 2), DataSpec("levels", (1, 4, 4), 16)


class ColdSampler(GatedPixelCNN):
    def fill(
        self, x: Tensor, uniform: Tensor, known: int, context: Tensor | None, how: Drawing = PLAIN
    ) -> Tensor:
        return super().fill(x, uniform, known, context, dataclasses.replace(how, temperature=0.95))


class FirstPixelLost(BernoulliMixture):
    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        return super().draw(noise, n, context).index_fill(3, torch.tensor([0]), 0)


class LevelsShifted(HaarPyramid):
    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        return super().draw(noise, n, context) + 1


class LowNumbers(VAE):
    def decode(
        self, z: Tensor, context: Tensor | None = None, uniform: Tensor | None = None
    ) -> Tensor:
        return super().decode(z, context, None if uniform is None else 0.9 * uniform)


class WidePrior(VAE):
    def latents(self, noise: Noise, n: int) -> Tensor:
        return 1.1 * super().latents(noise, n)


class WideCodes(GenerativeAutoencoder):
    def latents(self, noise: Noise, n: int) -> Tensor:
        return 1.2 * super().latents(noise, n)


class OffByAConstant(Flow):
    def log_density(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return super().log_density(y, context) + 1e-3


DEFECTS: list[tuple[str, type[Fittable], DataSpec, str]] = [
    ("gated-pixelcnn", ColdSampler, BINARY, "the sampler follows the conditionals"),
    ("bernoulli-mixture", FirstPixelLost, BINARY, COUNTS),
    ("haar-pyramid", LevelsShifted, LEVELS, COUNTS),
    ("vae", LowNumbers, BINARY, COUNTS),
    ("vae", WidePrior, BINARY, "the prior's samples follow its density"),
    ("generative-autoencoder", WideCodes, BINARY, "the samples' codes follow their density"),
    ("flow", OffByAConstant, LEVELS, "the density is that of its draws"),
]


def made(name: str, spec: DataSpec, defect: type[Fittable] | None = None) -> Any:
    model: Any = lively(runs.build(name, spec, SMALL[name])).eval()
    if defect is not None:
        model.__class__ = defect
    return model


class DeafDecoder(VAE):
    def decoder_output(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return super().decoder_output(z, None if context is None else 0 * context)


class DeafGenerator(DCGAN):
    def generate(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return super().generate(z, None if context is None else 0 * context)


class DeafConditionals(GatedPixelCNN):
    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return super().conditionals(x, None if context is None else 0 * context)


@pytest.mark.parametrize(
    ("name", "deaf"),
    [("vae", DeafDecoder), ("dcgan", DeafGenerator), ("gated-pixelcnn", DeafConditionals)],
)
def test_a_class_that_changes_nothing_is_noticed(name: str, deaf: type[Fittable]) -> None:
    spec = DataSpec("labelled", (1, 4, 4), 3, classes=("a", "b"))
    model: Any = lively(runs.build(name, spec, {**SMALL[name], "conditional": True})).eval()
    assert verify(model, quick=True)["the class matters"].passed
    model.__class__ = deaf
    assert not verify(model, quick=True)["the class matters"].passed


@pytest.mark.parametrize(("name", "defect", "spec", "proof"), DEFECTS)
def test_a_quick_check_notices(
    name: str, defect: type[Fittable], spec: DataSpec, proof: str
) -> None:
    assert verify(made(name, spec), quick=True)[proof].passed
    assert not verify(made(name, spec, defect), quick=True)[proof].passed
