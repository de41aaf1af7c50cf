"""Measuring a model: its likelihood, proved first, and its samples beside those of the data.

    likely evaluate runs/vae --split test           the command
    likely.evaluate("runs/vae", split="test")       Python

`measure` is what the command, Python, the comparison and the benchmarks call, so that one model
has one number wherever it is printed.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from likely.ask import QUERIES, answers
from likely.ask.likelihood import Tightens, has_likelihood
from likely.data.spec import Dataset, DataSpec
from likely.density import (
    Continues,
    DiscreteLatent,
    EncoderDecoder,
    GenerativeModel,
    LatentSequence,
    LatentVariable,
    SequenceDensity,
    SequenceModel,
    generative,
)
from likely.devices import choose_device, place
from likely.errors import InvalidData, InvalidSetting, ProofFailed
from likely.estimate import Estimate, Relation
from likely.evaluate.annealed import Annealed, AnnealedSettings, annealed, refuse_without_posterior
from likely.evaluate.classifier import default_extractor
from likely.evaluate.codes import code_usage
from likely.evaluate.disentangle import (
    Disentanglement,
    disentanglement_of,
    refuse_without_factors,
)
from likely.evaluate.likelihood import latent_diagnostics, per_example_nll, proofs_of, quantity_of
from likely.evaluate.prior import FEWEST, prior_gap
from likely.evaluate.quadrature import integrates_quickly, quadrature
from likely.evaluate.samples import SampleReference, samples_per_second
from likely.evaluate.sequences.ahead import steps_ahead
from likely.evaluate.sequences.calibration import calibration
from likely.evaluate.sequences.nats import step_nats, step_rate
from likely.evaluate.sequences.simulated import simulated
from likely.runs.directory import PROOFS
from likely.runs.saved import SavedRun, load, read_report
from likely.settings import not_negative, typed
from likely.training import health
from likely.verify import Proofs, weights_digest

# Told (what is being done, how much of it is done, of how much).
Progress = Callable[[str, float, float], None]
Split = Literal["test", "validation", "train"]
SPEED_SECONDS = 1.0  # of a sampler, which its speed is told by


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """How a model is measured.

    Attributes:
        split: test, validation or train; make choices on the validation split.
        importance_samples: k of the importance-weighted bound of a latent-variable model, particles
            of FIVO where it is one of sequences; 0 for the ELBO alone.
        sample_metrics: whether samples are drawn and measured, and the sampler is timed.
        samples: images on each side of the distances; 0 for those of the split, at most 2,000.
        seed: of latents and samples.
        device: auto, cpu, cuda.
        factors: whether codes are held against the known factors of the data (shapes).
        annealed: how the log p(x) of a latent-variable model is annealed, too; None for not at all.
    """

    split: Split = "test"
    importance_samples: int = 100
    sample_metrics: bool = True
    samples: int = 0
    seed: int = 0
    device: str = "auto"
    annealed: AnnealedSettings | None = None
    factors: bool = False

    def __post_init__(self) -> None:
        typed(self)
        not_negative(self, "importance_samples", "samples", "seed")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What was measured of a model.

    Attributes:
        data: the split that it is about.
        estimates: likelihoods from the loosest to the tightest, in nats and bits/dim each; rate
            and distortion; the numbers about samples.
        unanswerable: quantity to the reason why the model has none.
        notes: sentences.
        per_example: nats of each example under the tightest likelihood, [N], or of blocks of
            sequences (`StepNats.values`); None without one.
        samples: what was drawn, integers [n, *shape]; None without.
        disentanglement: of the codes, where the factors are known and it was asked for.
        annealed: bounds that are nearer to the truth, of some of the images; None where not asked.
    """

    data: DataSpec
    estimates: tuple[Estimate, ...]
    unanswerable: dict[str, str]
    notes: tuple[str, ...]
    per_example: list[float] | None
    samples: Tensor | None
    annealed: Annealed | None = None
    disentanglement: Disentanglement | None = None

    def __getitem__(self, quantity: str) -> Estimate:
        """The tightest estimate of a quantity; of a likelihood ("nll") in nats."""
        for estimate in reversed(self.estimates):
            name = estimate.quantity
            if quantity in (name, name.partition("-given-")[0]) and estimate.unit not in (
                "bits/dim",
                "bits/value",
            ):
                return estimate
        raise KeyError(quantity)

    def __str__(self) -> str:
        lines = [f"{estimate.quantity}: {estimate}" for estimate in self.estimates]
        lines += [f"{name}: no answer: {reason}" for name, reason in self.unanswerable.items()]
        near = [str(part) for part in (self.annealed, self.disentanglement) if part is not None]
        return "\n".join([f"{self.data.name}, {self.data.split} split", *lines, *self.notes, *near])

    __repr__ = __str__


