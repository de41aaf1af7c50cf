"""Fitting: one visible loop for one player or two.

    for step in range(steps):
        for player in players:
            loss of the player on a fresh batch -> backward -> sum over processes -> clip -> update
        average the weights; now and then validate, log, checkpoint

Everything random is a function of (seed, step, player), and a checkpoint holds weights,
optimiser states, averaged weights and the step. So a run killed at any moment resumes and ends
bit for bit where it would have ended; metrics.jsonl holds no clock, timing.jsonl does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from likely.ask.likelihood import (
    has_likelihood,
    measure_of,
    relation_of,
    tells_weights_apart,
)
from likely.data.labels import relabelled
from likely.data.spec import Dataset, as_dataset
from likely.density import Fittable, HasLoss, ImplicitDensity, chunks
from likely.devices import (
    Team,
    choose_device,
    compiled,
    environment,
    fastest_convolutions,
)
from likely.errors import InvalidSetting
from likely.files import reading
from likely.models.gan.adversary import DISCRIMINATOR
from likely.noise import Noise
from likely.runs.checkpoint import CheckpointError
from likely.runs.directory import BEST, STATE, WEIGHTS, RunDirectory
from likely.runs.journal import Journal
from likely.runs.resume import START_OVER, copy_into, describe_fit
from likely.runs.view import Record
from likely.sampling.incremental import Incremental
from likely.settings import FitSettings
from likely.training import health
from likely.training.objectives import Objective, default_objective
from likely.training.optimizers import (
    AveragedWeights,
    optimizer_tensors,
    restore_optimizers,
    set_state,
    state_of,
)
from likely.training.presets import fit_settings
from likely.training.progress import FitProgress, watched
from likely.training.run import Run, Stopped
from likely.training.stopping import StopRequests
from likely.training.updates import Updates

Progress = Callable[[Run, dict[str, float]], None]


def fit(
    model: Fittable,
    data: Dataset,
    objective: Objective | None = None,
    settings: FitSettings | None = None,
    *,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    resume: bool = True,
    progress: Progress | bool | None = None,
) -> Run:
    """Fit a model to data.

    SIGINT (Ctrl-C) and SIGTERM end the fit after the current step: what there is comes back, with
    a `Stopped` warning.

    Args:
        model: changed in place. One that was fitted before, here or in a run that `likely.load`
            read, goes on from its weights.
        data: training set; its `.validation` serves the choice of the best weights.
        objective: what is minimised; by the kind of the model when None.
        settings: everything else; the model's preset for the data when None, as `likely fit` takes
            it. `steps`, `batch_size` and `seed` override its fields.
        steps: updates.
        batch_size: examples an update.
        seed: seed of the data order and the noise.
        out: directory of the run, new or empty or with a run; nothing is written when None.
        resume: go on from the checkpoint in `out`, if there is one, of the same settings, data
            and model (more steps of a constant schedule prolong it); False starts from scratch
            and drops it.
        progress: True for a bar in a terminal or a notebook and a line now and then elsewhere;
            False for silence; None for a bar where somebody looks on. Or what is called with the
            run and its record at every log record: `progress=print` prints them as a line.

    Returns:
        The run; `run.model` is `model`.

    Raises:
        InvalidSetting: settings, data, model and the run in `out` do not fit together.
        Diverged: a non-finite loss or gradient; the last good checkpoint is kept.
        CheckpointError: a file cannot be written or read; what was there is kept.
        Occupied: another fit writes to `out`.
        PeerFailed: under torchrun, another process failed.
    """
    data = as_dataset(data)
    if not isinstance(model, Fittable):
        raise _unexpected("a model, as likely.models.VAE(train.spec)", model)
    if objective is not None and not isinstance(objective, Objective):
        raise _unexpected("an objective, as likely.NegativeLogLikelihood()", objective)
    if settings is not None and not isinstance(settings, FitSettings):
        raise _unexpected("settings, as likely.FitSettings(steps=500)", settings)
    overrides = {"steps": steps, "batch_size": batch_size, "seed": seed}
    changes = {name: value for name, value in overrides.items() if value is not None}
    if settings is None:
        settings = fit_settings(type(model.settings), data, changes)
    else:
        settings = dataclasses.replace(settings, **changes)  # type: ignore[arg-type]
    if misfit := data.spec.misfit(model.spec):
        raise InvalidSetting(misfit)
    if model.classes:
        data = relabelled(data, model.spec.classes)
    directory = None if out is None else Path(out)
    loop = _Loop(model, data, objective or default_objective(model), settings, directory)
    with contextlib.ExitStack() as stack:
        if progress is None or isinstance(progress, bool):
            title = f"{type(model).__name__} on {data.spec.name}"
            shown = watched() if progress is None else progress
            bar = FitProgress(title, settings.steps)
            progress = stack.enter_context(bar) if shown else None
        stack.enter_context(loop.team.leaving_on_failure())
        run = loop.run(resume, progress)
    if not run.finished:
        warnings.warn(run.status, Stopped, stacklevel=2)
    return run


def fit_whole(
    model: Fittable,
    data: Dataset,
    objective: Objective | None = None,
    settings: FitSettings | None = None,
    *,
    out: str | Path | None = None,
    progress: Progress | bool | None = False,
) -> Run:
    """`fit` as a part of something larger, which is not to be built on half a fit.

    Raises:
        KeyboardInterrupt: a signal stopped the fit; the message says which, and where it is saved.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Stopped)
        run = fit(model, data, objective, settings, out=out, progress=progress)
    if not run.finished:
        raise KeyboardInterrupt(run.status if out else run.status.partition(";")[0])
    return run


