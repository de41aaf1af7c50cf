"""The main job: fit one model of each kind (or take fitted runs), prove, measure, compare.

    likely compare --data digits             fits a model of each kind first
    likely compare runs/pixelcnn runs/vae    compares what is fitted

Every choice is made on the validation split; the test split is read once, here, at the end. The
the fits are ordinary runs (`<out>/runs/<model>`), so a job that was stopped resumes.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likely import data as data_room
from likely import runs
from likely.data.labels import relabelled
from likely.data.spec import Dataset
from likely.density import (
    Autoregressive,
    GenerativeModel,
    ImplicitDensity,
    LatentVariable,
    context_of,
)
from likely.devices import choose_device, environment, place
from likely.errors import InvalidData, InvalidSetting, ProofFailed
from likely.estimate import Estimate
from likely.evaluate.classifier import default_extractor
from likely.evaluate.compare import ComparisonTable, ModelResult, compare_models
from likely.evaluate.likelihood import latent_diagnostics, per_example_nll, quantity_of
from likely.evaluate.samples import SampleReference, samples_per_second
from likely.files import reading, record_of, refuse_unwritable
from likely.files.charts import panels_from_metrics
from likely.models import entry
from likely.report.report import ModelReport, Report, ReportFiles, neighbour_pairs, write_report
from likely.runs.checkpoint import CheckpointError, read_json
from likely.runs.journal import METRICS, TIMING, read_lines
from likely.settings import to_json
from likely.training.health import diagnose
from likely.training.loop import Run, fit
from likely.training.presets import fit_settings
from likely.verify import Proofs, verify

ONE_OF_EACH_KIND = ("gated-pixelcnn", "vae", "dcgan")

# Told (what is being done, how much of it is done, of how much).
Progress = Callable[[str, float, float], None]


@dataclasses.dataclass(frozen=True)
class CompareSettings:
    """How a comparison is made.

    Attributes:
        importance_samples: k of the importance-weighted bound; 0 for the ELBO alone.
        samples: images on each side of the distances; 0 for as many as there are test images,
            at most 2,000.
        split: test, or validation while choices are still being made.
        seed: of fits, samples and bounds.
        steps: of every fit; 0 for each model's preset.
        device: auto, cpu, cuda.
    """

    importance_samples: int = 100
    samples: int = 0
    split: str = "test"
    seed: int = 0
    steps: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.split not in ("test", "validation"):
            raise InvalidSetting(f'split must be test or validation, given "{self.split}"')
        for name in ("importance_samples", "samples", "steps", "seed"):
            if getattr(self, name) < 0:
                raise InvalidSetting(f"{name} must not be negative, given {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A model of the comparison.

    Attributes:
        name: as shown.
        model: in evaluation mode.
        summary: one line: what it is.
        request: how its data is loaded, {"name": ..., options}.
        metrics: records of its fit.
        fit: settings of its fit.
        seconds: of its fit, or None where not known.
        status: how the fit ended, a sentence.
    """

    name: str
    model: GenerativeModel
    summary: str
    request: Mapping[str, Any]
    metrics: list[dict[str, float]]
    fit: Mapping[str, Any]
    seconds: float | None
    status: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What `run` made.

    Attributes:
        report: the numbers and images.
        files: where they were written; None when a fit was stopped, or they cannot be written.
        finished: False when a fit was stopped by a signal, and nothing is written; or when the
            report, which is here all the same, cannot be written.
        status: a sentence.
    """

    report: Report | None
    files: ReportFiles | None
    finished: bool
    status: str


def run(
    directories: Sequence[str | Path],
    request: Mapping[str, Any] | None,
    out: str | Path,
    settings: CompareSettings | None = None,
    *,
    command: str = "",
    progress: Progress | None = None,
) -> Outcome:
    """Compare fitted runs, or fit one model of each kind to some data and compare those.

    Args:
        directories: of runs; empty to fit.
        request: of the data, {"name": "digits", "binarize": ...}; for runs, None takes the data
            each was fitted to.
        out: folder of report.html, report.json, the sheets, and of new fits.
        settings: of the comparison.
        command: that makes the report again, for its foot.
        progress: told of every stage.

    Returns:
        The report and its files.

    Raises:
        InvalidSetting: neither runs nor data.
        LikelyError: whatever loading, fitting or measuring refuses.
    """
    settings = settings or CompareSettings()
    progress = progress or (lambda stage, done, total: None)
    out = Path(out)
    if not directories and request is None:
        raise InvalidSetting("compare needs run directories, or --data to fit a model of each kind")
    bench = _Bench(settings, progress)
    if directories:
        fitted = [_opened(directory, request, settings, bench) for directory in directories]
    else:
        assert request is not None
        train, _ = bench.data(request)
        fitted = []
        for name in ONE_OF_EACH_KIND:
            found = _fit(name, request, train, out / "runs", settings, progress)
            if isinstance(found, str):
                return Outcome(None, None, False, found)
            fitted.append(found)
    names = [item.name for item in fitted]
    if len(set(names)) < len(names):
        raise InvalidSetting(f"the runs need different names to be compared, given {names}")
    refuse_unwritable(out / "report.html")
    reports = [bench.measure(item) for item in fitted]
    table = compare_models([report.result for report in reports], bench.floor(fitted[0].request))
    report = bench.report(fitted, reports, table, command)
    try:
        files = write_report(report, out)
    except CheckpointError as error:
        return Outcome(report, None, False, f"measured, but not kept: {error}")
    return Outcome(report, files, True, "all models measured")


def _fit(
    name: str,
    request: Mapping[str, Any],
    train: Dataset,
    folder: Path,
    settings: CompareSettings,
    progress: Progress,
) -> Fitted | str:
    """Fit a model by its presets, as a run under `folder`; a sentence when it was stopped."""
    found = entry(name)
    changes: dict[str, Any] = {"seed": settings.seed, "device": settings.device}
    if settings.steps:
        changes["steps"] = settings.steps
    wanted = fit_settings(found.settings, train, changes)
    model = runs.build(name, train.spec, seed=settings.seed)
    stage = f"fitting {name}"
    progress(stage, 0, wanted.steps)

    def step(run: Run, record: dict[str, float]) -> None:
        progress(stage, run.step, wanted.steps)

    directory = folder / name
    # A run of other settings here is refused by `fit`; this one's description is rewritten alike.
    runs.describe(directory, name, model, dict(request))
    done = fit(model, train, settings=wanted, out=directory, progress=step)
    if not done.finished:
        return done.status
    return Fitted(
        name, model, found.summary, request, done.metrics, to_json(done.settings), done.seconds,
        done.status,
    )  # fmt: skip


def _opened(
    directory: str | Path,
    request: Mapping[str, Any] | None,
    settings: CompareSettings,
    bench: _Bench,
) -> Fitted:
    """A saved run; refused where its data are not what it was fitted to."""
    saved = runs.load(directory)
    place(saved.model, choose_device(settings.device))
    runs.data_options(saved)
    wanted = request or saved.data
    train, _ = bench.data(wanted)
    spec = saved.model.spec
    if (train.spec.shape, train.spec.levels) != (spec.shape, spec.levels):
        raise InvalidData(
            f"{directory} was fitted to {spec.name}, shape {spec.shape} with {spec.levels} levels; "
            f"{train.spec.name} has shape {train.spec.shape} with {train.spec.levels}"
        )
    metrics = read_lines(saved.directory / METRICS)
    clock = [line["seconds"] for line in read_lines(saved.directory / TIMING) if "seconds" in line]
    path = saved.directory / "fit.json"
    with reading(path, what="damaged", kind=CheckpointError):
        fitted = record_of(read_json(path))
    return Fitted(
        saved.directory.name,
        saved.model,
        entry(saved.name).summary,
        wanted,
        metrics,
        fitted,
        clock[-1] if clock else None,
        f"{metrics[-1]['step']:.0f} steps" if metrics else "not fitted",
    )


class _Bench:
    """Data, extractors and references, each made once; and the measuring of one model."""

    def __init__(self, settings: CompareSettings, progress: Progress) -> None:
        self.settings, self.progress = settings, progress
        self._data: dict[str, tuple[Dataset, Dataset]] = {}
        self._references: dict[str, SampleReference] = {}

    def data(self, request: Mapping[str, Any]) -> tuple[Dataset, Dataset]:
        """(training set, evaluated split)."""
        key = repr(sorted(request.items()))
        if key not in self._data:
            options = dict(request)
            self.progress("reading the data", 0, 1)
            train, test = data_room.load(options.pop("name"), **options)
            if self.settings.split == "validation":
                if train.validation is None:
                    raise InvalidSetting(f"{train.spec.name} has no validation split")
                test = train.validation
            self._data[key] = train, test
        return self._data[key]

    def reference(self, request: Mapping[str, Any]) -> SampleReference:
        """What samples of models of this data are measured with."""
        key = repr(sorted(request.items()))
        if key not in self._references:
            train, test = self.data(request)
            stage = "preparing the features"
            extractor = default_extractor(
                train, progress=lambda done, total: self.progress(stage, done, total)
            )
            n = self.settings.samples or None
            self._references[key] = SampleReference(train, test, extractor, n=n)
        return self._references[key]

    def floor(self, request: Mapping[str, Any]) -> list[Estimate]:
        """What training images score as if they were samples."""
        return list(self.reference(request).floor)

    def measure(self, item: Fitted) -> ModelReport:
        """All numbers, samples, notes and pictures of one model."""
        train, test = self.data(item.request)
        model, seed = item.model, self.settings.seed
        self.progress(f"verifying {item.name}", 0, 1)
        proofs = verify(model, test, seed)
        estimates: list[Estimate] = []
        per_example: dict[tuple[str, str], list[float]] = {}
        refused: dict[str, str] = {}
        notes = [_proof_note(proofs)]
        if not isinstance(model, ImplicitDensity):
            try:
                found, values = self._likelihood(item, test, proofs)
                estimates += found
                per_example[(quantity_of(model), "nats")] = values
            except ProofFailed as error:
                refused[quantity_of(model)] = str(error)
        if isinstance(model, LatentVariable):
            diagnostics = latent_diagnostics(model, test, seed=seed)
            if diagnostics.active is not None:
                notes.append(
                    f"{diagnostics.active} of {diagnostics.latent} latent coordinates are used."
                )
            estimates += [diagnostics.rate, diagnostics.distortion]
        reference = self.reference(item.request)
        self.progress(f"drawing {reference.n} images from {item.name}", 0, 1)
        samples = model.sample(reference.n, seed=seed, context=reference.context_for(model))
        self.progress(f"measuring the images of {item.name}", 0, 1)
        estimates += reference.metrics(samples)
        speed = samples_per_second(_InTurn(model, reference.context_for(model)))
        notes += [str(finding) for finding in diagnose(item.metrics, model, train)]
        result = ModelResult(
            item.name, model.kind, (*estimates, speed), model.answers(), per_example, refused
        )
        return ModelReport(
            result,
            samples[:100],
            summary=item.summary,
            settings={"model": to_json(model.settings), "fit": dict(item.fit)},
            parameters=sum(p.numel() for p in model.parameters()),
            seconds=item.seconds,
            status=item.status,
            panels=panels_from_metrics(item.metrics),
            neighbours=neighbour_pairs(samples, train, reference.extractor),
            notes=tuple(notes),
            sheets=_pictures(model, test, seed),
        )

    def _likelihood(
        self, item: Fitted, test: Dataset, proofs: Proofs
    ) -> tuple[list[Estimate], list[float]]:
        """Nats and bits/dim, and the per-example values of the tightest."""
        stage = f"reading the {test.spec.split} split with {item.name}"
        k = self.settings.importance_samples
        bounds = [None, k] if isinstance(item.model, LatentVariable) and k else [None]
        estimates: list[Estimate] = []
        values: list[float] = []
        for samples in bounds:
            found = per_example_nll(
                item.model,
                test,
                importance_samples=samples,
                seed=self.settings.seed,
                proofs=proofs,
                progress=lambda done, total: self.progress(stage, done, total),
            )
            estimates += [found.nats(), found.bits_per_dim()]
            values = found.values.tolist()
        return estimates, values

    def report(
        self,
        fitted: Sequence[Fitted],
        reports: Sequence[ModelReport],
        table: ComparisonTable,
        command: str,
    ) -> Report:
        """The whole, ready to be written."""
        train, test = self.data(fitted[0].request)
        extractor = self.reference(fitted[0].request).extractor
        return Report(
            title=f"One comparison on {train.spec.name}: {', '.join(i.name for i in fitted)}",
            train=train.spec,
            test=test.spec,
            extractor=extractor.description,
            comparison=table,
            models=tuple(reports),
            training_images=torch.from_numpy(train.batch(slice(0, 100)).x.astype(np.int64)),
            environment=environment(),
            command=command,
            created=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        )


class _InTurn:
    """A sampler that draws with the contexts of the test images, again and again."""

    def __init__(self, model: GenerativeModel, context: Tensor | None) -> None:
        self.model, self.context = model, context

    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        """n images, integers [n, *shape]."""
        context = self.context
        if context is not None:
            context = context.repeat(-(-n // len(context)), *[1] * (context.ndim - 1))[:n]
        return self.model.sample(n, seed=seed, context=context)


def _proof_note(proofs: Proofs) -> str:
    count = len(proofs.proofs)
    if proofs.passed:
        return f"All {count} proofs hold: " + ", ".join(p.name for p in proofs.proofs) + "."
    return " ".join(str(proof) for proof in proofs.failed)


def _pictures(
    model: GenerativeModel, test: Dataset, seed: int, count: int = 10
) -> dict[str, Tensor]:
    """What this kind of model can do beside sampling, on test images, as sheets."""
    if model.classes:
        test = relabelled(test, model.spec.classes)
    batch = test.batch(slice(0, count))
    x = torch.from_numpy(batch.x.astype(np.int64))
    context = context_of(model, batch)
    if isinstance(model, LatentVariable):
        rebuilt = model.reconstruct(x, context).cpu()
        return {"Test images (first row) and their reconstructions": torch.stack([x, rebuilt])}
    if isinstance(model, Autoregressive) and model.order is None:
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
        drawn = model.complete(x, observed, seed=seed, context=context).cpu()
        hidden = torch.where(observed, x, 0)
        return {caption: torch.stack([x, hidden, drawn])}
    if isinstance(model, ImplicitDensity):
        labels = torch.zeros(3, dtype=torch.int64) if model.classes else None
        path = model.interpolate(3, count, seed=seed, context=labels)
        return {"From one code to another, three times": path.cpu()}
    return {}
