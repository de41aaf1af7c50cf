"""Updates that are recorded and replayed are the eager ones.

Recordings are stood in for by ones that run on the processor; tests/test_accelerator.py holds the
same of CUDA graphs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from likely import runs
from likely.data import load
from likely.errors import Diverged
from likely.settings import FitSettings
from likely.training import graphs
from likely.training.graphs import EAGER, Gradients, UpdateGraphs
from likely.training.loop import fit
from likely.training.objectives import NegativeELBO
from likely.training.run import Run


class Stand(graphs.Recording):
    """Work done again at each replay, its results written to the same tensors."""

    parameters: list[torch.nn.Parameter]
    made = 0

    def __init__(self, work: Callable[[], Any], pool: Any, source: torch.Generator) -> None:
        type(self).made += 1
        self.work, self.result = work, None
        if self.computes_gradients():
            state = source.get_state()
            self.result = work()
            source.set_state(state)  # recording draws nothing

    def computes_gradients(self) -> bool:
        return all(parameter.grad is None for parameter in self.parameters)

    def replay(self) -> None:
        if self.result is None:
            self.work()
        for parameter in self.parameters:
            parameter.grad = None  # those of a graph are its own
        if self.result is None:
            return
        again = self.work()
        assert isinstance(self.result, Gradients)
        self.result.total.copy_(again.total)
        self.result.norm.copy_(again.norm)
        for name, term in again.terms.items():
            self.result.terms[name].copy_(term)


@pytest.fixture
def stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits on the processor replay stand-ins."""

    @contextlib.contextmanager
    def beside(self: UpdateGraphs) -> Iterator[None]:
        Stand.parameters, Stand.made = self.parameters, 0
        yield

    monkeypatch.setattr(graphs, "available", lambda device: True)
    monkeypatch.setattr(graphs, "Recording", Stand)
    monkeypatch.setattr(UpdateGraphs, "beside", beside)


CASES: dict[str, dict[str, Any]] = {
    "gated-pixelcnn": {
        "channels": 8,
        "layers": 2,
        "head_channels": 8,
        "dropout": 0.25,
        "conditional": True,
    },
    "gated-pixelcnn-orders": {"channels": 8, "layers": 2, "head_channels": 8},
    "made": {"hidden": 30, "masks": 3, "prior": "none", "dropout": 0.1},
    "vae": {"network": "dense", "hidden": 16, "latent": 4},
}


@pytest.mark.usefixtures("stands")
@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("name", CASES)
def test_a_fit_of_replayed_updates_is_the_eager_one(name: str, optimizer: str) -> None:
    train, _ = load("digits")
    ends = []
    for wanted in (True, False):
        model = runs.build(name, train.spec, CASES[name])
        settings = FitSettings(
            steps=30, batch_size=16, optimizer=optimizer, log_every=1, warmup=5, clip=1.0,  # type: ignore[arg-type]
            graphs=wanted, validate_every=10, validation_examples=16,
        )  # fmt: skip
        objective = NegativeELBO(warmup=20) if name == "vae" else None
        run = fit(model, train, objective, settings)
        ends.append((run.metrics, {n: p.detach().clone() for n, p in model.named_parameters()}))
        kinds = 3 if name == "made" else 1
        assert not wanted or Stand.made == 2 * kinds
    for one, other in zip(ends[0][0], ends[1][0], strict=True):
        assert one == pytest.approx(other, rel=1e-6)
    for key, weight in ends[0][1].items():
        torch.testing.assert_close(weight, ends[1][1][key], rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("stands")
def test_a_loss_that_is_not_finite_moves_no_weight() -> None:
    train, _ = load("digits")
    model = runs.build("made", train.spec, {"hidden": 30, "masks": 1})
    before: dict[str, torch.Tensor] = {}

    def break_it(run: Run, record: dict[str, float]) -> None:
        if run.step == 10:
            assert Stand.made == 2
            with torch.no_grad():
                next(model.parameters()).view(-1)[0] = torch.nan
            before.update({n: p.detach().clone() for n, p in model.named_parameters()})

    with pytest.raises(Diverged, match="at step 10"):
        fit(model, train, settings=FitSettings(steps=20, log_every=1), progress=break_it)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.detach().nan_to_num(), before[name].nan_to_num())


@pytest.mark.usefixtures("stands")
def test_what_cannot_be_recorded_runs_eagerly_with_one_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: Stand, *_: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    train, _ = load("digits")
    ends = []
    for wanted in (True, False):
        model = runs.build("vae", train.spec, CASES["vae"])
        monkeypatch.setattr(Stand, "__init__", refuse)
        settings = FitSettings(steps=EAGER + 4, batch_size=16, graphs=wanted)
        watched = pytest.warns(UserWarning, match="without CUDA graphs: operation not permitted")
        with watched if wanted else contextlib.nullcontext() as seen:
            fit(model, train, settings=settings)
        assert not wanted or len(seen) == 1  # type: ignore[arg-type]
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*ends)
