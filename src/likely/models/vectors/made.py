r"""MADE (Germain, Gregor, Murray and Larochelle 2015).

"MADE: Masked Autoencoder for Distribution Estimation", https://arxiv.org/abs/1502.03509.

A dense network computes all conditionals in one pass. Dimension d of the order has degree d,
each hidden unit a degree m in {1, ..., D - 1}, and a connection is kept where the degrees allow
it (eqs. 12-13):

    into a hidden unit   m >= degree below        into output d    d > m  (strictly)
    from input j to output d directly             d > j

Several masks: the degrees of the hidden units differ from mask to mask, the weights are shared.
A mask is computed from the degrees in the forward pass and multiplies the weights there; the
weights are never overwritten, so rotating the masks loses nothing.

With `prior=local` the fit is the maximum a posteriori under a Gaussian prior in which weights of
equal offset resemble each other and decay with distance (`likely.nn.local`). For it each
hidden unit belongs to a unit of the image and has its degree: it reads what comes before or is
there, and what comes after reads it.

Deviations: each training step draws one of the masks, and the conditionals of the fitted model
are those of the outputs' mean over all masks (in one order that is again one autoregressive
density). `MADEEnsemble` also shares the weights between several orders, one drawn at each step,
and is the mixture of their densities, log p(x) = log (1/K) sum_k p_k(x). Degrees are spread
evenly and shuffled, not drawn independently, so that with as many hidden units as dimensions
each degree is there. Dropout; any head, on levels scaled to [0, 1]; biases per class if
conditional; the output bias is initialised at the mean of the data.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from likely.data.spec import Dataset, DataSpec
from likely.density import Autoregressive, Mixture
from likely.models.vectors.settings import MADEEnsembleSettings, MADESettings
from likely.models.vectors.units import UnitModel, Units, of_label
from likely.nn.local import REGRESSION, LocalWeights, Spread
from likely.noise import Choice, Dropout, derived_seed
from likely.sampling.program import Builder, Cells

HIDDEN = Spread(shared=1.0, blocks=(), own=0.5)


class MADE(UnitModel):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W) or (D,).
        settings: `MADESettings.preset(spec)` by default.

    >>> model = MADE(DataSpec("digits", (1, 28, 28), 2), MADESettings(hidden=50, masks=4))
    >>> model.degrees.shape  # of every mask, layer and hidden unit
    torch.Size([4, 2, 50])
    """

    degrees: Tensor
    of_units: Tensor

    def __init__(self, spec: DataSpec, settings: MADESettings | None = None) -> None:
        settings = settings or MADESettings.preset(spec)
        super().__init__(spec, settings)
        units, hidden = self.units, settings.hidden
        local = settings.prior == "local"
        if settings.order == "random":
            self.order = pixel_order(spec)
        # Kept small: masks are comparisons of degrees, made where they are used.
        of_units = torch.tensor(unit_degrees(units, self.order))
        self.register_buffer("of_units", of_units, persistent=False)
        if local:
            degrees = degrees_of_homes(of_units, settings.layers, hidden)
            hidden = degrees.shape[2]
        else:
            spread = hidden_degrees(settings.masks, settings.layers, hidden, units.count)
            degrees = torch.tensor(spread)
        self.register_buffer("degrees", degrees, persistent=False)
        inputs, outputs = units.count * units.inputs, units.count * units.outputs
        sizes = [inputs] + [hidden] * settings.layers
        # About half of the connections are masked. Under the prior only what is shared starts.
        self.weights = nn.ParameterList(
            torch.zeros(above, below) if local else torch.randn(above, below) * (4.0 / below) ** 0.5
            for below, above in itertools.pairwise(sizes)
        )
        rows = max(1, self.classes)
        self.hidden_biases = nn.ParameterList(
            torch.zeros(rows if layer == 0 else 1, hidden) for layer in range(settings.layers)
        )
        started = torch.zeros if local else torch.randn
        self.output = nn.Parameter(started(outputs, hidden) * (0.01 / hidden) ** 0.5)
        self.direct = nn.Parameter(torch.zeros(outputs, inputs)) if settings.direct else None
        self.local = nn.ModuleDict(self._shared() if local else {})
        self.dropout = Dropout(settings.dropout)
        self.choice = Choice(settings.masks)

    def _shared(self) -> dict[str, LocalWeights]:
        """What pixels share of each weight matrix."""
        units = self.units
        hidden = self.degrees.shape[2] // (units.height * units.width)
        below = units.groups * units.inputs
        found = {}
        for layer in range(self.settings.layers):
            found[f"weights_{layer}"] = LocalWeights(
                units.height, units.width, hidden, below, HIDDEN, start=0.3 * below**-0.5
            )
            below = hidden
        above = units.groups * units.outputs
        found["output"] = LocalWeights(units.height, units.width, above, hidden, HIDDEN, start=0.02)
        if self.direct is not None:
            inputs = units.groups * units.inputs
            found["direct"] = LocalWeights(units.height, units.width, above, inputs, REGRESSION)
        return found

    def _acting(self, name: str, own: Tensor) -> Tensor:
        """A weight matrix: what is its own, and under a prior what pixels share, too."""
        if name not in self.local:
            return own
        acting: Tensor = self.local[name](own)
        return acting

    def negative_log_prior(self) -> Tensor | None:
        own = {f"weights_{layer}": weight for layer, weight in enumerate(self.weights)}
        own |= {"output": self.output, "direct": self.direct}
        terms = []
        for name, shared in self.local.items():
            assert isinstance(shared, LocalWeights)
            terms.append(shared.negative_log_prior(own[name]))
        return torch.stack(terms).sum() if terms else None

    @property
    def has_blind_spot(self) -> bool:
        """Without direct connections, a degree that no hidden unit has hides an input."""
        return not self.settings.direct and self.degrees.shape[2] < self.units.count - 1

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        given = self.units.split(x, self.output.dtype).flatten(1)  # [B, n I]
        rows, n = x.shape[2], given.shape[1] // self.units.inputs
        # Rows that are cut off are seen by no row above them: any value will do.
        whole = given.new_zeros(len(x), self.units.count * self.units.inputs)
        inputs = whole if rows == 0 else torch.cat([given, whole[:, given.shape[1] :]], 1)
        one = self.choice()
        chosen = range(self.settings.masks) if one is None else [one]
        total = sum(self.outputs(inputs, mask, context) for mask in chosen)
        assert isinstance(total, Tensor)
        outputs = (total / len(chosen)).reshape(len(x), self.units.count, -1)
        return self.units.join((outputs + self.biases(context))[:, :n])

    def outputs(self, inputs: Tensor, mask: int, context: Tensor | None) -> Tensor:
        """Outputs under one mask, without their bias: [B, N I] to [B, N O]."""
        h = inputs
        for layer, weight in enumerate(self.masked_weights(mask)):
            h = self.dropout(relu(linear(h, weight) + self.hidden_bias(layer, context)))
        out = linear(h, self.masked_output(mask))
        direct = self.masked_direct()
        return out if direct is None else out + linear(inputs, direct)

    def masked_weights(self, mask: int) -> list[Tensor]:
        """The weights of the hidden layers as they act, [above, below] each."""
        below = self.of_units.repeat_interleave(self.units.inputs)
        found = []
        for layer, degrees in enumerate(self.degrees[mask]):
            weight = self._acting(f"weights_{layer}", self.weights[layer])
            found.append(weight * (degrees[:, None] >= below))
            below = degrees
        return found

    def masked_output(self, mask: int) -> Tensor:
        """The weights from the last hidden layer to the outputs as they act, [N O, H]."""
        own = self.of_units.repeat_interleave(self.units.outputs)
        return self._acting("output", self.output) * (own[:, None] > self.degrees[mask, -1])

    def masked_direct(self) -> Tensor | None:
        """The weights from inputs to outputs as they act, [N O, N I], or None."""
        if self.direct is None:
            return None
        own = self.of_units.repeat_interleave(self.units.outputs)
        before = own[:, None] > self.of_units.repeat_interleave(self.units.inputs)
        return self._acting("direct", self.direct) * before

    def hidden_bias(self, layer: int, context: Tensor | None) -> Tensor:
        """Bias of a hidden layer, [B or 1, H]; the first one depends on the label."""
        bias: Tensor = self.hidden_biases[layer]
        return bias[context] if layer == 0 and context is not None else bias

    def vectors(self, build: Builder) -> Cells:
        """Hidden units stand sorted by degree; those of degree m are computed at unit m."""
        count = self.units.count
        drawn = torch.from_numpy(self.units.drawn(self.order)).to(self.bias.device)
        rows, columns = _spread(drawn, self.units.outputs), _spread(drawn, self.units.inputs)
        known, masks = self.known(build), range(self.settings.masks)
        # Each part of the outputs begins with the sum of those before it.
        total = of_label(build, self.bias[:, drawn].flatten(1))
        direct = self.masked_direct()
        if direct is not None:
            direct = _arranged(direct, rows, columns)
            total = self.outputs_of(build, known, direct, total, self.before)
        for mask in masks:
            below, places, seen = known, columns, self.before
            for layer, weight in enumerate(self.masked_weights(mask)):
                degrees, own = self.degrees[mask, layer].sort(stable=True)
                # Number of units of a degree up to n, n known units.
                ends = torch.searchsorted(
                    degrees, torch.arange(count, device=degrees.device), right=True
                ).tolist()
                new = [0, *ends[:-1]]
                grown = build.grow(
                    below, _arranged(weight, own, places).t(),
                    of_label(build, self.hidden_biases[layer][:, own]), new, ends, seen,
                )  # fmt: skip
                below, places, seen = build.relu(grown), own, ends
            readout = _arranged(self.masked_output(mask), rows, places)
            readout = readout / len(masks) if len(masks) > 1 else readout
            total = self.outputs_of(build, below, readout, total, seen)
        assert isinstance(total, Cells)  # there is a mask
        return total


