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
import functools
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from likely.ask.likelihood import has_likelihood, measure_of, relation_of
from likely.data.labels import relabelled
from likely.data.spec import Batch, Dataset, as_dataset
from likely.density import Fittable, HasLoss, ImplicitDensity, chunks
from likely.devices import (
    Team,
    autocast,
    choose_device,
    compiled,
    convolved_precision,
    environment,
    fastest_convolutions,
    place,
)
from likely.devices.precision import reduced_precision
from likely.errors import Diverged, InvalidSetting
from likely.files import reading
from likely.models.gan.adversary import DISCRIMINATOR
from likely.noise import Noise, derived_seed, noise_for, weights_from
from likely.runs.checkpoint import CheckpointError
from likely.runs.directory import BEST, STATE, WEIGHTS, RunDirectory
from likely.runs.journal import Journal
from likely.runs.resume import START_OVER, copy_into, describe_fit
from likely.runs.view import Record
from likely.sampling.incremental import Incremental
from likely.settings import FitSettings
from likely.training import graphs, health
from likely.training.objectives import Loss, Objective, Step, default_objective
from likely.training.optimizers import (
    AveragedWeights,
    optimizer_for,
    optimizer_tensors,
    restore_optimizers,
    set_rate,
    set_state,
    state_of,
)
from likely.training.presets import fit_settings
from likely.training.progress import FitProgress, watched
from likely.training.run import Run, Stopped
from likely.training.stopping import StopRequests

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
        raise InvalidSetting(
            f"expected a model, as likely.models.VAE(train.spec), given {type(model).__name__}"
        )
    wanted: Any = objective
    if wanted is not None and not isinstance(wanted, Objective):
        what = f"the class {wanted.__name__}" if isinstance(wanted, type) else repr(wanted)
        raise InvalidSetting(
            f"expected an objective, as likely.NegativeLogLikelihood(), given {what}"
        )
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
        self.description = (
            describe_fit(model, data, objective, settings, model.origin) if self.files else None
        )
        self.device = choose_device(settings.device)
        self.team = Team.join(self.device)
        self.precision = settings.precision
        for part in model.modules():
            if isinstance(part, Fittable):  # a prior over codes convolves a smaller grid
                self.precision = convolved_precision(self.precision, self.device, part.spec.grid)
        if settings.batch_size % (settings.micro_batches * self.team.size * objective.group):
            packs = f" x packs of {objective.group}" if objective.group > 1 else ""
            raise InvalidSetting(
                f"batch_size={settings.batch_size} does not divide into {self.team.size} "
                f"processes x {settings.micro_batches} micro-batches{packs}"
            )
        self.examples = objective.examples(model, data)
        if len(self.examples) < settings.batch_size:
            raise InvalidSetting(
                f"{data.spec.name}: {len(self.examples)} training examples are fewer than "
                f"batch_size={settings.batch_size}"
            )
        self.journal = Journal(directory, writes=self.team.leads, tensorboard=settings.tensorboard)
        with weights_from(settings.seed):
            self.players = objective.players(model)
        parts = set(model.modules())
        self.others = {p: module for p, module in self.players.items() if module not in parts}
        self.networks = {"": model, **{f"{player}.": n for player, n in self.others.items()}}
        self.whole = nn.ModuleList(self.networks.values())
        place(self.whole, self.device)
        self.team.share(self.whole)
        self.optimizers = {
            player: optimizer_for(settings, list(module.parameters()))
            for player, module in self.players.items()
        }
        self.average = AveragedWeights(self.networks, settings.ema)
        self.best_weights: dict[str, Tensor] | None = None
        self.best = math.inf
        self.step = 0
        self.logged = 0  # step of the last record of losses
        self.seconds = 0.0
        self.sums: dict[str, Tensor] = {}
        self.findings: list[health.Finding] = []
        # On CUDA the noise of updates is drawn on the GPU.
        self.source = torch.Generator(self.device) if graphs.available(self.device) else None
        self.current_noise: Noise | None = None
        self.graphs: graphs.UpdateGraphs | None = None
        alone = self.team.size == settings.micro_batches == len(self.players) == 1
        if self.source and settings.graphs and alone and self.objective.capturable:
            (player,) = self.players
            self.graphs = graphs.UpdateGraphs(
                list(self.players[player].parameters()),
                self.source,
                lambda x, context, step: self._gradients(player, x, context, step),
                lambda norm: self._move(player, norm),
            )
        # Doubles for long means, where the device has them.
        self.sum_dtype = torch.float32 if self.device.type == "mps" else torch.float64

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
            contextlib.nullcontext() if self.graphs is None else self.graphs.beside(),
            StopRequests() as stop,
        ):
            while self.step < settings.steps:
                began = time.monotonic()
                for turn, player in enumerate(self.players):
                    losses: list[float] = []
                    for again in range(self.objective.updates(player, self.step)):
                        losses.append(self._update(player, turn, again))
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

    # -- one update ------------------------------------------------------------------------

    def _update(self, player: str, turn: int, again: int) -> float:
        """Move the weights of one player; the other's are constants of its game.

        Args:
            player: that moves.
            turn: its place in the step.
            again: how often it has moved in this step before.

        Returns:
            The loss, where it may decide about another update; NaN elsewhere.
        """
        module, optimizer = self.players[player], self.optimizers[player]
        parameters = list(module.parameters())
        self.whole.train()
        set_rate(optimizer, self.settings.rate(self.step))
        if self.graphs is not None and self._replay(self.graphs, player, turn):
            return math.nan
        try:
            # A player may be a part of another.
            for other in self.players.values():
                other.requires_grad_(False)
            module.requires_grad_(True)
            loss = self._accumulate(player, turn, again)
        finally:
            self.whole.requires_grad_(True)
        self.team.sum_gradients(parameters)
        norm = _norm(parameters)
        # A loss may be finite where its gradient is not; weights moved by it would be lost.
        rows = self._batch_index(turn, again)[0]
        self._refuse_non_finite(norm, f"the gradient of {player}", rows)
        if not again:
            self._add(f"gradient_norm_{player}", norm / self.team.size)
        self._move(player, norm)
        optimizer.zero_grad()
        return loss

    def _move(self, player: str, norm: Tensor) -> None:
        """Clip the gradients, whose norm is given, move the weights, and clip those."""
        if self.settings.clip:
            parameters = self.players[player].parameters()
            nn.utils.clip_grads_with_norm_(parameters, self.settings.clip, norm)
        self.optimizers[player].step()
        if largest := self.objective.largest_weight(player):
            with torch.no_grad():
                for weight in self.players[player].parameters():
                    weight.clamp_(-largest, largest)

    def _accumulate(self, player: str, turn: int, again: int) -> float:
        """Gradients of the player's mean loss over this process's part of the batch.

        The loss of the whole batch is returned; NaN where the player moves once in a step.
        """
        s = self.settings
        part = s.batch_size // (s.micro_batches * self.team.size)
        index, epoch = self._batch_index(turn, again)
        loss = torch.zeros((), dtype=self.sum_dtype, device=self.device)
        for micro in range(s.micro_batches):
            first = (micro * self.team.size + self.team.rank) * part
            rows = index[first : first + part]
            x, context = self._to_device(self.examples.batch(rows, epoch))
            noise = self._noise(player, first, again)
            with noise_for(self.whole, noise):
                total, terms = self._loss(player, x, context, noise, self.step)
            self._refuse_non_finite(total, f"the loss of {player}", rows)
            torch.autograd.backward(total)
            loss += total.detach()
            for name, term in terms.items():
                self._add(name, term)
        several = self.objective.updates(player, self.step) > 1
        return float(self.team.sum(loss)) if several else math.nan

    def _loss(
        self, player: str, x: Tensor, context: Tensor | None, noise: Noise, step: int | Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The part of these examples in the mean loss of the batch, and in its terms.

        The prior of the weights counts once for all training examples.
        """
        s = self.settings
        with autocast(self.precision, self.device), reduced_precision():
            loss = self.objective.loss(
                Step(self.model, self.players, player, x, context, noise, step)
            )
        self._refuse_other_loss(loss, len(x))
        terms = {name: term.sum() / s.batch_size for name, term in loss.terms.items()}
        total = loss.value.sum() / s.batch_size
        prior = self.model.negative_log_prior()
        if prior is not None:
            total = total + prior * (len(x) / s.batch_size / len(self.examples))
        return total, terms

    def _refuse_other_loss(self, loss: Any, count: int) -> None:
        """An objective gives a number an example, so that a mean over any batch can be taken."""
        name = type(self.objective).__name__
        if not isinstance(loss, Loss):
            raise InvalidSetting(
                f"{name}.loss must return likely.training.objectives.Loss(value, terms), given "
                f"{type(loss).__name__}"
            )
        for part, value in {"value": loss.value, **loss.terms}.items():
            if not isinstance(value, Tensor) or value.shape != (count,):
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise InvalidSetting(
                    f"{name}.loss: {part} must be a tensor of one number an example, "
                    f"[{count}], given {shape}"
                )
        if not loss.value.requires_grad:
            raise InvalidSetting(f"{name}.loss: value has no gradient; was it detached?")

    def _noise(self, player: str, first: int = 0, again: int = 0) -> Noise:
        """The noise of this update, for the rows of the batch from `first` on."""
        s = self.settings
        rows = (first, s.batch_size)
        key = (s.seed, "fit", self.step, player, *((again,) if again else ()))
        return Noise(*key, device=self.device, rows=rows, source=self.source)

    def _replay(self, recordings: graphs.UpdateGraphs, player: str, turn: int) -> bool:
        """The update as recorded graphs; False where it must run eagerly."""
        if not recordings.possible:
            return False
        rows, epoch = self._batch_index(turn)
        x, context = self._to_device(self.examples.batch(rows, epoch))
        noise = self._noise(player)
        self.current_noise = noise
        choices = self.objective.choices(self.model, noise)
        with noise_for(self.model, noise):
            update = recordings.find(choices, x, context, self.step)
            if update is None:
                return False
            update.first.replay()
        gradients: graphs.Gradients = update.first.result
        if not bool(torch.isfinite(gradients.total + gradients.norm)):
            self._refuse_non_finite(gradients.total, f"the loss of {player}", rows)
            self._refuse_non_finite(gradients.norm, f"the gradient of {player}", rows)
        update.second.replay()
        self._add(f"gradient_norm_{player}", gradients.norm)
        for name, term in gradients.terms.items():
            self._add(name, term)
        return True

    def _gradients(
        self, player: str, x: Tensor, context: Tensor | None, step: Tensor
    ) -> graphs.Gradients:
        """What is recorded: loss and gradients of a whole batch."""
        assert self.current_noise is not None
        total, terms = self._loss(player, x, context, self.current_noise, step)
        torch.autograd.backward(total)
        norm = _norm(list(self.players[player].parameters()))
        return graphs.Gradients(total.detach(), norm, terms)

    def _batch_index(self, turn: int, again: int = 0) -> tuple[np.ndarray[Any, Any], int]:
        """Positions of the whole batch and its epoch; each player has separate batches.

        Further updates of a player in a step have batches drawn at random.
        """
        size = self.settings.batch_size
        number = self.step * len(self.players) + turn
        epoch, place_in_epoch = divmod(number, len(self.examples) // size)
        if again:
            seed = derived_seed(self.settings.seed, "batch", number, again)
            generator = np.random.Generator(np.random.Philox(seed))
            return generator.choice(len(self.examples), size, replace=False), epoch
        order = _order(self.settings.seed, epoch, len(self.examples))
        return order[place_in_epoch * size : (place_in_epoch + 1) * size], epoch

    def _to_device(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        x = torch.tensor(batch.x).to(self.device).to(torch.int64)
        return x, self.model.batch_context(batch)

    def _refuse_non_finite(self, value: Tensor, what: str, rows: np.ndarray[Any, Any]) -> None:
        if not self.team.any(not bool(torch.isfinite(value))):
            return
        s = self.settings
        kept = f"; the last good checkpoint is kept in {self.directory}" if self.directory else ""
        clip = f"a smaller clip than {s.clip:g}" if s.clip else "gradient clipping (clip=1)"
        raise Diverged(
            f"{what} is not finite at step {self.step} (examples "
            f"{', '.join(map(str, rows[:8]))}{', ...' if len(rows) > 8 else ''} of the training "
            f"set){kept}. Remedy: a lower learning_rate than {s.learning_rate:g}, a longer warmup "
            f"than {s.warmup}, or {clip}"
        )

    # -- numbers on the way ----------------------------------------------------------------

    def _add(self, name: str, value: Tensor) -> None:
        """Add to a mean over the log interval; each process adds its share."""
        value = value.detach().to(self.sum_dtype)
        self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()

    def _is_time(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.settings.steps

    def _log(self) -> dict[str, float]:
        names = sorted(self.sums)
        total = self.team.sum(torch.stack([self.sums[name] for name in names]))
        values = total / (self.step - self.logged)
        self.sums, self.logged = {}, self.step
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
            log_prob = _log_prob_of(model)
            for part in chunks(count, held_out.together):
                x, context = self._to_device(held_out.batch(part))
                noise = Noise("validation", part.start, device=self.device)
                total -= float(log_prob(x, noise, context).sum(dtype=self.sum_dtype))
        value = total / held_out.units(count)
        if value < self.best:
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
            "sums": self.sums,
            "optimizer": optimizer_tensors(self.optimizers),
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
            step, best = int(about["step"]), float(about["best"])
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
            restore_optimizers(self.optimizers, groups.get("optimizer", {}))
        self.step, self.logged, self.best = step, logged, best
        self.sums = {name: t.to(self.device) for name, t in sums.items()}
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


def _log_prob_of(model: Fittable) -> Callable[[Tensor, Noise, Tensor | None], Tensor]:
    """What a validation adds up, with the weights of now: log p(x), or minus a loss."""
    if isinstance(model, HasLoss):
        return lambda x, _, context: -model.loss(x, context)
    return measure_of(model, quick=True).log_prob


def _norm(parameters: list[nn.Parameter]) -> Tensor:
    """The norm of all gradients together."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, n: int) -> np.ndarray[Any, Any]:
    """The order in which an epoch reads the examples."""
    generator = np.random.Generator(np.random.Philox(derived_seed(seed, "order", epoch)))
    order = generator.permutation(n)
    order.flags.writeable = False
    return order
