"""Noise is a function of its key; a part sees its rows of the whole; dropout is unbiased."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from likely import models
from likely.data.spec import DataSpec
from likely.errors import InvalidSetting
from likely.noise import Dropout, Noise, derived_seed, noise_for, weights_from


def all_of(noise: Noise, rows: int) -> list[Tensor]:
    return [
        noise.uniform(rows, 3, 2),
        noise.normal(rows, 5),
        noise.bytes(rows, 7),
        noise.bytes(rows),
        noise.uniform(rows),
    ]


@pytest.mark.parametrize(("first", "count"), [(0, 3), (2, 4), (5, 1), (0, 6)])
def test_rows_of_a_part_are_rows_of_the_whole(first: int, count: int) -> None:
    whole = all_of(Noise(7, "x"), 6)
    part = all_of(Noise(7, "x", rows=(first, 6)), count)
    for a, b in zip(whole, part, strict=True):
        assert torch.equal(a[first : first + count], b)


def test_the_key_decides() -> None:
    a, b = all_of(Noise(7, "x"), 4), all_of(Noise(7, "x"), 4)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    for other in (Noise(8, "x"), Noise(7, "y"), Noise(7), Noise("7", "x")):
        assert not torch.equal(a[0], all_of(other, 4)[0])
    assert len({derived_seed(i, "a", j) for i in range(20) for j in range(20)}) == 400
    assert all(0 <= derived_seed(i) < 2**63 for i in range(100))


def test_a_seed_is_a_number_whatever_its_type() -> None:
    for kind in (np.int64, np.uint8, np.int32):
        assert derived_seed(kind(3), "x", kind(4)) == derived_seed(3, "x", 4)
    for seed in (3.0, None, np.float64(3), (3,)):
        with pytest.raises(InvalidSetting, match="seed: expected a whole number"):
            derived_seed(seed)  # type: ignore[arg-type]
    for seed in (3.0, None, "3", True):
        with (
            pytest.raises(InvalidSetting, match="seed: expected a whole number"),
            weights_from(seed),
        ):  # type: ignore[arg-type]
            raise AssertionError


def test_a_model_and_its_draws_take_seeds_of_numpy() -> None:
    spec = DataSpec("tiny", (1, 4, 4), 2)
    plain, numpy = (models.NADE(spec, seed=seed) for seed in (5, np.int64(5)))
    for a, b in zip(plain.parameters(), numpy.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(plain.sample(3, seed=7), plain.sample(3, seed=np.uint8(7)))


def test_the_global_generator_is_not_touched() -> None:
    before = torch.random.get_rng_state()
    all_of(Noise(0), 4)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_distributions_are_those_named() -> None:
    noise = Noise("moments")
    uniform, normal = noise.uniform(100_000), noise.normal(100_000)
    drawn = noise.bytes(1000, 1001)
    assert uniform.dtype == torch.float64
    assert 0 <= float(uniform.min()) < float(uniform.max()) < 1
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.005)
    assert float(normal.mean()) == pytest.approx(0, abs=0.02)
    assert float(normal.var()) == pytest.approx(1, abs=0.02)
    assert drawn.dtype == torch.uint8
    counts = torch.bincount(drawn.flatten().long(), minlength=256).double()
    expected = drawn.numel() / 256
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 345  # 255 degrees of freedom: 1e-4
    # Every column is random, the last one of a row too.
    assert drawn.float().std(0).min() > 60


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_has_its_rate_and_keeps_the_mean(rate: float) -> None:
    layer = Dropout(rate)
    x = torch.ones(200, 1000)
    with noise_for(layer, Noise("dropout")):
        y = layer(x)
    kept = 1 - round(rate * 256) / 256
    share = float((y != 0).float().mean())
    assert share == pytest.approx(kept, abs=0.005)
    # The kept values are all the same, and right in expectation.
    values = y[y != 0].unique()
    assert len(values) == 1
    assert float(values[0]) * kept == pytest.approx(1.0, rel=1e-6)


def test_dropout_is_off_in_evaluation_and_at_rate_zero() -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0).train()(x) is x


@pytest.mark.parametrize("side", [0, 1, 2])
def test_dropout_of_half_a_batch_is_half_of_the_dropout(side: int) -> None:
    layer = Dropout(0.3, batch_side=side)
    x = torch.ones(6, 4, 2).movedim(0, side)
    with noise_for(layer, Noise(1)):
        whole = layer(x)
    with noise_for(layer, Noise(1, rows=(2, 6))):
        part = layer(x.narrow(side, 2, 3))
    assert whole.shape == x.shape
    assert torch.equal(whole.narrow(side, 2, 3), part)
    assert 0 < int((whole == 0).sum()) < 48


def test_noise_reaches_nested_layers_and_leaves_them_after_an_error() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Sequential(Dropout(0.5)))
    inner = network[1][0]
    noise = Noise(0)
    with pytest.raises(RuntimeError, match="stop"), noise_for(network, noise):  # noqa: PT012
        assert inner.noise is noise
        raise RuntimeError("stop")
    assert inner.noise is None
    torch.manual_seed(0)
    assert 0 < int((inner(torch.ones(1000)) == 0).sum()) < 1000


@pytest.mark.parametrize("rows", [None, (0, 256), (3, 256)])
@pytest.mark.parametrize("shape", [(1,), (1, 28, 28), (7, 3, 5, 2), (40, 9)])
def test_the_last_numbers_of_a_stream_are_those_of_the_whole_batch(
    rows: tuple[int, int] | None, shape: tuple[int, ...]
) -> None:
    expected = Noise("last", rows=rows).uniform(*shape)
    assert torch.equal(Noise("last", rows=rows).last_uniform(*shape), expected)
