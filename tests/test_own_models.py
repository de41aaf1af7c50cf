"""Models that a user defines, with nothing but what their kind asks of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import likely
from likely.data.spec import Dataset, DataSpec, digest_of
from likely.density import (
    ApproximateDensity,
    Autoregressive,
    GenerativeModel,
    ImplicitDensity,
    TractableDensity,
)
from likely.density.chain import raster
from likely.errors import InvalidSetting, Unanswerable
from likely.evaluate.samples import sample_metrics
from likely.heads import head_for
from likely.noise import Noise
from likely.runs.checkpoint import read_tensors
from likely.settings import FitSettings
from likely.training.adversarial import RelativisticGAN
from likely.training.objectives import (
    ImportanceWeighted,
    NegativeELBO,
    NegativeLogLikelihood,
    Objective,
    default_objective,
)
from likely.verify import verify
from likely.verify.subject import all_images

SETTINGS = FitSettings(steps=6, batch_size=16, log_every=2, validate_every=3, precision="float32")


class Generator(ImplicitDensity):
    """A line through the space of images: G(z) = tanh(W z + b)."""

    takes_vectors = True

    def __init__(self, spec: DataSpec, classes: int = 0) -> None:
        super().__init__(spec, classes)
        self.map = nn.Linear(2, spec.dimensions)

    def latents(self, noise: Noise, n: int) -> Tensor:
        return noise.normal(n, 2, dtype=self.map.weight.dtype)

    def generate(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        images: Tensor = torch.tanh(self.map(z)).reshape(-1, *self.spec.shape)
        return images


class Independent(TractableDensity):
    """Independent pixels, each with its table of levels."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec, 0)
        self.scores = nn.Parameter(torch.zeros(spec.dimensions, spec.levels))

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        chosen = self.scores.log_softmax(1).gather(1, self.integers(x).flatten(1).T)
        return chosen.sum(0)

    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        below = self.scores.softmax(1).cumsum(1)[None, :, :-1]  # [1, D, levels - 1]
        uniform = noise.uniform(n, self.spec.dimensions)[:, :, None]
        return (uniform >= below).sum(2).reshape(n, *self.spec.shape)


class Upwards(Autoregressive):
    """Each pixel knows the one below it, of another order than raster; no sampler of its own."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec, 0, rank=raster(spec).flip(0))
        self.head = head_for("auto", spec)
        self.table = nn.Parameter(torch.randn(spec.levels, self.head.parameters))
        self.lowest = nn.Parameter(torch.randn(self.head.parameters))

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        below = self.table[x[:, 0, 1:].long()]  # [B, H - 1, W, P]
        lowest = self.lowest.expand(len(x), 1, x.shape[3], -1)
        return torch.cat([below, lowest], 1).permute(0, 3, 1, 2)


class Hidden(ApproximateDensity):
    """A fair coin z chooses one of two tables; the bound takes q(z | x) = 1/2."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec, 0)
        self.tables = nn.ModuleList([Independent(spec), Independent(spec)])

    def elbo(self, x: Tensor, noise: Noise, context: Tensor | None = None) -> Tensor:
        first, second = (table.log_prob(x) for table in self.tables)  # type: ignore[operator]
        bound: Tensor = (first + second) / 2
        return bound

    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        which = noise.uniform(n) < 0.5
        first, second = (t.draw(noise, n, None) for t in self.tables)  # type: ignore[operator]
        return torch.where(which[:, None, None, None], first, second)


class Flat:
    """The levels themselves as features."""

    name, description, fingerprint = "levels", "the levels themselves", "0" * 12

    def __call__(self, x: Tensor) -> Tensor:
        return x.flatten(1).double()


def data(shape: tuple[int, ...] = (1, 6, 6), levels: int = 4, classes: int = 0) -> Dataset:
    values = np.random.default_rng(0).integers(levels, size=(64, *shape)).astype(np.uint8)
    names = tuple(map(str, range(classes)))
    spec = DataSpec("own", shape, levels, classes=names, n=64, digest=digest_of(values))
    return Dataset(spec, values, np.arange(64) % classes if classes else None)


@pytest.mark.parametrize(
    ("kind", "objective"),
    [(Independent, NegativeLogLikelihood()), (Hidden, NegativeELBO()),
     (Generator, RelativisticGAN())],
)  # fmt: skip
def test_every_kind_is_fitted_by_its_default_objective(
    kind: type[GenerativeModel], objective: Objective
) -> None:
    model = kind(data().spec)
    assert default_objective(model) == objective
    before = [p.detach().clone() for p in model.parameters()]
    run = likely.fit(model, data(), settings=SETTINGS)
    assert run.finished
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    x = model.sample(5, seed=1)
    assert x.shape == (5, 1, 6, 6)
    assert torch.equal(x, model.sample(5, seed=1))
    proofs = verify(model, data(), quick=True)
    assert all(proof.passed for proof in proofs.proofs), str(proofs)


