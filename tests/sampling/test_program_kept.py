"""Compiled programs kept between draws: whatever changes, the integers are the naive sampler's."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from likely.data.spec import DataSpec
from likely.density import Autoregressive
from likely.heads import Categorical
from likely.models.pixelcnn.gated_pixelcnn import GatedPixelCNN
from likely.models.pixelcnn.settings import GatedPixelCNNSettings
from likely.models.vectors.made import MADE
from likely.models.vectors.settings import MADESettings
from likely.sampling import ancestral as sampling
from likely.sampling import kept as program_kept
from likely.sampling.kept import Prepared, state_of
from likely.sampling.program import Builder, Cells

SPEC = DataSpec("t", (1, 4, 5), 9, n=1, classes=("a", "b"))


@pytest.fixture(autouse=True)
def _small_models_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "WORTH_COMPILING", 1)


def lively(model: Any, seed: int = 3) -> Any:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.normal_(0.0, 0.4, generator=generator)
    return model.eval()


def gated(seed: int = 3, start: str = "top-left") -> GatedPixelCNN:
    settings = GatedPixelCNNSettings(
        channels=8, layers=3, head_channels=8, conditional=True, start=start,  # type: ignore[arg-type]
    )  # fmt: skip
    return lively(GatedPixelCNN(SPEC, settings), seed)  # type: ignore[no-any-return]


def made() -> MADE:
    """It has buffers, and an order of its own."""
    settings = MADESettings(hidden=40, order="random", conditional=True)
    return lively(MADE(SPEC, settings))  # type: ignore[no-any-return]


def drawn(model: Autoregressive, method: str = "incremental", **settings: Any) -> Tensor:
    context = torch.arange(5) % 2
    return model.sample(5, seed=1, context=context, method=method, **settings)  # type: ignore[arg-type]


def is_kept(model: Autoregressive) -> bool:
    return Prepared(model)._kept is not None  # type: ignore[arg-type]


def weight_of(model: Any) -> nn.Parameter:
    """A parameter of the last layer, of which no number is masked."""
    found: nn.Parameter = model.bias if isinstance(model, MADE) else model.output.weight
    return found


def one_weight_in_place(model: Any) -> None:
    with torch.no_grad():
        weight_of(model).view(-1)[0] += 8.0


def one_weight_of_data(model: Any) -> None:
    weight_of(model).data.view(-1)[0] += 8.0


def one_weight_through_numpy(model: Any) -> None:
    weight_of(model).detach().numpy().reshape(-1)[0] += 8.0


def other_data(model: Any) -> None:
    weight_of(model).data = -weight_of(model).data


def load_state_dict(model: Any) -> None:
    model.load_state_dict({name: -value for name, value in model.state_dict().items()})


def load_by_assignment(model: Any) -> None:
    other = {name: -value for name, value in model.state_dict().items()}
    model.load_state_dict(other, assign=True)


def optimizer_step(model: Any) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=50.0)
    x = torch.zeros(2, *SPEC.shape, dtype=torch.int64)
    model.log_prob(x, torch.tensor([0, 1])).sum().backward()
    optimizer.step()


def fused_adam_step(model: Any) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.5, fused=True)
    x = torch.zeros(2, *SPEC.shape, dtype=torch.int64)
    model.log_prob(x, torch.tensor([0, 1])).sum().backward()
    optimizer.step()


def another_parameter(model: Any) -> None:
    if isinstance(model, MADE):
        model.bias = nn.Parameter(-model.bias.detach())
    else:
        model.output.weight = nn.Parameter(-model.output.weight.detach())


def swapped_averages(model: Any) -> None:
    """Weights and their averages change places, and what is put away is written to."""
    for parameter in model.parameters():
        put_away = parameter.data
        parameter.data = put_away.clone()
        put_away.neg_()
    drawn(model)
    for parameter in model.parameters():
        put_away = parameter.data
        parameter.data = -put_away
        put_away.zero_()


def rolled(model: Any) -> None:
    for parameter in model.parameters():
        parameter.data.copy_(parameter.data.roll(1, -1))


CHANGES: list[Callable[[Any], None]] = [
    one_weight_in_place, one_weight_of_data, one_weight_through_numpy, other_data,
    load_state_dict, load_by_assignment, optimizer_step, fused_adam_step, another_parameter,
    swapped_averages, rolled,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("build", [gated, made])
def test_changed_weights_are_seen(
    build: Callable[[], Autoregressive], change: Callable[[Any], None]
) -> None:
    model = build()
    before = drawn(model)
    assert torch.equal(before, drawn(model, "naive"))
    assert is_kept(model)
    change(model)
    assert not is_kept(model)
    after = drawn(model)
    assert torch.equal(after, drawn(model, "naive"))
    assert not torch.equal(after, before)
    assert is_kept(model)
    assert torch.equal(drawn(model), after)


@pytest.mark.parametrize("name", [name for name, _ in gated().named_parameters()])
def test_every_single_weight_counts(name: str) -> None:
    """The last bit of one number of any parameter is noticed, and the old one is known again."""
    model = gated()
    drawn(model)
    bits = model.get_parameter(name).data.view(torch.int32)
    bits.view(-1)[-1] ^= 1
    assert not is_kept(model)
    bits.view(-1)[-1] ^= 1
    assert is_kept(model)


def test_storage_that_weights_have_left_may_be_overwritten() -> None:
    """The weights move elsewhere with the values they had; kept tables do not look back."""
    for model in (gated(), made()):
        expected = drawn(model)
        for parameter in model.parameters():
            left = parameter.data
            parameter.data = left.clone()
            left.fill_(7.0)
        assert is_kept(model)
        assert torch.equal(drawn(model), expected)


def test_buffers_orders_and_settings_are_seen() -> None:
    model = made()
    before = drawn(model)
    model.degrees[0, 0] = model.degrees[0, 0].roll(7)
    after = drawn(model)
    assert torch.equal(after, drawn(model, "naive"))
    assert not torch.equal(after, before)

    turned: Any = gated()
    drawn(turned)
    turned.reversed, turned.rank = (2, 3), turned.rank.flip(0, 1)
    assert torch.equal(drawn(turned), drawn(turned, "naive"))

    plain: Any = gated()
    before = drawn(plain)
    plain.layers[1].residual = False
    assert not is_kept(plain)
    after = drawn(plain)
    assert torch.equal(after, drawn(plain, "naive"))
    assert not torch.equal(after, before)
    plain.layers[1].residual = True
    assert not is_kept(plain)
    assert torch.equal(drawn(plain), before)


def test_the_way_of_drawing_is_not_kept() -> None:
    """Temperature, labels, how many, the method, single images: of each draw its own."""
    model = gated()
    for temperature in (1.0, 0.5, 1.0):
        for context in (torch.zeros(3, dtype=torch.int64), torch.tensor([1, 0, 1])):
            for method in ("incremental", "jacobi", "auto"):
                for n in (3, 1):
                    found, naive = (
                        model.sample(
                            n, seed=2, context=context[:n], temperature=temperature, method=way  # type: ignore[arg-type]
                        )
                        for way in (method, "naive")
                    )  # fmt: skip
                    assert torch.equal(found, naive)


def test_another_head_and_another_precision_are_seen() -> None:
    model: Any = gated()
    drawn(model)

    class Sharp(Categorical):
        """Not what the kernels draw from."""

    model.head = Sharp(1, 9)
    drawn(model)
    assert torch.equal(drawn(model), drawn(model, "naive"))
    model.double()
    assert torch.equal(drawn(model), drawn(model, "naive"))
    model.bfloat16().float()  # rounded
    assert torch.equal(drawn(model), drawn(model, "naive"))


def test_copies_and_files_know_nothing_of_it() -> None:
    model = gated()
    names, attributes = list(model.state_dict()), sorted(vars(model))
    size = len(pickle.dumps(model))
    before = drawn(model)
    assert is_kept(model)
    assert list(model.state_dict()) == names
    assert sorted(vars(model)) == attributes
    assert len(pickle.dumps(model)) == size

    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for twin in (copy.deepcopy(model), copy.copy(model), torch.load(file, weights_only=False)):
        assert not is_kept(twin)
        assert torch.equal(drawn(twin), before)
        one_weight_in_place(twin)
        after = drawn(twin)
        assert torch.equal(after, drawn(twin, "naive"))
        assert not torch.equal(after, before)
    assert torch.equal(drawn(model), drawn(model, "naive"))


def test_models_in_turn_and_in_threads() -> None:
    models = [gated(1), gated(2), made()]
    expected = [drawn(model, "naive") for model in models]
    for _ in range(2):
        for model, x in zip(models, expected, strict=True):
            assert torch.equal(drawn(model), x)
    with ThreadPoolExecutor(4) as pool:
        some = list(pool.map(lambda i: drawn(models[i % 3]), range(24)))
    for i, x in enumerate(some):
        assert torch.equal(x, expected[i % 3])


def test_nothing_outlives_the_model_and_only_two_sizes_are_kept() -> None:
    model = gated()
    for n in (1, 2, 3, 5, 7):
        model.sample(n, context=0, method="incremental")
    kept = program_kept._all_kept[model]
    assert len(kept.tables) == program_kept.SIZES
    tables = weakref.ref(next(iter(kept.tables.values())))
    gone = weakref.ref(model)
    del model, kept
    gc.collect()
    assert gone() is None
    assert tables() is None


def test_of_large_tables_only_the_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_kept, "BYTES", 1)
    model = gated()
    for n in (1, 2):
        model.sample(n, context=0, method="incremental")
        assert len(program_kept._all_kept[model].tables) == 1


def test_large_models_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = gated()
    monkeypatch.setattr(program_kept, "MOST", sum(p.numel() for p in model.parameters()) - 1)
    drawn(model)
    assert not is_kept(model)
    assert model not in program_kept._all_kept


class Hidden:
    """State that cannot be seen: in a slot beside its attributes."""

    __slots__ = ("__dict__", "value")


def closure() -> Callable[[], int]:
    count = 0
    return lambda: count


@pytest.mark.parametrize(
    "value",
    [Hidden(), closure(), torch.Generator(), threading.Lock(), iter([1]), object(),
     np.array([object()]), torch.zeros(2, dtype=torch.complex64), torch.eye(2).to_sparse(),
     np.random.default_rng(0), torch.zeros(1).sin, {"a": [(Hidden(),)]}],
)  # fmt: skip
def test_what_cannot_be_seen_is_not_kept(value: object) -> None:
    model: Any = gated()
    model.layers[0].note = value
    assert state_of(model) is None
    assert torch.equal(drawn(model), drawn(model, "naive"))
    assert not is_kept(model)


class Plain:
    """Attributes and nothing else."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {"a": [1, 2.0], "b": np.arange(3), "c": torch.ones(2)}


