"""DeepNADE and EoNADE: any known dimensions, one order, several; defects are caught."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from likely.data.spec import DataSpec
from likely.density import Autoregressive, arranged
from likely.models.vectors import deep_nade
from likely.models.vectors.deep_nade import DeepNADE, EoNADE
from likely.models.vectors.settings import DeepNADESettings, EoNADESettings
from likely.noise import Noise
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
    found = arranged(model, model.conditionals(x))
    channels, height, width = spec.shape
    groups = 1 if model.head.couples_channels else channels
    each = model.head.parameters // groups
    rank = torch.arange(height * width)
    if model.order is not None:
        rank = model.order.argsort()
    for place in range(height * width):
        for group in range(groups):
            unit = rank * groups + torch.arange(groups)[:, None]
            known = (unit < place * groups + group).reshape(1, groups, height, width)
            expected = arranged(model, model.given(x, known.expand(len(x), -1, -1, -1)))
            part = slice(group * each, (group + 1) * each)
            torch.testing.assert_close(
                found.flatten(2)[:, part, place], expected.flatten(2)[:, part, place]
            )


def test_what_is_not_known_is_not_read() -> None:
    model, x = built(COLOUR), images(COLOUR)
    known = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    other = torch.where(known, x, (x + 1) % 4)
    assert torch.equal(model.given(x, known), model.given(other, known))
    assert not torch.equal(model.given(x, known), model.given(x, torch.ones_like(known)))


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
                each = model.head.log_prob(model.given(x, known.reshape(x.shape)), x)
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
    assert len({tuple(m.order.tolist()) for m in members if m.order is not None}) == 3
    each = torch.stack([member.log_prob(x).exp() for member in members])
    torch.testing.assert_close(model.log_prob(x).exp(), each.mean(0))
    assert float((each[0] - each[1]).detach().abs().max()) > 1e-6
    assert all(m.weight is model.network.weight for m in members if isinstance(m, DeepNADE))


class AverageOfLogarithms(EoNADE):
    """The mean of the log-densities, which is no density."""

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.stack([m.log_prob(x, context) for m in self.members()]).mean(0)


class SeesItself(DeepNADE):
    """What is predicted is among what is known."""

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if x.shape[2] < self.units.height:
            return super().conditionals(x, context)
        own = super().given(x, torch.ones_like(x, dtype=torch.bool), context)
        return super().conditionals(x, context) + 0.01 * own


class SeesItselfInOrder(EoNADE):
    """A member with that defect."""

    def members(self) -> Sequence[Autoregressive]:
        found = list(super().members())
        found[0].__class__ = SeesItself
        return found


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
