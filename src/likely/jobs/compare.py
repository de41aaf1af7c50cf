"""The main job: fit one model of each kind (or take fitted runs), prove, measure, compare.

    likely compare --data digits             fits a model of each kind first
    likely compare --data chorales           the same of sequences
    likely compare runs/pixelcnn runs/vae    compares what is fitted

Every choice is made on the validation split; the test split is read once, here. The fits are
ordinary runs (`<out>/runs/<model>`), so a job that was stopped resumes. They run side by side, and
the report is on disk from the beginning: it is written again whenever a model is done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from likely import data as data_room
from likely import runs
from likely.ask import answers
from likely.ask.likelihood import has_likelihood
from likely.data.sequences.dataset import Sequences
from likely.data.spec import Dataset, as_dataset
from likely.density import Fittable, GenerativeModel, generative
from likely.devices import choose_device, environment, place
from likely.errors import InvalidData, InvalidSetting, LikelyError
from likely.evaluate.compare import ModelResult, beside_best, compare_models
from likely.evaluate.features import Images
from likely.files import refuse_unwritable
from likely.files.charts import panels_from_metrics
from likely.jobs.compare_images import ImageSide
from likely.jobs.compare_sequences import SequenceSide, of_each_kind, training_picture
from likely.jobs.evaluate import EvaluateSettings, Progress, quiet, split_of, stage
from likely.jobs.fits import FitStopped, Order, SideBySide, room_for
from likely.models import MODELS, ONE_OF_EACH_KIND, SEQUENCE_MODELS, entry
from likely.report.report import ModelReport, Report, ReportFiles, write_draft, write_report
from likely.runs.checkpoint import CheckpointError
from likely.runs.saved import SavedRun
from likely.runs.view import unit_of_loss
from likely.settings import not_negative, to_json
from likely.training.health import diagnose
from likely.training.run import Run
from likely.verify import verify

# Of a run, where a command has made them: name of the file and caption.
PICTURES = {
    "clusters.png": "Its codes in the plane, without labels; `likely clusters`",
    "classify.png": "Classifiers from few labels that start from it; `likely classify`",
}


@dataclasses.dataclass(frozen=True)
class CompareSettings:
    """How a comparison is made.

    Attributes:
        importance_samples: k of the importance-weighted bound, particles of FIVO where it is one of
            sequences; 0 for the ELBO alone.
        samples: images on each side of the distances; 0 for as many as there are test images,
            at most 2,000.
        split: test, or validation while choices are still being made.
        seed: of fits, samples and bounds.
        steps: of every fit; 0 for each model's preset.
        device: auto, cpu, cuda.
        models: that are fitted, by name; none for one of each kind for the data.
    """

    importance_samples: int = 100
    samples: int = 0
    split: str = "test"
    seed: int = 0
    steps: int = 0
    device: str = "auto"
    models: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.split not in ("test", "validation"):
            raise InvalidSetting(f'split must be test or validation, given "{self.split}"')
        not_negative(self, "importance_samples", "samples", "steps", "seed")


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
        adversary: the network that played against an implicit density, else None.
        pictures: PNG files that were made of its run, by caption.
    """

    name: str
    model: GenerativeModel
    summary: str
    request: Mapping[str, Any]
    metrics: list[dict[str, float]]
    fit: Mapping[str, Any]
    seconds: float | None
    status: str
    adversary: nn.Module | None = None
    pictures: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


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


