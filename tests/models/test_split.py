"""Luma and chroma, averages and details: nothing is lost, both parts are densities, draws agree."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import likely
from likely import models
from likely.ask import ask
from likely.ask.colorize import colourings
from likely.data.spec import Dataset, DataSpec, digest_of
from likely.density import Drawing, Lifting, Split
from likely.density.colouring import consistent, grey_of
from likely.errors import InvalidData, InvalidSetting, Unanswerable
from likely.heads import DiscretizedLogisticMixture, invert
from likely.models.split.haar_pyramid import HaarPyramid, Halving
from likely.models.split.luma_chroma import Colours, LumaChroma
from likely.models.split.networks import LatticePixelCNN
from likely.noise import Noise
from likely.verify import verify
from likely.verify.subject import all_images
from sizes import SMALL
from test_conformance import built

COLOUR = DataSpec("colour", (3, 4, 4), 256)
SHAPES = [(Colours, (3, 1, 1), 5), (Halving, (1, 2, 2), 4), (Halving, (1, 3, 1), 5),
          (Halving, (2, 1, 2), 3)]  # fmt: skip


def lively(name: str, shape: tuple[int, ...], levels: int, **changes: object) -> Split:
    model = built(name, DataSpec("split", shape, levels), **changes).double()
    assert isinstance(model, Split)
    return model


@pytest.mark.parametrize(("kind", "shape", "levels"), SHAPES)
def test_parts_are_the_image_and_bounds_leave_the_images_and_nothing_else(
    kind: type[Lifting], shape: tuple[int, ...], levels: int
) -> None:
    lifting = kind(DataSpec("split", shape, levels))  # type: ignore[call-arg]
    x = all_images(shape, levels)
    base, rest = lifting.split(x)
    assert torch.equal(lifting.merge(base, rest), x)
    assert 0 <= int(base.min()) <= int(base.max()) < levels
    # Of every base: as many rests within bounds as there are images with it.
    known = lifting.scaled(lifting.known(base), torch.float32)
    allowed = torch.ones(len(x), dtype=torch.float64)
    for channel in range(rest.shape[1]):
        low, high = lifting(known, rest, channel)
        assert bool(((low <= rest[:, channel]) & (rest[:, channel] <= high)).all())
        allowed = allowed / (high - low + 1).double().flatten(1).prod(1)
    _, group = base.flatten(1).unique(dim=0, return_inverse=True)
    # Each choice of differences, drawn evenly among the allowed ones, is an image.
    total = torch.zeros(int(group.max()) + 1, dtype=torch.float64).index_add(0, group, allowed)
    assert torch.allclose(total, torch.ones_like(total))


@pytest.mark.parametrize("shape", [(3, 5, 4), (3, 4, 6), (3, 1, 7)])
@pytest.mark.parametrize("kind", [Colours, Halving])
def test_numbers_of_the_parts_keep_their_sum_in_the_image(
    kind: type[Lifting], shape: tuple[int, ...]
) -> None:
    lifting = kind(DataSpec("split", shape, 256))  # type: ignore[call-arg]
    base, rest = lifting.split(torch.randint(256, (6, *shape)))
    exists = torch.ones(rest.shape)
    if kind is Halving:  # differences that are not there have no numbers
        known = lifting.scaled(lifting.known(base), torch.float32)
        exists = torch.stack([torch.sub(*lifting(known, rest, c)) != 0 for c in range(9)], 1)
    numbers = torch.rand(base.shape), torch.rand(rest.shape) * exists
    spread = lifting.spread(*numbers)
    assert spread.shape == (6, *shape)
    torch.testing.assert_close(spread.sum(), numbers[0].sum() + numbers[1].sum())


@pytest.mark.parametrize(
    ("name", "shape", "levels", "changes"),
    [
        ("luma-chroma", (3, 1, 2), 3, {}),
        ("haar-pyramid", (1, 3, 3), 2, {"scales": 2}),
        ("haar-pyramid", (3, 2, 1), 3, {}),
    ],
)
def test_bits_of_the_parts_add_up_and_each_part_sums_to_one(
    name: str, shape: tuple[int, ...], levels: int, changes: dict[str, int]
) -> None:
    model = lively(name, shape, levels, **changes)
    x = all_images(shape, levels)
    with torch.no_grad():
        base, rest = model.log_parts(x)
        whole = model.log_prob(x)
    assert float((base + rest - whole).abs().max()) < 1e-6
    assert float(whole.exp().sum()) == pytest.approx(1.0, abs=1e-9)
    _, group = model.lifting.split(x)[0].flatten(1).unique(dim=0, return_inverse=True)
    given = torch.zeros(int(group.max()) + 1, dtype=torch.float64).index_add(0, group, rest.exp())
    assert float((given - 1.0).abs().max()) < 1e-9
    nats = model.rest_nats(x)
    assert nats.shape == x.shape
    torch.testing.assert_close(nats.flatten(1).sum(1), -rest)
    torch.testing.assert_close(model.surprise(x).nats.flatten(1).sum(1), -whole)


def test_draws_given_averages_follow_the_conditional() -> None:
    """All images of 2 x 2 pixels and three levels with one average, against 20,000 draws."""
    model = lively("haar-pyramid", (1, 2, 2), 3)
    assert isinstance(model, HaarPyramid)
    x = all_images((1, 2, 2), 3)
    low = torch.ones(1, 1, 1, 1, dtype=torch.int64)
    with_low = x[(model.smaller(x) == 1).flatten()]
    drawn = model.upscale(low, 20_000, seed=3)[0]
    place = 3 ** torch.arange(4).flip(0)
    counts = torch.bincount((drawn.flatten(1) * place).sum(1), minlength=81).double() / 20_000
    with torch.no_grad():
        log_p = model.log_prob(with_low) - model.base.log_prob(low).double()
    expected = torch.zeros(81, dtype=torch.float64)
    expected[(with_low.flatten(1) * place).sum(1)] = log_p.exp()
    assert float(expected.sum()) == pytest.approx(1.0, abs=1e-9)
    assert float((counts - expected).abs().sum() / 2) < 0.02


def test_four_times_larger_is_two_conditionals_and_agrees_to_the_last_integer() -> None:
    model = lively("haar-pyramid", (3, 7, 8), 256, scales=2)
    assert isinstance(model, HaarPyramid)
    assert model.enlargements == (2, 4)
    x = torch.randint(256, (2, 3, 7, 8))
    for times in model.enlargements:
        low = model.smaller(x, times)
        images = model.upscale(low, 3, times=times, seed=5)
        assert images.shape == (2, 3, 3, 7, 8)
        for image in images.unbind(1):
            assert torch.equal(model.smaller(image, times), low)
        missing = model.rest_nats(x, splits=times // 2).flatten(1).sum(1)
        whole = model.enlargings(low, times=times).log_observed - missing
        torch.testing.assert_close(whole, model.log_prob(x).double())
    for times in (3, 8):
        with pytest.raises(InvalidSetting, match="enlarges by 2 or 4"):
            model.upscale(low, times=times)
    with pytest.raises(InvalidData, match="shape"):
        model.upscale(x, times=4)


def test_multiscale_models_enlarge_every_second_pixel() -> None:
    spec = DataSpec("grey", (1, 5, 4), 3)
    x = torch.randint(3, (2, 1, 5, 4))
    for name, times in (("multiscale-pixelcnn", (2,)), ("parallel-multiscale", (2, 4))):
        model = built(name, spec)
        assert set(times) <= set(model.enlargements)  # type: ignore[arg-type]
        drawn = ask(model, "upscale", x[:, :, ::2, ::2], 3)
        low = x[:, None, :, ::2, ::2].expand(-1, 3, -1, -1, -1)
        assert torch.equal(drawn[..., ::2, ::2], low)
        with pytest.raises(InvalidData, match="small images"):
            ask(model, "upscale", x)
        with pytest.raises(InvalidSetting, match="times=3"):
            ask(model, "upscale", x, times=3)
    with pytest.raises(Unanswerable, match="no small image comes first"):
        ask(built("pixelcnn", spec), "upscale", x)


def test_the_colours_of_a_grey_level_are_those_that_pillow_makes_it_of() -> None:
    from PIL import Image

    x = torch.randint(256, (1, 3, 40, 50))
    picture = Image.fromarray(x[0].permute(1, 2, 0).to(torch.uint8).numpy(), "RGB").convert("L")
    assert torch.equal(grey_of(x)[0, 0], torch.tensor(list(picture.tobytes())).view(40, 50))
    colours = all_images((3, 1, 1), 6)
    grey = grey_of(colours).flatten()
    for channel in range(3):
        before = colours[:, :channel, 0, 0]
        allowed = consistent(grey, before, channel, 6)
        for level in range(6):
            same = (colours[:, None, :channel] == colours[None, :, :channel]).flatten(2).all(2)
            exists = same & (colours[None, :, channel, 0, 0] == level) & (grey == grey[:, None])
            assert torch.equal(allowed[:, level], exists.any(1))


@pytest.mark.parametrize("name", ["pixelcnn", "gated-pixelcnn"])
def test_colours_by_particles_follow_the_conditional(name: str) -> None:
    """Against the sum over all images of two pixels and four levels with that grey."""
    model = built(name, DataSpec("colour", (3, 1, 2), 4)).double()
    x = all_images((3, 1, 2), 4)
    grey = torch.tensor([[[[1, 2]]]])
    same = x[(grey_of(x) == grey).flatten(1).all(1)]
    with torch.no_grad():
        log_p = model.log_prob(same)
    drawn = colourings(model, grey, 4000, seed=1, particles=4000)
    assert not drawn.exact
    assert bool((grey_of(drawn.images[0]) == grey).all())
    assert float(drawn.log_observed) == pytest.approx(float(log_p.logsumexp(0)), abs=0.05)
    place = 4 ** torch.arange(6)
    counts = torch.bincount((drawn.images[0].flatten(1) * place).sum(1), minlength=4**6).double()
    expected = torch.zeros(4**6, dtype=torch.float64)
    expected[(same.flatten(1) * place).sum(1)] = log_p.softmax(0)
    floor = float((expected * (1 - expected) / 4000).sqrt().sum())  # of draws that are exact
    assert float((counts / 4000 - expected).abs().sum()) < 2.0 * floor


def test_a_bounded_mixture_is_the_unbounded_one_with_its_tails_on_the_ends() -> None:
    class Between:
        planes = 1

        def __call__(self, known: Tensor, x: Tensor, channel: int) -> tuple[Tensor, Tensor]:
            low = known[:, 0].long()
            return low, low + 3

    torch.manual_seed(0)
    head = DiscretizedLogisticMixture(2, 9, 3, Between())
    plain = DiscretizedLogisticMixture(2, 9, 3)
    parameters = torch.randn(50, plain.parameters, 2, 2, dtype=torch.float64)
    known = torch.randint(6, (50, 1, 2, 2)).double()
    x = known.long() + torch.randint(4, (50, 2, 2, 2))
    bounded = torch.cat([parameters, known], 1)
    table = head.log_table(bounded, x, 0)
    assert float(table.logsumexp(1).abs().max()) < 1e-12
    uniform = torch.rand(50, 2, 2, dtype=torch.float64)
    level = head.quantile(bounded, x, 0, uniform)
    assert torch.equal(level, invert(table, uniform))
    unbounded = plain.quantile(parameters, x, 0, uniform)
    assert torch.equal(level, unbounded.clamp(min=known[:, 0].long(), max=known[:, 0].long() + 3))
    log_p = head.log_prob(bounded, x)
    for channel in range(2):
        entry = head.log_table(bounded, x, channel).gather(1, x[:, channel, None])[:, 0]
        torch.testing.assert_close(entry, log_p[:, channel])
    assert bool((head.mean(bounded, x, 0) >= known[:, 0]).all())


class WideBounds(Colours):
    """Differences that no image has get some mass."""

    def reaches(self, known: Tensor, d: Sequence[Tensor], channel: int) -> Tensor:
        return super().reaches(known, d, channel) + 1


class Forgetful(Colours):
    """The lowest bit of the luma is lost."""

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        base, rest = super().split(x)
        return base // 2 * 2, rest


@pytest.mark.parametrize(
    ("defect", "proof"), [(WideBounds, "total probability"), (Forgetful, "the parts are the image")]
)
def test_planted_defects_are_proved(
    defect: type[Lifting], proof: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import likely.models.split.luma_chroma as module

    monkeypatch.setattr(module, "Colours", defect)
    broken = built("luma-chroma", DataSpec("colour", (3, 2, 2), 4))
    failed = [each.name for each in verify(broken, quick=True).failed]
    assert any(name.startswith(proof) for name in failed), failed


def test_a_fit_starts_at_the_spread_of_the_differences() -> None:
    """The first value of a fresh network is near that of the differences' own histogram."""
    train, _ = likely.data.load("digits")
    model = models.HaarPyramid(train.spec, models.HaarPyramidSettings(**SMALL["haar-pyramid"]))
    x = torch.from_numpy(train.values[:200].astype("int64"))
    with torch.no_grad():
        before = -model.log_prob(x).mean()
        model.start_at(train)
        after = -model.log_prob(x).mean()
    assert after < before - 10


