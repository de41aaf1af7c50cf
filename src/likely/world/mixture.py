r"""Mixture density network: p(s' | s, a) with several modes (Bishop 1994, NCRG/94/004).

    p(s' - s | s, a) = sum_k w_k(s, a) N(m_k(s, a) + B f(s, a), diag sigma_k(s, a)^2)

A regression has one mean: where a wheel slips half of the time it lands between the two places, at
which nothing ever is. A small network gives weights, means and spreads of K Gaussians for each
state and action; a linear map of the same inputs is added to all means. World Models (Ha and
Schmidhuber 2018) have five Gaussians on an LSTM of 256 units; here the state is known, and two
layers suffice.

Without a floor the likelihood has no maximum: a Gaussian on one row shrinks to a point. Spreads are
at least `FLOOR` of the standard deviation of each variable's change, and the model says so. The
weights are those with the best nats on a seventh of the rows that was not fitted.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import numpy as np

from likely.errors import InvalidData
from likely.mdp.model.arrays import FloatArray, IntArray
from likely.world.features import Features
from likely.world.heads import EndHead, RewardHead
from likely.world.model import SMALLEST, Branches, TransitionModel
from likely.world.tasks import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

FLOOR = 0.01
BATCH, RATE, LOOK = 256, 3e-3, 50  # rows, step size, updates between looks at the held-out rows


class MixtureModel(TransitionModel):
    """K Gaussians whose weights, means and spreads a network gives; see the module's docstring."""

    def __init__(self, task: Task, rewards: RewardHead, ends: EndHead, state: FloatArray,
                 action: IntArray, change: FloatArray, components: int, hidden: int,
                 updates: int) -> None:  # fmt: skip
        """Fit to states [n, d], action numbers [n] and changes [n, d].

        Args:
            components: K.
            hidden: units of each of the two layers.
            updates: of the network.
        """
        import torch

        if len(state) < 8:
            raise InvalidData(f"{len(state)} transitions are too few for a network")
        super().__init__(task, rewards, ends, "")
        self.k, self.features = components, Features(task, 1)
        x = self.features(state)
        self.middle, self.scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
        box = np.array(task.high) - np.array(task.low)
        self.mean, self.size = change.mean(axis=0), np.maximum(change.std(axis=0), SMALLEST * box)
        inputs = torch.from_numpy(self._inputs(state, action))
        targets = torch.from_numpy((change - self.mean) / self.size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = _network(inputs.shape[1], hidden, components, task.dimensions)
            self.nats = self._fit(inputs, targets, updates)
        least = ", ".join(
            f"{name} {FLOOR * size:.2g}"
            for name, size in zip(task.variables, self.size, strict=True)
        )
        self.about = f"mixture of {components} Gaussians, 2 x {hidden} units, spreads >= {least}"

    def _inputs(self, state: FloatArray, action: IntArray) -> FloatArray:
        """[n, f + A] features and the action, one hot."""
        taken = np.eye(len(self.task.actions))[np.broadcast_to(action, len(state))]
        return np.hstack([(self.features(state) - self.middle) / self.scale, taken])

    def _fit(self, inputs: Tensor, targets: Tensor, updates: int) -> float:
        """Adam on batches; the nats of the held-out rows at the best look."""
        import torch

        from likely.training.optimizers import Adam

        order = torch.randperm(len(inputs))
        held, kept = order[: len(inputs) // 7 or 1], order[len(inputs) // 7 or 1 :]
        optimizer = Adam(list(self.network.parameters()), RATE)
        best, weights = np.inf, copy.deepcopy(self.network.state_dict())
        for step in range(1, updates + 1):
            rows = kept[torch.randint(len(kept), (min(BATCH, len(kept)),))]
            loss = -self._log_prob(inputs[rows], targets[rows]).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
            optimizer.step()
            # Half a cosine from the rate to 0, each update's from that of the last.
            turned, turned_before = math.pi * step / updates, math.pi * (step - 1) / updates
            optimizer.rate *= (1 + math.cos(turned)) / (1 + math.cos(turned_before))
            if step % LOOK == 0 or step == updates:
                with torch.no_grad():
                    nats = -float(self._log_prob(inputs[held], targets[held]).mean())
                if nats < best:
                    best, weights = nats, copy.deepcopy(self.network.state_dict())
        self.network.load_state_dict(weights)
        return best + float(np.log(self.size).sum())

    def _parts(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights [n, K], means and log spreads [n, K, d] of standardised changes."""
        import torch

        d = self.task.dimensions
        weight, mean, spread = self.network["body"](inputs).split(
            [self.k, self.k * d, self.k * d], dim=1
        )
        shift = self.network["linear"](inputs)[:, None]
        spread = FLOOR + torch.nn.functional.softplus(spread.unflatten(1, (self.k, d)))
        return weight.log_softmax(dim=1), mean.unflatten(1, (self.k, d)) + shift, spread.log()

    def _log_prob(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """[n] nats of standardised changes [n, d]."""
        weight, mean, spread = self._parts(inputs)
        z = (targets[:, None] - mean) * (-spread).exp()
        logs = -0.5 * z**2 - spread - 0.5 * float(np.log(2 * np.pi))
        return (weight + logs.sum(dim=2)).logsumexp(dim=1)

    def land(self, state: FloatArray, action: IntArray) -> Branches:
        import torch

        with torch.no_grad():
            parts = self._parts(torch.from_numpy(self._inputs(state, action)))
        weight, mean, spread = (part.numpy() for part in parts)
        change = self.mean + mean * self.size  # [n, K, d]
        centre = self.task.inside(state[:, None] + change)
        return Branches(np.exp(weight), centre, np.exp(spread) * self.size)


def _network(inputs: int, hidden: int, components: int, dimensions: int) -> nn.ModuleDict:
    """Two layers, and a linear map that starts at zero; in float64, as all of a world is."""
    from torch import nn

    linear = nn.Linear(inputs, dimensions)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    last = nn.Linear(hidden, components * (1 + 2 * dimensions))
    # Means that begin apart: components that begin alike stay alike.
    nn.init.normal_(last.bias[components : components * (1 + dimensions)])
    body = nn.Sequential(
        nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), last
    )
    return nn.ModuleDict({"body": body, "linear": linear}).double()
