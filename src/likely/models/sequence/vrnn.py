r"""VRNN: the latent variable of each step goes through the state of a recurrent network.

Chung, Kastner, Dinh, Goel, Courville and Bengio 2015, https://arxiv.org/abs/1506.02216.

    h_t = GRU(h_{t-1}, (u_t, z_{t-1})),  u_t = (features of x_{t-1}, c_t)
    p(z_t | h_t) = N(m, s^2),  p(x_t | z_t, h_t),  q(z_t | h_t, x_t) = N(m + g, r^2)

h_t is the paper's h_{t-1}: the state is moved on at the beginning of a step and not at its end.

Deviations: a GRU in place of an LSTM; p(x_t | .) is the joint density within the step of the exact
models, and reads u_t, too; the mean of q is that of p and a difference, as in SRNN; the features of
z_t are z_t itself; dropout on what the state is moved by and on the state that x_t is read from.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from likely.data.spec import DataSpec
from likely.density import DiagonalGaussian, State, Steps
from likely.models.sequence.latent import LatentNetwork
from likely.models.sequence.settings import VRNNSettings


class VRNN(LatentNetwork):
    """Variational recurrent network; see the module's docstring.

    Args:
        spec: of sequences.
        settings: sizes; the preset for the data by default.
    """

    def __init__(self, spec: DataSpec, settings: VRNNSettings | None = None) -> None:
        super().__init__(spec, settings or VRNNSettings.preset(spec))
        hidden, latent = self.settings.hidden, self.settings.latent
        self.gates_input = nn.Linear(self.input_size, 3 * hidden)
        self.gates_latent = nn.Linear(latent, 3 * hidden, bias=False)
        self.gates_state = nn.Linear(hidden, 3 * hidden)
        self.begins = nn.Parameter(torch.zeros(hidden))
        self.prior_state = nn.Linear(hidden, hidden)
        self.proposal_state = nn.Linear(hidden, hidden)
        self.proposal_seen = nn.Linear(self.input_size, hidden, bias=False)
        for gate in self.gates_state.weight.data.chunk(3):
            nn.init.orthogonal_(gate)

    def first(self, n: int) -> tuple[State, State]:
        """The learned first state; z_0 = 0."""
        zero = self.begins.new_zeros(n, 1, self.settings.latent)
        return (), (self.begins.expand(n, 1, -1), zero)

    def ahead(self, steps: Steps) -> Tensor:
        """What q reads of x_t, [B, T, hidden]."""
        return torch.as_tensor(self.proposal_seen(self.seen(steps)))

    def read(
        self, last: Tensor, known: Tensor, context: Tensor | None, body: State
    ) -> tuple[State, State]:
        """(the gates' part of u_t, u_t)."""
        inputs = self.inputs(last, known, context)
        return (self.gates_input(self.dropout(inputs)), inputs), ()

    def transition(self, now: State, chain: State) -> tuple[DiagonalGaussian, Tensor]:
        state, before = chain
        moved = (now[0] + self.gates_latent(before)).chunk(3, -1)
        kept = self.gates_state(state).chunk(3, -1)
        reset, stay = torch.sigmoid(moved[0] + kept[0]), torch.sigmoid(moved[1] + kept[1])
        new = torch.tanh(moved[2] + reset * kept[2])
        state = new + stay * (state - new)
        prior: DiagonalGaussian = self.prior_net(self.prior_state(state))
        return prior, state

    def proposal(self, prior: DiagonalGaussian, hidden: Tensor, ahead: Tensor) -> DiagonalGaussian:
        q: DiagonalGaussian = self.proposal_net(self.proposal_state(hidden) + ahead, prior.mean)
        return q

    def chained(self, hidden: Tensor, z: Tensor) -> State:
        return hidden, z

    def emission(self, now: State, hidden: Tensor, z: Tensor) -> Tensor:
        return self.combined(hidden, now[1], z)