def test_tiny_instances_keep_the_head_so_that_any_number_of_channels_is_proved() -> None:
    """32 feature maps do not divide into three colours, which a head for few levels would order."""
    model = built("haar-pyramid", COLOUR, channels=8, head_channels=8)
    assert verify(model, quick=True).passed


@pytest.mark.parametrize(("side", "scales"), [((4, 4), 2), ((5, 6), 3), ((1, 3), 4)])
def test_chroma_of_every_second_place_comes_first(side: tuple[int, int], scales: int) -> None:
    model = lively("luma-chroma", (3, *side), 256, chroma_scales=scales)
    rest = model.rest
    assert isinstance(rest, LatticePixelCNN)
    for times in [2**scale for scale in range(1, scales) if 2 ** (scale - 1) < max(side)]:
        first = rest.coarse_pixels(times)
        assert rest.known_ranks(first) == int(first.sum())
    assert sorted(rest.rank.flatten().tolist()) == list(range(side[0] * side[1]))
    # Both ways draw the same integers, from nothing and from what is known.
    x = torch.randint(256, (3, 3, *side))
    base, differences = model.lifting.split(x)
    condition = model.condition(base, None)
    uniform = Noise(5).uniform(*differences.shape)
    for known in (0, 1, int(rest.rank.max())):
        fast, naive = (
            rest.fill(differences, uniform, known, condition, Drawing(method))
            for method in ("auto", "naive")
        )
        assert torch.equal(fast, naive)
        assert torch.equal(fast[:, :, rest.rank < known], differences[:, :, rest.rank < known])


