"""A density in two parts: is nothing lost between them, and is each of them a density?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from likely.density import Autoregressive, Split
from likely.verify.causality import causality
from likely.verify.normalization import SUM_TOLERANCE, conditionals_sum_to_one, from_tables
from likely.verify.proofs import Proof
from likely.verify.subject import Subject


def parts(subject: Subject, model: Split) -> Iterator[Proof]:
    """All checks of the parts, and of the parts of the first one where it is split itself."""
    x, labels = subject.x, subject.context
    base, rest = model.lifting.split(x)
    condition = model.condition(base, labels)
    drawn = model.enlarged(base, labels, "verify", subject.seed)
    lost = (model.lifting.merge(base, rest) != x).sum()
    lost = lost + (model.lifting.split(drawn)[0] != base).sum()
    yield Proof.at_most(
        "the parts are the image",
        float(lost),
        0.0,
        f"Integers of {len(x)} images that their parts do not give back, and of the bases of draws "
        "that are not what was given.",
    )
    off, of_rest = from_tables(model.rest.head, model.rest.conditionals(rest, condition), rest)
    yield Proof.at_most(
        "each conditional sums to one (rest)",
        off,
        SUM_TOLERANCE,
        f"Largest |log of the sum over {model.rest.spec.levels} levels|, every difference of "
        f"{len(x)} images.",
    )
    total = of_rest + _of_base(model.base, base, labels)
    reported = model.log_prob(x, labels)
    yield Proof.at_most(
        "the likelihood is that of the parts",
        float(((total - reported).abs() / reported.abs().clamp(min=1.0)).max()),
        SUM_TOLERANCE,
        f"Largest relative difference between log p of {len(x)} images and the sum of the table "
        "entries of base and rest.",
    )
    of_difference = dataclasses.replace(subject, model=model.rest, x=rest, context=condition)
    with torch.enable_grad():
        for proof in causality(of_difference, model.rest):
            yield dataclasses.replace(proof, name=f"{proof.name} (rest)")
    below = dataclasses.replace(subject, model=model.base, x=base)
    if isinstance(model.base, Split):
        proofs = parts(below, model.base)
    else:
        proofs = _chain(below, model.base)
    for proof in proofs:
        yield dataclasses.replace(proof, name=f"{proof.name} (base)")


def _of_base(base: Autoregressive | Split, x: Tensor, labels: Tensor | None) -> Tensor:
    """log p by the tables of a chain rule; that of a split one is checked by itself."""
    if isinstance(base, Split):
        return base.log_prob(x, labels)
    return from_tables(base.head, base.conditionals(x, labels), x)[1]


def _chain(subject: Subject, model: Autoregressive) -> Iterator[Proof]:
    yield from conditionals_sum_to_one(subject)
    with torch.enable_grad():
        yield from causality(subject, model)