class MADEEnsemble(Mixture):
    """A mixture of one MADE's densities in several random orders; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W) or (D,).
        settings: `MADEEnsembleSettings.preset(spec)` by default.
    """

    takes_vectors = True

    degrees: Tensor

    def __init__(self, spec: DataSpec, settings: MADEEnsembleSettings | None = None) -> None:
        settings = settings or MADEEnsembleSettings.preset(spec)
        super().__init__(spec, len(spec.classes) if settings.conditional else 0)
        self.settings = settings
        shared = dataclasses.asdict(settings)
        del shared["orders"]
        self.network = MADE(spec, MADESettings(order="random", **shared))
        self.choice = Choice(settings.orders)
        numbers = range(settings.orders)
        degrees = [unit_degrees(self.network.units, pixel_order(spec, n)) for n in numbers]
        self.register_buffer("degrees", torch.tensor(np.stack(degrees)), persistent=False)

    def start_at(self, data: Dataset) -> None:
        """Set the biases so that the network starts at the mean image of the data."""
        self.network.start_at(data)

    def members(self) -> Sequence[Autoregressive]:
        """The network in each of the orders; while it is trained, in one of them."""
        one = self.choice()
        chosen = range(self.settings.orders) if one is None else [one]
        return [in_order(self.network, number, self.degrees[number]) for number in chosen]


