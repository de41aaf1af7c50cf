"""Each head is one distribution in two forms: they agree, sum to one and stay finite."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from likely.data.spec import DataSpec
from likely.errors import InvalidSetting
from likely.heads import Bernoulli, Categorical, DiscretizedLogisticMixture, Head, head_for

HEADS = [
    Bernoulli(1),
    Bernoulli(3),
    Categorical(1, 5),
    Categorical(3, 4),
    DiscretizedLogisticMixture(1, 7, 3),
    DiscretizedLogisticMixture(3, 4, 2),
    DiscretizedLogisticMixture(2, 256, 2),
    DiscretizedLogisticMixture(1, 2, 1),
]


def name_of(head: Head) -> str:
    return f"{type(head).__name__}-{head.channels}x{head.levels}"


IDS = [name_of(head) for head in HEADS]


def parameters(head: Head, batch: int = 2, scale: float = 1.5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, head.parameters, 2, 3)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


def images(head: Head, batch: int = 2, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(head.levels, (batch, head.channels, 2, 3), generator=generator)


@pytest.mark.parametrize("head", HEADS, ids=IDS)
def test_every_table_sums_to_one(head: Head) -> None:
    for scale in (0.1, 1.5, 6.0):
        p, x = parameters(head, scale=scale), images(head)
        for channel in range(head.channels):
            table = head.log_table(p, x, channel)
            assert table.shape == (2, head.levels, 2, 3)
            assert table.logsumexp(1).abs().max() < 1e-12


@pytest.mark.parametrize("head", HEADS, ids=IDS)
def test_log_prob_is_the_table_entry(head: Head) -> None:
    p, x = parameters(head), images(head)
    log_prob = head.log_prob(p, x)
    assert log_prob.shape == x.shape
    for channel in range(head.channels):
        entry = head.log_table(p, x, channel).gather(1, x[:, channel : channel + 1])[:, 0]
        torch.testing.assert_close(log_prob[:, channel], entry, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("head", HEADS, ids=IDS)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 3e-6)])
def test_the_quantile_of_a_uniform_number_is_distributed_as_the_table_says(
    head: Head, temperature: float, dtype: torch.dtype, near: float
) -> None:
    """The numbers that a level is drawn at are an interval as long as the level is probable."""
    for scale in (0.5, 4.0):
        p = head.tempered(parameters(head, 1, scale)[..., :1, :1].to(dtype), temperature)
        x = images(head, 1)[..., :1, :1]
        for channel in range(head.channels):

            def drawn(u: Tensor, p: Tensor = p, x: Tensor = x, channel: int = channel) -> Tensor:
                n = len(u)
                wide = p.expand(n, -1, -1, -1), x.expand(n, -1, -1, -1)
                return head.quantile(*wide, channel, u[:, None, None])[:, 0, 0]

            levels = torch.arange(head.levels)
            # Where draws pass each level: everything below a bound is drawn at or below it.
            low, high = (torch.full((head.levels,), v, dtype=torch.float64) for v in (0.0, 1.0))
            for _ in range(54):
                middle = (low + high) / 2
                passed = drawn(middle) > levels
                low, high = torch.where(passed, low, middle), torch.where(passed, middle, high)
            bounds = torch.cat([torch.zeros(1, dtype=torch.float64), high])
            mass = head.log_table(p, x, channel)[0, :, 0, 0].double().exp()
            assert float((bounds.diff() - mass).abs().max()) < near
            grid = torch.linspace(0, 1 - 2**-53, 4001, dtype=torch.float64)
            assert bool((drawn(grid).diff() >= 0).all())


@pytest.mark.parametrize("head", HEADS, ids=IDS)
@pytest.mark.parametrize("size", [0.0, 30.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_quantiles_and_means_are_levels_at_extremes(
    head: Head, size: float, dtype: torch.dtype
) -> None:
    p, x = (size * parameters(head).sign()).to(dtype), images(head)
    for channel in range(head.channels):
        for u in (0.0, 0.5, 1 - 2**-53):
            at = torch.full((2, 2, 3), u, dtype=torch.float64)
            level = head.quantile(p, x, channel, at)
            assert 0 <= int(level.min()) <= int(level.max()) < head.levels
        mean = head.mean(p, x, channel)
        assert -1e-9 <= float(mean.min()) <= float(mean.max()) <= head.levels - 1 + 1e-9


@pytest.mark.parametrize("head", HEADS, ids=IDS)
def test_the_mean_is_that_of_the_table(head: Head) -> None:
    levels = torch.arange(head.levels, dtype=torch.float64)
    for scale in (0.1, 1.5, 6.0):
        p, x = parameters(head, scale=scale), images(head)
        for channel in range(head.channels):
            expected = torch.einsum("blhw,l->bhw", head.log_table(p, x, channel).exp(), levels)
            found = head.mean(p, x, channel)
            torch.testing.assert_close(found, expected, rtol=0, atol=2e-9)


@pytest.mark.parametrize("levels", [2, 20, 33, 34, 256, 5000])
@pytest.mark.parametrize("log_scale", [-9.0, -5.0, -4.0, -3.0, -1.0, 3.0, 20.0, 40.0])
def test_the_mean_of_a_logistic_holds_at_every_scale_and_place(
    levels: int, log_scale: float
) -> None:
    head = DiscretizedLogisticMixture(1, levels, 1)
    mean = torch.tensor([-30.0, -1.2, -1.0, -0.97, -0.2, 0.0, 0.31, 0.9, 1.0, 1.1, 9.0])
    p = torch.zeros(1, 3, 1, len(mean), dtype=torch.float64)
    p[0, 1, 0], p[0, 2] = mean, log_scale
    x = torch.zeros(1, 1, 1, len(mean), dtype=torch.int64)
    numbers = torch.arange(levels, dtype=torch.float64)
    expected = torch.einsum("blhw,l->bhw", head.log_table(p, x, 0).exp(), numbers)
    torch.testing.assert_close(head.mean(p, x, 0), expected, rtol=1e-12, atol=2e-9)


@pytest.mark.parametrize("head", HEADS, ids=IDS)
def test_a_table_reads_earlier_channels_only(head: Head) -> None:
    p, x = parameters(head), images(head)
    for channel in range(head.channels):
        later = x.clone()
        later[:, channel:] = (later[:, channel:] + 1) % head.levels
        assert torch.equal(head.log_table(p, x, channel), head.log_table(p, later, channel))


@pytest.mark.parametrize("head", HEADS, ids=IDS)
def test_without_coupling_a_channel_owns_its_rows(head: Head) -> None:
    """Rows [c P / C, (c + 1) P / C) decide channel c: what `couples_channels` promises."""
    p, x = parameters(head), images(head)
    each = head.parameters // head.channels
    moved = []
    for channel in range(head.channels):
        changed = p.clone()
        changed[:, : head.parameters if head.couples_channels else each] += torch.linspace(
            0, 1, head.parameters if head.couples_channels else each, dtype=p.dtype
        )[:, None, None]
        same = torch.equal(head.log_table(p, x, channel), head.log_table(changed, x, channel))
        moved.append(not same)
    expected = [True] * head.channels if head.couples_channels else [True, False, False]
    if isinstance(head, Bernoulli):  # its first row is moved by zero
        expected = [False] * head.channels
    assert moved == expected[: head.channels]


@pytest.mark.parametrize("head", [h for h in HEADS if h.levels**h.channels <= 64], ids=name_of)
def test_a_pixel_has_total_probability_one(head: Head) -> None:
    p = parameters(head, batch=1)[..., :1, :1]
    total = 0.0
    for levels in itertools.product(range(head.levels), repeat=head.channels):
        x = torch.tensor(levels).reshape(1, head.channels, 1, 1)
        total += math.exp(float(head.log_prob(p, x).sum()))
    assert total == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("head", HEADS, ids=IDS)
@pytest.mark.parametrize("size", [0.0, 30.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_extremes(head: Head, size: float, dtype: torch.dtype) -> None:
    """Outputs of any size, values at both ends: a loss that is not finite ends a fit."""
    signs = parameters(head).sign().to(dtype)
    p = (size * signs).requires_grad_(True)
    for x in (torch.zeros_like(images(head)), torch.full_like(images(head), head.levels - 1)):
        value = head.log_prob(p, x)
        assert bool(value.isfinite().all())
        assert float(value.detach().max()) <= 1e-6
        (gradient,) = torch.autograd.grad(value.sum(), p)
        assert bool(gradient.isfinite().all())


def test_the_end_bins_of_a_mixture_are_open() -> None:
    """Means far outside [-1, 1] put all mass on the end level, none beyond it."""
    head = DiscretizedLogisticMixture(1, 16, 1)
    x = torch.zeros(1, 1, 1, 1, dtype=torch.int64)
    for mean, level in ((-50.0, 0), (50.0, 15)):
        p = torch.tensor([0.0, mean, -2.0]).reshape(1, 3, 1, 1).double()
        table = head.log_table(p, x, 0)[0, :, 0, 0].exp()
        assert float(table[level]) == pytest.approx(1.0, abs=1e-12)
        assert float(table.sum()) == pytest.approx(1.0, abs=1e-12)


def test_the_scale_of_a_mixture_has_a_floor() -> None:
    head = DiscretizedLogisticMixture(1, 256, 1)
    x = torch.full((1, 1, 1, 1), 100)

    def at(log_scale: float) -> Tensor:
        p = torch.tensor([0.0, 100 * 2 / 255 - 1, log_scale]).reshape(1, 3, 1, 1).double()
        return head.log_prob(p, x)

    assert torch.equal(at(-7.0), at(-20.0))
    assert not torch.equal(at(-7.0), at(-6.9))
    assert float(at(-7.0)) > -0.05


def test_a_mixture_is_a_difference_of_logistic_distribution_functions() -> None:
    head = DiscretizedLogisticMixture(1, 9, 2)
    p, x = parameters(head, batch=1), images(head, batch=1)
    weights = p[:, :2].softmax(1)
    means, scales = p[:, 2:4], p[:, 4:6].exp()
    value = x * (2 / 8) - 1.0
    inside = torch.sigmoid((value + 1 / 8 - means) / scales) - torch.sigmoid(
        (value - 1 / 8 - means) / scales
    )
    lowest = torch.sigmoid((value + 1 / 8 - means) / scales)
    highest = 1 - torch.sigmoid((value - 1 / 8 - means) / scales)
    mass = torch.where(x == 0, lowest, torch.where(x == 8, highest, inside))
    expected = (weights * mass).sum(1, keepdim=True).log()
    torch.testing.assert_close(head.log_prob(p, x), expected, rtol=1e-10, atol=1e-10)


def test_channels_of_a_mixture_share_their_component_and_shift_the_means() -> None:
    """Means move with the channels before by tanh(coupling) (Salimans et al., eq. 3)."""
    head = DiscretizedLogisticMixture(3, 256, 1)
    p = torch.zeros(1, head.parameters, 1, 1, dtype=torch.float64)
    p[:, 4:7] = -5.0  # narrow
    p[:, 7:] = torch.tensor([10.0, -10.0, 0.0])[:, None, None]  # a = 1, b = -1, c = 0
    x = torch.tensor([200, 0, 0]).reshape(1, 3, 1, 1)
    green = head.log_table(p, x, 1)[0, :, 0, 0]
    blue = head.log_table(p, x, 2)[0, :, 0, 0]
    assert int(green.argmax()) == 200
    assert int(blue.argmax()) == 55


@pytest.mark.parametrize("head", HEADS, ids=IDS)
def test_the_starting_bias_gives_about_the_wanted_mean(head: Head) -> None:
    top = head.levels - 1
    levels = torch.arange(head.levels, dtype=torch.float64)
    slack = {Bernoulli: 0.01, Categorical: 0.35, DiscretizedLogisticMixture: 0.25}[type(head)]
    found = []
    for share in (0.2, 0.5, 0.8):
        mean = torch.full((head.channels, 2, 3), share * top, dtype=torch.float64)
        p = head.bias_for(mean)
        assert p.shape == (head.parameters, 2, 3)
        x = mean.round().long()[None]
        # With shared components, a later channel's table depends on the values before it.
        for channel in range(1 if head.couples_channels else head.channels):
            table = head.log_table(p[None], x, channel).exp()
            got = torch.einsum("blhw,l->bhw", table, levels)
            assert float((got - share * top).abs().max()) <= slack * top
        found.append(float(got.mean()))
    assert found == sorted(found)
    assert found[0] < found[2]


def test_a_bernoulli_bias_is_finite_where_the_data_is_constant() -> None:
    p = Bernoulli(1).bias_for(torch.tensor([0.0, 1.0]).reshape(1, 1, 2))
    assert bool(p.isfinite().all())


def test_the_automatic_head_goes_by_the_levels() -> None:
    kinds = {2: Bernoulli, 17: Categorical, 32: Categorical, 33: DiscretizedLogisticMixture}
    for levels, kind in kinds.items():
        assert type(head_for("auto", DataSpec("t", (1, 2, 2), levels))) is kind
    colour = head_for("logistic-mixture", DataSpec("t", (3, 2, 2), 256), components=4)
    assert (colour.parameters, colour.couples_channels) == (4 * (1 + 6 + 3), True)


def test_a_head_that_does_not_fit_is_refused() -> None:
    spec = DataSpec("t", (1, 2, 2), 4)
    with pytest.raises(InvalidSetting, match="2 levels, t has 4"):
        head_for("bernoulli", spec)
    with pytest.raises(InvalidSetting, match='did you mean "categorical"'):
        head_for("categoricle", spec)
    with pytest.raises(InvalidSetting, match="at least one component"):
        head_for("logistic-mixture", spec, components=0)
