"""PixelSNAIL: its windows, its attention, its positions, its sampler."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from likely.data.spec import DataSpec
from likely.errors import InvalidSetting
from likely.models.pixelcnn.pixelsnail import PixelSNAIL
from likely.models.pixelcnn.settings import PixelSNAILSettings
from likely.nn.attention import CausalAttention, turned, turns
from likely.nn.channel_norm import ChannelNorm
from likely.nn.masked import linear_gate
from likely.noise import Noise
from likely.sampling import ancestral as sampling
from likely.sampling.ancestral import ancestral

SMALL = PixelSNAILSettings(
    channels=12, blocks=2, convolutions=2, first_kernel=5, heads=2, head_size=8, head_channels=12,
    components=2,
)  # fmt: skip
# (channels, levels, head, conditional): grey and colour, masked groups and coupled channels.
CASES = [
    (1, 2, "bernoulli", False),
    (1, 17, "categorical", True),
    (3, 4, "categorical", True),
    (3, 256, "logistic-mixture", False),
]


def model_for(
    channels: int, levels: int, head: str, conditional: bool, dtype: torch.dtype = torch.float64
) -> PixelSNAIL:
    spec = DataSpec("t", (channels, 5, 6), levels, n=1, classes=("a", "b"))
    settings = dataclasses.replace(SMALL, head=head, conditional=conditional)  # type: ignore[arg-type]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = PixelSNAIL(spec, settings).to(dtype).eval()
        for parameter in model.parameters():
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model


def drawn(model: PixelSNAIL, method: str, batch: int = 3, start: int = 0) -> Tensor:
    uniform = Noise(7).uniform(batch, *model.spec.shape)
    generator = torch.Generator().manual_seed(5)
    x = torch.randint(0, model.spec.levels, (batch, *model.spec.shape), generator=generator)
    context = torch.arange(batch) % 2 if model.classes else None
    return ancestral(model, uniform, x, start, context, method)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("batch", "start"), [(1, 0), (17, 0), (3, 6), (3, 13), (2, 29)])
def test_both_ways_draw_the_same_integers(
    case: tuple[int, int, str, bool], batch: int, start: int
) -> None:
    """Also after a given beginning: whole rows, and a part of one."""
    model = model_for(*case)
    naive = drawn(model, "naive", batch, start)
    assert torch.equal(drawn(model, "incremental", batch, start), naive)
    assert naive.double().std() > 0.1  # a constant image would prove little


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_the_parameters_agree_at_every_pixel(
    case: tuple[int, int, str, bool], dtype: torch.dtype, tolerance: float
) -> None:
    model = model_for(*case, dtype)
    x = drawn(model_for(*case), "naive")
    context = torch.arange(3) % 2 if model.classes else None
    with torch.no_grad():
        whole = model.conditionals(x, context)
        stepper = model.stepper(3, context)
        size = model.head.parameters // model.groups
        for row in range(5):
            stepper.begin_row(x[:, :, row - 1] if row else None)
            for column in range(6):
                for channel in range(model.spec.shape[0]):
                    found = stepper.pixel(x[:, :, row], column, channel)
                    first = channel * size if model.groups > 1 else 0
                    part = slice(first, first + size)
                    difference = found[:, part] - whole[:, part, row, column]
                    assert difference.abs().max() <= tolerance


@pytest.mark.parametrize("case", CASES[1:])
@pytest.mark.parametrize("method", ["incremental", "jacobi"])
def test_the_compiled_sampler_draws_the_same_integers(
    case: tuple[int, int, str, bool], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also row by row, where attention reads the keys of pixels of the same row."""
    monkeypatch.setattr(sampling, "WORTH_COMPILING", 0)
    model = model_for(*case, torch.float32)
    assert torch.equal(drawn(model, method), drawn(model, "naive"))
    assert torch.equal(drawn(model, method, start=8), drawn(model, "naive", start=8))


