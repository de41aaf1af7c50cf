"""Multi-scale models: their orders, their passes, their marginals, their samplers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from likely.data.spec import DataSpec
from likely.density import Autoregressive, Drawing
from likely.errors import InvalidSetting, Unanswerable
from likely.models.multiscale.multiscale_pixelcnn import MultiscalePixelCNN
from likely.models.multiscale.parallel_multiscale import ParallelMultiscale, Scale
from likely.noise import Noise
from likely.sampling.ancestral import ancestral
from likely.verify.subject import all_images
from planted_models import lively
from planted_multiscale import MULTISCALE, PARALLEL

KINDS: list[Any] = [ParallelMultiscale, MultiscalePixelCNN]
# (channels, levels, head, conditional)
CASES = [
    (1, 2, "bernoulli", False),
    (3, 4, "categorical", True),
    (3, 256, "logistic-mixture", False),
]


def built(
    kind: Any, case: tuple[int, int, str, bool] = CASES[0], size: tuple[int, int] = (5, 6),
    **changes: object,
) -> Any:  # fmt: skip
    channels, levels, head, conditional = case
    spec = DataSpec("t", (channels, *size), levels, n=1, classes=("a", "b"))
    settings: Any = PARALLEL if kind is ParallelMultiscale else MULTISCALE
    settings = dataclasses.replace(settings, head=head, conditional=conditional, **changes)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return lively(kind(spec, settings).double().eval(), scale=0.2)


def given(model: Autoregressive, batch: int) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randint(0, model.spec.levels, (batch, *model.spec.shape), generator=generator)
    context = torch.arange(batch) % 2 if model.classes else None
    return x, Noise(7).uniform(batch, *model.spec.shape), context


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("batch", "share"), [(3, 0.0), (2, 0.2), (2, 0.7)])
def test_both_ways_draw_the_same_integers(
    kind: Any, case: tuple[int, int, str, bool], batch: int, share: float
) -> None:
    """Also after a beginning that is given."""
    model = built(kind, case)
    x, uniform, context = given(model, batch)
    known = int(share * int(model.rank.max()))
    for temperature in (1.0, 0.5):
        naive, fast = (
            model.fill(x, uniform, known, context, Drawing(method, temperature))
            for method in ("naive", "auto")
        )
        assert torch.equal(fast, naive)
    kept = model.rank < known
    assert torch.equal(fast[:, :, kept], x[:, :, kept])
    assert fast.double().std() > 0.1


def test_the_order_from_coarse_to_fine() -> None:
    assert built(ParallelMultiscale, size=(4, 4)).rank.tolist() == [
        [0, 4, 1, 4],
        [5, 6, 5, 6],
        [2, 4, 3, 4],
        [5, 6, 5, 6],
    ]
    # Beyond the border there is nothing: no power of two is needed.
    assert built(ParallelMultiscale, size=(3, 1)).rank.tolist() == [[0], [2], [1]]
    assert built(MultiscalePixelCNN, size=(3, 4)).rank.tolist() == [
        [0, 4, 1, 5],
        [6, 7, 8, 9],
        [2, 10, 3, 11],
    ]
    assert built(MultiscalePixelCNN, size=(3, 4), factor=3).rank[0].tolist() == [0, 2, 3, 1]


@pytest.mark.parametrize(("side", "groups", "case"), [
    (8, 1, CASES[0]), (16, 1, CASES[0]), (32, 1, CASES[0]), (28, 1, CASES[2]), (8, 3, CASES[1]),
])  # fmt: skip
def test_sampling_takes_three_passes_for_every_doubling_of_the_side(
    side: int, groups: int, case: tuple[int, int, str, bool]
) -> None:
    model = built(ParallelMultiscale, case, (side, side))
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    for scale in model.scales:
        scale.register_forward_hook(count)
    model.sample(5, seed=0, context=0 if model.classes else None)
    assert passes == 3 * groups * math.ceil(math.log2(side))


@pytest.mark.parametrize("kind", KINDS)
def test_the_coarse_image_is_a_marginal(kind: Any) -> None:
    """p(coarse image) is the sum of p(x) over everything finer, and both sum to one."""
    model = built(kind, size=(2, 4))
    x = all_images((1, 2, 4), 2)
    with torch.no_grad():
        p, parameters = model.log_prob(x).exp(), model.conditionals(x)
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-12)
    coarse = x[:, 0, 0, 0] * 2 + x[:, 0, 0, 2]  # every second row and column
    sums = torch.zeros(4, dtype=torch.float64).index_add(0, coarse, p)
    if kind is MultiscalePixelCNN:
        small = model.small.log_prob(all_images((1, 1, 2), 2)).exp().detach()
        torch.testing.assert_close(sums, small, rtol=0, atol=1e-12)
    else:
        table = model.head.log_table(parameters, x, 0)[:, 1]  # log p(x = 1)
        first = torch.where(x[:, 0, 0, 0] == 1, table[:, 0, 0], torch.log1p(-table[:, 0, 0].exp()))
        then = torch.where(x[:, 0, 0, 2] == 1, table[:, 0, 2], torch.log1p(-table[:, 0, 2].exp()))
        expected = torch.zeros(4, dtype=torch.float64)
        expected[coarse] = (first + then).exp()
        torch.testing.assert_close(sums, expected, rtol=0, atol=1e-12)


def test_the_small_image_is_drawn_by_the_small_model() -> None:
    model = built(MultiscalePixelCNN)
    x, uniform, _ = given(model, 4)
    drawn = model.fill(x, uniform, 0, None)
    small = ancestral(model.small, uniform[:, :, ::2, ::2], x[:, :, ::2, ::2], 0)
    assert torch.equal(drawn[:, :, ::2, ::2], small)


@pytest.mark.parametrize("kind", KINDS)
def test_a_coarse_image_is_completed_and_another_part_refused(kind: Any) -> None:
    model = built(kind)
    x, _, _ = given(model, 2)
    coarse = torch.zeros(5, 6, dtype=torch.bool)
    coarse[::2, ::2] = True
    done = model.complete(x, coarse, seed=1)
    assert torch.equal(done[:, :, coarse], x[:, :, coarse])
    assert torch.equal(model.complete(x, torch.ones(5, 6, dtype=torch.bool)), x)
    top = torch.zeros(5, 6, dtype=torch.bool)
    top[:2] = True
    with pytest.raises(Unanswerable, match="the model's own order"):
        model.complete(x, top, method="exact")


def test_a_step_sees_both_sides_and_not_itself() -> None:
    """The pixel to the right of a given one lies between two given ones; both are seen."""
    model = built(ParallelMultiscale, size=(8, 8))
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    out = model.conditionals(x)[0, :, 4, 3].sum()
    (gradient,) = torch.autograd.grad(out, x)
    seen = gradient[0, 0] != 0
    assert bool(seen[4, 2] & seen[4, 4] & seen[6, 4] & seen[2, 2])
    assert not bool(seen[model.rank >= model.rank[4, 3]].any())


def test_steps_start_at_the_mean_of_their_pixels() -> None:
    from likely import data

    train, _ = data.load("digits")
    model = ParallelMultiscale(train.spec, dataclasses.replace(PARALLEL, head="logistic-mixture"))
    model.start_at(train)
    assert isinstance(model.scales[0], Scale)
    means = model.first.detach()[
        0, 2:4
    ]  # of the two components, around the mean of the first pixel
    expected = 2 * float(train.pixel_mean()[0, 0, 0]) / 16 - 1
    assert float(means.mean()) == pytest.approx(expected, abs=1e-6)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="multiples of the 3 colour channels"):
        built(MultiscalePixelCNN, CASES[1], channels=8)
    with pytest.raises(InvalidSetting, match="factor must be at least 2"):
        dataclasses.replace(MULTISCALE, factor=1)
    with pytest.raises(InvalidSetting, match="dropout must be in"):
        dataclasses.replace(PARALLEL, dropout=1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_methods_that_need_rows_are_refused(kind: Any) -> None:
    model = built(kind)
    with pytest.raises(InvalidSetting, match="has no method=jacobi; take one of auto, naive"):
        model.sample(2, method="jacobi")
    with pytest.raises(InvalidSetting, match="no rows to watch"):
        model.sample(2, watch=lambda row, x: None)
