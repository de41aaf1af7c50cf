"""DeepNADE and EoNADE: any known dimensions, one order, several; defects are caught."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from likely.data.spec import DataSpec
from likely.models.vectors import deep_nade
from likely.models.vectors.deep_nade import DeepNADE, EoNADE
from likely.models.vectors.settings import DeepNADESettings, EoNADESettings
from likely.noise import Noise
from likely.sampling.ancestral import rearranged
from likely.training.objectives import OrderAgnosticLikelihood, Step
from likely.verify import verify
from planted_models import COLOUR, GREY, lively

SPECS = [GREY, COLOUR, DataSpec("t", (3, 3, 3), 256)]


def built(spec: DataSpec, **changes: object) -> DeepNADE:
    settings = DeepNADESettings(hidden=8, components=2, **changes)  # type: ignore[arg-type]
    model = lively(DeepNADE(spec, settings).double().eval())
    assert isinstance(model, DeepNADE)
    return model


def images(spec: DataSpec, n: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(spec.levels, (n, *spec.shape), generator=generator)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("order", ["raster", "random"])
def test_conditionals_are_those_given_what_comes_before(
    spec: DataSpec, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass with a mask for each unit, against the blocks."""
    monkeypatch.setattr(deep_nade, "BLOCK", 4)
    model, x = built(spec, order=order), images(spec)
    rank = model.rank
    order = rank.flatten().argsort()
    conditionals = rearranged(model.conditionals(x), order)
    channels, height, width = spec.shape
    groups = 1 if model.head.couples_channels else channels
    each = model.head.parameters // groups
    for place in range(height * width):
        for group in range(groups):
            unit = rank.flatten() * groups + torch.arange(groups)[:, None]
            known = (unit < place * groups + group).reshape(1, groups, height, width)
            expected = model.predictions(x, known.expand(len(x), -1, -1, -1))
            expected = rearranged(expected, order)
            part = slice(group * each, (group + 1) * each)
            torch.testing.assert_close(
                conditionals.flatten(2)[:, part, place], expected.flatten(2)[:, part, place]
            )


def test_what_is_not_known_is_not_read() -> None:
    model, x = built(COLOUR), images(COLOUR)
    known = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    other = torch.where(known, x, (x + 1) % 4)
    assert torch.equal(model.predictions(x, known), model.predictions(other, known))
    assert not torch.equal(
        model.predictions(x, known), model.predictions(x, torch.ones_like(known))
    )


@pytest.mark.parametrize("spec", [DataSpec("t", (1, 1, 4), 2), DataSpec("t", (2, 1, 2), 2)])
def test_the_loss_estimates_the_mean_over_orders(spec: DataSpec) -> None:
    """All orders of four dimensions, each with its exact likelihood."""
    model, x = built(spec), images(spec, 1)
    orders, exact = list(itertools.permutations(range(4))), 0.0
    with torch.no_grad():
        for order in orders:
            for place, dimension in enumerate(order):
                known = torch.zeros(4, dtype=torch.bool)
                known[list(order[:place])] = True
                each = model.head.log_prob(model.predictions(x, known.reshape(x.shape)), x)
                exact -= float(each.flatten()[dimension]) / len(orders)
        batch = x.expand(20_000, -1, -1, -1)
        step = Step(model, {"model": model}, "model", batch, None, Noise(1), 0)
        loss = OrderAgnosticLikelihood().loss(step).value
    assert abs(float(loss.mean()) - exact) < 4 * float(loss.std()) / math.sqrt(len(loss))
    assert float(loss.std()) > 0


def test_the_mixture_is_the_mean_of_the_densities_in_its_orders() -> None:
    spec = DataSpec("t", (1, 2, 3), 2)
    model = lively(EoNADE(spec, EoNADESettings(orders=3, hidden=8)).double().eval())
    assert isinstance(model, EoNADE)
    members, x = model.members(), images(spec, 5)
    assert len({tuple(m.rank.flatten().tolist()) for m in members}) == 3
    each = torch.stack([member.log_prob(x).exp() for member in members])
    torch.testing.assert_close(model.log_prob(x).exp(), each.mean(0))
    assert float((each[0] - each[1]).detach().abs().max()) > 1e-6
    shared = {id(parameter) for parameter in model.parameters()}
    assert all({id(parameter) for parameter in m.parameters()} == shared for m in members)


class AverageOfLogarithms(EoNADE):
    """The mean of the log-densities, which is no density."""

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.stack([m.log_prob(x, context) for m in self.members()]).mean(0)


class SeesItself(DeepNADE):
    """What is predicted is among what is known."""

    def conditionals(
        self, x: Tensor, context: Tensor | None = None, rank: Tensor | None = None
    ) -> Tensor:
        if x.shape[2] < self.units.height:
            return super().conditionals(x, context, rank)
        seen = super().predictions(x, torch.ones_like(x, dtype=torch.bool), context)
        return super().conditionals(x, context, rank) + 0.01 * seen


class SeesItselfInOrder(EoNADE):
    """A member with that defect."""

    def __init__(self, spec: DataSpec, settings: EoNADESettings) -> None:
        super().__init__(spec, settings)
        self.network.__class__ = SeesItself


def test_planted_defects_are_caught() -> None:
    settings = EoNADESettings(orders=3, hidden=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        right, flat = EoNADE(GREY, settings), AverageOfLogarithms(GREY, settings)
        member, alone = SeesItselfInOrder(GREY, settings), SeesItself(GREY, None)
    assert verify(lively(right), quick=True).passed  # type: ignore[arg-type]
    failed = {proof.name for proof in verify(lively(flat), quick=True).failed}  # type: ignore[arg-type]
    assert any(name.startswith("total probability") for name in failed)
    failed = {proof.name for proof in verify(lively(member), quick=True).failed}  # type: ignore[arg-type]
    assert "no self leak (member 0)" in failed
    failed = {proof.name for proof in verify(lively(alone), quick=True).failed}  # type: ignore[arg-type]
    assert {"no self leak", "no future leak"} <= failed
