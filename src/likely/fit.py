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

import dataclasses
import json
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from likely import checkpoint
from likely.data.spec import Dataset
from likely.density import ApproximateDensity, GenerativeModel, TractableDensity, chunks
from likely.devices import Team, autocast, choose_device, environment, place
from likely.errors import Diverged, InvalidSetting
from likely.noise import Noise, derived_seed, noise_for
from likely.objectives import Objective, default_objective
from likely.settings import FitSettings, to_json

Progress = Callable[["Run", dict[str, float]], None]


@dataclasses.dataclass
class Run:
    """A fitted model and how it came about.

    Attributes:
        model: with the averaged weights of the best validation (the last, where none is made).
        spec: of the training data: `model.spec`.
        settings: of the fit.
        step: updates done.
        status: a sentence.
        finished: whether all steps were done.
        metrics: the records of metrics.jsonl.
        directory: where it is saved, or None.
        seconds: spent in the loop, over all parts of a resumed run.
    """

    model: GenerativeModel
    settings: FitSettings
    step: int
    status: str
    finished: bool
    metrics: list[dict[str, float]]
    directory: Path | None
    seconds: float


def fit(
    model: GenerativeModel,
    data: Dataset,
    objective: Objective | None = None,
    settings: FitSettings | None = None,
    *,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> Run:
    """Fit a model to data.

    Args:
        model: changed in place.
        data: training set; its `.validation` serves the choice of the best weights.
        objective: what is minimised; by the kind of the model when None.
        settings: everything else; `steps`, `batch_size` and `seed` override its fields.
        steps: updates.
        batch_size: examples an update.
        seed: of data order and noise.
        out: directory of the run; nothing is written when None.
        resume: go on from the checkpoint in `out`, if there is one of the same settings.
        progress: called at every log record.

    Returns:
        The run; `run.model` is `model`.

    Raises:
        InvalidSetting: settings, data and model do not fit together.
        Diverged: a non-finite loss; the last good checkpoint is kept.
    """
    settings = settings or FitSettings()
    changes = {"steps": steps, "batch_size": batch_size, "seed": seed}
    given = {name: value for name, value in changes.items() if value is not None}
    settings = dataclasses.replace(settings, **given)  # type: ignore[arg-type]
    if data.spec.shape != model.spec.shape or data.spec.levels != model.spec.levels:
        raise InvalidSetting(
            f"the model was built for shape {model.spec.shape} with {model.spec.levels} levels, "
            f"{data.spec.name} has shape {data.spec.shape} with {data.spec.levels}"
        )
    directory = None if out is None else Path(out)
    return _Loop(model, data, objective or default_objective(model), settings, directory).run(
        resume, progress
    )


class _Loop:
    """The state of a fit; `run` is the loop."""

    def __init__(
        self,
        model: GenerativeModel,
        data: Dataset,
        objective: Objective,
        settings: FitSettings,
        directory: Path | None,
    ) -> None:
        self.model, self.data, self.objective = model, data, objective
        self.settings, self.directory = settings, directory
        self.device = choose_device(settings.device)
        self.team = Team.join(self.device)
        place(model, self.device)
        self.team.share(model)
        self.players = objective.players(model)
        self.optimizers = {
            player: _optimizer(settings, list(module.parameters()))
            for player, module in self.players.items()
        }
        self.average: dict[str, Tensor] = {}
        self._copy_weights()
        self.best = math.inf
        self.step = 0
        self.seconds = 0.0
        self.metrics: list[dict[str, float]] = []
        self.sums: dict[str, Tensor] = {}
        self.summed = 0
        self.stop_signal = 0
        if settings.batch_size % (settings.micro_batches * self.team.size):
            raise InvalidSetting(
                f"batch_size={settings.batch_size} does not divide into {self.team.size} "
                f"processes x {settings.micro_batches} micro-batches"
            )
        if len(data) < settings.batch_size:
            raise InvalidSetting(
                f"{data.spec.name}: {len(data)} training examples are fewer than "
                f"batch_size={settings.batch_size}"
            )

    def run(self, resume: bool, progress: Progress | None) -> Run:
        self._open(resume)
        if self.step == 0:
            self.model.start_at(self.data)
            self._copy_weights()
        if self.settings.compile:
            _compile_networks(self.model)
        # Signals are for the main thread; a notebook's worker thread goes without.
        catch = _Signals(self)
        last_save = time.monotonic()
        writer = _tensorboard(self.directory) if self.settings.tensorboard else None
        with catch:
            while self.step < self.settings.steps:
                began = time.monotonic()
                self._update_players()
                self.step += 1
                self._average_weights()
                record = self._log() if self._is_time(self.settings.log_every) else None
                if self._is_time(self._validate_every()) and (found := self._validate()):
                    record = {**(record or {"step": float(self.step)}), **found}
                self.seconds += time.monotonic() - began
                if record is not None:
                    self._record(record, writer)
                    if progress is not None:
                        progress(self._state("running", False), record)
                stop = self.team.any(bool(self.stop_signal))
                due = time.monotonic() - last_save >= self.settings.checkpoint_seconds
                if self.step == self.settings.steps or stop or self.team.any(due):
                    self._save()
                    last_save = time.monotonic()
                if stop and self.step < self.settings.steps:
                    name = signal.Signals(self.stop_signal).name if self.stop_signal else "peer"
                    where = f" saved in {self.directory}" if self.directory else ""
                    return self._state(
                        f"stopped by {name} after {self.step} of {self.settings.steps} steps;"
                        f"{where} run the same command again to go on",
                        False,
                    )
        if writer is not None:
            writer.close()
        self._adopt_best()
        return self._state(f"finished {self.step} steps", True)

    # -- one update ------------------------------------------------------------------------

    def _update_players(self) -> None:
        rate = self.settings.rate(self.step)
        self.model.train()
        for turn, (player, module) in enumerate(self.players.items()):
            parameters = list(module.parameters())
            # Each player moves its own weights; the other's are constants of its game.
            for other in self.players.values():
                other.requires_grad_(other is module)
            self._accumulate(player, turn)
            self.team.sum_gradients(parameters)
            if self.settings.clip:
                norm = nn.utils.clip_grad_norm_(parameters, self.settings.clip)
                self._add(f"gradient_norm_{player}", norm / self.team.size)
            optimizer = self.optimizers[player]
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for module in self.players.values():
            module.requires_grad_(True)

    def _accumulate(self, player: str, turn: int) -> None:
        """Gradients of the player's mean loss over this process's part of the batch."""
        s = self.settings
        part = s.batch_size // (s.micro_batches * self.team.size)
        index, epoch = self._batch_index(turn)
        for micro in range(s.micro_batches):
            first = (micro * self.team.size + self.team.rank) * part
            rows = slice(first, first + part)
            batch = self.data.batch(index[rows], epoch)
            x = torch.from_numpy(batch.x.astype(np.int64)).to(self.device)
            context = None
            if self.model.classes and batch.label is not None:
                context = torch.from_numpy(batch.label).to(self.device)
            noise = Noise(
                s.seed, "fit", self.step, player, device=self.device, rows=(first, s.batch_size)
            )
            with noise_for(self.model, noise), autocast(s.precision, self.device):
                loss = self.objective.loss(self.model, x, context, player, noise, self.step)
            total = loss.value.sum() / s.batch_size
            self._refuse_non_finite(total, player, index[rows])
            total.backward()
            for name, term in loss.terms.items():
                self._add(name, term.sum() / s.batch_size)

    def _batch_index(self, turn: int) -> tuple[np.ndarray[Any, Any], int]:
        """Positions of the whole batch and its epoch; each player reads batches of its own."""
        s, n = self.settings, len(self.data)
        per_epoch = n // s.batch_size
        number = self.step * len(self.players) + turn
        epoch, place_in_epoch = divmod(number, per_epoch)
        key = derived_seed(s.seed, "order", epoch)
        order = np.random.Generator(np.random.Philox(key)).permutation(n)
        start = place_in_epoch * s.batch_size
        return order[start : start + s.batch_size], epoch

    def _refuse_non_finite(self, total: Tensor, player: str, rows: np.ndarray[Any, Any]) -> None:
        if self.team.any(not bool(torch.isfinite(total))):
            kept = (
                f"; the last good checkpoint is kept in {self.directory}" if self.directory else ""
            )
            raise Diverged(
                f"the loss of {player} is not finite at step {self.step} (examples "
                f"{rows[:8].tolist()}{'...' if len(rows) > 8 else ''} of the training set){kept}. "
                f"Remedy: a lower learning_rate than {self.settings.learning_rate:g}, a longer "
                f"warmup than {self.settings.warmup}, or a smaller clip than {self.settings.clip:g}"
            )

    def _copy_weights(self) -> None:
        state = self.model.state_dict()
        self.average = {name: tensor.detach().clone() for name, tensor in state.items()}

    def _average_weights(self) -> None:
        """Exponential moving average; the decay rises to its value over the first steps."""
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        if self.settings.ema == 0:
            decay = 0.0
        state = self.model.state_dict()
        floating = [name for name, tensor in state.items() if tensor.is_floating_point()]
        old = [self.average[name] for name in floating]
        torch._foreach_lerp_(old, [state[name].detach() for name in floating], 1 - decay)
        for name, tensor in state.items():
            if not tensor.is_floating_point():
                self.average[name].copy_(tensor)

    # -- numbers on the way ----------------------------------------------------------------

    def _add(self, name: str, value: Tensor) -> None:
        """Add to a mean over the log interval; each process adds its share."""
        value = value.detach().double()
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    def _is_time(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.settings.steps

    def _validate_every(self) -> int:
        return self.settings.validate_every or max(1, self.settings.steps // 10)

    def _log(self) -> dict[str, float]:
        steps = self.step % self.settings.log_every or self.settings.log_every
        names = sorted(self.sums)
        values = self.team.sum(torch.stack([self.sums[name] for name in names]).cpu()) / steps
        self.sums = {}
        rate = self.settings.rate(self.step - 1)
        record = {"step": float(self.step), "learning_rate": rate}
        return {**record, **dict(zip(names, values.tolist(), strict=True))}

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Validation of the averaged weights: what was promised, not what was trained."""
        held_out = self.data.validation
        measure = _validation_measure(self.model)
        if held_out is None or measure is None:
            return {}
        count = self.settings.validation_examples or len(held_out)
        count = min(count, len(held_out))
        current = {name: t.detach().clone() for name, t in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        self.model.eval()
        total = 0.0
        for part in chunks(count, 256):
            batch = held_out.batch(part)
            x = torch.from_numpy(batch.x.astype(np.int64)).to(self.device)
            context = None
            if self.model.classes and batch.label is not None:
                context = torch.from_numpy(batch.label).to(self.device)
            noise = Noise("validation", part.start, device=self.device)
            total += float(measure(x, noise, context).double().sum())
        value = total / count
        if value < self.best:
            self.best = value
            self._save_weights("best.safetensors", {"validation": repr(value)})
        self.model.load_state_dict(current)
        return {"validation": value}

    def _record(self, record: dict[str, float], writer: Any) -> None:
        self.metrics.append(record)
        if not self.team.leads:
            return
        if self.directory is not None:
            line = json.dumps(record) + "\n"
            clock = json.dumps({"step": self.step, "seconds": round(self.seconds, 3)}) + "\n"
            _append(self.directory / "metrics.jsonl", line)
            _append(self.directory / "timing.jsonl", clock)
        if writer is not None:
            for name, value in record.items():
                writer.add_scalar(name, value, self.step)

    def _state(self, status: str, finished: bool) -> Run:
        return Run(
            self.model, self.settings, self.step, status, finished, self.metrics,
            self.directory, self.seconds,
        )  # fmt: skip

    # -- the run directory -----------------------------------------------------------------

    def _open(self, resume: bool) -> None:
        if self.directory is None:
            return
        state = self.directory / "state.safetensors"
        if resume and state.exists():
            self._load(state)
        elif self.team.leads:
            record = {
                "fit": to_json(self.settings),
                "objective": {
                    "name": type(self.objective).__name__,
                    **dataclasses.asdict(self.objective),  # type: ignore[call-overload]
                },
                "training_fingerprint": self.data.spec.fingerprint,
            }
            checkpoint.write_json(self.directory / "fit.json", record)
            checkpoint.write_json(self.directory / "environment.json", environment())
            for name in ("metrics.jsonl", "timing.jsonl"):
                checkpoint.write_bytes(self.directory / name, b"")
            (self.directory / "best.safetensors").unlink(missing_ok=True)

    def _save(self) -> None:
        """Everything that the next step depends on, in one file."""
        if self.directory is None or not self.team.leads:
            return
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {f"average.{name}": t for name, t in self.average.items()}
        for player, optimizer in self.optimizers.items():
            for index, slots in optimizer.state_dict()["state"].items():
                for slot, value in slots.items():
                    tensors[f"optimizer.{player}.{index}.{slot}"] = torch.as_tensor(value)
        tensors |= {f"sums.{name}": t for name, t in self.sums.items()}
        about = {
            "step": str(self.step),
            "best": repr(self.best),
            "seconds": repr(self.seconds),
            "fingerprint": self.data.spec.fingerprint,
        }
        checkpoint.write_tensors(self.directory / "state.safetensors", tensors, about)
        self._save_weights("weights.safetensors", {})

    def _save_weights(self, name: str, about: dict[str, str]) -> None:
        """The averaged weights, for evaluation and sampling."""
        if self.directory is None:
            self.best_weights = {n: t.clone() for n, t in self.average.items()}
        elif self.team.leads:
            about = {**about, "step": str(self.step)}
            checkpoint.write_tensors(self.directory / name, self.average, about)

    def _load(self, path: Path) -> None:
        tensors, about = checkpoint.read_tensors(path)
        assert self.directory is not None
        self._refuse_other_run(about)
        groups: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            group, rest = name.split(".", 1)
            groups.setdefault(group, {})[rest] = tensor.to(self.device)
        self.model.load_state_dict(groups["model"])
        self.average = groups["average"]
        self.sums = groups.get("sums", {})
        for player, optimizer in self.optimizers.items():
            state = optimizer.state_dict()
            state["state"] = {}
            for name, tensor in groups.get("optimizer", {}).items():
                owner, index, slot = name.rsplit(".", 2)
                if owner == player:
                    state["state"].setdefault(int(index), {})[slot] = tensor
            optimizer.load_state_dict(state)
        self.step, self.best = int(about["step"]), float(about["best"])
        self.seconds = float(about["seconds"])
        if self.team.leads:
            for name in ("metrics.jsonl", "timing.jsonl"):
                self._truncate(self.directory / name)
        self.metrics = _read_lines(self.directory / "metrics.jsonl", self.step)

    def _refuse_other_run(self, about: dict[str, str]) -> None:
        assert self.directory is not None
        saved = checkpoint.read_json(self.directory / "fit.json")["fit"]
        now = to_json(self.settings)
        # Pauses, the device and logging do not change what was done so far.
        free = {"checkpoint_seconds", "device", "tensorboard", "compile"}
        changed = [name for name in now if name not in free and saved.get(name) != now[name]]
        if about["fingerprint"] != self.data.spec.fingerprint:
            changed.append("data")
        if changed:
            raise InvalidSetting(
                f"{self.directory} holds a run with other settings ({', '.join(changed)} differ); "
                "give the same settings to resume it, or another directory to start anew"
            )

    def _truncate(self, path: Path) -> None:
        """Drop the records of steps that will be done again."""
        lines = [json.dumps(record) for record in _read_lines(path, self.step)]
        checkpoint.write_bytes(path, "".join(line + "\n" for line in lines).encode())

    def _adopt_best(self) -> None:
        """Give the model the best weights: of the best validation, or the last average."""
        best = self.average
        if math.isfinite(self.best):
            if self.directory is None:
                best = self.best_weights
            else:
                path = self.directory / "best.safetensors"
                best, _ = checkpoint.read_tensors(path)
                if self.team.leads:
                    checkpoint.write_tensors(
                        self.directory / "weights.safetensors", best, {"step": str(self.step)}
                    )
        self.model.load_state_dict(best)
        self.model.eval()


class _Signals:
    """Turns SIGINT and SIGTERM into a request to stop after the current step."""

    def __init__(self, loop: _Loop) -> None:
        self.loop = loop
        self.old: dict[int, Any] = {}

    def __enter__(self) -> None:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.old[number] = signal.signal(number, self._note)
        except ValueError:
            # Not the main thread: signals go to whoever runs there.
            self.old = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.loop.stop_signal == signal.SIGINT == number:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait for the step
        self.loop.stop_signal = number

    def __exit__(self, *_: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)


def _optimizer(settings: FitSettings, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    s = settings
    betas = (s.beta1, s.beta2)
    if s.optimizer == "rmsprop":
        return torch.optim.RMSprop(
            parameters, s.learning_rate, alpha=s.beta2, weight_decay=s.weight_decay
        )
    kind = torch.optim.AdamW if s.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, s.learning_rate, betas, weight_decay=s.weight_decay)


def _validation_measure(
    model: GenerativeModel,
) -> Callable[[Tensor, Noise, Tensor | None], Tensor] | None:
    """Nats an example that validation averages, by kind; None for implicit densities."""
    if isinstance(model, TractableDensity):
        return lambda x, noise, context: -model.log_prob(x, context)
    if isinstance(model, ApproximateDensity):
        return lambda x, noise, context: -model.elbo(x, noise, context)
    return None


def _compile_networks(model: GenerativeModel) -> None:
    # One graph for each distinct layer: the default limit of eight makes the rest run eagerly.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for child in model.children():
        for network in child if isinstance(child, nn.ModuleList) else [child]:
            network.compile()


def _append(path: Path, line: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        raise checkpoint.CheckpointError(
            f"cannot write {path}: {error.strerror or error}; the last checkpoint is kept"
        ) from error


def _read_lines(path: Path, until: int) -> list[dict[str, float]]:
    """The whole records up to a step; a line cut short by a kill is dropped."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["step"] <= until:
            records.append(record)
    return records


def _tensorboard(directory: Path | None) -> Any:
    from likely.errors import MissingDependency

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependency(
            "tensorboard=true needs the extra: pip install 'likely[tensorboard]'"
        ) from error
    return SummaryWriter(directory or "runs")  # type: ignore[no-untyped-call]