Side = ImageSide | SequenceSide


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

    Raises:
        InvalidSetting: neither runs nor data.
        LikelyError: whatever loading, fitting or measuring refuses.
    """
    settings = settings or CompareSettings()
    progress = progress or quiet
    out = Path(out)
    if not directories and request is None:
        raise InvalidSetting("compare needs run directories, or --data to fit a model of each kind")
    bench = _Bench(settings, progress)
    if not directories:
        assert request is not None
        return _fitted_and_compared(request, out, bench, command)
    fitted = [_opened(directory, request, settings, bench) for directory in directories]
    names = [item.name for item in fitted]
    if len(set(names)) < len(names):
        raise InvalidSetting(f"the runs need different names to be compared, given {names}")
    refuse_unwritable(out / "report.html")
    return _concluded(
        {item.name: (item, bench.measure(item)) for item in fitted}, bench, out, command
    )


def compare(
    *fitted: str | Path | Run | SavedRun | GenerativeModel,
    data: str | Mapping[str, Any] | tuple[Dataset, Dataset] | None = None,
    out: str | Path | None = None,
    settings: CompareSettings | None = None,
    progress: Progress | None = None,
) -> Report:
    """Compare fitted models, or one of each kind that is fitted first: `likely compare` in Python.

        likely.compare(vae, pixelcnn, data=(train, test))
        likely.compare("runs/vae", "runs/dcgan")
        likely.compare(data="digits", out="comparison")

    Args:
        fitted: models, runs of `likely.fit` or `likely.load`, or directories of runs; none to fit
            one of each kind.
        data: what they are compared on: (training set, test set); or what `likely.data.load` takes,
            a name or a path, or {"name": ..., options}. Saved runs know theirs.
        out: folder of report.html, report.json and the sheets; needed to fit, else None writes
            nothing.
        settings: of the comparison.
        progress: called with (what is being done, how much of it, of how much).

    Returns:
        The report: a table as text, the whole page in a notebook.

    Raises:
        InvalidSetting: data or a folder is missing.
        LikelyError: whatever loading, fitting or measuring refuses, or that a fit was stopped.
    """
    settings = settings or CompareSettings()
    bench = _Bench(settings, progress or (lambda stage, done, total: None))
    request: Mapping[str, Any] | None
    if isinstance(data, tuple):
        request = bench.keep(*data)
    else:
        request = {"name": data} if isinstance(data, str) else data
    if not fitted:
        if out is None or request is None or isinstance(data, tuple):
            raise InvalidSetting(
                "give fitted models; or data by its name and a folder to fit one of each kind, as "
                'likely.compare(data="digits", out="comparison")'
            )
        outcome = _fitted_and_compared(request, Path(out), bench, "")
        if outcome.report is None:
            raise LikelyError(outcome.status)
        return outcome.report
    items = [
        _opened(each, request, settings, bench)
        if isinstance(each, str | Path | SavedRun)
        else _in_memory(each, request, settings)
        for each in fitted
    ]
    seen: dict[str, int] = {}
    for place_of, item in enumerate(items):
        seen[item.name] = seen.get(item.name, 0) + 1
        if seen[item.name] > 1:
            items[place_of] = dataclasses.replace(item, name=f"{item.name} {seen[item.name]}")
    pairs = [(item, bench.timed(item, bench.measure(item))) for item in items]
    report = bench.report(pairs, items[0].request, "")
    if out is not None:
        write_report(report, Path(out))
    return report


def _in_memory(
    fitted: Run | GenerativeModel, request: Mapping[str, Any] | None, settings: CompareSettings
) -> Fitted:
    """A model of this process, with what its run says of it."""
    if request is None:
        raise InvalidSetting("give data=(train, test), or its name, to compare models in memory")
    past: tuple[list[dict[str, float]], dict[str, Any], float | None, str] = [], {}, None, ""
    model = fitted.model if isinstance(fitted, Run) else fitted
    if isinstance(fitted, Run):
        past = fitted.metrics, to_json(fitted.settings), fitted.seconds, fitted.status
    if not isinstance(model, Fittable):
        raise InvalidSetting(
            f"expected models, runs or directories of runs, given {type(model).__name__}"
        )
    model = generative(model)
    place(model.eval(), choose_device(settings.device))
    adversary = fitted.adversary if isinstance(fitted, Run) else None
    return Fitted(type(model).__name__, model, "", request, *past, adversary)


def _fitted_and_compared(
    request: Mapping[str, Any], out: Path, bench: _Bench, command: str
) -> Outcome:
    """Fit a model of each kind side by side; each is measured as soon as it is fitted."""
    settings = bench.settings
    refuse_unwritable(out / "report.html")
    # Read, and what is decoded cached, before others read it.
    names = models_for(bench.data(request)[0], settings.models)
    changes: dict[str, Any] = {"seed": settings.seed, "device": settings.device}
    if settings.steps:
        changes["steps"] = settings.steps
    orders = [Order(name, request, str(out / "runs" / name), changes) for name in names]
    at_once, threads = room_for(len(orders), settings.device)
    done: dict[str, tuple[Fitted, ModelReport]] = {}
    steps: dict[str, str] = {}

    def progress(name: str, step: float, total: float) -> None:
        steps[name] = f"{name} (step {step:.0f} of {total:.0f})"
        bench.progress(f"fitting {name}", step, total)

    def draft() -> None:
        """What is known so far, on disk."""
        pending = [steps.get(n, n) for n in names if n not in done]
        items = [done[name] for name in names if name in done]
        with contextlib.suppress(CheckpointError):  # the disk may have room again at the end
            write_draft(bench.report(items, request, command, pending), out)

    before = torch.get_num_threads()
    try:
        with SideBySide(orders, at_once, threads, progress) as fits:
            torch.set_num_threads(threads)  # the others compute
            draft()
            bench.side(request)
            for order in fits:
                item = _opened(order.directory, request, settings, bench)
                done[item.name] = item, bench.measure(item)
                if len(done) < len(orders):
                    draft()
        return _concluded({name: done[name] for name in names}, bench, out, command)
    except FitStopped as stopped:
        return Outcome(None, None, False, str(stopped))
    except KeyboardInterrupt:
        where = f"the fits are saved in {out / 'runs'}; run the same command again to resume"
        return Outcome(None, None, False, f"stopped by SIGINT; {where}")
    finally:
        torch.set_num_threads(before)


def _concluded(
    measured: Mapping[str, tuple[Fitted, ModelReport]], bench: _Bench, out: Path, command: str
) -> Outcome:
    """Time the samplers, now that nothing else computes, and write the report."""
    items = [(item, bench.timed(item, report)) for item, report in measured.values()]
    report = bench.report(items, items[0][0].request, command)
    try:
        files = write_report(report, out)
    except CheckpointError as error:
        return Outcome(report, None, False, f"measured, but not kept: {error}")
    return Outcome(report, files, True, "all models measured")


def _opened(
    run: str | Path | SavedRun,
    request: Mapping[str, Any] | None,
    settings: CompareSettings,
    bench: _Bench,
) -> Fitted:
    """A saved run; refused where its data are not what it was fitted to."""
    saved = run if isinstance(run, SavedRun) else runs.load(run)
    model = generative(saved.model)
    place(model, choose_device(settings.device))
    options = saved.options() if request is None else {}
    wanted = request or {"name": options.pop("source"), **options}
    train, _ = bench.data(wanted)
    spec = model.spec
    if isinstance(train, Sequences) and (misfit := train.spec.misfit(spec)):
        raise InvalidData(f"{saved.directory}: {misfit}")
    if (train.spec.shape, train.spec.levels) != (spec.shape, spec.levels):
        raise InvalidData(
            f"{saved.directory} was fitted to {spec.name}, shape {spec.shape} with {spec.levels} "
            f"levels; {train.spec.name} has shape {train.spec.shape} with {train.spec.levels}"
        )
    metrics = saved.metrics
    return Fitted(
        saved.directory.name,
        model,
        entry(saved.name).summary,
        wanted,
        metrics,
        saved.files.fit(),
        saved.files.seconds(),
        saved.state,
        saved.adversary,
        {
            words: path.read_bytes()
            for name, words in PICTURES.items()
            if (path := saved.files / name).is_file()
        },
    )


class _Bench:
    """Data and what is measured with them, each made once; and the measuring of one model."""

    def __init__(self, settings: CompareSettings, progress: Progress) -> None:
        self.settings, self.progress = settings, progress
        self._data: dict[str, tuple[Dataset, Dataset]] = {}
        self._sides: dict[str, Side] = {}

    def keep(self, train: Dataset, test: Dataset) -> dict[str, Any]:
        """Take data of this process, and give the request that stands for it."""
        request = {"name": f"{as_dataset(train).spec.name} {as_dataset(test).spec.fingerprint}"}
        self._data[repr(sorted(request.items()))] = train, test
        return request

    def data(self, request: Mapping[str, Any]) -> tuple[Dataset, Dataset]:
        """(training set, evaluated split)."""
        key = repr(sorted(request.items()))
        if key not in self._data:
            options = dict(request)
            with stage(self.progress, "reading the data"):
                train, test = data_room.load(options.pop("name"), **options)
            self._data[key] = train, split_of(train, test, self.settings.split)
        return self._data[key]

    def side(self, request: Mapping[str, Any]) -> Side:
        """What models of this data are measured and shown with."""
        key = repr(sorted(request.items()))
        if key not in self._sides:
            train, test = self.data(request)
            kind = SequenceSide if isinstance(train, Sequences) else ImageSide
            how = EvaluateSettings(
                importance_samples=self.settings.importance_samples,
                samples=self.settings.samples,
                seed=self.settings.seed,
            )
            self._sides[key] = kind(train, test, how, self.progress)
        return self._sides[key]

    def measure(self, item: Fitted) -> ModelReport:
        """All numbers, samples, notes and pictures of one model, but for its speed."""
        train, test = self.data(item.request)
        model, seed = item.model, self.settings.seed
        with stage(self.progress, f"verifying {item.name}"):
            proofs = verify(model, test, seed, train=train)
        measured, shown = self.side(item.request).measure(model, item.name, proofs)
        notes = [" ".join(map(str, proofs.failed)), *measured.notes]
        if proofs.passed:
            all_names = ", ".join(proof.name for proof in proofs.proofs)
            notes[0] = f"All {len(proofs.proofs)} proofs hold: {all_names}."
        notes += [str(finding) for finding in diagnose(item.metrics, model, train)]
        values: dict[tuple[str, str], Sequence[float]] = {}
        if measured.per_example is not None:
            nll = measured["nll"]
            values[nll.quantity, nll.unit] = measured.per_example
        result = ModelResult(
            item.name,
            model.kind,
            measured.estimates,
            answers(model, adversary=item.adversary),
            values,
            measured.unanswerable if has_likelihood(model) else {},
            test.spec,
        )
        return ModelReport(
            result,
            summary=item.summary,
            settings={"model": to_json(model.settings), "fit": dict(item.fit)},
            parameters=sum(p.numel() for p in model.parameters()),
            seconds=item.seconds,
            status=item.status,
            panels=panels_from_metrics(item.metrics, unit_of_loss(model)),
            notes=tuple(notes),
            **{**shown, "pictures": {**shown.get("pictures", {}), **item.pictures}},
        )

    def timed(self, item: Fitted, report: ModelReport) -> ModelReport:
        """The report with the speed of the sampler, which a machine at rest tells."""
        speed = self.side(item.request).speed(item.model, item.name)
        result = dataclasses.replace(report.result, estimates=report.result.estimates + speed)
        return dataclasses.replace(report, result=result)

    def report(
        self,
        items: Sequence[tuple[Fitted, ModelReport]],
        request: Mapping[str, Any],
        command: str,
        pending: Sequence[str] = (),
    ) -> Report:
        """The whole, ready to be written; a draft where models are still being fitted."""
        train, test = self.data(request)
        pairs = [(train, test), *(self.data(item.request) for item, _ in items)]
        # Each data once, in the order of its first run.
        specs = {(a.spec.fingerprint, b.spec.fingerprint): (a.spec, b.spec) for a, b in pairs}
        on = " and ".join(dict.fromkeys(spec.name for spec, _ in specs.values()))
        results = beside_best([report.result for _, report in items])
        models = tuple(
            dataclasses.replace(report, result=result)
            for (_, report), result in zip(items, results, strict=True)
        )
        names = [*(item.name for item, _ in items), *(each.partition(" ")[0] for each in pending)]
        sides = [self.side(item.request) for item, _ in items]
        floors = {e.quantity + e.fingerprint: e for side in sides for e in side.floor}
        return Report(
            title=f"One comparison on {on}: {', '.join(names)}",
            train=train.spec,
            test=test.spec,
            extractor=sides[0].extractor if sides else "",
            comparison=compare_models(results, list(floors.values())),
            models=models,
            training_images=shown_of(train),
            environment=environment(),
            command=command,
            created=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            pending=tuple(pending),
            others=tuple(specs.values())[1:],
        )


def shown_of(train: Dataset) -> Images | bytes:
    """Some of the training data, to look at beside what models draw."""
    if isinstance(train, Sequences):
        return training_picture(train)
    return torch.from_numpy(train[:100].astype(np.int64))


def models_for(train: Dataset, asked: Sequence[str]) -> tuple[str, ...]:
    """The models that are fitted to some data: those asked for, or one of each kind.

    Raises:
        InvalidSetting: no such model, or one of other data.
    """
    sequences = isinstance(train, Sequences)
    for name in asked:
        if entry(name) in SEQUENCE_MODELS.values() and not sequences:
            raise InvalidSetting(f"{name} is a model of sequences; {train.spec.name} holds images")
        if entry(name) in MODELS.values() and sequences:
            raise InvalidSetting(f"{name} is a model of images; {train.spec.name} holds sequences")
    if asked:
        return tuple(dict.fromkeys(asked))
    return of_each_kind(train.spec) if sequences else tuple(ONE_OF_EACH_KIND)
