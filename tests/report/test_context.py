"""Conditioning on a vector or a map: data, likelihood, samplers, proofs, fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from likely import data, fit, runs
from likely.data.spec import Dataset, DataSpec, train_and_test
from likely.density import Autoregressive
from likely.errors import InvalidData, InvalidSetting
from likely.evaluate.likelihood import nats
from likely.noise import Noise
from likely.sampling.ancestral import ancestral
from likely.settings import FitSettings
from likely.verify import verify

SIZES = {
    "pixelcnn": {"channels": 8, "layers": 2, "first_kernel": 3, "head_channels": 8},
    "gated-pixelcnn": {"channels": 12, "layers": 2, "first_kernel": 3, "head_channels": 24},
    "pixelcnn-pp": {"channels": 6, "blocks": 1, "scales": 2, "components": 2, "dropout": 0.0},
}
SHAPES = {"vector": (3,), "map": (2, 5, 4)}


def example_data(kind: str, n: int = 12) -> Dataset:
    chance = np.random.default_rng(0)
    values = chance.integers(0, 2, (n, 5, 4)).astype(np.uint8)
    return data.from_array(values, 2, context=chance.normal(size=(n, *SHAPES[kind])))


def built(name: str, kind: str) -> Autoregressive:
    model = runs.build(name, example_data(kind).spec, {**SIZES[name], "conditional": True})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    assert isinstance(model, Autoregressive)
    return model.eval()


def inputs(kind: str, n: int = 3) -> tuple[Tensor, Tensor]:
    batch = example_data(kind).batch(slice(0, n))
    assert batch.context is not None
    return torch.from_numpy(batch.x.astype(np.int64)), torch.from_numpy(batch.context)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("name", SIZES)
def test_a_context_conditions_the_density_and_its_samples(
    name: str, kind: str, tmp_path: Path
) -> None:
    model = built(name, kind)
    x, context = inputs(kind)
    value = model.log_prob(x, context)
    assert not torch.allclose(value, model.log_prob(x, context.flip(0)), atol=1e-4)
    proofs = verify(model, quick=True)
    assert proofs.passed, str(proofs)
    uniform = Noise("t").uniform(*x.shape)
    naive = ancestral(model, uniform, x, 0, context, "naive")
    assert torch.equal(naive, ancestral(model, uniform, x, 0, context, "incremental"))
    assert torch.equal(model.sample(3, seed=1, context=context[:1].expand(3, *context.shape[1:])),
                       model.sample(3, seed=1, context=context[0]))  # fmt: skip
    observed = torch.zeros(5, 4, dtype=torch.bool)
    observed[:2] = True
    done = model.complete(x, observed, context=context)
    assert torch.equal(done[:, :, :2], x[:, :, :2])
    table = model.conditional(x, 3, 2, context=context)
    assert torch.allclose(table.sum(1), torch.ones(3))
    runs.save(tmp_path, model)
    loaded = runs.load(tmp_path).model
    assert loaded.context_shape == SHAPES[kind]
    assert isinstance(loaded, Autoregressive)
    torch.testing.assert_close(loaded.log_prob(x, context), value)


@pytest.mark.parametrize("name", SIZES)
def test_a_map_may_depend_on_the_place(name: str) -> None:
    """What stands at a pixel enters its conditional, and later ones, and no earlier one."""
    model = built(name, "map").double()
    x, context = inputs("map", 1)
    context = context.double().requires_grad_(True)
    out = model.conditionals(x, context)[0]
    (gradient,) = torch.autograd.grad(out[:, 2, 2].sum(), context, retain_graph=True)
    assert bool((gradient[0, :, 2, 2] != 0).all())
    (gradient,) = torch.autograd.grad(out[:, 0, 0].sum(), context)
    assert bool((gradient[0, :, 0, 0] != 0).all())
    # A cell of a coarser scale that begins later is not read.
    assert not bool((gradient[0, :, 2:] != 0).any())


def test_a_fit_learns_what_the_context_says() -> None:
    chance = np.random.default_rng(0)
    values = (chance.random((400, 5, 4)) < 0.5).astype(np.uint8)
    train, test = train_and_test(data.from_array(values, 2, context=values[:, None]))
    model = runs.build("gated-pixelcnn", train.spec, {**SIZES["gated-pixelcnn"],
                                                      "conditional": True})  # fmt: skip
    quick = FitSettings(steps=120, batch_size=32, learning_rate=1e-2, warmup=10, ema=0.9)
    run = fit(model, train, settings=quick)
    # Without the context nobody does better than 20 log 2 = 13.9 nats.
    assert run.metrics[-1]["validation"] < 7
    estimate = nats(run.model, test)
    assert estimate.value < 7
    assert estimate.relation.value == "="


def test_data_carries_its_context() -> None:
    whole = example_data("map", 30)
    assert whole.spec.context == (2, 5, 4)
    train, test = train_and_test(whole)
    assert train.validation is not None
    parts = [train, train.validation, test]
    assert sum(len(part) for part in parts) == 30
    for part in parts:
        batch = part.batch(np.array([1, 0]))
        assert batch.context is not None
        assert batch.context.shape == (2, 2, 5, 4)
        assert batch.context.dtype == np.float32
    plain = data.from_array(np.asarray(whole.values), 2)
    assert plain.spec.fingerprint != whole.spec.fingerprint
    other = data.from_array(np.asarray(whole.values), 2, context=np.zeros((30, 2, 5, 4)))
    assert other.spec.fingerprint != whole.spec.fingerprint
    assert DataSpec.from_json(whole.spec.to_json()) == whole.spec
    assert plain.batch(slice(0, 1)).context is None


def test_a_fingerprint_without_context_is_what_it_always_was() -> None:
    spec = DataSpec("toy", (1, 2, 2), 2)
    record = dataclasses.asdict(spec)
    assert record.pop("context") == ()
    assert spec.fingerprint == "518b5ca76990"


@pytest.mark.parametrize("bad", [
    np.zeros((12,)), np.zeros((11, 3)), np.full((12, 3), np.nan), np.zeros((12, 2, 5, 4), str),
])  # fmt: skip
def test_contexts_that_do_not_fit_the_data_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(InvalidData, match="context"):
        data.from_array(np.zeros((12, 5, 4), np.uint8), 2, context=bad)


def test_contexts_that_do_not_fit_the_model_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="a vector"):
        data.from_array(np.zeros((12, 5, 4), np.uint8), 2, context=np.zeros((12, 2, 4, 4)))
    model = built("pixelcnn", "vector")
    for context, said in (
        (None, "conditional on numbers of shape"),
        (torch.zeros(4, 3), "expected numbers of shape"),
        (1, "expected numbers of shape"),
        (torch.full((2, 3), float("nan")), "finite"),
    ):
        with pytest.raises(InvalidSetting, match=said):
            model.sample(2, context=context)
    bare = data.from_array(np.zeros((12, 5, 4), np.uint8), 2)
    with pytest.raises(InvalidData, match="conditional on numbers of shape"):
        nats(model, bare)
