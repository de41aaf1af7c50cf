"""Is the likelihood of an example a function of that example alone?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from likely.density import (
    ApproximateDensity,
    EncoderDecoder,
    EnergyBased,
    Fittable,
    ImplicitDensity,
    LatentVariable,
    TractableDensity,
)
from likely.noise import Noise, noise_for
from likely.verify.proofs import Proof
from likely.verify.subject import Subject, in_training

SAME_TOLERANCE = 1e-10


def coupling(subject: Subject) -> Iterator[Proof]:
    """Change the other examples of a batch; the result for the first must not change.

    The batch size stays the same, so that the order of summation does.
    """
    model = subject.model
    if isinstance(model, ImplicitDensity):
        yield _proof(subject, model, "generation", True)
        return
    yield _proof(subject, model, "evaluation", True)
    # A network that mixes its batch in training alone has an honest likelihood, but was not
    # trained on it.
    yield _proof(subject, in_training(model), "training", False)


def _proof(subject: Subject, model: Fittable, mode: str, vital: bool) -> Proof:
    worst = 0.0
    for ask, first, second in _questions(subject, model):
        answers = []
        for batch in (first, second, first):
            # What a model draws for each example in training must be the same every time.
            with noise_for(model, Noise("coupling")):
                answers.append(ask(batch))
        a, b, again = answers
        for other in (b, again):
            difference = float((a[0] - other[0]).abs().max())
            worst = max(worst, difference if difference == difference else float("inf"))
    return Proof.at_most(
        f"examples do not couple ({mode})",
        worst,
        SAME_TOLERANCE,
        "Largest change of the result for one example when the rest of its batch changes, and "
        f"when it is evaluated twice; {mode} mode, dropout off.",
        vital=vital,
    )


_Question = tuple[Callable[[Tensor], Tensor], Tensor, Tensor]


def _questions(subject: Subject, model: Fittable) -> Iterator[_Question]:
    """(function of a batch, a batch, the same first example in other company)."""
    labels = subject.labels(2)
    x = subject.x[:2]
    # The other examples must differ much: a constant image of the top level.
    other = torch.stack([x[0], torch.full_like(x[0], model.spec.levels - 1)])
    if isinstance(model, TractableDensity):
        yield lambda batch: model.log_prob(batch, labels), x, other
    elif isinstance(model, EnergyBased):
        yield lambda batch: model.free_energy(batch, labels), x, other
    elif isinstance(model, LatentVariable):
        yield lambda batch: model.posterior(batch, labels).mean, x, other
        yield lambda batch: model.posterior(batch, labels).log_scale, x, other
        z = subject.noise("z").normal(2, model.latent, dtype=torch.float64)
        yield (
            lambda batch: model.decoder_output(batch, labels),
            z,
            torch.stack([z[0], z[1] * 3 + 1]),
        )
    elif isinstance(model, EncoderDecoder):
        yield lambda batch: model.encode(batch, labels), x, other
        z = model.encode(x, labels)
        yield lambda batch: model.decoder_output(batch, labels), z, torch.stack([z[0], z[1] + 1])
    if isinstance(model, ApproximateDensity):
        yield lambda batch: model.elbo(batch, Noise("elbo"), labels), x, other
    elif isinstance(model, ImplicitDensity):
        z = model.latents(subject.noise("z"), 2)
        yield lambda batch: model.generate(batch, labels), z, torch.stack([z[0], z[1].neg() * 0.5])