@contextlib.contextmanager
def stage(progress: Progress, name: str) -> Iterator[None]:
    """A stage of a job that does not count."""
    progress(name, 0, 1)
    yield
    progress(name, 1, 1)


def quiet(name: str, done: float, total: float) -> None:
    """A progress that tells nobody."""


def reference_for(
    train: Dataset, part: Dataset, samples: int = 0, progress: Progress = quiet
) -> SampleReference:
    """What samples of models of this data are measured with, against the split `part`.

    `samples` are the images of each side, 0 for those of the split, at most 2,000; `progress` is
    told of the fit of the features.
    """
    name = "preparing the features"
    extractor = default_extractor(train, progress=lambda done, total: progress(name, done, total))
    return SampleReference(train, part, extractor, n=samples or None)


def measure(
    model: GenerativeModel,
    train: Dataset,
    part: Dataset,
    settings: EvaluateSettings,
    *,
    name: str = "",
    proofs: Proofs | None = None,
    reference: SampleReference | None = None,
    timed: bool = True,
    progress: Progress = quiet,
) -> Evaluation:
    """Measure a model on data; nothing is written.

    Args:
        model: in evaluation mode.
        train: training set, which samples must not copy.
        part: the split that is measured.
        settings: its split and device are not heeded.
        name: of the model in what `progress` is told.
        proofs: of these weights, made before; the quick ones are made now when None.
        reference: made before by `reference_for`.
        timed: whether the sampler is timed, too.
        progress: told of every stage.

    Returns:
        The numbers. A likelihood whose proof failed is not among them, but in `unanswerable`.

    Raises:
        InvalidSetting: as many samples as were asked for cannot be compared; or a model without
            latent variables is to be annealed.
        InvalidData, Unanswerable: factors are asked for of data whose factors are not known, or of
            a model without codes.
    """
    if settings.annealed is not None:
        refuse_without_posterior(model)
    if settings.factors:
        refuse_without_factors(model, part)
    name = name or type(model).__name__
    if isinstance(model, SequenceModel):
        return _of_sequences(model, train, part, settings, name, proofs, progress)
    estimates: list[Estimate] = []
    unanswerable: dict[str, str] = {}
    notes: list[str] = []
    per_example: list[float] | None = None
    near: Annealed | None = None
    if not has_likelihood(model):
        unanswerable["nll"] = answers(model)["likelihood"].reason
    else:
        with stage(progress, f"verifying the likelihood of {name}"):
            proofs = proofs_of(model, proofs)
        try:
            proofs.require()
            likelihoods, per_example = _likelihood(model, part, settings, name, proofs, progress)
            estimates += likelihoods
            if settings.annealed is not None:
                near = annealed(
                    model,
                    part,
                    settings.annealed,
                    seed=settings.seed,
                    proofs=proofs,
                    progress=lambda what, done, total: progress(f"{what} with {name}", done, total),
                )
        except ProofFailed as error:
            unanswerable[quantity_of(model)] = str(error)
    if isinstance(model, LatentVariable):
        diagnostics = latent_diagnostics(model, part, seed=settings.seed)
        if diagnostics.active is not None:
            notes.append(
                f"{diagnostics.active} of {diagnostics.latent} latent coordinates are used"
            )
        estimates += [diagnostics.rate, *diagnostics.layers, diagnostics.distortion]
        if diagnostics.warning:
            notes.append(diagnostics.warning)
    if isinstance(model, DiscreteLatent):
        usage = code_usage(model, part)
        notes.append(usage.sentence)
        estimates += [usage.rate, usage.distortion, usage.perplexity]
    if isinstance(model, EncoderDecoder) and len(part) >= FEWEST:
        notes.append(str(prior_gap(model, part, seed=settings.seed)))
    scores = disentanglement_of(model, part) if settings.factors else None
    drawn = None
    if settings.sample_metrics:
        try:
            if reference is None:
                reference = reference_for(train, part, settings.samples, progress)
            with stage(progress, f"drawing {reference.n:,} images from {name}"):
                context = reference.context_for(model)
                drawn = model.sample(reference.n, seed=settings.seed, context=context)
            with stage(progress, f"measuring the images of {name}"):
                estimates += reference.metrics(drawn)
            if timed:
                with stage(progress, f"timing the sampler of {name}"):
                    estimates.append(speed_of(model, reference))
        except (InvalidSetting, InvalidData) as error:
            if settings.samples:
                raise
            # The likelihood is measured: few images are no reason to keep it back.
            notes.append(f"no numbers about samples: {error}")
    return Evaluation(
        part.spec, tuple(estimates), unanswerable, tuple(notes), per_example, drawn, near, scores
    )


