"""Log-likelihoods of data: exact, or a bound that says so, or a refusal with the reason.

A tractable density gives `= nats`; an approximate one `<= nats` (its ELBO, or the importance-
weighted bound with k samples, which is tighter); an implicit one raises Unanswerable. Every
example of the data set counts, the last short batch too; a value that is not finite is an
error, never left out. Weights are what the model holds (after a fit: the averaged ones), in
evaluation mode, float32 or better, whatever precision the fit ran in. No annealed or weighted
loss is reported.

A number is only given when the model's proofs hold (`likely.verify`): the short version runs
here, unless proofs of the very same weights are given or were made before in this process.

Sources: Burda, Grosse and Salakhutdinov 2016 (eq. 8, active units in sec. 5),
https://arxiv.org/abs/1509.00519; Hoffman and Johnson 2016 (rate and distortion),
http://approximateinference.org/accepted/HoffmanJohnson2016.pdf.
"""

from __future__ import annotations

import dataclasses
import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from likely.ask.likelihood import measure_of
from likely.data.spec import Dataset, as_dataset
from likely.density import (
    Fittable,
    LatentSequence,
    LatentVariable,
    SequenceDensity,
    condition_of,
    evaluating,
    reading_of,
)
from likely.devices.precision import without_autocast
from likely.errors import Diverged, InvalidData, InvalidSetting
from likely.estimate import Estimate, Relation, nats_to_bits_per_dim
from likely.evaluate.sequences.nats import StepNats, step_nats
from likely.noise import Noise
from likely.verify import Proofs, verify, weights_digest

QUANTITY = "nll"
# Variance over the data of a coordinate's posterior mean, above which it is used (Burda 2016).
ACTIVE = 0.01
# Nats of KL beyond which unused coordinates are not a collapse onto the prior.
WASTED = 1.0
# Share of the negative ELBO below which codes that are used say next to nothing.
LITTLE = 0.01
# Nats of a layer of codes below which it carries nothing.
SILENT = 0.1

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

_proved: weakref.WeakKeyDictionary[Fittable, Proofs] = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True, eq=False)
class PerExample:
    """Negative log-likelihoods of a data set, one for each example, in its order.

    Attributes:
        values: nats, float64 [N]; the truth is at most this where `relation` is "<=".
        relation: EXACT, UPPER, or LOWER where the truth is at least this.
        fingerprint: of the data, and of the labels or contexts where the likelihood is given them.
        dimensions: of one example.
        about: how they were computed.
        quantity: "nll", or "nll-given-label" or "nll-given-context" of a conditional model.
        shared_error: standard error of what all examples share (log Z), nats.
    """

    values: FloatArray
    relation: Relation
    fingerprint: str
    dimensions: int
    about: str
    quantity: str = QUANTITY
    shared_error: float = 0.0

    def nats(self) -> Estimate:
        """Their mean in nats per example, with its standard error."""
        mean = Estimate.mean_of(
            self.values.tolist(),
            unit="nats",
            relation=self.relation,
            quantity=self.quantity,
            fingerprint=self.fingerprint,
            about=self.about,
        )
        error = math.hypot(mean.standard_error, self.shared_error)
        return dataclasses.replace(mean, standard_error=error)

    def bits_per_dim(self) -> Estimate:
        """Their mean in bits per dimension, with its standard error."""
        return self.nats().scaled(nats_to_bits_per_dim(self.dimensions), "bits/dim")


def per_example_nll(
    model: Fittable,
    data: Dataset,
    importance_samples: int | None = None,
    seed: int = 0,
    batch_size: int = 128,
    proofs: Proofs | None = None,
    progress: Progress | None = None,
) -> PerExample:
    """-log p(x) of every example, or an upper bound on it.

    Args:
        model: explicit, tractable or approximate.
        data: what the number is about; dynamic binarisation is read at epoch 0.
        importance_samples: k of the importance-weighted bound; the ELBO when None. A tractable
            density ignores it, so that one call serves a comparison.
        seed: of the latents of an approximate density.
        batch_size: examples at a time. With the seed it decides the latents.
        proofs: made before by `likely.verify` for these weights; others are not believed.
        progress: called with (examples done, of how many).

    Raises:
        Unanswerable: an implicit density, with its reason.
        ProofFailed: a proof that the number depends on failed.
        InvalidData: data of another shape or levels, or without the labels that are needed.
        InvalidSetting: k < 1, or weights below float32.
        Diverged: a value that is not finite; names the example.
    """
    measure = measure_of(model, importance_samples, seed)
    _refuse_misfit(model, data, batch_size)
    proofs_of(model, proofs).require()
    values = np.empty(len(data), np.float64)
    with evaluating(model):
        for part, x, context in reading_of(model, data, batch_size):
            noise = Noise("likelihood", seed, part.start, device=model.device)
            # An autocast block around this call must not lower the precision.
            with torch.no_grad(), without_autocast(model.device):
                log_prob = measure.log_prob(x, noise, context)
            values[part] = -log_prob.double().cpu().numpy()
            _refuse_non_finite(model, data, values[part], part.start)
            if progress is not None:
                progress(part.stop, len(data))
    fingerprint = data.fingerprint_given(condition_of(model))
    quantity = quantity_of(model)
    return PerExample(
        values, measure.relation, fingerprint, data.spec.dimensions, measure.about, quantity,
        measure.shared_error,
    )  # fmt: skip