def test_attention_is_the_sum_over_earlier_pixels() -> None:
    """Against the formula, pixel by pixel, each softmax over the pixels before."""
    torch.manual_seed(0)
    layer = CausalAttention(6, 1, 2, 4, 1, 0.0).double()
    h, x = torch.randn(2, 6, 3, 4).double(), torch.randn(2, 1, 3, 4).double()
    turn = turns(3, 4, 4, h)
    found = layer(h, x, turn)
    seen = layer.norm(h)
    query = layer.query(seen).flatten(2)  # [B, 2 heads * 4, N]
    memory = layer.memory(torch.cat([seen, x], 1).permute(0, 2, 3, 1))
    key, value = memory.permute(0, 3, 1, 2).flatten(2).chunk(2, 1)
    out = torch.zeros_like(query)
    for place in range(1, 12):
        for head in range(2):
            of = slice(4 * head, 4 * head + 4)
            q = turned(query[:, of, place], turn[:, place])
            keys, values = [], []
            for before in range(place):
                keys.append(turned(key[:, of, before], turn[:, before]))
                values.append(value[:, of, before])
            scores = torch.stack([(q * k).sum(1) for k in keys], 1) / math.sqrt(4)
            weights = scores.softmax(1)
            out[:, of, place] = (weights[:, :, None] * torch.stack(values, 1)).sum(1)
    expected = h + layer.out(out.reshape(2, 8, 3, 4))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_scores_depend_on_the_difference_of_places() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 8, dtype=torch.float64)
    turn = turns(7, 9, 8, q).unflatten(1, (7, 9))

    def score(a: tuple[int, int], b: tuple[int, int]) -> float:
        return float(turned(q, turn[:, *a]) @ turned(k, turn[:, *b]))

    assert score((1, 2), (0, 4)) == pytest.approx(score((5, 4), (4, 6)), abs=1e-12)
    assert score((1, 2), (0, 4)) != pytest.approx(score((1, 2), (1, 4)), abs=1e-6)
    assert score((1, 2), (0, 4)) != pytest.approx(score((1, 2), (0, 3)), abs=1e-6)
    # A turn keeps lengths: scores stay of one size however far the places are apart.
    assert float(turned(q, turn[:, 6, 8]).norm()) == pytest.approx(float(q.norm()))


def test_norm_and_gate_stay_within_a_colour_group() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 12, 3, 3, dtype=torch.float64)
    changed = x.clone()
    changed[:, 4:8] += torch.randn(2, 4, 3, 3)
    norm = ChannelNorm(12, 3).double()
    same = (norm(x) == norm(changed)).all(0).all(1).all(1)
    assert same.tolist() == [True] * 4 + [False] * 4 + [True] * 4
    by_group = norm(x).reshape(2, 3, 4, 3, 3)
    torch.testing.assert_close(by_group.mean(2), torch.zeros(2, 3, 3, 3).double())
    parts = torch.cat([linear_gate(part) for part in x.chunk(3, 1)], 1)
    torch.testing.assert_close(linear_gate(x, 3), parts)


def test_everything_before_a_pixel_is_seen_and_nothing_else() -> None:
    model = model_for(*CASES[0])
    x = torch.rand(1, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    for place in (0, 7, 17, 29):
        out = model.conditionals(x).flatten(2)[0, :, place].sum()
        (gradient,) = torch.autograd.grad(out, x)
        seen = gradient.flatten() != 0
        assert seen.tolist() == [True] * place + [False] * (30 - place)


def test_a_label_moves_every_pixel() -> None:
    model = model_for(*CASES[1])
    x = torch.zeros(2, 1, 5, 6, dtype=torch.int64)
    a, b = model.conditionals(x, torch.tensor([0, 1]))
    assert bool((a != b).any(0).all())


def test_sizes_that_do_not_fit_are_refused() -> None:
    colour = DataSpec("t", (3, 4, 4), 4)
    with pytest.raises(InvalidSetting, match="multiples of the 3 colour channels"):
        PixelSNAIL(colour, dataclasses.replace(SMALL, channels=8))
    with pytest.raises(InvalidSetting, match="head_size in 4s"):
        PixelSNAIL(colour, dataclasses.replace(SMALL, head_size=6))
    with pytest.raises(InvalidSetting, match="odd kernel"):
        PixelSNAIL(colour, dataclasses.replace(SMALL, kernel=4))
    with pytest.raises(InvalidSetting, match=r"dropout must be in \[0, 1\)"):
        dataclasses.replace(SMALL, dropout=1.0)