@pytest.mark.parametrize(
    "change",
    [lambda v: v["a"].append(3), lambda v: v.update(a=[1, 2]), lambda v: v["b"].fill(1),
     lambda v: v["c"].fill_(-0.0), lambda v: v.update(c=torch.ones(2, dtype=torch.float64)),
     lambda v: v.update(c=torch.ones(1, 2)), lambda v: v.update(d=None), lambda v: v.pop("b"),
     lambda v: v.update(a=[True, 2.0]), lambda v: v.update(a=(1, 2.0))],
)  # fmt: skip
def test_attributes_of_objects_are_seen(change: Callable[[dict[str, Any]], None]) -> None:
    model: Any = gated()
    model.note = Plain()
    drawn(model)
    assert is_kept(model)
    change(model.note.values)
    assert not is_kept(model)


def test_negative_zero_is_not_zero() -> None:
    model = gated()
    model.output.bias.data.zero_()
    drawn(model)
    model.output.bias.data.neg_()
    assert not is_kept(model)


def test_a_model_that_holds_itself_is_compared() -> None:
    model: Any = gated()
    model.__dict__["mirror"] = [model]
    drawn(model)
    assert is_kept(model)
    one_weight_in_place(model)
    assert torch.equal(drawn(model), drawn(model, "naive"))


def test_weights_that_change_while_the_program_is_built_are_not_kept() -> None:
    model: Any = gated()
    build = GatedPixelCNN.incremental

    class Restless(GatedPixelCNN):
        """Its weights change as they are read."""

        def incremental(self, build_: Builder, labels: slice = slice(None)) -> Cells:
            found = build(self, build_, labels)
            one_weight_in_place(self)
            return found

    model.__class__ = Restless
    drawn(model)
    assert model not in program_kept._all_kept
