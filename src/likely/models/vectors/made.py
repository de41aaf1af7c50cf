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

import dataclasses
import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from likely.data.spec import DataSpec
from likely.density import Subsampled
from likely.devices.precision import full_precision
from likely.heads import log_likelihood
from likely.models.vectors.settings import MADEEnsembleSettings, MADESettings
from likely.models.vectors.units import UnitModel, of_label
from likely.nn.local import REGRESSION, LocalWeights, Spread
from likely.noise import Dropout, Noise, derived_seed
from likely.sampling.incremental import IncrementalMixture
from likely.sampling.program import Builder, Cells

HIDDEN = Spread(shared=1.0, blocks=(), each=0.5)


class MADE(UnitModel, Subsampled):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W) or (D,).
        settings: `MADESettings.preset(spec)` by default.

    >>> model = MADE(DataSpec("digits", (1, 28, 28), 2), MADESettings(hidden=50, masks=4))
    >>> model.degrees.shape  # of every mask, layer and hidden unit
    torch.Size([4, 2, 50])
    """

    degrees: Tensor

    def __init__(self, spec: DataSpec, settings: MADESettings | None = None) -> None:
        settings = settings or MADESettings.preset(spec)
        super().__init__(spec, settings)
        units, hidden = self.units, settings.hidden
        local = settings.prior == "local"
        if settings.order == "random":
            self.rank = random_rank(spec)
        # Kept small: masks are comparisons of degrees, made where they are used.
        if local:
            degrees = degrees_of_homes(self.of_units(self.rank), settings.layers, hidden)
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

    def _shared(self) -> dict[str, LocalWeights]:
        """What pixels share of each weight matrix."""
        units = self.units
        hidden = self.degrees.shape[2] // (units.height * units.width)
        below = units.groups * units.inputs
        layers = {}
        for layer in range(self.settings.layers):
            layers[f"weights_{layer}"] = LocalWeights(
                units.height, units.width, hidden, below, HIDDEN, start=0.3 * below**-0.5
            )
            below = hidden
        above = units.groups * units.outputs
        layers["output"] = LocalWeights(
            units.height, units.width, above, hidden, HIDDEN, start=0.02
        )
        if self.direct is not None:
            inputs = units.groups * units.inputs
            layers["direct"] = LocalWeights(units.height, units.width, above, inputs, REGRESSION)
        return layers

    def _acting(self, name: str, weight: Tensor) -> Tensor:
        """A weight matrix: what is its own, and under a prior what pixels share, too."""
        if name not in self.local:
            return weight
        acting: Tensor = self.local[name](weight)
        return acting

    def negative_log_prior(self) -> Tensor | None:
        weights = {f"weights_{layer}": weight for layer, weight in enumerate(self.weights)}
        weights |= {"output": self.output, "direct": self.direct}
        terms = []
        for name, shared in self.local.items():
            assert isinstance(shared, LocalWeights)
            terms.append(shared.negative_log_prior(weights[name]))
        return torch.stack(terms).sum() if terms else None

    @property
    def has_blind_spot(self) -> bool:
        """Without direct connections, a degree that no hidden unit has hides an input."""
        return not self.settings.direct and self.degrees.shape[2] < self.units.count - 1

    @property
    def alternatives(self) -> int:
        return int(self.settings.masks)

    def choices(self, noise: Noise) -> tuple[int, ...]:
        return noise.pick(self.alternatives)

    @full_precision
    def surrogate(self, x: Tensor, noise: Noise, context: Tensor | None = None) -> Tensor:
        """Under one of the masks."""
        (mask,) = self.choices(noise)
        x = self.integers(x)
        parameters = self.conditionals(x, self.labels(context, len(x)), self.rank, mask)
        return log_likelihood(self.head, parameters, x)

    def conditionals(
        self,
        x: Tensor,
        context: Tensor | None = None,
        rank: Tensor | None = None,
        mask: int | None = None,
    ) -> Tensor:
        """As every model, in any order and under any mask.

        Args:
            x: values in [0, levels), [B, C, H, W].
            context: int64 [B] or None.
            rank: of the pixels, [H, W]; by default the model's own.
            mask: number of the only mask; by default all are averaged.

        Returns:
            [B, head.parameters, H, W].
        """
        known = self.units.split(x, self.output.dtype).flatten(1)  # [B, n I]
        rows, n = x.shape[2], known.shape[1] // self.units.inputs
        # Rows that are cut off are seen by no row above them: any value will do.
        whole = known.new_zeros(len(x), self.units.count * self.units.inputs)
        inputs = whole if rows == 0 else torch.cat([known, whole[:, known.shape[1] :]], 1)
        masks = range(self.alternatives) if mask is None else [mask]
        of_units = self.of_units(self.rank if rank is None else rank)
        total = sum(self.outputs(inputs, number, context, of_units) for number in masks)
        assert isinstance(total, Tensor)
        outputs = (total / len(masks)).reshape(len(x), self.units.count, -1)
        return self.units.join((outputs + self.biases(context))[:, :n])

    def of_units(self, rank: Tensor) -> Tensor:
        """The degree of every unit, 1 for the first of the order, [N]."""
        return self.units.ranks(rank).to(self.bias.device) + 1

    def outputs(
        self, inputs: Tensor, mask: int, context: Tensor | None, of_units: Tensor
    ) -> Tensor:
        """Outputs under one mask, without their bias: [B, N I] to [B, N O]."""
        h = inputs
        for layer, weight in enumerate(self.masked_weights(mask, of_units)):
            h = self.dropout(relu(linear(h, weight) + self.hidden_bias(layer, context)))
        out = linear(h, self.masked_output(mask, of_units))
        direct = self.masked_direct(of_units)
        return out if direct is None else out + linear(inputs, direct)

    def masked_weights(self, mask: int, of_units: Tensor) -> list[Tensor]:
        """The weights of the hidden layers as they act, [above, below] each."""
        below = of_units.repeat_interleave(self.units.inputs)
        weights = []
        for layer, degrees in enumerate(self.degrees[mask]):
            weight = self._acting(f"weights_{layer}", self.weights[layer])
            weights.append(weight * (degrees[:, None] >= below))
            below = degrees
        return weights

    def masked_output(self, mask: int, of_units: Tensor) -> Tensor:
        """The weights from the last hidden layer to the outputs as they act, [N O, H]."""
        above = of_units.repeat_interleave(self.units.outputs)
        return self._acting("output", self.output) * (above[:, None] > self.degrees[mask, -1])

    def masked_direct(self, of_units: Tensor) -> Tensor | None:
        """The weights from inputs to outputs as they act, [N O, N I], or None."""
        if self.direct is None:
            return None
        above = of_units.repeat_interleave(self.units.outputs)
        before = above[:, None] > of_units.repeat_interleave(self.units.inputs)
        return self._acting("direct", self.direct) * before

    def hidden_bias(self, layer: int, context: Tensor | None) -> Tensor:
        """Bias of a hidden layer, [B or 1, H]; the first one depends on the label."""
        bias: Tensor = self.hidden_biases[layer]
        return bias[context] if layer == 0 and context is not None else bias

    def vectors(self, build: Builder, rank: Tensor) -> Cells:
        """Hidden units stand sorted by degree; those of degree m are computed at unit m."""
        count, of_units = self.units.count, self.of_units(rank)
        drawn = of_units.argsort()
        rows, columns = _spread(drawn, self.units.outputs), _spread(drawn, self.units.inputs)
        known, masks = self.known(build), range(self.alternatives)
        # Each part of the outputs begins with the sum of those before it.
        total = of_label(build, self.bias[:, drawn].flatten(1))
        direct = self.masked_direct(of_units)
        if direct is not None:
            direct = _arranged(direct, rows, columns)
            total = self.outputs_of(build, known, direct, total, self.before)
        for mask in masks:
            below, places, seen = known, columns, self.before
            for layer, weight in enumerate(self.masked_weights(mask, of_units)):
                degrees, unit_order = self.degrees[mask, layer].sort(stable=True)
                # Number of units of a degree up to n, n known units.
                ends = torch.searchsorted(
                    degrees, torch.arange(count, device=degrees.device), right=True
                ).tolist()
                new = [0, *ends[:-1]]
                grown = build.grow(
                    below,
                    _arranged(weight, unit_order, places).t(),
                    of_label(build, self.hidden_biases[layer][:, unit_order]),
                    new,
                    ends,
                    seen,
                )
                below, places, seen = build.relu(grown), unit_order, ends
            readout = _arranged(self.masked_output(mask, of_units), rows, places)
            readout = readout / len(masks) if len(masks) > 1 else readout
            total = self.outputs_of(build, below, readout, total, seen)
        assert isinstance(total, Cells)  # there is a mask
        return total


class MADEEnsemble(IncrementalMixture):
    """A mixture of one MADE's densities in several random orders; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W) or (D,).
        settings: `MADEEnsembleSettings.preset(spec)` by default.
    """

    takes_vectors = True

    network: MADE

    def __init__(self, spec: DataSpec, settings: MADEEnsembleSettings | None = None) -> None:
        settings = settings or MADEEnsembleSettings.preset(spec)
        shared = dataclasses.asdict(settings)
        del shared["orders"]
        network = MADE(spec, MADESettings(order="random", **shared))
        super().__init__(
            spec, network.classes, network, random_ranks(spec, settings.orders), settings
        )

    def choices(self, noise: Noise) -> tuple[int, ...]:
        return noise.pick(self.network.alternatives, self.alternatives)

    @full_precision
    def surrogate(self, x: Tensor, noise: Noise, context: Tensor | None = None) -> Tensor:
        """In one of the orders, under one of the masks."""
        mask, number = self.choices(noise)
        x = self.integers(x)
        labels, rank = self.labels(context, len(x)), self.ranks[number]
        return log_likelihood(self.head, self.network.conditionals(x, labels, rank, mask), x)

    def conditionals_in(self, number: int, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.network.conditionals(x, context, self.ranks[number])

    def incremental_in(self, number: int, build: Builder) -> Cells:
        return self.network.incremental(build, self.ranks[number])


def random_rank(spec: DataSpec, number: int = 0) -> Tensor:
    """A random order of the pixels, the same for every model of that image size, int64 [H, W]."""
    random = np.random.Generator(np.random.Philox(derived_seed("pixel order", number)))
    order = torch.from_numpy(random.permutation(spec.grid[1] * spec.grid[2]))
    return order.argsort().reshape(spec.grid[1:])


def random_ranks(spec: DataSpec, orders: int) -> Tensor:
    """Several such orders, int64 [orders, H, W]."""
    return torch.stack([random_rank(spec, number) for number in range(orders)])


def hidden_degrees(
    masks: int, layers: int, hidden: int, count: int
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Degrees of the hidden units in 1 ... count - 1, int64 [masks, layers, hidden].

    Spread evenly from a random beginning, then shuffled; none below the smallest of the layer
    beneath, where it would see nothing.
    """
    random = np.random.Generator(np.random.Philox(derived_seed("degrees", layers, hidden, count)))
    top = max(1, count - 1)
    degrees = np.empty((masks, layers, hidden), np.int64)
    for mask in range(masks):
        lowest = 1
        for layer in range(layers):
            places = (np.arange(hidden) + random.random()) / hidden
            spread = np.maximum(lowest, 1 + np.floor(places * top).astype(np.int64))
            degrees[mask, layer] = random.permutation(spread)
            lowest = int(spread.min())
    return degrees


def degrees_of_homes(of_units: Tensor, layers: int, hidden: int) -> Tensor:
    """Degrees of hidden units that each belong to a unit of the image, int64 [1, layers, hidden].

    As many belong to each; `hidden` is rounded up. Those of the last unit, whose degree no output
    exceeds, have the degree before.

    Args:
        of_units: degrees of the units, [N].
        layers: hidden layers.
        hidden: at least this many units of each.
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
