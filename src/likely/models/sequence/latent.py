"""What networks with a latent variable at each step share: features, Gaussians, the emission.

The density within a step is that of the exact models, `likely.density.sequence.within_step`, so the
numbers are nats of the same integers. It reads an emission network of (z_t, the state) beside the
state, z_t and the body's input themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from likely.data.spec import Dataset, DataSpec
from likely.density import DiagonalGaussian, LatentSequence, Steps
from likely.density.sequence.within_step import Features, Past
from likely.models.sequence.network import inputs_of, start_at, step_density
from likely.models.sequence.settings import LatentSequenceSettings
from likely.noise import Dropout

# Log-scales are kept between - and + this, smoothly.
LARGEST_LOG_SCALE = 5.0


class LatentNetwork(LatentSequence):
    """A leaf gives the chain of latents and the proposal."""

    settings: LatentSequenceSettings

    def __init__(self, spec: DataSpec, settings: LatentSequenceSettings) -> None:
        super().__init__(spec, settings.latent, settings.conditional)
        self.settings = settings
        hidden, latent = settings.hidden, settings.latent
        self.features = Features(self.spec)
        self.input_size = self.features.size + self.context_size
        self.dropout = Dropout(settings.dropout)
        self.prior_net = GaussianNet(hidden, latent)
        self.proposal_net = GaussianNet(hidden, latent)
        self.from_state = nn.Linear(hidden, hidden)
        self.from_latent = nn.Linear(latent, hidden, bias=False)
        width = 2 * hidden + latent + self.input_size
        self.step = step_density(self.features, width, settings)

    def start_at(self, data: Dataset) -> None:
        """Scales and output biases from the training steps."""
        start_at(data, self.features, self.step)

    def inputs(self, last: Tensor, known: Tensor, context: Tensor | None) -> Tensor:
        """What the body sees of each step, [B, T, input_size]."""
        return inputs_of(self.features, last, known, context)

    def seen(self, steps: Steps) -> Tensor:
        """What the proposal sees of each step itself, [B, T, input_size]."""
        return inputs_of(self.features, steps.x, steps.known, steps.context)

    def combined(self, state: Tensor, inputs: Tensor, z: Tensor) -> Tensor:
        """What the density within the step reads, [..., 2 hidden + latent + input_size]."""
        state, inputs = (side.expand(*z.shape[:-1], -1) for side in (state, inputs))
        joint = torch.relu(self.from_state(state) + self.from_latent(z))
        return torch.cat([self.dropout(torch.cat([joint, state], -1)), z, inputs], -1)

    def score(
        self, output: Tensor, last: Tensor, last_known: Tensor, x: Tensor, known: Tensor
    ) -> Tensor:
        return self.step.log_prob(Past(output, last, last_known), x, known)

    def draw_columns(
        self, output: Tensor, last: Tensor, last_known: Tensor, uniform: Tensor
    ) -> Tensor:
        return self.step.draw(Past(output, last, last_known), uniform)


class GaussianNet(nn.Module):
    """A Gaussian from activations before their rectifier, [..., hidden]."""

    def __init__(self, hidden: int, latent: int) -> None:
        super().__init__()
        self.out = nn.Linear(hidden, 2 * latent)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def forward(self, activation: Tensor, centre: Tensor | None = None) -> DiagonalGaussian:
        """Its mean is that of the network, added to `centre` where that is given."""
        mean, log_scale = self.out(torch.relu(activation)).chunk(2, -1)
        bounded = LARGEST_LOG_SCALE * torch.tanh(log_scale / LARGEST_LOG_SCALE)
        return DiagonalGaussian(mean if centre is None else centre + mean, bounded)
