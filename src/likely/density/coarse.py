"""Models that draw a small image first: averages, or every second pixel, or every fourth."""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from likely.density.chain import Autoregressive
from likely.density.completion import Completions
from likely.errors import InvalidData, InvalidSetting


class Upscales(abc.ABC):
    """A model that enlarges small images: draws x given what `smaller` makes of it."""

    @property
    @abc.abstractmethod
    def enlargements(self) -> tuple[int, ...]:
        """By how much it enlarges."""

    @abc.abstractmethod
    def smaller(self, x: Tensor, times: int = 2) -> Tensor:
        """The small image of x that it enlarges, levels, sides divided by `times`."""

    def upscale(
        self,
        low: Tensor,
        n: int = 1,
        *,
        times: int = 2,
        seed: int = 0,
        context: Tensor | int | None = None,
    ) -> Tensor:
        """n images of each small one, int64 [B, n, *shape]; see `likely.ask.upscale`."""
        return self.enlargings(low, n, times=times, seed=seed, context=context).images

    @abc.abstractmethod
    def enlargings(
        self,
        low: Tensor,
        n: int = 1,
        *,
        times: int = 2,
        seed: int = 0,
        context: Tensor | int | None = None,
    ) -> Completions:
        """`upscale`, with log p(low) and what the draws are worth."""

    def refuse_other(self, times: int) -> None:
        """InvalidSetting where it does not enlarge by `times`."""
        if times not in self.enlargements:
            allowed = " or ".join(map(str, self.enlargements))
            raise InvalidSetting(f"times={times}: this model enlarges by {allowed}")


class CoarseToFine(Upscales, Autoregressive):
    """log p(x) of a chain rule whose order begins with the pixels of a smaller image.

    The smaller image is every `times`-th pixel of both sides: its likelihood given, what is drawn
    of the others is the model's own conditional.
    """

    @property
    def enlargements(self) -> tuple[int, ...]:
        """By how much `upscale` enlarges: those whose small image comes first."""
        sides = range(2, self.spec.side)
        return tuple(t for t in sides if self.known_ranks(self.coarse_pixels(t)) is not None)

    def coarse_pixels(self, times: int) -> Tensor:
        """Pixels of the small image, bool [H, W]."""
        coarse = torch.zeros(self.spec.grid[1:], dtype=torch.bool, device=self.device)
        coarse[::times, ::times] = True
        return coarse

    def smaller(self, x: Tensor, times: int = 2) -> Tensor:
        """Every `times`-th pixel of images [B, C, H, W]."""
        return self.integers(x)[:, :, ::times, ::times]

    def enlargings(
        self,
        low: Tensor,
        n: int = 1,
        *,
        times: int = 2,
        seed: int = 0,
        context: Tensor | int | None = None,
    ) -> Completions:
        """`upscale`, with log p(low) and what the draws are worth."""
        self.refuse_other(times)
        x = torch.zeros(len(low), *self.spec.grid, dtype=torch.int64, device=self.device)
        wanted = x[:, :, ::times, ::times].shape
        if low.shape != wanted or low.is_floating_point():
            raise InvalidData(
                f"expected small images, integers {list(wanted)}, given {low.dtype} "
                f"{list(low.shape)}"
            )
        x[:, :, ::times, ::times] = low.to(x)
        observed = self.coarse_pixels(times)
        return self.completions(x, observed, n, seed=seed, context=context, method="exact")
