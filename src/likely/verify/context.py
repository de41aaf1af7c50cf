"""Does what a model is conditioned on matter to what it says?"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from likely.density import (
    EncoderDecoder,
    EnergyBased,
    Fittable,
    GenerativeModel,
    ImplicitDensity,
    LatentVariable,
    TractableDensity,
)
from likely.verify.proofs import Proof
from likely.verify.subject import Subject, moved

ATTEMPTS = 4


def context_matters(subject: Subject) -> Iterator[Proof]:
    """Two contexts, everything else alike: the answers must differ.

    That a class is seen is a property of the architecture, so all weights are moved at random:
    those of a class may have stayed zero.
    """
    model = subject.model
    if subject.labels(1) is None or model.classes == 1:
        return

    def differ(attempt: int) -> bool:
        asked = moved(subject, model, attempt)
        first, second = (_answer(subject, asked, subject.labels(2, label)) for label in (0, 1))
        return not torch.equal(first, second)

    yield Proof.at_most(
        "the class matters" if model.classes else "the context matters",
        float(not any(map(differ, range(ATTEMPTS)))),
        0.0,
        "1 where what the model says is the same, to the last bit, for two contexts, however its "
        "weights are moved at random.",
        vital=False,
    )


def _answer(subject: Subject, model: Fittable, labels: Tensor | None) -> Tensor:
    """log p or what is drawn with the same noise, where the labels alone are free."""
    if isinstance(model, TractableDensity):
        return model.log_prob(subject.x[:2], labels)
    if isinstance(model, EnergyBased):
        return model.free_energy(subject.x[:2], labels)
    if isinstance(model, ImplicitDensity):
        return model.generate(model.latents(subject.noise("z"), 2), labels)
    if isinstance(model, LatentVariable):
        return model.decoder_output(model.latents(subject.noise("z"), 2), labels)
    if isinstance(model, GenerativeModel):
        return model.draw(subject.noise("context drawn"), 2, labels).double()
    assert isinstance(model, EncoderDecoder)
    return model.decoder_output(model.encode(subject.x[:2], subject.labels(2)), labels)