def test_every_scale_starts_at_the_spread_of_its_differences() -> None:
    noise = Noise(3)
    grey = noise.uniform(200, 1, 8, 8) * 200 + 20
    values = (grey + 8 * noise.normal(200, 3, 8, 8)).to(torch.uint8).numpy()
    train = Dataset(DataSpec("tinted", (3, 8, 8), 256, n=200, digest=digest_of(values)), values)
    x = torch.from_numpy(train[:100].astype("int64"))
    nats = []
    for scales in (1, 2, 3):
        model = lively("luma-chroma", (3, 8, 8), 256, chroma_scales=scales)
        model.start_at(train)
        with torch.no_grad():
            nats.append(-float(model.log_parts(x)[1].mean()))
            if isinstance(rest := model.rest, LatticePixelCNN):
                few = rest.of_small(rest.scaled(model.lifting.split(x)[1]))
                bias = rest.enlarge.seen.bias
                assert bias is not None
                told = rest.enlarge.seen(few) - bias[:, None, None]
                assert 0.2 < float(told.std()) < 1.0
    # One histogram of all differences, whatever their order.
    assert max(nats) < 1.1 * min(nats)


def test_luma_may_be_a_pyramid_itself() -> None:
    model = lively("luma-chroma", (3, 4, 4), 256, luma="haar-pyramid")
    assert isinstance(model, LumaChroma)
    assert isinstance(model.base, HaarPyramid)
    x = torch.randint(256, (2, 3, 4, 4))
    images = model.colorize(model.luma(x), 2, seed=1)
    assert all(torch.equal(model.luma(image), model.luma(x)) for image in images.unbind(1))
    assert model.sample(2, seed=1).shape == (2, 3, 4, 4)