def quantity_of(model: Fittable, base: str = QUANTITY) -> str:
    """The name of a likelihood of this model: what it is given belongs to the quantity."""
    condition = condition_of(model)
    return f"{base}-given-{condition}" if condition else base


def log_likelihood(
    model: Fittable,
    data: Dataset,
    *,
    importance_samples: int | None = None,
    seed: int = 0,
    batch_size: int = 128,
    proofs: Proofs | None = None,
) -> FloatArray:
    """log p(x) of every example in nats (a lower bound for an approximate density), [N].

    Arguments and errors as for `per_example_nll`.
    """
    return -per_example_nll(model, data, importance_samples, seed, batch_size, proofs).values


def nats(
    model: Fittable,
    data: Dataset,
    *,
    importance_samples: int | None = None,
    seed: int = 0,
    batch_size: int = 128,
    proofs: Proofs | None = None,
) -> Estimate:
    """Mean negative log-likelihood in nats per example: "=" exact, "<=" for a bound.

    Of sequences it is nats per step, every step scored; `importance_samples` are the particles of
    FIVO where a model of them has latents. Arguments and errors as for
    `per_example_nll`.
    """
    if isinstance(model, SequenceDensity | LatentSequence):
        return _step_nats(model, data, importance_samples, seed, proofs).per_step()
    return per_example_nll(model, data, importance_samples, seed, batch_size, proofs).nats()


def bits_per_dim(
    model: Fittable,
    data: Dataset,
    *,
    importance_samples: int | None = None,
    seed: int = 0,
    batch_size: int = 128,
    proofs: Proofs | None = None,
) -> Estimate:
    """Mean negative log-likelihood in bits per dimension, nats / (D ln 2).

    Of sequences it is bits per value. Arguments and errors as for `per_example_nll`.
    """
    if isinstance(model, SequenceDensity | LatentSequence):
        return _step_nats(model, data, importance_samples, seed, proofs).bits_per_value()
    return per_example_nll(model, data, importance_samples, seed, batch_size, proofs).bits_per_dim()


def _step_nats(
    model: SequenceDensity | LatentSequence,
    data: Dataset,
    particles: int | None,
    seed: int,
    proofs: Proofs | None,
) -> StepNats:
    proofs_of(model, proofs).require()
    return step_nats(model, data, particles=particles, seed=seed)


def proofs_of(model: Fittable, proofs: Proofs | None = None) -> Proofs:
    """Proofs of the weights that the model has now.

    Given ones, or those made before in this process, are taken when their digest is that of the
    weights; otherwise the short version of `likely.verify.verify` runs.
    """
    digest = weights_digest(model)
    for known in (proofs, _proved.get(model)):
        if known is not None and (known.digest, known.model) == (digest, type(model).__name__):
            return known
    made = verify(model, quick=True)
    _proved[model] = made
    return made