def _unexpected(expected: str, value: object) -> InvalidSetting:
    what = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
    return InvalidSetting(f"expected {expected}, given {what}")


class _Loop:
    """The state of a fit; `run` is the loop."""

    def __init__(
        self,
        model: Fittable,
        data: Dataset,
        objective: Objective,
        settings: FitSettings,
        directory: Path | None,
    ) -> None:
        self.model, self.data, self.objective = model, data, objective
        self.settings, self.directory = settings, directory
        self.files = None if directory is None else RunDirectory(directory)
        # Before anything is changed: what cannot be written is refused.
        self.origin = model.origin
        self.description = describe_fit(model, data, objective, settings) if self.files else None
        self.device = choose_device(settings.device)
        self.team = Team.join(self.device)
        self.journal = Journal(directory, writes=self.team.leads, tensorboard=settings.tensorboard)
        kept = f"; the last good checkpoint is kept in {directory}" if directory else ""
        self.updates = Updates(model, data, objective, settings, self.team, self.device, kept)
        self.networks, self.others = self.updates.networks, self.updates.others
        self.average = AveragedWeights(self.networks, settings.ema)
        self.best_weights: dict[str, Tensor] | None = None
        self.best = math.inf
        self.step = 0
        self.chooses = tells_weights_apart(model)
        self.logged = 0  # step of the last record of losses
        self.seconds = 0.0
        self.findings: list[health.Finding] = []

    def run(self, resume: bool, progress: Progress | None) -> Run:
        settings = self.settings
        last_save = time.monotonic()
        # A network that draws pixel by pixel computes everything in one method: one graph.
        method = "conditionals" if isinstance(self.model, Incremental) else None
        with (
            self._opened(resume),
            compiled(self.model, settings.compile, method=method),
            compiled(nn.ModuleList(self.others.values()), settings.compile),
            fastest_convolutions(self.device),
            self.updates.recording(),
            StopRequests() as stop,
        ):
            while self.step < settings.steps:
                began = time.monotonic()
                for turn, player in enumerate(self.updates.players):
                    losses: list[float] = []
                    for again in range(self.objective.updates(player, self.step)):
                        losses.append(self.updates.update(player, turn, again, self.step))
                        if self.objective.enough(player, losses):
                            break
                self.step += 1
                self.average.update(self.step)
                record = self._log() if self._is_time(settings.log_every) else {}
                if self._is_time(settings.validate_every or max(1, settings.steps // 10)):
                    record |= self._validate()
                    self.findings = self._diagnosed()
                self.seconds += time.monotonic() - began
                if record:
                    with self.team.together():
                        self.journal.write({"step": float(self.step), **record}, self.seconds)
                    if progress is not None:
                        sign = relation_of(self.model).value
                        told = Record(self.journal.records[-1], sign=sign)
                        progress(self._state("running", False), told)
                stopping = self.team.any(stop.signal != 0)
                due = time.monotonic() - last_save >= settings.checkpoint_seconds
                if self.step == settings.steps or stopping or self.team.any(due):
                    self._save()
                    last_save = time.monotonic()
                if stopping and self.step < settings.steps:
                    set_state(self.networks, self.average.tensors)
                    where = (
                        f"saved in {self.directory}; run the same command again to resume"
                        if self.directory
                        else "the model has the averaged weights so far; a fit with out=DIRECTORY "
                        "can be resumed"
                    )
                    done = f"{self.step} of {settings.steps} steps"
                    return self._state(f"stopped by {stop.name} after {done}; {where}", False)
            self._finish()
        diverged = health.diverged(self.journal.records, self.model)
        status = f"finished {self.step} steps"
        return self._state(f"{diverged.sentence} ({status})" if diverged else status, True)

    # -- numbers on the way ----------------------------------------------------------------

    def _is_time(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.settings.steps

    def _log(self) -> dict[str, float]:
        sums = self.updates.sums
        names = sorted(sums)
        total = self.team.sum(torch.stack([sums[name] for name in names]))
        values = total / (self.step - self.logged)
        self.updates.sums, self.logged = {}, self.step
        record = {"learning_rate": self.settings.rate(self.step - 1)}
        return {**record, **dict(zip(names, values.tolist(), strict=True))}

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Validation of the averaged weights: what was promised, not what was trained."""
        held_out = self.data.validation
        if held_out is None or not self.objective.validates:
            return {}
        model = self.model
        if not (has_likelihood(model) or isinstance(model, HasLoss)):
            return {}
        count = min(self.settings.validation_examples or len(held_out), len(held_out))
        total = 0.0
        with self.average.applied():
            log_prob = _log_prob_of(model, self.objective.importance_samples)
            for part in chunks(count, held_out.together):
                x, context = self.updates.to_device(held_out.batch(part))
                noise = Noise("validation", part.start, device=self.device)
                total -= float(log_prob(x, noise, context).sum(dtype=self.updates.sum_dtype))
        value = total / held_out.units(count)
        if value < self.best and self.chooses:
            self.best = value
            if self.directory is None:
                self.best_weights = {name: t.clone() for name, t in self.average.tensors.items()}
            else:
                self._save_weights({"validation": repr(value)}, BEST)
        return {"validation": value}

    def _diagnosed(self) -> list[health.Finding]:
        """What the monitor says on the way; of a generator it looks at samples, too."""
        records = self.journal.records
        if not isinstance(self.model, ImplicitDensity) or len(records) < health.ENOUGH:
            return health.diagnose(records)
        with self.average.applied():
            return health.diagnose(records, self.model, self.data)

    def _state(self, status: str, finished: bool) -> Run:
        return Run(
            self.model,
            self.settings,
            self.step,
            status,
            finished,
            self.journal.records,
            self.directory,
            self.seconds,
            self.findings,
            self.others.get(DISCRIMINATOR),
            self.data,
            self.objective,
            self.origin,
        )

    # -- the run directory -----------------------------------------------------------------

    @contextlib.contextmanager
    def _opened(self, resume: bool) -> Iterator[None]:
        """The run directory, held alone; the state of the run that is in it, if any."""
        files, wanted = (self.files if self.team.leads else None), self.description
        with contextlib.ExitStack() as stack:
            stack.callback(self.journal.close)
            with self.team.together():
                if files is not None and wanted is not None:
                    files.plan(wanted, resume)  # a refusal leaves no directory behind
                    stack.enter_context(files.held())
            with self.team.together():
                # Again, now that nobody else writes there.
                step = files.plan(wanted, resume) if files and wanted else None
            if self.team.any(step is not None):
                with self.team.together():
                    self._load()
                    if files is not None and wanted is not None:
                        self.description = files.go_on(wanted)
                        if self.step < self.settings.steps:
                            files.note_environment(environment(), self.step)
            else:
                with self.team.together():
                    self._start()
            self.model.origin = f"a fit to {self.data.spec.name}"
            self.model.origin_run = str(self.directory.resolve()) if self.directory else ""
            self.model.origin_weights = ""
            yield

    def _start(self) -> None:
        """Begin a run at step 0."""
        if not self.model.origin:
            self.model.start_at(self.data)
        self.average.restart()
        if self.files is not None and self.description is not None and self.team.leads:
            self.files.begin(self.description, environment())
        self.journal.start()

    def _save(self) -> None:
        """Everything that the next step depends on, in one file."""
        if self.files is None or self.description is None:
            return
        groups: dict[str, Mapping[str, Tensor]] = {
            "model": state_of(self.networks),
            "average": self.average.tensors,
            "sums": self.updates.sums,
            "optimizer": optimizer_tensors(self.updates.optimizers),
        }
        about = {
            "step": str(self.step),
            "logged": str(self.logged),
            "best": repr(self.best),
            "seconds": repr(self.seconds),
            "fingerprint": self.data.spec.fingerprint,
        }
        with self.team.together():
            if self.team.leads:
                self.journal.sync()
                self.files.write_state(groups, about, self.description)
        self._save_weights({})

    def _save_weights(self, about: dict[str, str], name: str = WEIGHTS) -> None:
        """The averaged weights, for evaluation and sampling."""
        with self.team.together():
            if self.files is not None and self.team.leads:
                about = {**about, "step": str(self.step)}
                self.files.write_weights(self.average.tensors, about, name)

    def _load(self) -> None:
        """The state of the run in the directory."""
        assert self.files is not None
        groups, about = self.files.read_state()
        path, what = self.files / STATE, "no state of a fit of this model"
        with reading(path, what=what, remedy=START_OVER, kind=CheckpointError):
            step, best = int(about["step"]), float(about["best"]) if self.chooses else math.inf
            self.seconds = float(about["seconds"])
            if not 0 <= step <= self.settings.steps:
                raise ValueError(f"step is {step}")
            # Older states are of fits that were not prolonged.
            logged = int(about.get("logged", step - step % self.settings.log_every))
            if not 0 <= logged <= step:
                raise ValueError(f"the last record is of step {logged}")
            sums = groups.get("sums", {})
            if any(sum.shape or not sum.is_floating_point() for sum in sums.values()):
                raise ValueError("sums are no numbers")
            copy_into(state_of(self.networks), groups["model"])
            copy_into(self.average.tensors, groups["average"])
            restore_optimizers(self.updates.optimizers, groups.get("optimizer", {}))
        self.step, self.logged, self.best = step, logged, best
        self.updates.sums = {name: t.to(self.device) for name, t in sums.items()}
        self.journal.resume(self.step)
        self.findings = health.diagnose(self.journal.records)

    def _finish(self) -> None:
        """Give the model the best weights: of the best validation, or the last average."""
        best = self.average.tensors
        if math.isfinite(self.best):
            if self.files is None:
                best = self.best_weights or best
            else:
                best, about = self.files.weights(BEST)
                what = "no weights of this model"
                with reading(self.files / BEST, what=what, remedy=START_OVER, kind=CheckpointError):
                    copy_into(self.average.tensors, best)
                    kept = {"step": about["step"]}
                with self.team.together():
                    if self.team.leads:
                        self.files.write_weights(best, kept)
        set_state(self.networks, best)
        data = self.data if len(self.journal.records) >= health.ENOUGH else None
        self.findings = health.diagnose(self.journal.records, self.model, data)
        with self.team.together():
            if self.files is not None and self.team.leads:
                self.files.write_health([dataclasses.asdict(each) for each in self.findings])


def _log_prob_of(
    model: Fittable, samples: int | None
) -> Callable[[Tensor, Noise, Tensor | None], Tensor]:
    """What a validation adds up, with the weights of now: log p(x), a bound, or minus a loss."""
    if isinstance(model, HasLoss):
        return lambda x, _, context: -model.loss(x, context)
    return measure_of(model, samples, quick=True).log_prob
