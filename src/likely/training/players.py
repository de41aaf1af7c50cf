"""What an objective is: players, and what each of them minimises."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from likely.data.sequences.dataset import Sequences, Windows
from likely.data.spec import Dataset
from likely.density import Fittable
from likely.errors import InvalidSetting
from likely.noise import Noise

MODEL = "model"


class Loss(NamedTuple):
    """A loss and its parts.

    Attributes:
        value: loss per example, [B].
        terms: named parts to log, each [B], without gradient.
    """

    value: Tensor
    terms: dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Step:
    """What a loss is computed from.

    Attributes:
        model: the model, of the class that the objective fits.
        players: the networks by player, as `Objective.players` gave them.
        player: the one that moves.
        x: integers [B, *shape].
        context: labels [B], floats [B, *context_shape], or None.
        noise: source of latents; a function of (seed, number, player).
        number: updates done so far, for annealing; a tensor where the update is captured as a
            graph.
    """

    model: Any
    players: Mapping[str, nn.Module]
    player: str
    x: Tensor
    context: Tensor | None
    noise: Noise
    number: int | Tensor


class Objective(abc.ABC):
    """What each player minimises.

    Attributes:
        capturable: whether an update of it may be captured as a CUDA graph: one player, and no
            decision that depends on a value.
        fits: the class of the models that it fits.
        needs: that class in words, for the refusal of another.
    """

    capturable: ClassVar[bool] = True
    fits: ClassVar[type] = Fittable
    needs: ClassVar[str] = "a generative model"

    def players(self, model: Fittable) -> dict[str, nn.Module]:
        """Players in the order of their updates, with the network each one moves: the model.

        A part of it may move, or a network that plays against it, built here: a fit seeds its
        initial weights, keeps it in its run under the player's name, and resumes it.

        Raises:
            InvalidSetting: the objective does not fit this kind of model.
        """
        if not isinstance(model, self.fits):
            raise InvalidSetting(
                f"{type(self).__name__} needs {self.needs}, {type(model).__name__} is {model.kind}"
            )
        return {MODEL: model}

    def examples(self, model: Fittable, data: Dataset) -> Dataset:
        """What losses are of: the training set, or pieces of it."""
        return data

    @property
    def group(self) -> int:
        """How many examples a loss takes together; they divide the batch."""
        return 1

    @property
    def validates(self) -> bool:
        """Whether the best weights can be told by the validation of the model."""
        return True

    @property
    def importance_samples(self) -> int | None:
        """Of the bound that is validated, where it is tighter than the model's ELBO.

        The ELBO of weights that were fitted to a tighter bound may rise while that bound falls.
        """
        return None

    @abc.abstractmethod
    def loss(self, step: Step) -> Loss:
        """The loss of `step.player` on a batch."""

    def updates(self, player: str, number: int) -> int:
        """Most updates of a player in the step of that number: one."""
        return 1

    def enough(self, player: str, losses: Sequence[float]) -> bool:
        """Whether a player makes no further update in a step, given the losses of those in it."""
        return False

    def largest_weight(self, player: str) -> float:
        """The size that weights of a player are clipped to after its updates; 0 for none."""
        return 0.0

    def choices(self, model: Fittable, noise: Noise) -> tuple[int, ...]:
        """What an update draws that decides which kernels run; a function of the noise.

        Updates are captured as a CUDA graph for each of these.
        """
        return ()


def windows_of(model: Fittable, data: Dataset) -> Dataset:
    """The windows that the settings of a model of sequences ask for, or the data as they are."""
    s = model.settings
    if not isinstance(data, Sequences) or not hasattr(s, "window"):
        return data
    return Windows(data, s.window, s.before, s.transpose)
