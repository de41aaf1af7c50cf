"""Vector models: images as units and back, and the sampler against the parallel form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from likely import runs
from likely.data.spec import DataSpec
from likely.density import Autoregressive
from likely.heads import head_for
from likely.models.units import Units
from likely.noise import Noise
from likely.sampling import ancestral
from planted_models import lively

SETTINGS: dict[str, dict[str, Any]] = {"fvsbn": {}, "nade": {"hidden": 7}}
# (channels, levels, head, conditional)
CASES = [
    (1, 2, "bernoulli", False),
    (1, 5, "categorical", True),
    (3, 4, "categorical", True),
    (3, 256, "logistic-mixture", False),
]


def built(name: str, channels: int, levels: int, head: str, conditional: bool) -> Autoregressive:
    spec = DataSpec("t", (channels, 3, 4), levels, classes=("a", "b"))
    changes = {**SETTINGS[name], "head": head, "components": 2, "conditional": conditional}
    model = lively(runs.build(name, spec, changes).double().eval())
    assert isinstance(model, Autoregressive)
    return model


def test_units_are_channels_of_pixels_in_raster_order() -> None:
    spec = DataSpec("t", (3, 2, 2), 256)
    x = torch.arange(12).reshape(1, 3, 2, 2)
    masked = Units(spec, head_for("categorical", spec))
    assert (masked.count, masked.inputs, masked.outputs, masked.row) == (12, 1, 256, 6)
    values = (masked.split(x, torch.float64) * 255).round().flatten().tolist()
    assert values == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    coupled = Units(spec, head_for("logistic-mixture", spec, 2))
    assert (coupled.count, coupled.inputs, coupled.outputs, coupled.row) == (4, 3, 20, 2)
    assert coupled.split(x, torch.float64).shape == (1, 4, 3)


def test_outputs_reach_the_head_in_its_order() -> None:
    spec = DataSpec("t", (3, 2, 2), 4)
    units = Units(spec, head_for("categorical", spec))
    parameters = torch.randn(12, 2, 2)
    joined = units.join(units.biases(parameters)[None])
    assert torch.equal(joined[0], parameters)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("start", [0, 6])
def test_the_sampler_draws_the_integers_of_the_naive_loop(
    name: str, case: tuple[int, int, str, bool], start: int
) -> None:
    model = built(name, *case)
    uniform = Noise(7).uniform(5, *model.spec.shape)
    generator = torch.Generator().manual_seed(5)
    x = torch.randint(model.spec.levels, (5, *model.spec.shape), generator=generator)
    context = torch.arange(5) % 2 if model.classes else None
    naive = ancestral(model, uniform, x, start, context, "naive")
    assert torch.equal(ancestral(model, uniform, x, start, context, "incremental"), naive)
    assert naive.double().std() > 0.1


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("case", CASES)
def test_the_parameters_agree_at_every_pixel(name: str, case: tuple[int, int, str, bool]) -> None:
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        model = built(name, *case).to(dtype)
        channels, height, width = model.spec.shape
        generator = torch.Generator().manual_seed(2)
        x = torch.randint(model.spec.levels, (3, channels, height, width), generator=generator)
        context = torch.arange(3) % 2 if model.classes else None
        whole = model.conditionals(x, context).detach()
        stepper = model.stepper(3, context)
        assert stepper is not None
        groups = 1 if model.head.couples_channels else channels
        each = model.head.parameters // groups
        for row in range(height):
            stepper.begin_row(x[:, :, row - 1] if row else None)
            for column in range(width):
                for channel in range(channels):
                    part = _rows(channel if groups > 1 else 0, each)
                    found = stepper.pixel(x[:, :, row], column, channel)[:, part]
                    difference = (found.detach() - whole[:, part, row, column]).abs()
                    assert float(difference.max()) <= tolerance * float(whole.abs().max())


def _rows(group: int, each: int) -> slice:
    return slice(group * each, (group + 1) * each)


def test_a_row_that_is_not_drawn_is_taken_in_whole() -> None:
    """Completion passes over known rows without asking for their pixels."""
    model = built("fvsbn", *CASES[2])
    x: Tensor = torch.randint(4, (2, 3, 3, 4), generator=torch.Generator().manual_seed(2))
    context = torch.arange(2)
    stepper = model.stepper(2, context)
    assert stepper is not None
    stepper.begin_row(None)
    stepper.begin_row(x[:, :, 0])
    found = stepper.pixel(x[:, :, 1], 0, 0)[:, :4]
    torch.testing.assert_close(found, model.conditionals(x, context)[:, :4, 1, 0])
