"""Numerical checks ("proofs") of a fitted model, by code that did not produce its numbers.

    verify(model).passed        # all checks
    print(verify(model))        # a sentence per check
    verify(model).require()     # raises ProofFailed where a likelihood would be wrong

What is checked, by kind:

- tractable: each conditional sums to one; the Jacobian of the conditionals is causal by pixel
  and by channel; later values change nothing; no blind spot where none is declared; the sum over
  all images of a tiny instance is one; examples do not couple;
- in two parts: nothing is lost between them; each part as any tractable density;
- approximate: ELBO <= importance bound <= quadrature on a tiny instance; the KL term is a KL;
  the same sums; examples do not couple; an autoregressive p(x|z) is causal;
- with discrete codes: the prior as any tractable density; the bound against the tables of prior and
  decoder, and against log p(x), the sum over all codes of a tiny instance;
- up to a constant: on a tiny instance the free energy, Z, Gibbs steps and annealed weights against
  sums over all states;
- dequantised: an inverse, a log-determinant by automatic differentiation, samples as often as the
  integral of the density says;
- without a density: codes and reconstructions of examples do not couple;
- implicit: an image does not depend on the batch it is made in; finite, in range; of a DCGAN the
  five guidelines of the paper, on both networks as they run;
- what `likely compress` can write (unless quick): drawn images as a file that is as long as the
  likelihood says, and that is read back;
- of sequences: causality over time, sums over levels and over all short sequences, padding that is
  not scored, a state kept over pieces, a sampler that is teacher forcing, scales of training data;
- of sequences with latents: the same, and ELBO <= FIVO <= an integral on a tiny instance; without
  a density: drawn step by step as in the pass that was judged, no padding judged;
- all: gradients reach every weight.

Everything runs on a float64 copy on the CPU; the model is not changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import torch
from torch import nn

from likely.data.spec import Dataset
from likely.density import (
    Autoregressive,
    AutoregressiveLikelihood,
    Decoder,
    Dequantized,
    DiscreteLatent,
    EnergyBased,
    Fittable,
    ImplicitDensity,
    ImplicitSequence,
    LatentSequence,
    LatentVariable,
    Mixture,
    SequenceDensity,
    Split,
    TractableDensity,
    weights_digest,
)
from likely.errors import InvalidSetting
from likely.verify.causality import causality
from likely.verify.context import context_matters
from likely.verify.convolutions import AsProducts
from likely.verify.coupling import coupling
from likely.verify.discrete import codes, prior_of
from likely.verify.energy import energies
from likely.verify.flow import dequantised
from likely.verify.guidelines import guidelines
from likely.verify.implicit_sequence import implicit_sequence_proofs
from likely.verify.latent import bounds, codes_follow_their_prior, conditioned
from likely.verify.latent_sequence import latent_sequence_proofs
from likely.verify.length import code_length
from likely.verify.normalization import conditionals_sum_to_one, total_probability
from likely.verify.proofs import Guideline, Proof, Proofs
from likely.verify.sequence import sequence_proofs
from likely.verify.split import parts
from likely.verify.subject import Subject, subject_of
from likely.verify.training import gradients_reach_every_weight, images_in_range

__all__ = ["Guideline", "Proof", "Proofs", "verify", "weights_digest"]


def verify(
    model: Fittable,
    data: Dataset | None = None,
    seed: int = 0,
    *,
    quick: bool = False,
    adversary: nn.Module | None = None,
    train: Dataset | None = None,
) -> Proofs:
    """Check a model with its current weights.

    Args:
        model: any; it is copied, not changed.
        data: examples to probe with beside random images.
        seed: of probe images and noise; the result is a function of (weights, data, seed, quick).
        quick: the short version that an evaluation runs: fewer output pixels, one tiny instance.
        adversary: of the run of a DCGAN, whose layers are checked, too; a fresh one by default.
        train: training set of a model of sequences, whose scales must be of that set alone.

    Returns:
        The checks that its kind calls for, passed or not.

    Raises:
        InvalidSetting: data of another shape or other levels.
    """
    if data is not None and (misfit := data.spec.misfit(model.spec)):
        raise InvalidSetting(misfit)
    if lost := model.nan_weights():
        about = f"Weights that are NaN: {', '.join(lost[:3])}; nothing else was checked."
        nothing = Proof.at_most("the weights are numbers", len(lost), 0.0, about)
        return Proofs(type(model).__name__, weights_digest(model), quick, seed, (nothing,))
    if isinstance(model, SequenceDensity):
        return sequence_proofs(model, data, train, quick, seed)
    if isinstance(model, LatentSequence):
        return latent_sequence_proofs(model, data, train, quick, seed)
    if isinstance(model, ImplicitSequence):
        return implicit_sequence_proofs(model, data, train, quick, seed)
    subject = subject_of(model, data, quick, seed)
    with torch.no_grad():
        proofs = tuple(_proofs(subject))
    rules = guidelines(subject, adversary)
    return Proofs(type(model).__name__, weights_digest(model), quick, seed, proofs, rules)


def _proofs(subject: Subject) -> Iterator[Proof]:
    model = subject.model
    yield from coupling(subject)
    yield from conditionals_sum_to_one(subject)
    if isinstance(model, Autoregressive):
        with torch.enable_grad():
            yield from causality(subject, model)
    if isinstance(model, Mixture):
        for number, member in enumerate(model.members()[: 1 if subject.quick else 4]):
            of_member = dataclasses.replace(subject, model=member)
            with torch.enable_grad():
                for proof in (*conditionals_sum_to_one(of_member), *causality(of_member, member)):
                    yield dataclasses.replace(proof, name=f"{proof.name} (member {number})")
    if isinstance(model, TractableDensity):
        yield from total_probability(subject, model)
    if isinstance(model, Split):
        yield from parts(subject, model)
    if isinstance(model, LatentVariable):
        if isinstance(model.likelihood_given_z, AutoregressiveLikelihood):
            of_decoder = conditioned(subject, model, model.likelihood_given_z.network)
            with torch.enable_grad():
                for proof in causality(of_decoder, model.likelihood_given_z.network):
                    yield dataclasses.replace(proof, name=f"{proof.name} (given z)")
        convolves = any(isinstance(module, nn.Conv2d) for module in model.modules())
        with AsProducts() if convolves else contextlib.nullcontext():
            of_bounds = list(bounds(subject, model))
        yield from of_bounds
    if isinstance(model, DiscreteLatent):
        of_prior = prior_of(subject, model)
        with torch.enable_grad():
            for proof in (*conditionals_sum_to_one(of_prior), *causality(of_prior, model.prior)):
                yield dataclasses.replace(proof, name=f"{proof.name} (prior)")
        yield from codes(subject, model)
    if isinstance(model, EnergyBased):
        yield from energies(subject, model)
    if isinstance(model, Dequantized):
        yield from dequantised(subject, model)
    if isinstance(model, ImplicitDensity):
        yield from images_in_range(subject, model)
        if isinstance(model, Decoder) and model.prior is not None:
            yield codes_follow_their_prior(subject, model, model.prior)
    yield from context_matters(subject)
    yield from code_length(subject)
    yield gradients_reach_every_weight(subject)
