"""What a comparison measures and shows of models of images and vectors.

Distances of samples in features, with the floor of training images; nearest training images;
completions, reconstructions and paths between codes as sheets; the speed of the sampler.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from likely.ask import Guarantee
from likely.ask.complete import Completes
from likely.ask.complete import answer as completion_answer
from likely.ask.encode import Encodes
from likely.data.labels import relabelled
from likely.data.spec import Dataset
from likely.density import Decoder, GenerativeModel, LatentVariable, inputs_of
from likely.estimate import Estimate
from likely.jobs.evaluate import (
    EvaluateSettings,
    Evaluation,
    Progress,
    measure,
    reference_for,
    speed_of,
    stage,
)
from likely.report.report import neighbour_pairs
from likely.verify import Proofs


class ImageSide:
    """Images: features, fitted once, and what models of the data are measured with.

    Args:
        train: training set.
        test: the split that is measured.
        settings: of the measuring.
        progress: told of the fit of the features.
    """

    def __init__(
        self, train: Dataset, test: Dataset, settings: EvaluateSettings, progress: Progress
    ) -> None:
        self._train, self._test = train, test
        self._settings, self._progress = settings, progress
        self._reference = reference_for(train, test, settings.samples, progress)
        self.floor: tuple[Estimate, ...] = tuple(self._reference.floor)
        self.extractor = self._reference.extractor.description

    def measure(
        self, model: GenerativeModel, name: str, proofs: Proofs
    ) -> tuple[Evaluation, dict[str, Any]]:
        """The numbers, and fields of the `ModelReport`: samples, neighbours, sheets."""
        measured = measure(
            model, self._train, self._test, self._settings, name=name, proofs=proofs,
            reference=self._reference, timed=False, progress=self._progress,
        )  # fmt: skip
        samples = measured.samples
        assert samples is not None
        extractor = self._reference.extractor
        return measured, {
            "samples": samples[:100],
            "neighbours": neighbour_pairs(samples, self._train, extractor),
            "sheets": _pictures(model, self._test, self._settings.seed),
        }

    def speed(self, model: GenerativeModel, name: str) -> tuple[Estimate, ...]:
        """How fast a model draws."""
        with stage(self._progress, f"timing {name}"):
            return (speed_of(model, self._reference),)


def _pictures(
    model: GenerativeModel, test: Dataset, seed: int, count: int = 10
) -> dict[str, Tensor]:
    """What this kind of model can do beside sampling, on test images, as sheets."""
    if model.classes:
        test = relabelled(test, model.spec.classes)
    x, context = inputs_of(model, test.batch(slice(0, count)))
    sheets = {}
    if isinstance(model, Encodes):
        rebuilt = model.reconstruct(x, context).cpu()
        caption = "Test images (first row) and their reconstructions"
        sheets[caption] = torch.stack([x, rebuilt])
    if isinstance(model, LatentVariable):
        drawn = model.sample(count, seed=seed, context=context).cpu()
        means = model.sample_means(count, seed=seed, context=context).cpu()
        caption = "Samples (first row) and the means E[x | z] of the same codes"
        sheets[caption] = torch.stack([drawn.double(), means])
    if sheets:
        return sheets
    if isinstance(model, Completes):
        _, height, width = test.spec.grid
        observed = torch.zeros(height, width, dtype=torch.bool)
        observed[: height // 2] = True
        caption = "Test images, their upper halves, and lower halves drawn from p(lower | upper)"
        if height == 1:
            observed[0, : width // 2] = True
            caption = (
                "Test examples, their left halves, and right halves drawn from p(right | left)"
            )
        if len(test.spec.shape) == 1:
            observed = observed[0]
        if completion_answer(model, observed).guarantee is not Guarantee.EXACT:
            return {}
        drawn = model.complete(x, observed, seed=seed, context=context).cpu()
        hidden = torch.where(observed, x, 0)
        return {caption: torch.stack([x, hidden, drawn])}
    if isinstance(model, Decoder):
        labels = torch.zeros(3, dtype=torch.int64) if model.classes else None
        path = model.interpolate(3, count, seed=seed, context=labels)
        return {"From one code to another, three times": path.cpu()}
    return {}
