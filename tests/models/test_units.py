"""Vector models: images as units and back, and the sampler against the parallel form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from likely import runs
from likely.data.spec import DataSpec
from likely.heads import head_for
from likely.models.vectors.units import Units
from likely.noise import Noise
from likely.sampling.ancestral import Stepper, ancestral, rearranged
from likely.sampling.compiled import CompiledExecutor
from likely.sampling.incremental import Incremental
from likely.sampling.torch_executor import TorchExecutor
from planted_models import lively

SETTINGS: dict[str, dict[str, Any]] = {
    "fvsbn": {"prior": "none"},
    "fvsbn, prior": {"prior": "local"},
    "nade": {"hidden": 7},
    "deep-nade": {"hidden": 7, "layers": 3},
    "deep-nade, random order": {"hidden": 7, "order": "random"},
    "made": {"hidden": 30, "masks": 2, "layers": 2, "prior": "none"},
    "made, random order": {"hidden": 30, "masks": 2, "direct": False, "order": "random",
                           "prior": "none"},
    "made, prior": {"hidden": 72, "layers": 2, "prior": "local", "masks": 1},
    "made, prior, random order": {"hidden": 36, "order": "random", "prior": "local",
                                  "masks": 1},
}  # fmt: skip
# (channels, levels, head, conditional)
CASES = [
    (1, 2, "bernoulli", False),
    (1, 5, "categorical", True),
    (3, 4, "categorical", True),
    (3, 256, "logistic-mixture", False),
    (3, 256, "logistic-mixture", True),
]


def built(name: str, channels: int, levels: int, head: str, conditional: bool) -> Incremental:
    spec = DataSpec("t", (channels, 3, 4), levels, classes=("a", "b"))
    changes = {**SETTINGS[name], "head": head, "components": 2, "conditional": conditional}
    model = lively(runs.build(name.split(",")[0], spec, changes).double().eval())
    assert isinstance(model, Incremental)
    return model


def test_units_are_channels_of_pixels_in_raster_order() -> None:
    spec = DataSpec("t", (3, 2, 2), 256)
    x = torch.arange(12).reshape(1, 3, 2, 2)
    masked = Units(spec, head_for("categorical", spec))
    assert (masked.count, masked.inputs, masked.outputs) == (12, 1, 256)
    values = (masked.split(x, torch.float64) * 255).round().flatten().tolist()
    assert values == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    coupled = Units(spec, head_for("logistic-mixture", spec, 2))
    assert (coupled.count, coupled.inputs, coupled.outputs) == (4, 3, 20)
    assert coupled.split(x, torch.float64).shape == (1, 4, 3)


def test_outputs_reach_the_head_in_its_order() -> None:
    spec = DataSpec("t", (3, 2, 2), 4)
    units = Units(spec, head_for("categorical", spec))
    parameters = torch.randn(12, 2, 2)
    joined = units.join(units.biases(parameters)[None])
    assert torch.equal(joined[0], parameters)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("start", "batch"), [(0, 5), (6, 5), (0, 1), (0, 17)])
def test_the_sampler_draws_the_integers_of_the_naive_loop(
    name: str, case: tuple[int, int, str, bool], start: int, batch: int
) -> None:
    model = built(name, *case)
    uniform = Noise(7).uniform(batch, *model.spec.shape)
    generator = torch.Generator().manual_seed(5)
    x = torch.randint(model.spec.levels, (batch, *model.spec.shape), generator=generator)
    context = torch.arange(batch) % 2 if model.classes else None
    naive = ancestral(model, uniform, x, start, context, "naive")
    assert torch.equal(ancestral(model, uniform, x, start, context, "incremental"), naive)
    assert naive.double().std() > 0.1


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("case", CASES)
def test_the_parameters_agree_at_every_pixel(name: str, case: tuple[int, int, str, bool]) -> None:
    """In both executors."""
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        model = built(name, *case).to(dtype)
        channels = model.spec.shape[0]
        generator = torch.Generator().manual_seed(2)
        x = torch.randint(model.spec.levels, (3, *model.spec.shape), generator=generator)
        context = torch.tensor([1, 0, 1]) if model.classes else None
        whole = rearranged(model.conditionals(x, context).detach(), model.rank.flatten().argsort())
        x = rearranged(x, model.rank.flatten().argsort())
        groups = 1 if model.head.couples_channels else channels
        program = model.program()
        for executor in (TorchExecutor, CompiledExecutor):
            stepper = Stepper(program, executor(program, 3, context))
            error = _largest_error(stepper, x, whole, groups)
            assert error <= tolerance * float(whole.abs().max())


@torch.no_grad()
def _largest_error(stepper: Stepper, x: Tensor, whole: Tensor, groups: int) -> float:
    """Between what a stepper finds along given images and the parameters of one pass."""
    _, channels, height, width = x.shape
    each, worst = whole.shape[1] // groups, 0.0
    for row in range(height):
        stepper.begin_row(x[:, :, row - 1] if row else None)
        for column in range(width):
            for channel in range(channels):
                part = _rows(channel if groups > 1 else 0, each)
                found = stepper.pixel(x[:, :, row], column, channel)[:, part]
                worst = max(worst, float((found - whole[:, part, row, column]).abs().max()))
    return worst


def _rows(group: int, each: int) -> slice:
    return slice(group * each, (group + 1) * each)


def test_a_row_that_is_not_drawn_is_taken_in_whole() -> None:
    """Completion passes over known rows without asking for their pixels."""
    for case, outputs in ((CASES[2], 4), (CASES[4], 20)):
        model = built("fvsbn", *case)
        generator = torch.Generator().manual_seed(2)
        x = torch.randint(model.spec.levels, (2, 3, 3, 4), generator=generator)
        context = torch.arange(2)
        stepper = model.stepper(2, context)
        stepper.begin_row(None)
        stepper.begin_row(x[:, :, 0])
        found = stepper.pixel(x[:, :, 1], 0, 0)[:, :outputs]
        torch.testing.assert_close(found, model.conditionals(x, context)[:, :outputs, 1, 0])


@pytest.mark.parametrize("name", SETTINGS)
def test_a_stream_scores_labelled_colours_that_the_head_couples(name: str) -> None:
    model = built(name, *CASES[4])
    generator = torch.Generator().manual_seed(2)
    x = torch.randint(256, (3, *model.spec.shape), generator=generator)
    context = torch.tensor([1, 0, 1])
    stream = model.stream(3, context)
    while stream.place is not None:
        row, column, channel = stream.place
        stream.push(x[:, channel, row, column])
    torch.testing.assert_close(stream.log_prob, model.log_prob(x, context))
