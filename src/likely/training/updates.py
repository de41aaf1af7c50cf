"""One update of one player: its batch, its noise, its loss, and the step of its weights.

Everything random is a function of (seed, step, player). On CUDA an update is recorded once and
replayed, where that is possible (`likely.training.graphs`).
"""

from __future__ import annotations

import contextlib
import functools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from likely.data.spec import Batch, Dataset
from likely.density import Fittable
from likely.devices import Team, autocast, convolved_precision, place
from likely.devices.precision import reduced_precision
from likely.errors import Diverged, InvalidSetting
from likely.noise import Noise, derived_seed, noise_for, weights_from
from likely.settings import FitSettings
from likely.training import graphs
from likely.training.objectives import Loss, Objective, Step
from likely.training.optimizers import optimizer_for, set_rate


class Updates:
    """What moves the weights of the players.

    Attributes:
        players: networks that take turns, by name.
        others: those that are no part of the model.
        networks: the model and the others, by the prefix of their names.
        optimizers: of each player.
        sums: of the losses and norms since they were last taken, by name.
        sum_dtype: of sums.

    Args:
        model: that is fitted.
        data: training set.
        objective: what is minimised.
        settings: of the fit.
        team: the processes.
        device: of the networks.
        kept: what is not lost, for the message of a divergence.

    Raises:
        InvalidSetting: batches that do not divide, or are larger than the data.
    """

    def __init__(
        self, model: Fittable, data: Dataset, objective: Objective, settings: FitSettings,
        team: Team, device: torch.device, kept: str,
    ) -> None:  # fmt: skip
        self.model, self.objective, self.settings = model, objective, settings
        self.team, self.device, self.kept, self.step = team, device, kept, 0
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
        with weights_from(settings.seed):
            self.players = objective.players(model)
        weights = set(model.parameters())
        self.others = {
            player: module
            for player, module in self.players.items()
            if module is not model and not weights.issuperset(module.parameters())
        }
        self.networks = {"": model, **{f"{player}.": n for player, n in self.others.items()}}
        self.whole = nn.ModuleList(self.networks.values())
        place(self.whole, self.device)
        self.team.share(self.whole)
        self.optimizers = {
            player: optimizer_for(settings, list(module.parameters()))
            for player, module in self.players.items()
        }
        self.sums: dict[str, Tensor] = {}
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

    def recording(self) -> contextlib.AbstractContextManager[None]:
        """A block in which updates are recorded, where they can be."""
        return contextlib.nullcontext() if self.graphs is None else self.graphs.beside()

    def update(self, player: str, turn: int, again: int, step: int) -> float:
        """Move the weights of one player; the other's are constants of its game.

        Args:
            player: that moves.
            turn: its place in the step.
            again: how often it has moved in this step before.
            step: of the fit, from 0.

        Returns:
            The loss, where it may decide about another update; NaN elsewhere.
        """
        self.step = step
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
            x, context = self.to_device(self.examples.batch(rows, epoch))
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
        x, context = self.to_device(self.examples.batch(rows, epoch))
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

    def to_device(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        x = torch.tensor(batch.x).to(self.device).to(torch.int64)
        return x, self.model.batch_context(batch)

    def _refuse_non_finite(self, value: Tensor, what: str, rows: np.ndarray[Any, Any]) -> None:
        if not self.team.any(not bool(torch.isfinite(value))):
            return
        s = self.settings
        clip = f"a smaller clip than {s.clip:g}" if s.clip else "gradient clipping (clip=1)"
        raise Diverged(
            f"{what} is not finite at step {self.step} (examples "
            f"{', '.join(map(str, rows[:8]))}{', ...' if len(rows) > 8 else ''} of the training "
            f"set){self.kept}. Remedy: a lower learning_rate than {s.learning_rate:g}, a longer "
            f"warmup than {s.warmup}, or {clip}"
        )

    def _add(self, name: str, value: Tensor) -> None:
        """Add to a mean over the log interval; each process adds its share."""
        value = value.detach().to(self.sum_dtype)
        self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()


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
