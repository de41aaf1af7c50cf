r"""SRNN: a chain of latent variables beside a deterministic one, inferred with the future.

Fraccaro, Sonderby, Paquet and Winther 2016, https://arxiv.org/abs/1605.07571.

    d_t = GRU(d_{t-1}, u_t),  u_t = (features of x_{t-1}, c_t)
    p(z_t | z_{t-1}, d_t) = N(m, s^2),  (m, s) = f(z_{t-1}, d_t)
    p(x_t | z_t, d_t)
    a_t = GRU(a_{t+1}, features of x_t),  backwards
    q(z_t | z_{t-1}, a_t, d_t) = N(m + g, r^2),  (g, r) = g(z_{t-1}, d_t, a_t)

Deviations: p(x_t | .) is the joint density within the step of the exact models, and reads u_t, too;
the backward chain reads x_t and not d_t, which q reads itself, so that the two run side by side;
rectifiers in place of leaky ones; dropout on what the chains read and on d_t. Where a step is given
and not scored, q does not read what comes after it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from likely.data.spec import DataSpec
from likely.density import DiagonalGaussian, State, Steps
from likely.models.sequence.latent import LatentNetwork
from likely.models.sequence.settings import SRNNSettings


class SRNN(LatentNetwork):
    """Stochastic recurrent network; see the module's docstring.

    Args:
        spec: of sequences.
        settings: sizes; the preset for the data by default.
    """

    BODY = 1
    settings: SRNNSettings

    def __init__(self, spec: DataSpec, settings: SRNNSettings | None = None) -> None:
        super().__init__(spec, settings or SRNNSettings.preset(spec))
        hidden, latent = self.settings.hidden, self.settings.latent
        self.forwards = nn.GRU(self.input_size, hidden, batch_first=True)
        self.begins = nn.Parameter(torch.zeros(hidden))
        self.prior_state = nn.Linear(hidden, hidden)
        self.prior_latent = nn.Linear(latent, hidden, bias=False)
        self.proposal_state = nn.Linear(hidden, hidden)
        self.proposal_latent = nn.Linear(latent, hidden, bias=False)
        self.proposal_seen = nn.Linear(self.input_size, hidden, bias=False)
        if self.settings.smoothing:
            self.backwards = nn.GRU(self.input_size, hidden, batch_first=True)
            self.proposal_later = nn.Linear(hidden, hidden, bias=False)
        for name, weight in self.named_parameters():
            if "wards.weight_hh" in name:
                for gate in weight.data.chunk(3):
                    nn.init.orthogonal_(gate)
            elif "wards.bias" in name:
                nn.init.zeros_(weight)

    def first(self, n: int) -> tuple[State, State]:
        """The learned first d; z_0 = 0."""
        zero = self.begins.new_zeros(n, 1, self.settings.latent)
        return (self.begins.expand(n, -1),), (zero,)

    def ahead(self, steps: Steps) -> Tensor:
        """What q reads of x_t, and of a_t where the step is scored, [B, T, hidden]."""
        seen = self.seen(steps)
        at_step: Tensor = self.proposal_seen(seen)
        if not self.settings.smoothing or not bool(steps.scored.any()):
            return at_step
        # Backwards from the last step of each sequence: padding stays behind.
        present = steps.scored | steps.known.any(2)
        time = torch.arange(present.shape[1], device=present.device)
        count = torch.where(present, time + 1, 0).amax(1, keepdim=True)
        turned = torch.where(time < count, count - 1 - time, time)[..., None]
        backwards, _ = self.backwards(self.dropout(seen.gather(1, turned.expand_as(seen))))
        later = backwards.gather(1, turned.expand_as(backwards))
        return torch.as_tensor(at_step + self.proposal_later(later) * steps.scored[..., None])

    def read(
        self, last: Tensor, known: Tensor, context: Tensor | None, body: State
    ) -> tuple[State, State]:
        """(first layers of p and of q at d_t, d_t, u_t)."""
        inputs = self.inputs(last, known, context)
        state, after = self.forwards(self.dropout(inputs), body[0][None].contiguous())
        return (self.prior_state(state), self.proposal_state(state), state, inputs), (after[0],)

    def transition(self, now: State, chain: State) -> tuple[DiagonalGaussian, Tensor]:
        (before,) = chain
        prior: DiagonalGaussian = self.prior_net(now[0] + self.prior_latent(before))
        return prior, now[1] + self.proposal_latent(before)

    def proposal(self, prior: DiagonalGaussian, hidden: Tensor, ahead: Tensor) -> DiagonalGaussian:
        q: DiagonalGaussian = self.proposal_net(hidden + ahead, prior.mean)
        return q

    def chained(self, hidden: Tensor, z: Tensor) -> State:
        return (z,)

    def emission(self, now: State, hidden: Tensor, z: Tensor) -> Tensor:
        return self.combined(now[2], now[3], z)
