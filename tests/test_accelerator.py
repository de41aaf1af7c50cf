"""On an accelerator every model computes what it computes on the processor."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch

from likely import runs
from likely.data import load
from likely.data.spec import DataSpec
from likely.density import (
    GenerativeModel,
    HasLoss,
    ImplicitDensity,
    LatentVariable,
    TractableDensity,
)
from likely.devices import place
from likely.errors import Diverged
from likely.models import MODELS
from likely.noise import Noise
from likely.sampling.ancestral import ancestral
from likely.sampling.drawing import Draw
from likely.sampling.incremental import Incremental
from likely.sampling.torch_executor import TorchExecutor
from likely.settings import FitSettings
from likely.training.loop import fit
from likely.training.objectives import NegativeELBO
from likely.training.run import Run
from sizes import COLOUR

pytestmark = pytest.mark.gpu
GREY = [name for name in MODELS if name not in COLOUR]  # that take the digits


@pytest.mark.parametrize("name", GREY)
def test_the_same_numbers(name: str, device: torch.device) -> None:
    train, test = load("digits")
    here = runs.build(name, train.spec).double().eval()
    there = copy.deepcopy(here)
    place(there, device)
    x = torch.from_numpy(test.batch(slice(0, 16)).x).long()
    if isinstance(here, TractableDensity):
        pair = [m.log_prob(x) for m in (here, there)]
    elif isinstance(here, LatentVariable):
        pair = [m.elbo(x, Noise(0, device=m.device)) for m in (here, there)]
    elif isinstance(here, HasLoss):
        pair = [m.loss(x) for m in (here, there)]
    else:
        assert isinstance(here, ImplicitDensity)
        pair = [m.generate(m.latents(Noise(0, device=m.device), 16)) for m in (here, there)]
    assert torch.allclose(pair[0], pair[1].cpu(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["naive", "incremental", "jacobi"])
def test_the_same_integers(method: str, device: torch.device) -> None:
    train, _ = load("digits")
    model = runs.build("gated-pixelcnn", train.spec).double().eval()
    uniform = Noise(3).uniform(4, *train.spec.shape)
    blank = torch.zeros(4, *train.spec.shape, dtype=torch.int64)
    here = ancestral(model, uniform, blank, 0, None, "naive")
    model.to(device)
    there = ancestral(model, uniform.to(device), blank.to(device), 0, None, method)  # type: ignore[arg-type]
    assert torch.equal(here, there.cpu())


@pytest.mark.parametrize("name", ["gated-pixelcnn", "pixelcnn-pp"])
def test_rows_as_cuda_graphs_have_the_same_integers(name: str, device: torch.device) -> None:
    """Colour, so strides and a mixture are captured too; the eager rows beside them."""
    spec = DataSpec("t", (3, 8, 8), 256)
    model = runs.build(name, spec).double().to(device).eval()
    assert isinstance(model, Incremental)
    program = model.program()
    draw = Draw(model.head, Noise(3, device=device).uniform(4, *spec.shape))
    images = []
    for captured in (True, False):
        executor = TorchExecutor(program, 4)
        if not captured:
            executor.captured = None
        x = torch.zeros(4, *spec.shape, dtype=torch.int64, device=device)
        for row in range(8):
            executor.begin_row(row)
            executor.draw_row(row, 0, x, draw)
            executor.end_row(row)
        images.append(x.cpu())
        if captured and device.type == "cuda":
            assert executor.captured is not None
            assert executor.captured.graphs
    assert torch.equal(*images)


# Dropout, latents and an annealed loss, masks that are drawn, two optimisers, recurrences.
CAPTURED = {
    "gated-pixelcnn": {"optimizer": "muon", "clip": 1.0},
    "pixelcnn-pp": {"optimizer": "adamw"},
    "vae": {"optimizer": "adam"},
    "made": {"optimizer": "adam"},
    "diagonal-bilstm": {"optimizer": "muon"},
    "row-lstm": {"optimizer": "rmsprop"},
    "attention": {"optimizer": "muon"},
    "gated-pixelcnn-orders": {"optimizer": "adam"},
    "made-ensemble": {"optimizer": "adam"},
    "nade": {"optimizer": "adam"},
    "parallel-multiscale": {"optimizer": "adam"},
}


@pytest.mark.parametrize("name", CAPTURED)
def test_updates_as_cuda_graphs_are_the_eager_ones(name: str, device: torch.device) -> None:
    """Same batches, noise and steps: the same losses and weights to rounding."""
    if device.type != "cuda":
        pytest.skip("CUDA graphs need CUDA")
    train, _ = load("digits")
    ends = []
    for graphs in (True, False):
        changes = {"dropout": 0.25} if name in ("gated-pixelcnn", "made") else {}
        model = runs.build(name, train.spec, changes).double()
        settings = FitSettings(
            steps=80, batch_size=32, device=str(device), log_every=1, learning_rate=1e-3,
            precision="float32", validate_every=40, validation_examples=32, graphs=graphs,
            **CAPTURED[name],  # type: ignore[arg-type]
        )  # fmt: skip
        objective = NegativeELBO(warmup=60) if name == "vae" else None
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # where nothing could be recorded
            run = fit(model, train, objective, settings)
        ends.append((run.metrics, torch.cat([p.flatten() for p in model.parameters()])))
    for one, other in zip(ends[0][0], ends[1][0], strict=True):
        assert one == pytest.approx(other, rel=1e-6)
    assert torch.allclose(ends[0][1], ends[1][1], rtol=1e-6, atol=1e-8)


def test_a_gradient_that_is_not_finite_moves_no_weight(device: torch.device) -> None:
    """Also when it comes after updates were recorded."""
    if device.type != "cuda":
        pytest.skip("CUDA graphs need CUDA")
    train, _ = load("digits")
    model = runs.build("made", train.spec)
    settings = FitSettings(steps=60, batch_size=64, device=str(device), log_every=1)
    before: dict[str, torch.Tensor] = {}

    def break_it(run: Run, record: dict[str, float]) -> None:
        if run.step == 50:
            before.update({n: p.detach().clone() for n, p in model.named_parameters()})
            with torch.no_grad():
                next(iter(model.parameters())).view(-1)[0] = torch.nan

    with pytest.raises(Diverged, match="at step 50"):
        fit(model, train, settings=settings, progress=break_it)
    after = dict(model.named_parameters())
    moved = sum(int((after[name] != tensor).sum()) for name, tensor in before.items())
    assert moved == 1  # the number that was broken


@pytest.mark.parametrize("name", GREY)
def test_fitting_lowers_the_loss(name: str, device: torch.device) -> None:
    train, _ = load("digits")
    model = runs.build(name, train.spec)
    settings = FitSettings(steps=40, batch_size=64, device=str(device), log_every=10)
    run = fit(model, train, settings=settings)
    for loss in ("nll", "negative_elbo", "reconstruction_error"):
        if loss in run.metrics[0]:
            assert run.metrics[-1][loss] < run.metrics[0][loss]
    if isinstance(model, GenerativeModel):
        assert model.sample(4).shape == (4, *train.spec.shape)
