"""Implicit densities of sequences: a generator in time, samples only."""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from likely.data.spec import DataSpec
from likely.density.sequence.model import SequenceModel
from likely.density.sequence.steps import State, Steps
from likely.noise import Noise


class ImplicitSequence(SequenceModel):
    """x_t = G(z_1, ..., z_t): steps from noise, by a state; nothing is known of the density.

    Attributes:
        latent: dimensions of z_t.
    """

    def __init__(self, spec: DataSpec, latent: int, conditional: bool = False) -> None:
        """As `SequenceModel`, with so many numbers of noise at each step."""
        super().__init__(spec, conditional)
        self.latent = self.uniforms = latent

    @property
    def kind(self) -> str:
        return "implicit"

    @abc.abstractmethod
    def generate(
        self, z: Tensor, context: Tensor | None, state: State
    ) -> tuple[Tensor, Tensor, State]:
        """Steps from noise.

        Args:
            z: standard normal, [B, T, latent].
            context: of each step, floats [B, T, C], or None.
            state: before the first of them.

        Returns:
            int64 [B, T, K]; what stands for it in a network, smooth in the weights, [B, T, F]; and
            the state after the last step.
        """

    @property
    @abc.abstractmethod
    def widths(self) -> list[int]:
        """How many of the F numbers that an adversary sees of a step are of each column, [K]."""

    @abc.abstractmethod
    def seen(self, x: Tensor, known: Tensor) -> Tensor:
        """What an adversary sees of steps, [B, T, F]; what is not known is 0."""

    def against(self, x: Tensor, noise: Noise, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Real and generated sequences as an adversary sees them, [B, T, F + 1] each.

        Both are hidden where the real ones are not known; the last number says where steps are.
        Forwards, a generated step is what stands for its integers; its gradient is that of what
        they are rounded from (straight through).
        """
        steps: Steps = self.steps(x, context)
        present = (steps.scored | steps.known.any(2))[..., None]
        real = self.seen(steps.x, steps.known)
        z = noise.normal(*steps.scored.shape, self.latent).to(real)
        drawn, smooth, _ = self.generate(z, steps.context, self.begin(len(z)))
        widths = torch.tensor(self.widths, device=real.device)
        moved = (smooth - smooth.detach()) * steps.known.repeat_interleave(widths, 2)
        generated = self.seen(drawn, steps.known) + moved
        return torch.cat([real, present.to(real)], 2), torch.cat([generated, present.to(real)], 2)

    def draw_step(
        self, state: State, context: Tensor | None, uniform: Tensor
    ) -> tuple[Tensor, State]:
        z = torch.special.ndtri(uniform.clamp(1e-12, 1 - 1e-12))[:, None]
        z = z.to(next(self.parameters()).dtype)
        told = None if context is None else context[:, None]
        x, _, state = self.generate(z, told, state)
        return x[:, 0], state
