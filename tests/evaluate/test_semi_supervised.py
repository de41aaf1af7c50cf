"""M2: its bounds are bounds, and labels of a few codes spread to the others."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import relu

from likely.evaluate.semi_supervised import M2, Codes, SemiSupervised, semi_supervised

SMALL = SemiSupervised(latent=1, hidden=6, steps=400, batch=50)


def log_p(model: M2, c: Tensor) -> Tensor:
    """log p(c, y) of every class by quadrature over z, [B, C]."""
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None]
    classes = torch.arange(model.classes)
    hidden = relu(model.decode(z)[:, None] + model.decode_class(classes))  # [G, C, H]
    mean, log_scale = model.likelihood(hidden).chunk(2, -1)
    standard = (c[:, None, None] - mean) * (-log_scale).exp()
    given_z = (-0.5 * standard**2 - log_scale - 0.5 * math.log(2 * math.pi)).sum(-1)
    prior = -0.5 * z[:, 0] ** 2 - 0.5 * math.log(2 * math.pi)
    step = math.log(16 / 4000)
    return (given_z + prior[:, None]).logsumexp(1) + step - math.log(model.classes)


@pytest.fixture(scope="module")
def model() -> M2:
    torch.manual_seed(0)
    return M2(2, 3, SMALL).double()


def bounds(model: M2, c: Tensor, draws: int = 4000) -> tuple[Tensor, Tensor, Tensor]:
    """Means over draws of -L of every class, of -U, and of -U over the two likeliest classes."""
    generator = torch.Generator().manual_seed(1)
    many = c.repeat(draws, 1)
    classes = torch.arange(3)
    with torch.no_grad():
        with_label = model.bound(many, classes, generator).reshape(draws, len(c), 3).mean(0)
        all_classes = model.bound_without_label(many, 3, generator).reshape(draws, -1).mean(0)
        few = model.bound_without_label(many, 2, generator).reshape(draws, -1).mean(0)
    return with_label, all_classes, few


def test_bounds_are_below_the_log_density_by_quadrature(model: M2) -> None:
    c = torch.tensor([[0.3, -0.5], [1.5, 0.2]], dtype=torch.float64)
    with torch.no_grad():
        exact = log_p(model, c)
    with_label, all_classes, few = bounds(model, c)
    assert (with_label < exact + 0.05).all()
    assert (all_classes < exact.logsumexp(1) + 0.05).all()
    assert (few < exact.logsumexp(1) + 0.05).all()
    # Not by far: the posterior is near the prior at the start, and so is p(z | c, y).
    assert (with_label > exact - 1.5).all()


def test_a_wrong_sign_of_the_kl_is_no_bound(model: M2, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted defect that the test above must catch."""
    c = torch.tensor([[0.3, -0.5], [1.5, 0.2]], dtype=torch.float64)
    right, _, _ = bounds(model, c)

    def wrong(codes: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        hidden = relu(model.encode(codes)[:, None] + model.encode_class(y))
        mean, log_scale = model.posterior(hidden).chunk(2, -1)
        kl = (0.5 * (mean**2 + (2 * log_scale).exp() - 1.0) - log_scale).sum(-1)
        return M2.bound(model, codes, y, generator) + 2 * kl + 0.5

    monkeypatch.setattr(model, "bound", wrong)
    planted, _, _ = bounds(model, c)
    with torch.no_grad():
        exact = log_p(model, c)
    assert (planted > right).all()
    assert (planted > exact + 0.05).any()


def test_one_label_a_class_is_enough_where_classes_are_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(600) % 3
    centres = torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])
    mean = centres[truth] + 0.25 * torch.randn(600, 2, generator=generator)
    mean = torch.cat([mean, torch.zeros(600, 1)], 1)  # a coordinate that is not used
    codes = Codes(mean, torch.full((600, 3), 0.1))
    labelled = Codes(codes.mean[:3], codes.scale[:3])
    p = semi_supervised(codes, labelled, truth[:3], 3, mean, SMALL, seed=0)
    assert p.shape == (600, 3)
    assert (torch.from_numpy(p).argmax(1) == truth).double().mean() > 0.95
    again = semi_supervised(codes, labelled, truth[:3], 3, mean, SMALL, seed=0)
    assert (p == again).all()
