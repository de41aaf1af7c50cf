"""Sampling: the incremental way draws the integers of the naive one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from likely.data.spec import DataSpec
from likely.errors import InvalidSetting, Unanswerable
from likely.heads import Bernoulli, Head, head_for, invert
from likely.models import MODELS
from likely.models.pixelcnn.gated_pixelcnn import GatedPixelCNN
from likely.models.pixelcnn.pixelcnn import PixelCNN
from likely.models.pixelcnn.settings import GatedPixelCNNSettings, PixelCNNSettings
from likely.noise import Noise
from likely.sampling import ancestral as sampling
from likely.sampling import kernels
from likely.sampling.ancestral import ancestral, rearranged, wavefront_lag
from likely.sampling.compiled import CompiledExecutor, head_code
from likely.sampling.drawing import Draw
from likely.sampling.incremental import Incremental
from likely.sampling.records import IMAGE, INSTRUCTION, TAP, VIEW, Chances, Machine, record
from likely.sampling.torch_executor import TorchExecutor
from test_conformance import SPECS, fits
from test_conformance import built as model_built

# (channels, levels, head, conditional): grey and colour, masked groups and coupled channels.
CASES = [
    (1, 2, "bernoulli", False),
    (1, 17, "categorical", True),
    (3, 4, "categorical", True),
    (3, 256, "logistic-mixture", False),
]


def model_for(channels: int, levels: int, head: str, conditional: bool) -> GatedPixelCNN:
    spec = DataSpec("t", (channels, 5, 6), levels, n=1, classes=("a", "b"))
    settings = GatedPixelCNNSettings(
        channels=12,
        layers=4,
        kernel=5,
        first_kernel=7,
        dilations=(1, 2),
        head_channels=12,
        components=2,
        conditional=conditional,
        head=head,  # type: ignore[arg-type]
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = GatedPixelCNN(spec, settings).double().eval()
        for parameter in model.parameters():
            parameter.data.normal_(0.0, 0.3)
    return model


def drawn(model: GatedPixelCNN, method: str, batch: int = 3, start: int = 0) -> Tensor:
    uniform = Noise(7).uniform(batch, *model.spec.shape)
    generator = torch.Generator().manual_seed(5)
    x = torch.randint(0, model.spec.levels, (batch, *model.spec.shape), generator=generator)
    context = torch.arange(batch) % 2 if model.classes else None
    return ancestral(model, uniform, x, start, context, method)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", [1, 3, 17])
def test_both_ways_draw_the_same_integers(case: tuple[int, int, str, bool], batch: int) -> None:
    model = model_for(*case)
    naive = drawn(model, "naive", batch)
    assert torch.equal(drawn(model, "incremental", batch), naive)
    assert naive.double().std() > 0.1  # a constant image would prove little


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_fixed_point_has_the_same_integers(
    case: tuple[int, int, str, bool], batch: int
) -> None:
    model = model_for(*case)
    assert torch.equal(drawn(model, "jacobi", batch), drawn(model, "naive", batch))


def test_fixed_points_of_whole_passes_where_rows_recur() -> None:
    model: Any = NoProgram(model_for(*CASES[1]))
    uniform = Noise(7).uniform(3, *model.spec.shape)
    blank = torch.zeros(3, *model.spec.shape, dtype=torch.int64)
    seen: list[Tensor] = []
    naive = ancestral(model, uniform, blank, 0, None, "naive")
    found = ancestral(
        model, uniform, blank, 0, None, "jacobi", watch=lambda row, x: seen.append(x.clone())
    )
    assert torch.equal(found, naive)
    for row, image in enumerate(seen):
        assert torch.equal(image[:, :, : row + 1], naive[:, :, : row + 1])
    assert len(seen) == 5


class Flips:
    """Every dimension is the opposite of the one before it, nearly always."""

    def __init__(self, channels: int) -> None:
        self.head: Head = Bernoulli(channels)
        self.shape = (channels, 2, 3)
        self.rank, self.is_raster = torch.arange(6).reshape(2, 3), True
        self.takes_upper_rows = True

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        chain = x.permute(0, 2, 3, 1).flatten(1).double()
        before = torch.cat([torch.zeros(len(x), 1, dtype=torch.float64), chain[:, :-1]], 1)
        logits = 9.0 - 18.0 * before
        return logits.unflatten(1, (x.shape[2], x.shape[3], x.shape[1])).permute(0, 3, 1, 2)

    def program(self) -> SimpleNamespace:
        """One whose rows recur."""
        return SimpleNamespace(parallel_rows=False)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("start", [0, 2])
def test_a_fixed_point_waits_for_every_channel_of_a_pixel(channels: int, start: int) -> None:
    """Where a pixel changed, its later channels may change again; they are drawn once more."""
    model: Any = Flips(channels)
    uniform = Noise(7).uniform(4, *model.shape)
    blank = torch.zeros(4, *model.shape, dtype=torch.int64)
    naive = ancestral(model, uniform, blank, start, None, "naive")
    assert torch.equal(ancestral(model, uniform, blank, start, None, "jacobi"), naive)
    assert 0.3 < float(naive.double().mean()) < 0.7


class NoProgram:
    """A model that gives its conditionals and no program whose rows could be drawn at once."""

    def __init__(self, model: GatedPixelCNN) -> None:
        self.model, self.head, self.spec = model, model.head, model.spec
        self.rank, self.is_raster, self.takes_upper_rows = model.rank, True, True

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.model.conditionals(x, torch.zeros(len(x), dtype=torch.int64))

    def program(self) -> SimpleNamespace:
        """One whose rows recur."""
        return SimpleNamespace(parallel_rows=False)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_wavefront_draws_the_same_integers_in_fewer_passes(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = DataSpec("t", (channels, 6, 9), 4)
    settings = PixelCNNSettings(channels=6, layers=2, first_kernel=3, head_channels=12)
    torch.manual_seed(1)
    model = PixelCNN(spec, settings).double().eval()
    assert wavefront_lag(model, 6, 9) == 2
    uniform = Noise(7).uniform(2, *spec.shape)
    blank = torch.zeros(2, *spec.shape, dtype=torch.int64)
    naive = ancestral(model, uniform, blank, 0, method="naive")
    rows: list[int] = []
    calls: list[int] = []
    original = model.conditionals

    def counted(x: Tensor, context: Tensor | None = None) -> Tensor:
        calls.append(1)
        return original(x, context)

    monkeypatch.setattr(model, "conditionals", counted)
    found = ancestral(
        model, uniform, blank, 0, method="wavefront", watch=lambda row, x: rows.append(row)
    )
    assert torch.equal(found, naive)
    assert len(calls) == (9 + 5 * 2) * (1 if channels == 1 else 3)
    assert rows == list(range(6))
    given = ancestral(model, uniform.flip(0), naive, 13, method="wavefront")
    assert torch.equal(given, ancestral(model, uniform.flip(0), naive, 13, method="naive"))


def test_a_model_that_sees_everything_has_no_wavefront() -> None:
    with pytest.raises(InvalidSetting, match="no wavefront"):
        drawn(model_for(*CASES[0]), "wavefront")


@pytest.mark.parametrize(
    ("name", "changes"),
    [("made", {"order": "random"}), ("gated-pixelcnn", {"start": "top-right"})],
)
def test_a_single_row_in_another_order_has_no_wavefront(name: str, changes: dict[str, Any]) -> None:
    """It would be drawn from left to right, given pixels that are not drawn yet."""
    model = model_built(name, DataSpec("row", (1, 1, 7), 3), **changes)
    assert isinstance(model, Incremental)
    with pytest.raises(InvalidSetting, match="does not draw by rows from the top left"):
        model.sample(4, method="wavefront")


@pytest.mark.parametrize("case", [CASES[0], CASES[3]])
@pytest.mark.parametrize("batch", [1, 2, 7, 17])
def test_compiled_draws_are_those_of_torch(case: tuple[int, int, str, bool], batch: int) -> None:
    """In float32, with the draw compiled too; the temperature as well."""
    model = model_for(*case).float()
    program = model.program()
    uniform = Noise(7).uniform(batch, *model.spec.shape)
    for temperature in (1.0, 0.5):
        draw = Draw(model.head, uniform, temperature)
        images = []
        for executor in (TorchExecutor(program, batch), CompiledExecutor(program, batch),
                         CompiledExecutor(program, batch, side_by_side=False)):  # fmt: skip
            x = torch.zeros(batch, *model.spec.shape, dtype=torch.int64)
            for row in range(x.shape[2]):
                executor.begin_row(row)
                executor.draw_row(row, 0, x, draw)
                executor.end_row(row)
            images.append(x)
        assert torch.equal(images[0], images[1])
        assert torch.equal(images[0], images[2])


@pytest.mark.parametrize("head", ["bernoulli", "categorical", "logistic-mixture"])
def test_compiled_heads_invert_the_table(head: str) -> None:
    """All levels, sharp and flat distributions, couplings, ends: the integers of `invert`."""
    levels = {"bernoulli": 2, "categorical": 5, "logistic-mixture": 256}[head]
    spec = DataSpec("t", (3, 1, 60), levels)
    made = head_for(head, spec, 3)
    generator = torch.Generator().manual_seed(3)
    parameters = 3.0 * torch.randn(40, made.parameters, 60, generator=generator)
    uniform = torch.rand(40, 3, 1, 60, generator=generator, dtype=torch.float64)
    for temperature in (1.0, 0.3):
        draw = Draw(made, uniform, temperature)
        expected = torch.zeros(40, 3, 1, 60, dtype=torch.int64)
        draw(parameters, expected, 0, slice(None), range(3))
        found = torch.zeros_like(expected)
        cells = parameters.permute(2, 0, 1).contiguous().numpy().reshape(-1)
        size = made.parameters
        view = record(VIEW, kept=1, stride=1, column_step=40 * size, image_step=size,
                      ratio=1, coarse=1)  # fmt: skip
        none = np.zeros(0, np.int64)
        machine = Machine(
            record(INSTRUCTION), view, np.zeros(1, np.int64), record(TAP),
            np.zeros((0, 3), np.int64), np.zeros(0), none, np.zeros(0), cells, np.zeros(0),
            record(IMAGE), 40, 60, 16, 0,
        )  # fmt: skip
        chances = Chances(head_code(made), temperature, uniform.numpy(), np.zeros((3, size)))
        kernels.draw_cells(machine, chances, found.numpy(), 0, 0)
        assert torch.equal(found, expected)


def test_compiled_parameters_are_near_at_every_pixel_and_the_same_for_every_batch() -> None:
    """Float32 against the parallel pass in float64: 1e-4 of a logit. An image's parameters do not
    depend on its batch, to the last bit."""
    for case in CASES:
        exact = model_for(*case)
        x = drawn(exact, "naive", 17)
        context = torch.arange(17) % 2 if exact.classes else None
        with torch.no_grad():
            whole = exact.conditionals(x, context)
        program = exact.float().program()
        alone: dict[int, Tensor] = {}
        for batch in (17, 1, 2, 16):
            labels = None if context is None else context[:batch]
            found = CompiledExecutor(program, batch, labels)
            rows = []
            for row in range(x.shape[2]):
                found.begin_row(row)
                rows.append(found.put_row(row, x[:batch, :, row]))
                found.end_row(row)
            alone[batch] = torch.stack(rows).permute(2, 3, 0, 1)  # [B, P, H, W]
            assert (alone[batch] - whole[:batch]).abs().max() < 1e-4
            assert torch.equal(alone[batch], alone[17][:batch])


PROGRAMS = [
    (name, spec, conditional)
    for name in MODELS
    for spec in ("levels", "colour")
    for conditional in (True, False)
    if fits(name, SPECS[spec])
    if isinstance(model_built(name, SPECS[spec]), Incremental)
]


@pytest.mark.parametrize(("name", "spec", "conditional"), PROGRAMS)
def test_every_model_runs_compiled(name: str, spec: str, conditional: bool) -> None:
    """Float64, pixel by pixel and row by row, against the parallel pass: 1e-9 of a logit."""
    built = model_built(name, SPECS[spec], conditional=conditional)
    assert isinstance(built, Incremental)
    model = built.double()
    program = model.program()
    assert model.classes == 3 * conditional
    channels, height, width = model.spec.shape
    x = torch.randint(model.spec.levels, (2, *model.spec.shape))
    context = torch.tensor([2, 0]) if model.classes else None
    with torch.no_grad():
        whole = model.conditionals(x, context)
    order = model.rank.flatten().argsort()
    x, whole = rearranged(x, order), rearranged(whole, order)
    groups = program.groups
    size, part = channels // groups, model.head.parameters // groups
    for side_by_side in (False, True):
        found = CompiledExecutor(program, 2, context, side_by_side=side_by_side)
        for row in range(height):
            found.begin_row(row)
            if side_by_side:
                seen = found.put_row(row, x[:, :, row]).permute(1, 2, 0)
                assert (seen - whole[:, :, row]).abs().max() < 1e-9
            else:
                for column in range(width):
                    for group in range(groups):
                        own = slice(group * part, (group + 1) * part)
                        seen = found.pixel(row, column, group)[:, own]
                        assert (seen - whole[:, own, row, column]).abs().max() < 1e-9
                        drawn = x[:, group * size : (group + 1) * size, row, column]
                        found.put(row, column, drawn, group)
            found.end_row(row)


def test_blocks_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "WORTH_COMPILING", 1)
    model = model_for(*CASES[1]).float()
    context = torch.arange(7) % 2
    whole = model.sample(7, seed=1, context=context)
    monkeypatch.setattr(sampling, "BLOCK", 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    rows: list[int] = []
    assert torch.equal(model.sample(7, seed=1, context=context), whole)
    shown = model.sample(7, seed=1, context=context, watch=lambda row, x: rows.append(row))
    assert torch.equal(shown, whole)
    assert rows == list(range(5))
    observed = torch.zeros(5, 6, dtype=torch.bool)
    observed.flatten()[:16] = True
    done = model.complete(whole, observed, seed=3, context=context)
    slow = model.complete(whole, observed, seed=3, context=context, method="naive")
    assert torch.equal(done, slow)


@pytest.mark.parametrize("case", CASES)
def test_a_single_image_goes_the_faster_way_with_the_same_integers(
    case: tuple[int, int, str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "WORTH_COMPILING", 1)
    model = model_for(*case).float()
    context = 1 if model.classes else None
    for seed in range(3):
        found = model.sample(1, seed=seed, context=context)
        assert torch.equal(found, model.sample(1, seed=seed, context=context, method="naive"))
        for method in ("incremental", "jacobi"):
            again = model.sample(1, seed=seed, context=context, method=method)  # type: ignore[arg-type]
            assert torch.equal(found, again)


@pytest.mark.parametrize("head", ["bernoulli", "logistic-mixture"])
def test_the_caches_do_not_grow_with_the_height_of_the_image(head: str) -> None:
    sizes = []
    for height in (16, 160):
        spec = DataSpec("t", (1, height, 9), 2 if head == "bernoulli" else 256)
        settings = GatedPixelCNNSettings(channels=8, layers=3, head_channels=8, head=head)  # type: ignore[arg-type]
        program = GatedPixelCNN(spec, settings).program()
        executors = (CompiledExecutor(program, 2, side_by_side=False),
                     CompiledExecutor(program, 2), TorchExecutor(program, 2))  # fmt: skip
        sizes.append([executor.bytes() for executor in executors])
    assert sizes[0] == sizes[1]


def test_chunks_bound_the_memory_and_tell_their_progress() -> None:
    model = model_for(*CASES[0])
    told: list[int] = []
    whole = model.sample(10, seed=2, chunk=4, progress=told.append)
    assert told == [4, 8, 10]
    assert torch.equal(whole[:6], model.sample(6, seed=2, chunk=4))


def test_a_low_temperature_takes_the_likeliest_level() -> None:
    model = model_for(*CASES[1])
    context = torch.arange(4) % 2
    cold = model.sample(4, seed=0, context=context, temperature=1e-4)
    levels = model.conditionals(cold, context).argmax(1)
    assert torch.equal(cold[:, 0], levels)
    assert torch.equal(
        cold, model.sample(4, seed=0, context=context, temperature=1e-4, method="naive")
    )
    with pytest.raises(InvalidSetting, match="temperature must be above 0"):
        model.sample(1, context=0, temperature=0.0)


def test_a_tempered_softmax_is_a_power() -> None:
    head = head_for("categorical", DataSpec("t", (1, 1, 1), 5))
    logits = torch.randn(1, 5, 1, 1, dtype=torch.float64)
    x = torch.zeros(1, 1, 1, 1, dtype=torch.int64)
    p = head.log_table(logits, x, 0).exp() ** 2
    found = head.log_table(head.tempered(logits, 0.5), x, 0).exp()
    assert torch.allclose(found, p / p.sum())


@pytest.mark.parametrize("case", CASES)
def test_a_stream_scores_an_image_as_it_comes_in(case: tuple[int, int, str, bool]) -> None:
    model = model_for(*case)
    x = drawn(model, "naive")
    context = torch.arange(3) % 2 if model.classes else None
    stream = model.stream(3, context)
    channels, height, width = model.spec.shape
    for row in range(height):
        for column in range(width):
            for channel in range(channels):
                assert stream.place == (row, column, channel)
                if (row + column) % 3 == 0:
                    expected = model.conditional(x, row, column, channel, context)
                    assert torch.allclose(stream.log_table().exp(), expected, atol=1e-9)
                stream.push(x[:, channel, row, column])
    assert stream.place is None
    assert torch.allclose(stream.log_prob, model.log_prob(x, context), atol=1e-9)
    with pytest.raises(InvalidSetting, match="complete"):
        stream.push(x[:, 0, 0, 0])


@pytest.mark.parametrize("case", CASES)
def test_the_parameters_agree_at_every_pixel(case: tuple[int, int, str, bool]) -> None:
    """First row, last column and all borders: 1e-12 in float64, 1e-4 of a logit in float32."""
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        model = model_for(*case).to(dtype)
        x = drawn(model_for(*case), "naive")
        context = torch.arange(3) % 2 if model.classes else None
        with torch.no_grad():
            whole = model.conditionals(x, context)
            stepper = model.stepper(3, context)
            channels, height, width = model.spec.shape
            size = model.head.parameters // model.groups
            for row in range(height):
                stepper.begin_row(x[:, :, row - 1] if row else None)
                for column in range(width):
                    for channel in range(channels):
                        found = stepper.pixel(x[:, :, row], column, channel)
                        first = channel * size if model.groups > 1 else 0
                        part = slice(first, first + size)
                        difference = found[:, part] - whole[:, part, row, column]
                        assert difference.abs().max() <= tolerance


@pytest.mark.parametrize("method", ["naive", "incremental"])
@pytest.mark.parametrize("start", [1, 6, 13, 29])
def test_a_given_beginning_is_kept_and_continued(method: str, start: int) -> None:
    """The rest is a function of the beginning and the noise: it draws the same rest again."""
    model = model_for(*CASES[1])
    whole = drawn(model, "naive")
    uniform = Noise(7).uniform(3, *model.spec.shape)
    spoiled = whole.clone()
    spoiled.flatten(2)[:, :, start:] = 16 - spoiled.flatten(2)[:, :, start:]
    again = ancestral(model, uniform, spoiled, start, torch.arange(3) % 2, method)  # type: ignore[arg-type]
    assert torch.equal(again, whole)


def test_an_image_does_not_depend_on_its_batch() -> None:
    model = model_for(*CASES[2])
    together = drawn(model, "incremental", 5)
    alone = drawn(model, "incremental", 2)
    assert torch.equal(together[:2], alone)


def test_every_row_is_shown_once_complete() -> None:
    model = model_for(*CASES[0])
    seen: list[Tensor] = []
    uniform = Noise(7).uniform(2, *model.spec.shape)
    blank = torch.zeros(2, *model.spec.shape, dtype=torch.int64)
    final = ancestral(model, uniform, blank, 0, watch=lambda row, x: seen.append(x.clone()))
    for row, image in enumerate(seen):
        assert torch.equal(image[:, :, : row + 1], final[:, :, : row + 1])
        assert not image[:, :, row + 1 :].any()
    assert len(seen) == 5


def test_inversion_is_the_inverse_of_the_distribution_function() -> None:
    p = torch.tensor([0.2, 0.0, 0.5, 0.3], dtype=torch.float64)
    uniform = torch.tensor([0.0, 0.1999, 0.2, 0.6999, 0.7001, 1 - 1e-16])
    levels = invert(p.log().expand(6, 4), uniform.double())
    assert levels.tolist() == [0, 0, 2, 2, 3, 3]


def test_an_unknown_method_and_a_hole_are_refused() -> None:
    model = model_for(*CASES[0])
    with pytest.raises(InvalidSetting, match='did you mean "naive"'):
        drawn(model, "naiv")
    observed = torch.zeros(5, 6, dtype=torch.bool)
    observed[2, 3] = True
    x = torch.zeros(1, 1, 5, 6, dtype=torch.int64)
    with pytest.raises(Unanswerable, match="raster order"):
        model.complete(x, observed, method="exact")


@pytest.mark.parametrize("method", ["naive", "incremental", "jacobi"])
def test_a_block_of_autocast_changes_no_integer(method: str) -> None:
    model = model_for(*CASES[3]).float()
    plain = drawn(model, method)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(drawn(model, method), plain)