def in_order(network: MADE, number: int, degrees: Tensor) -> MADE:
    """The same network, sharing its weights, in the random order of that number.

    Args:
        network: whose weights it has.
        number: of the order.
        degrees: of its units in that order, which the masks are made of, [N].
    """
    twin = copy.copy(network)  # shallow: the weights are the same tensors
    twin.order = pixel_order(network.spec, number)
    vars(twin)["_buffers"] = {**network._buffers, "of_units": degrees}
    return twin


def unit_degrees(units: Units, order: Tensor | None) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The degree of every unit, 1 for the first of the order, [N]."""
    degrees = np.empty(units.count, np.int64)
    degrees[units.drawn(order)] = np.arange(1, units.count + 1)
    return degrees


def pixel_order(spec: DataSpec, number: int = 0) -> Tensor:
    """A random order of the pixels, the same for every model of that image size, [H W]."""
    random = np.random.Generator(np.random.Philox(derived_seed("pixel order", number)))
    return torch.from_numpy(random.permutation(spec.grid[1] * spec.grid[2]))


def hidden_degrees(
    masks: int, layers: int, hidden: int, count: int
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Degrees of the hidden units in 1 ... count - 1, int64 [masks, layers, hidden].

    Spread evenly from a random beginning, then shuffled; none below the smallest of the layer
    beneath, where it would see nothing.
    """
    random = np.random.Generator(np.random.Philox(derived_seed("degrees", layers, hidden, count)))
    top = max(1, count - 1)
    found = np.empty((masks, layers, hidden), np.int64)
    for mask in range(masks):
        lowest = 1
        for layer in range(layers):
            places = (np.arange(hidden) + random.random()) / hidden
            spread = np.maximum(lowest, 1 + np.floor(places * top).astype(np.int64))
            found[mask, layer] = random.permutation(spread)
            lowest = int(spread.min())
    return found


def degrees_of_homes(of_units: Tensor, layers: int, hidden: int) -> Tensor:
    """Degrees of hidden units that each belong to a unit of the image, int64 [1, layers, hidden].

    As many belong to each; `hidden` is rounded up. Those of the last unit, whose degree no output
    exceeds, have the degree before.

    Args:
        of_units: degrees of the units, [N].
        layers: hidden layers.
        hidden: at least so many units of each.
    """
    count = len(of_units)
    homes = of_units.repeat_interleave(-(-hidden // count)).clamp(max=max(1, count - 1))
    return homes.expand(1, layers, -1).clone()


def _arranged(matrix: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """matrix[rows][:, columns], without a copy where they stand in order already."""
    for side, places in enumerate((rows, columns)):
        if not torch.equal(places, torch.arange(len(places), device=places.device)):
            matrix = matrix.index_select(side, places)
    return matrix


def _spread(places: Tensor, size: int) -> Tensor:
    """Positions of the entries of units, `size` for each."""
    return (places[:, None] * size + torch.arange(size, device=places.device)).flatten()