@dataclasses.dataclass(frozen=True)
class LatentDiagnostics:
    """What a latent-variable model uses its code for.

    Attributes:
        active: coordinates whose posterior mean varies: Var_x(E[z|x]) > 0.01 (Burda 2016), of
            layers that carry something; None where the examples are all alike, as one is: nothing
            can vary there.
        latent: all coordinates.
        rate: mean KL(q(z|x) || p(z)), nats: what the code carries. Exact where it is a formula,
            else from one draw of z an example.
        distortion: mean -log p(x|z), z ~ q(z|x), nats: what is left to say, from one draw. Their
            sum is the negative ELBO.
        layers: the rate of each stochastic layer given those above it, the one nearest to the image
            first; none for a single layer.
        warning: a sentence when the posterior has collapsed, fully or in part; "" otherwise.
    """

    active: int | None
    latent: int
    rate: Estimate
    distortion: Estimate
    warning: str
    layers: tuple[Estimate, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        record = {"active": self.active, "latent": self.latent, "warning": self.warning}
        return {
            **record,
            "rate": self.rate.to_json(),
            "distortion": self.distortion.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }


def latent_diagnostics(
    model: Fittable, data: Dataset, *, seed: int = 0, batch_size: int = 128
) -> LatentDiagnostics:
    """Active units, rate and distortion on a data set.

    Raises:
        InvalidSetting: a model without latent variables.
        InvalidData: data that does not fit the model.
    """
    if not isinstance(model, LatentVariable):
        raise InvalidSetting(
            f"{type(model).__name__} is {model.kind}: it has no posterior whose use could be "
            "measured; give a latent-variable model"
        )
    _refuse_misfit(model, data, batch_size)
    means, columns, distortions, formula = [], [], [], True
    with evaluating(model):
        for part, x, context in reading_of(model, data, batch_size):
            noise = Noise("diagnostics", seed, part.start, device=model.device)
            with torch.no_grad(), without_autocast(model.device):
                reconstruction, kl = model.elbo_terms(x, noise, context)
                q = model.posterior(model.integers(x), model.labels(context, len(x)))
            formula = formula and model.knows_kl(q)
            distortions += (-reconstruction.double()).tolist()
            columns.append(kl.double().cpu())
            means.append(q.mean.double().cpu())
    centres = torch.cat(means)
    variance = centres.var(0, correction=0)
    alike = bool((data.values == data.values[:1]).all())
    kl = torch.cat(columns)
    # A layer that carries nothing varies as those above it do.
    carries = torch.ones(len(variance), dtype=torch.bool)
    silent: list[tuple[int, float]] = []
    if model.layers > 1:
        each = kl.mean(0)
        carries = (each > SILENT).repeat_interleave(torch.tensor(model.layer_sizes))
        silent = [(model.layers - i, float(nats)) for i, nats in enumerate(each) if nats <= SILENT]
    active = None if alike else int(((variance > ACTIVE) & carries).sum())
    measured = {"rate": kl.sum(1).tolist(), "distortion": distortions}
    if model.layers > 1:
        last = model.layers - 1
        measured |= {f"rate-layer-{i + 1}": kl[:, last - i].tolist() for i in range(model.layers)}
    rate, distortion, *layers = (
        Estimate.mean_of(
            values,
            unit="nats",
            relation=(Relation.EXACT if formula and quantity == "rate" else Relation.APPROXIMATE),
            quantity=quantity_of(model, quantity),
            fingerprint=data.fingerprint_given(condition_of(model)),
            lower_is_better=None,
        )
        for quantity, values in measured.items()
    )
    warning = ""
    if active is not None:
        bound = rate.value + distortion.value
        warning = collapse_words(active, model.latent, rate.value, bound)
    if silent and not warning:
        told = ", ".join(f"layer {layer} carries {nats:.2g} nats" for layer, nats in silent[::-1])
        warning = (
            f"{told} of {model.layers} layers: what is drawn there depends on the layers above and "
            "not on x; free nats, which hold for each layer, or a longer warm-up helps"
        )
    return LatentDiagnostics(active, model.latent, rate, distortion, warning, tuple(layers))


def collapse_words(active: int, latent: int, rate: float, bound: float) -> str:
    """What to tell a person whose code carries little; "" when all is well."""
    remedy = (
        "a warm-up of the KL term (NegativeELBO(warmup=...)), free nats, or a smaller latent helps"
    )
    if active * 10 <= latent and rate > WASTED:
        which = f"only {active}" if active else "none"
        return (
            f"the encoder is not fitted yet: {which} of the {latent} latent coordinates "
            f"depend{'s' if not active else ''} on x, so that most of the KL term's {rate:.3g} "
            "nats is wasted; fit for more steps"
        )
    if active == 0:
        return (
            f"the posterior has collapsed: none of the {latent} latent coordinates depends on x "
            f"(the code carries {rate:.2g} nats); {remedy}"
        )
    if active * 10 <= latent:
        return (
            f"the posterior has nearly collapsed: only {active} of {latent} latent coordinates "
            f"depend on x (the code carries {rate:.3g} nats); {remedy}"
        )
    if rate < LITTLE * bound:
        return (
            f"the code carries {rate:.2g} of {bound:.4g} nats: the decoder does nearly without it; "
            f"{remedy}"
        )
    return ""


def _refuse_misfit(model: Fittable, data: Dataset, batch_size: int) -> None:
    spec = as_dataset(data).spec
    if batch_size < 1:
        raise InvalidSetting(f"batch_size must be at least 1, given {batch_size}")
    if len(data) == 0:
        raise InvalidData(f"{spec.name}: no examples to evaluate")
    if misfit := spec.misfit(model.spec):
        raise InvalidData(misfit)
    if model.classes and data.labels is None:
        raise InvalidData(
            f"{type(model).__name__} is conditional on {model.classes} classes, but {spec.name} "
            f"({spec.split}) has no labels"
        )
    if spec.context != model.context_shape and model.context_shape:
        raise InvalidData(
            f"{type(model).__name__} is conditional on numbers of shape {model.context_shape}, but "
            f"{spec.name} ({spec.split}) comes with {spec.context or 'none'}"
        )
    low = {p.dtype for p in model.parameters()} - {torch.float32, torch.float64}
    if low:
        raise InvalidSetting(
            f"likelihoods are evaluated in float32 or better; the weights are "
            f"{', '.join(sorted(map(str, low)))}: call model.float() first"
        )


def _refuse_non_finite(model: Fittable, data: Dataset, values: FloatArray, start: int) -> None:
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        row = int(bad[0])
        more = f" and {len(bad) - 1} more of its batch" if len(bad) > 1 else ""
        sign = "infinite" if math.isinf(values[row]) else "not a number"
        raise Diverged(
            f"{type(model).__name__}: the log-likelihood of example {start + row}{more} of "
            f"{data.spec.name} ({data.spec.split}) is {sign}; no mean is given. The weights may "
            "come from a fit that diverged: fit again with a lower learning_rate"
        )