def test_a_class_of_no_kind_has_no_objective() -> None:
    class Bare(GenerativeModel):
        kind = "bare"

        def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
            return torch.zeros(n, *self.spec.shape, dtype=torch.int64)

    with pytest.raises(InvalidSetting, match="Bare is of no kind that has an objective"):
        default_objective(Bare(data().spec, 0))


def test_a_density_of_ones_own_is_evaluated() -> None:
    uniform = 36 * math.log(4)
    exact = likely.nats(Independent(data().spec), data())
    assert (exact.relation.value, exact.value) == ("=", pytest.approx(uniform, rel=1e-6))
    bound = likely.nats(Hidden(data().spec), data())
    assert (bound.relation.value, bound.value) == ("<=", pytest.approx(uniform, rel=1e-6))
    with pytest.raises(InvalidSetting, match="beta"):
        NegativeELBO(beta=2.0).players(Hidden(data().spec))
    with pytest.raises(InvalidSetting, match="a latent-variable model"):
        ImportanceWeighted().players(Hidden(data().spec))


def test_a_chain_rule_needs_nothing_but_its_conditionals_and_its_order() -> None:
    model = Upwards(DataSpec("own", (1, 3, 2), 3)).double()
    x = model.sample(200, seed=0)
    assert torch.equal(x, model.sample(200, seed=0, method="naive"))
    total = model.log_prob(all_images((1, 3, 2), 3)).exp().sum()
    assert float(total.detach()) == pytest.approx(1.0, abs=1e-9)
    lower = model.rank < 2
    done = model.complete(x, lower, seed=1)
    assert torch.equal(done[:, :, 2], x[:, :, 2])
    assert not torch.equal(done, x)
    with pytest.raises(Unanswerable, match="the model's own order"):
        model.complete(x, ~lower, method="exact")
    assert torch.equal(model.complete(x[:3], ~lower, particles=4)[..., :2, :], x[:3, :, :2])
    with pytest.raises(InvalidSetting, match="no method=jacobi; take one of auto, naive"):
        model.sample(2, method="jacobi")
    assert not [proof for proof in verify(model, quick=True).failed if proof.vital]


@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 8, 5), (1, 2, 3), (7,)])
@pytest.mark.parametrize("classes", [0, 3])
def test_a_generator_of_ones_own_is_fitted_sampled_and_evaluated(
    shape: tuple[int, ...], classes: int, tmp_path: Path
) -> None:
    train = data(shape, 4, classes)
    model = Generator(train.spec, classes)
    run = likely.fit(model, train, settings=SETTINGS, out=tmp_path)
    assert run.adversary is not None
    labels = 1 if classes else None
    x = model.sample(20, seed=2, context=labels)
    assert x.shape == (20, *shape)
    assert model.interpolate(2, 3, context=labels).shape == (2, 3, *shape)
    with pytest.raises(Unanswerable, match="it defines no density"):
        likely.nats(model, train)
    numbers = sample_metrics(model.sample(32, context=labels), train, train, Flat(), n=32)
    assert all(math.isfinite(estimate.value) for estimate in numbers)
    # The adversary is saved beside the model, and is no part of it.
    tensors, _ = read_tensors(tmp_path / "weights.safetensors")
    prefix = "discriminator."
    assert {name for name in tensors if not name.startswith(prefix)} == {*model.state_dict()}
    for name, tensor in run.adversary.state_dict().items():
        assert torch.equal(tensor, tensors[prefix + name])


def test_a_game_of_ones_own_resumes_bit_for_bit(tmp_path: Path) -> None:
    class WithAdversary(Generator):
        """A generator that names the network it plays against."""

        def adversary(self) -> nn.Module:
            return Critic(self.spec.dimensions)

    class Critic(nn.Module):
        def __init__(self, dimensions: int) -> None:
            super().__init__()
            self.weigh = nn.Linear(dimensions, 1)

        def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
            logit: Tensor = self.weigh(x.flatten(1))[:, 0]
            return logit

    whole = likely.fit(WithAdversary(data().spec), data(), settings=SETTINGS, out=tmp_path / "a")
    assert isinstance(whole.adversary, Critic)

    class Stopped(Exception):
        pass

    def stop(run: likely.Run, record: dict[str, float]) -> None:
        if run.step == 4:
            raise Stopped

    # A checkpoint after every step.
    settings = FitSettings(**{**vars(SETTINGS), "checkpoint_seconds": 0.0})
    with pytest.raises(Stopped):
        likely.fit(
            WithAdversary(data().spec), data(), settings=settings, out=tmp_path / "b", progress=stop
        )
    likely.fit(WithAdversary(data().spec), data(), settings=settings, out=tmp_path / "b")
    for name in ("weights.safetensors", "metrics.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_model_on_numbers_must_name_its_adversary() -> None:
    model = Generator(data().spec)
    model.context_shape = (3,)
    with pytest.raises(InvalidSetting, match="adversary"):
        RelativisticGAN().players(model)