def _of_sequences(
    model: SequenceModel,
    train: Dataset,
    part: Dataset,
    settings: EvaluateSettings,
    name: str,
    proofs: Proofs | None,
    progress: Progress,
) -> Evaluation:
    """Nats per step and bits per value, or why there are none; forecasts and simulations."""
    unanswerable: dict[str, str] = {}
    estimates: list[Estimate] = []
    notes: list[str] = []
    per_example: list[float] | None = None
    if not isinstance(model, SequenceDensity | LatentSequence):
        unanswerable["nll"] = answers(model)["likelihood"].reason
    else:
        notes.append("every step is scored, the first included; the length of a sequence is given")
        with stage(progress, f"verifying the likelihood of {name}"):
            proofs = proofs_of(model, proofs)
        try:
            proofs.require()
            title, least = f"reading {len(part):,} {part.spec.split} sequences with {name}", None
            for particles in _particles(model, settings):
                scored = step_nats(
                    model, part, lambda done, total: progress(title, done, total),
                    particles=particles, seed=settings.seed,
                )  # fmt: skip
                estimates += [scored.per_step(), scored.bits_per_value()]
                if least is None or scored.value < least.value:
                    least, per_example = scored, scored.values.tolist()
            if isinstance(model, LatentSequence):
                rate = step_rate(model, part, settings.seed).per_step("rate")
                estimates.append(rate)
                if collapse := health.collapsed(rate.value, "nats a step"):
                    notes.append(f"{collapse.sentence}; what helps: {collapse.remedy}")
        except ProofFailed as error:
            unanswerable[quantity_of(model)] = str(error)
    if settings.sample_metrics:
        if isinstance(model, Continues):
            try:
                drawing = f"drawing the next step with {name}"
                measured = calibration(
                    model, part, train, seed=settings.seed,
                    progress=lambda done, total: progress(drawing, done, total),
                )  # fmt: skip
                estimates += measured.estimates
                notes.append(measured.sentence)
            except InvalidData as error:
                notes.append(str(error))
        if isinstance(model, SequenceDensity):
            with stage(progress, f"scoring steps ahead with {name}"):
                notes.append(steps_ahead(model, part, train, seed=settings.seed).sentence)
        elif isinstance(model, LatentSequence):
            notes.append("no nats of steps ahead: p(x_t | x_<t) is an integral over its latents")
        try:
            with stage(progress, f"simulating sequences with {name}"):
                estimates += simulated(model, part, train, seed=settings.seed)
        except InvalidData as error:
            notes.append(str(error))
    return Evaluation(part.spec, tuple(estimates), unanswerable, tuple(notes), per_example, None)


def _particles(
    model: SequenceDensity | LatentSequence, settings: EvaluateSettings
) -> tuple[int | None, ...]:
    """How often a likelihood of sequences is computed: once, or as ELBO and by particles."""
    if isinstance(model, SequenceDensity) or not settings.importance_samples:
        return (None,)
    return (None, settings.importance_samples)


def _likelihood(
    model: GenerativeModel,
    part: Dataset,
    settings: EvaluateSettings,
    name: str,
    proofs: Proofs,
    progress: Progress,
) -> tuple[list[Estimate], list[float]]:
    """Nats and bits/dim: exact, or the ELBO and the importance-weighted bound; of a model with at
    most two latent coordinates the integral, too, where a table serves all images."""
    k = settings.importance_samples
    estimates: list[Estimate] = []
    values: list[float] = []
    for samples in (None, k) if isinstance(model, Tightens) and k else (None,):
        how = "" if samples is None else f" by the bound with k = {samples}"
        title = f"reading {len(part):,} {part.spec.split} examples with {name}{how}"
        measured = per_example_nll(
            model,
            part,
            importance_samples=samples,
            seed=settings.seed,
            proofs=proofs,
            progress=lambda done, total, title=title: progress(title, done, total),  # type: ignore[misc]
        )
        estimates += [measured.nats(), measured.bits_per_dim()]
        values = measured.values.tolist()
    if isinstance(model, LatentVariable) and integrates_quickly(model):
        title = f"integrating p(x) of {len(part):,} {part.spec.split} examples with {name}"
        measured = quadrature(
            model, part, proofs=proofs, progress=lambda done, total: progress(title, done, total)
        )
        if measured.relation is Relation.EXACT:
            estimates += [measured.nats(), measured.bits_per_dim()]
            values = measured.values.tolist()
    return estimates, values


def speed_of(model: GenerativeModel, reference: SampleReference) -> Estimate:
    """How fast a model draws, with the contexts of the reference; on a machine at rest."""
    sampler = InTurn(model, reference.context_for(model))
    return samples_per_second(sampler, seconds=SPEED_SECONDS)


class InTurn:
    """A sampler that draws with the given contexts, again and again."""

    def __init__(self, model: GenerativeModel, context: Tensor | None) -> None:
        self.model, self.context = model, context

    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        """n images, integers [n, *shape]."""
        context = self.context
        if context is not None:
            context = context.repeat(-(-n // len(context)), *[1] * (context.ndim - 1))[:n]
        return self.model.sample(n, seed=seed, context=context)


def split_of(train: Dataset, test: Dataset, split: str) -> Dataset:
    """The part of the data that is called so; InvalidSetting where there is no validation split."""
    if split == "train":
        return train
    if split == "validation":
        if train.validation is None:
            raise InvalidSetting(f"{train.spec.name} has no validation split")
        return train.validation
    return test


def evaluate(
    run: SavedRun | str | Path,
    settings: EvaluateSettings | None = None,
    *,
    progress: Progress = quiet,
    **changes: Any,
) -> Evaluation:
    """Measure a run as `likely evaluate` does, and keep the numbers in its report.json.

    Args:
        run: from `likely.load`, or its directory.
        settings: of the evaluation.
        progress: told of every stage.
        changes: fields of the settings, as split="validation".

    Raises:
        ProofFailed: a check that the likelihood depends on fails.
        CheckpointError: the run is damaged, or the report cannot be written.
        InvalidData: the data are not what the run was fitted to.
    """
    settings = dataclasses.replace(settings or EvaluateSettings(), **changes)
    run = run if isinstance(run, SavedRun) else load(run)
    evaluation, report = evaluated(run, settings, progress)
    run.files.write_report(report)
    return evaluation


def evaluated(
    run: SavedRun, settings: EvaluateSettings, progress: Progress = quiet
) -> tuple[Evaluation, dict[str, Any]]:
    """As `evaluate`: the numbers, and the report that holds them beside older ones, not written."""
    model = generative(run.model)
    before = read_report(run.directory)
    place(model, choose_device(settings.device))
    part = split_of(run.train, run.test, settings.split)
    path = run.files / PROOFS
    proofs = None
    if has_likelihood(model):
        proofs = proofs_of(model, Proofs.load(path) if path.exists() else None)
        proofs.require()
    evaluation = measure(
        model, run.train, part, settings, name=run.name, proofs=proofs, progress=progress
    )
    return evaluation, _merged(run, before, settings.split, evaluation)


def _merged(
    run: SavedRun, old: Mapping[str, Any], split: str, evaluation: Evaluation
) -> dict[str, Any]:
    """The report with this evaluation in it; numbers of other weights are dropped.

    What was measured before on the same split and not now (sample metrics, say) stays.
    """
    digest = weights_digest(run.model)
    record: dict[str, Any] = {
        "data": {**evaluation.data.to_json(), "fingerprint": evaluation.data.fingerprint},
        "estimates": [estimate.to_json() for estimate in evaluation.estimates],
        "unanswerable": evaluation.unanswerable,
        "notes": list(evaluation.notes),
    }
    evaluations = old.get("evaluations", {}) if old.get("weights") == digest else {}
    before = evaluations.get(split)
    if before and before["data"]["fingerprint"] == evaluation.data.fingerprint:
        measured = {estimate.quantity for estimate in evaluation.estimates}
        kept = [e for e in before["estimates"] if e["quantity"] not in measured]
        record["estimates"] += kept
        record |= {part: before[part] for part in ("annealed", "disentanglement") if part in before}
    if evaluation.annealed is not None:
        record["annealed"] = evaluation.annealed.to_json()
    if evaluation.disentanglement is not None:
        record["disentanglement"] = evaluation.disentanglement.to_json()
    return {
        "run": str(run.directory),
        "model": run.name,
        "kind": run.model.kind,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "weights": digest,
        "evaluations": {**evaluations, split: record},
        "answers": {
            QUERIES[name].title: {"guarantee": answer.guarantee.value, "reason": answer.reason}
            for name, answer in answers(run.model, adversary=run.adversary).items()
        },
    }
