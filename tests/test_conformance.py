"""What every public model must do, whatever it is: one suite over the registry."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

import likely
from likely import runs
from likely.ask import QUERIES, Guarantee
from likely.ask.colorize import grey_image
from likely.ask.complete import Completes, HasCompletions
from likely.ask.complete import answer as complete_answer
from likely.ask.likelihood import measure_of
from likely.data.spec import Dataset, DataSpec, digest_of
from likely.density import (
    ApproximateDensity,
    Autoregressive,
    Decoder,
    Dequantized,
    DiscreteLatent,
    EncoderDecoder,
    EnergyBased,
    ExpectedStatistics,
    Fittable,
    GenerativeModel,
    HasLoss,
    ImplicitDensity,
    LatentVariable,
    Mixture,
    OrderAgnostic,
    Split,
    Subsampled,
    TractableDensity,
    Upscales,
)
from likely.density.chain import raster
from likely.density.completion import codes
from likely.devices import place
from likely.errors import Diverged, InvalidData, InvalidSetting, Unanswerable
from likely.evaluate.likelihood import nats
from likely.heads import DiscretizedLogisticMixture
from likely.models import MODELS
from likely.models.gan.adversary import adversary_of
from likely.noise import Dropout, Noise, noise_for
from likely.sampling.incremental import Incremental
from likely.verify import Proofs, verify, weights_digest
from likely.verify.discrete import log_prob_of_all_codes
from likely.verify.subject import all_images
from sizes import COLOUR, SMALL

VECTORS = [name for name, found in MODELS.items() if found.load().takes_vectors]
VECTOR_MODELS = f"{', '.join(VECTORS[:-1])} or {VECTORS[-1]}"

SPECS = {
    "binary": DataSpec("binary", (1, 5, 4), 2, classes=("a", "b", "c")),
    "levels": DataSpec("levels", (1, 4, 4), 6, classes=("a", "b", "c")),
    "colour": DataSpec("colour", (3, 4, 4), 256, classes=("a", "b", "c")),
}


def fits(name: str, spec: DataSpec) -> bool:
    """Whether the model takes such data."""
    return name not in COLOUR or spec.shape[0] == 3


# Models that can be conditioned have a setting of that name.
CONDITIONAL = [n for n, e in MODELS.items() if "conditional" in e.settings.__dataclass_fields__]

# Every model on every kind of data; conditioned, where it can be, on the richest kind.
CASES = [
    pytest.param(name, spec, conditional, id=f"{name}-{spec}" + "-conditional" * conditional)
    for name in MODELS
    for spec in SPECS
    if fits(name, SPECS[spec])
    for conditional in [name in CONDITIONAL and spec == "colour"]
]

# What layers and methods decide, whatever the levels: each model on its richest kind, and on one of
# the two others in turn.
BRIEF_CASES = [
    case
    for case in CASES
    for name, spec, _ in [case.values]
    if spec in ("colour", ("binary", "levels")[list(MODELS).index(str(name)) % 2])
]

GENERATIVE = [name for name, found in MODELS.items() if issubclass(found.load(), GenerativeModel)]
GENERATIVE_CASES = [case for case in CASES if case.values[0] in GENERATIVE]
EXPLICIT = [name for name in GENERATIVE if not issubclass(MODELS[name].load(), ImplicitDensity)]


@pytest.fixture(autouse=True)
def _small_proposals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes that are weighed or descend need few draws to be right, and many only to be good."""
    for name, few in {"ROUNDS": 2, "FILLED": 4, "SPREAD": 8}.items():
        monkeypatch.setattr(codes, name, few)
    monkeypatch.setattr("likely.density.codes.DRAWN", 20)


def built(name: str, spec: DataSpec, conditional: bool = False, **changes: Any) -> Fittable:
    """A small model with lively weights: fresh ones hide what depends on them."""
    condition = {"conditional": conditional} if name in CONDITIONAL else {}
    wanted = {**SMALL.get(name, {}), **condition, **changes}
    model = runs.build(name, spec, wanted)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def images(spec: DataSpec, n: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(spec.levels, (n, *spec.shape), generator=generator)


def dataset(spec: DataSpec, n: int = 5, labelled: bool = True) -> Dataset:
    values = images(spec, n).numpy().astype(np.uint8)
    spec = dataclasses.replace(spec, n=n, digest=digest_of(values))
    return Dataset(spec, values, np.arange(n) % 3 if labelled else None)


def density(model: Fittable, x: Tensor, context: Tensor | None) -> Tensor:
    """Whatever the model says about x, as a function of its weights."""
    if isinstance(model, TractableDensity):
        return model.log_prob(x, context)
    if isinstance(model, ApproximateDensity):
        return model.elbo(x, Noise("conformance"), context)
    if isinstance(model, HasLoss):
        return model.loss(x, context)
    if isinstance(model, EnergyBased):
        return measure_of(model).log_prob(x, Noise("conformance"), context)
    assert isinstance(model, ImplicitDensity)
    generated = model.generate(model.latents(Noise("conformance"), len(x)), context)
    return (generated - model.scaled(x)).square().flatten(1).sum(1)


def context_for(model: Fittable, n: int) -> Tensor | None:
    return torch.arange(n) % model.classes if model.classes else None


@pytest.mark.parametrize(("name", "spec", "conditional"), GENERATIVE_CASES)
def test_samples(name: str, spec: str, conditional: bool) -> None:
    model = built(name, SPECS[spec], conditional)
    context = context_for(model, 9)
    x = model.sample(9, seed=1, context=context)
    assert x.dtype == torch.int64
    assert x.shape == (9, *SPECS[spec].shape)
    assert 0 <= int(x.min()) <= int(x.max()) < SPECS[spec].levels
    assert torch.equal(x, model.sample(9, seed=1, context=context))
    assert not torch.equal(x, model.sample(9, seed=2, context=context))
    prefix = None if context is None else context[:5]
    assert torch.equal(x[:5], model.sample(5, seed=1, context=prefix))
    assert len(torch.unique(x.flatten(1), dim=0)) > 1


@pytest.mark.parametrize("name", GENERATIVE)
def test_weights_that_are_not_numbers_draw_nothing_and_pass_no_proof(name: str) -> None:
    model = built(name, SPECS["colour" if name in COLOUR else "binary"])
    weights = [t for t in model.state_dict().values() if t.is_floating_point() and t.numel()]
    weights[-1].view(-1)[-1] = math.nan
    assert {proof.name for proof in verify(model).failed} == {"the weights are numbers"}
    with pytest.raises(Diverged, match="weights are NaN"):
        model.sample(2)  # type: ignore[operator]


@pytest.mark.parametrize(("name", "spec", "conditional"), GENERATIVE_CASES)
def test_sampling_touches_neither_mode_nor_the_global_generator(
    name: str, spec: str, conditional: bool
) -> None:
    model = built(name, SPECS[spec], conditional).train()
    context = context_for(model, 2)
    before, weights = torch.random.get_rng_state(), [t.clone() for t in model.state_dict().values()]
    x = model.sample(2, seed=4, context=context)
    assert model.training
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(weights, model.state_dict().values(), strict=True))
    assert torch.equal(x, model.eval().sample(2, seed=4, context=context))


@pytest.mark.parametrize(("name", "spec", "conditional"), CASES)
def test_the_density_has_the_declared_shape_and_the_label_matters(
    name: str, spec: str, conditional: bool
) -> None:
    model = built(name, SPECS[spec], conditional)
    x = images(SPECS[spec])
    context = context_for(model, 4)
    value = density(model, x, context)
    assert value.shape == (4,)
    assert value.dtype == torch.float32
    assert bool(value.isfinite().all())
    assert not isinstance(model, TractableDensity) or bool((value < 0).all())
    if context is not None:
        assert not torch.allclose(value, density(model, x, (context + 1) % 3), atol=1e-6)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", EXPLICIT)
def test_a_density_is_the_same_in_training_dropout_apart(name: str, spec: str) -> None:
    """Dropout draws another network at each pass; nothing else may depend on the mode."""
    if not fits(name, SPECS[spec]):
        return
    model = built(name, SPECS[spec], True)
    x, context = images(SPECS[spec]), context_for(model, 4)
    value = density(model, x, context)
    dropout = [m for m in model.train().modules() if isinstance(m, Dropout) and m.cut]
    with noise_for(model, Noise(0)):
        assert torch.equal(density(model, x, context), value) == (not dropout)
    for layer in dropout:
        layer.eval()
    assert torch.equal(density(model, x, context), value)


@pytest.mark.parametrize("name", EXPLICIT)
def test_a_surrogate_is_of_what_the_noise_draws(name: str) -> None:
    spec = SPECS["colour" if name in COLOUR else "levels"]
    model = built(name, spec, True)
    if not isinstance(model, Subsampled):
        return
    x, context = images(spec), context_for(model, 4)
    drawn = [model.surrogate(x, Noise(seed), context) for seed in range(20)]
    assert torch.equal(model.surrogate(x, Noise(0), context), drawn[0])
    assert len({float(value.detach().sum()) for value in drawn}) > 1
    if isinstance(model, Mixture):
        each = torch.stack([member.log_prob(x, context) for member in model.members()])
        assert bool((each.mean(0) <= model.log_prob(x, context) + 1e-5).all())
    # With nothing to choose from it is the density itself.
    counts = {"corners", "orders", "masks"} & {f.name for f in dataclasses.fields(model.settings)}
    single = built(name, spec, True, **dict.fromkeys(counts, 1))
    assert isinstance(single, Subsampled)
    assert single.alternatives == 1
    torch.testing.assert_close(single.surrogate(x, Noise(0), context), single.log_prob(x, context))


@pytest.mark.parametrize(("name", "spec", "conditional"), CASES)
def test_what_is_declared_is_true(name: str, spec: str, conditional: bool) -> None:
    model = built(name, SPECS[spec], conditional)
    answers = likely.answers(model)
    assert set(answers) == set(QUERIES)
    assert all(answer.reason for answer in answers.values())
    offered = offers(name, spec, conditional)
    for query, answer in answers.items():
        if query == "compress":  # it is no method: tests/ask/test_ask.py codes with every model
            continue
        if answer.guarantee is Guarantee.NONE:
            assert query not in offered, f"{query} is declared unanswerable, yet there is a method"
        else:
            assert offered[query].shape[0] == 4, f"{query} is declared, yet there is no method"
    assert ("likelihood" in offered) == (answers["likelihood"].guarantee is not Guarantee.NONE)
    if answers["likelihood"].guarantee is Guarantee.NONE:
        with pytest.raises(Unanswerable, match=type(model).__name__):
            nats(model, dataset(SPECS[spec]))
    elif spec == "binary":
        estimate = nats(model, dataset(SPECS[spec]), proofs=proved(model))
        exact = answers["likelihood"].guarantee is Guarantee.EXACT
        assert estimate.relation.value == ("=" if exact else "<=")


def proved(model: Fittable) -> Proofs:
    """As if its proofs had passed, where another test asks them."""
    return Proofs(type(model).__name__, weights_digest(model), True, 0, ())


@functools.cache
def offers(name: str, spec: str, conditional: bool) -> dict[str, Tensor]:
    """What the public methods of a case give, by query."""
    model = built(name, SPECS[spec], conditional)
    return _offers(model, images(SPECS[spec]), context_for(model, 4))


def _offers(model: Fittable, x: Tensor, context: Tensor | None) -> dict[str, Tensor]:
    """What the public methods give, by query. Names are looked up: an implicit density must not
    have a `log_prob` at all."""
    names = set(dir(type(model)))
    out: dict[str, Tensor] = {}
    if isinstance(model, GenerativeModel):
        out["sample"] = model.sample(4, context=context)
    if names & {"log_prob", "elbo", "importance_bound", "free_energy"}:
        out["likelihood"] = density(model, x, context)
    if isinstance(model, ExpectedStatistics):
        out["complete"] = _completed(model, x)
    elif "complete" in names:
        out["complete"] = _completed_by_kind(model, x, context)
    if "conditional" in names:
        assert isinstance(model, Autoregressive | ExpectedStatistics)
        rank = model.rank if isinstance(model, Autoregressive) else raster(model.spec)
        channel = x.shape[1] - 1
        table = model.conditional(x, 2, 3, channel, context)
        assert table.shape == (4, model.spec.levels)
        assert torch.allclose(table.sum(1), torch.ones(4), atol=1e-5)
        changed = x.clone()
        changed[:, channel, 2, 3] = 0
        changed[:, :, rank > rank[2, 3]] = 0
        assert torch.allclose(model.conditional(changed, 2, 3, channel, context), table, atol=1e-5)
        with pytest.raises(InvalidSetting, match="no dimension"):
            model.conditional(x, 99, 0, 0, context)
        out["conditional"] = table
    if "features" in names:
        out["features"] = model.features(x, context)
        wide = model.latent if isinstance(model, EncoderDecoder) else out["features"].shape[1]
        assert out["features"].shape == (4, wide)
    if "reconstruct" in names:
        out["reconstruct"] = model.reconstruct(x, context)
        assert out["reconstruct"].shape == x.shape
    if "interpolate" in names:
        out["interpolate"] = _interpolated(model, x, context)
        out |= _steered(model, x, context)
    if "posterior" in names:
        assert isinstance(model, LatentVariable)
        q = model.posterior(x, context)
        assert q.mean.shape == q.log_scale.shape == (4, model.latent)
        out["posterior"] = q.mean
    if "surprise" in names:
        assert isinstance(model, Autoregressive | Split)
        told = model.surprise(x, context)
        assert all(part.shape == x.shape for part in told)
        whole = -density(model, x, context).double()
        assert torch.allclose(told.nats.flatten(1).sum(1), whole, atol=1e-3, rtol=1e-4)
        out["surprise"] = told.nats
    if "upscale" in names:
        assert isinstance(model, Upscales)
        low = model.smaller(x)
        out["upscale"] = model.upscale(low, 2, seed=1, context=context)
        for drawn in out["upscale"].unbind(1):
            assert torch.equal(model.smaller(drawn), low)
    if "colorize" in names or (isinstance(model, Autoregressive) and x.shape[1] == 3):
        grey = grey_image(model, x)
        coloured = likely.ask(model, "colorize", grey, 2, seed=1, context=context, particles=3)
        out["colorize"] = coloured
        for drawn in coloured.unbind(1):
            assert torch.equal(grey_image(model, drawn), grey)
    if "stream" in names:
        assert isinstance(model, Incremental)
        out["stream"] = model.stream(4, context).log_table()
    return out


def _steered(model: Fittable, x: Tensor, context: Tensor | None) -> dict[str, Tensor]:
    """Arithmetic, a step of inversion and a walk; the label of all is one."""
    assert isinstance(model, Decoder)
    label = None if context is None else 1
    inversion = model.invert(x, steps=1, restarts=1, context=context)
    assert inversion.images.shape == x.shape
    result = model.arithmetic([inversion.codes, inversion.codes], [inversion.codes], context=label)
    assert result.images.shape == (9, *x.shape[1:])
    # Without an encoder examples are inverted first, in many steps: tests/ask/test_steering.py.
    ends = (x, x.flip(0)) if isinstance(model, EncoderDecoder) else 4
    walked = model.walk(ends, 3, context=context)
    assert walked.shape == (4, 3, *x.shape[1:])
    return {"invert": inversion.codes, "arithmetic": result.images[:4], "walk": walked}


def _completed(model: ExpectedStatistics, x: Tensor) -> Tensor:
    """Any pixels may be observed: here every other one."""
    assert isinstance(model, Completes)
    observed = raster(model.spec) % 2 == 0
    done = model.complete(x, observed)
    assert torch.equal(done[:, :, observed], x[:, :, observed])
    assert not torch.equal(done, x)
    return done


def _completed_by_kind(model: Fittable, x: Tensor, context: Tensor | None) -> Tensor:
    """What comes first in the model's order is exact; another mask is refused or approximate."""
    rank = model.rank if isinstance(model, Autoregressive) else raster(model.spec)
    observed = rank <= rank.max() // 2
    assert isinstance(model, HasCompletions)
    done = model.complete(x, observed, seed=0, context=context, particles=16)
    drawn = model.completions(x, observed, seed=0, context=context, particles=16)
    assert torch.equal(done, drawn.images[:, 0])
    assert torch.equal(done[:, :, observed], x[:, :, observed])
    assert not torch.equal(done, x)
    assert drawn.log_observed.shape == (4,)
    assert bool((drawn.log_observed < 0).all())
    assert drawn.exact == (complete_answer(model, observed).guarantee is Guarantee.EXACT)
    if isinstance(model, Autoregressive) and not isinstance(model, OrderAgnostic):
        order = "raster order" if model.is_raster else "the model's own order"
        with pytest.raises(Unanswerable, match=order):
            model.complete(x, ~observed, context=context, method="exact")
    return done


@pytest.mark.parametrize(("name", "spec", "conditional"), BRIEF_CASES)
def test_a_block_of_autocast_changes_no_answer(name: str, spec: str, conditional: bool) -> None:
    model = built(name, SPECS[spec], conditional)
    x, context = images(SPECS[spec]), context_for(model, 4)
    methods = model.methods if isinstance(model, Autoregressive) else ()
    if isinstance(model, Incremental) and model.reach(1) is None:
        methods = tuple(method for method in methods if method != "wavefront")

    def answers(offered: dict[str, Tensor]) -> dict[str, Tensor]:
        found = {"density": density(model, x, context)} | offered
        for method in methods:
            found[method] = model.sample(4, context=context, method=method)
        if isinstance(model, LatentVariable):
            z = Noise("z").normal(4, model.latent)
            found["drawn"] = model.decode(z, context, Noise("x").uniform(*x.shape))
            found["decoded"] = model.decode_mean(z, context)
        if isinstance(model, Incremental):
            stream = model.stream(4, context)
            for _ in range(x.shape[1]):
                assert stream.place is not None
                row, column, channel = stream.place
                stream.push(x[:, channel, row, column])
            found["stream"] = torch.cat([stream.log_table(), stream.log_prob[:, None]], 1)
        return found

    plain = answers(offers(name, spec, conditional))
    with torch.autocast("cpu", torch.bfloat16):
        lowered = model.scaled(x).flatten(1) @ torch.ones(x[0].numel(), 1)
        inside = answers(_offers(model, x, context))
    assert lowered.dtype is torch.bfloat16
    assert set(inside) == set(plain)
    for query, value in plain.items():
        assert inside[query].dtype == value.dtype
        assert torch.equal(inside[query], value), query


@pytest.mark.parametrize("name", EXPLICIT)
def test_no_sampler_makes_a_table_of_all_levels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mixture over many levels is drawn without one: it would take gigabytes."""

    def refuse(*_: Any) -> Tensor:
        raise AssertionError("a table of all levels")

    model = built(name, SPECS["colour"])
    monkeypatch.setattr(DiscretizedLogisticMixture, "log_table", refuse)
    x = model.sample(3)
    if isinstance(model, Autoregressive):
        for method in model.methods:
            if method != "wavefront":
                model.sample(2, method=method)
        model.complete(x, model.rank < 2)
    if isinstance(model, LatentVariable):
        model.reconstruct(x)
        model.interpolate((x, x.flip(0)), 2)
        model.decode_mean(torch.zeros(1, model.latent))


def _interpolated(model: Fittable, x: Tensor, context: Tensor | None) -> Tensor:
    """A path of five images for each of four; its ends are those of the codes."""
    if isinstance(model, EncoderDecoder):
        path = model.interpolate((x, x.flip(0)), 5, context=context)
        assert torch.equal(path[:, 0], model.reconstruct(x, context))
    else:
        assert isinstance(model, ImplicitDensity)
        path = model.interpolate(4, 5, seed=1, context=context)
    assert path.shape == (4, 5, *model.spec.shape)
    assert 0 <= int(path.min()) <= int(path.max()) < model.spec.levels
    return path


@pytest.mark.parametrize(("name", "spec", "conditional"), CASES)
def test_save_and_load_bit_for_bit(name: str, spec: str, conditional: bool, tmp_path: Path) -> None:
    model = built(name, SPECS[spec], conditional)
    # As a fit leaves it: sums in another order of memory may differ in their last bits.
    place(model, torch.device("cpu"))
    runs.save(tmp_path, model)
    loaded = runs.load(tmp_path).model
    # Loading chooses the memory order in which convolutions run fastest, and so their rounding.
    place(model, torch.device("cpu"))
    x, context = images(SPECS[spec]), context_for(model, 4)
    assert torch.equal(density(model, x, context), density(loaded, x, context))
    if isinstance(model, GenerativeModel):
        assert torch.equal(model.sample(3, seed=5, context=_first(context, 3)),
                           loaded.sample(3, seed=5, context=_first(context, 3)))  # fmt: skip
    assert loaded.spec == model.spec
    assert loaded.settings == model.settings


def _first(context: Tensor | None, n: int) -> Tensor | None:
    return None if context is None else context[:n]


@pytest.mark.parametrize(("name", "spec", "conditional"), CASES)
def test_proofs_hold(name: str, spec: str, conditional: bool) -> None:
    proved = proofs(name, spec, conditional)
    assert proved.passed, str(proved)
    assert proved["gradients reach every weight"].passed


@functools.cache
def proofs(name: str, spec: str, conditional: bool) -> Proofs:
    return verify(built(name, SPECS[spec], conditional), quick=True)


@pytest.mark.parametrize(("name", "spec", "conditional"), CASES)
def test_bad_input_is_refused(name: str, spec: str, conditional: bool) -> None:
    model = built(name, SPECS[spec], conditional)
    x, context = images(SPECS[spec]), context_for(model, 4)
    if not isinstance(model, ImplicitDensity):
        top = SPECS[spec].levels
        for bad, said in (
            (x[:, :, :-1], "shape"),
            (x[:0], "an empty batch"),
            (x.float(), "integers"),
            (torch.full_like(x, top), rf"\[0, {top}\)"),
            (x - top, rf"\[0, {top}\)"),
        ):
            with pytest.raises(InvalidData, match=said):
                density(model, bad, context)
    if not isinstance(model, GenerativeModel):
        return
    with pytest.raises(InvalidSetting, match="at least 1"):
        model.sample(0, context=_first(context, 0))
    if not conditional:
        with pytest.raises(InvalidSetting, match="unconditional"):
            model.sample(2, context=1)
        return
    nan = torch.tensor([math.nan, 0.0])
    for bad_context in (
        None,
        3,
        -1,
        torch.zeros(5, dtype=torch.int64),
        nan,
        torch.tensor([0.5, 1]),
    ):
        with pytest.raises(InvalidSetting, match="context"):
            model.sample(2, context=bad_context)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_labels_are_needed_to_condition_on_them(name: str) -> None:
    bare = dataclasses.replace(SPECS["binary"], classes=())
    with pytest.raises(InvalidSetting, match="conditional=true needs labels"):
        built(name, bare, True)


@pytest.mark.parametrize("name", EXPLICIT)
@pytest.mark.parametrize(
    "spec", [DataSpec("t", (1, 2, 2), 2), DataSpec("t", (1, 1, 3), 3), DataSpec("t", (3, 1, 2), 2)]
)
def test_sampling_frequencies_match_the_density(name: str, spec: DataSpec) -> None:
    if not fits(name, spec):
        return
    if issubclass(MODELS[name].load(), Dequantized):
        return  # a bound alone is known of the integers; tests/models/test_flow.py has the law
    changes = {"latent": 1} if issubclass(MODELS[name].load(), LatentVariable) else {}
    model = built(name, spec, **changes).double()
    everything = all_images(spec.shape, spec.levels)
    p = _probabilities(model, everything)
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-6)
    n = 4000
    x = model.sample(n, seed=11, chunk=n)
    places = spec.levels ** torch.arange(spec.dimensions).flip(0)
    counts = torch.bincount((x.flatten(1) * places).sum(1), minlength=len(p)).double()
    found = scipy.stats.chisquare(counts.numpy(), (n * p / p.sum()).numpy())
    assert found.pvalue > 1e-3
    # The test can tell: neighbouring outcomes swapped are no longer the same distribution.
    wrong = scipy.stats.chisquare(counts.numpy(), (n * p.roll(1) / p.sum()).numpy())
    assert wrong.pvalue < 1e-6


@torch.no_grad()
def _probabilities(model: GenerativeModel, everything: Tensor) -> Tensor:
    """p(x) of every image: exact, or the latent coordinate integrated on a grid, or by draws."""
    if isinstance(model, TractableDensity):
        return model.log_prob(everything).exp()
    if isinstance(model, EnergyBased):
        return density(model, everything, None).exp()
    if isinstance(model, DiscreteLatent):
        return log_prob_of_all_codes(model, everything).exp()
    assert isinstance(model, LatentVariable)
    if model.layers > 1:
        output, likelihood = model.decoder_output(model.latents(Noise("p"), 20_000)), []
        for x in everything:
            many = x.expand(len(output), *x.shape)
            likelihood.append(model.likelihood_given_z.log_prob(many, output).exp().mean())
        return torch.stack(likelihood)
    drawn = model.latents(Noise("prior"), 1000)
    z = torch.linspace(-12, 12, 1201, dtype=torch.float64)[:, None] * drawn.std() + drawn.mean()
    weight = model.prior.log_prob(z).exp() * float(z[1] - z[0])
    output, likelihood = model.decoder_output(z), model.likelihood_given_z
    each = [likelihood.log_prob(x.expand(len(z), *x.shape), output).exp() for x in everything]
    return torch.stack([(likelihood * weight).sum() for likelihood in each])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(3, 1, 6), (1, 9, 1), (1, 1, 1), (7,)], ids=str)
def test_any_shape_is_right_or_refused_in_a_sentence(name: str, shape: tuple[int, ...]) -> None:
    """Images of one row or one column, a single pixel, and vectors."""
    spec = DataSpec("odd", shape, 3 if len(shape) == 3 else 2, classes=("a", "b", "c"))
    if len(shape) == 1 and name not in VECTORS:
        with pytest.raises(InvalidSetting, match=f"vectors of 7 dimensions: take {VECTOR_MODELS}"):
            built(name, spec)
        return
    refused = {"dcgan": "at least 4 x 4", "r3gan": "at least 4 x 4"}
    if not fits(name, spec):
        refused[name] = "images of three channels; odd has 1"
    if shape == (1, 1, 1):
        refused["haar-pyramid"] = "a single pixel has no half"
    if name in refused:
        with pytest.raises(InvalidSetting, match=refused[name]):
            built(name, spec)
        return
    model = built(name, spec, conditional=True)
    data = dataset(spec, 12)
    likely.fit(model, data, steps=1, batch_size=6)
    proofs = verify(model, data, quick=True)
    assert proofs.passed, str(proofs)
    labels = context_for(model, 12)
    x = torch.from_numpy(data.values.astype(np.int64))
    if isinstance(model, GenerativeModel):
        x = model.sample(12, seed=1, context=labels)
        assert x.shape == (12, *shape)
        if name in EXPLICIT:
            assert nats(model, data, proofs=proofs).n == 12
    assert all(answer.shape[0] == 4 for answer in _of_odd_shape(model, x[:4], _first(labels, 4)))
    if isinstance(model, TractableDensity) and spec.levels**spec.dimensions < 300:
        context = None if labels is None else context_of_all(spec)
        total = model.log_prob(all_images(shape, spec.levels), context).exp().sum()
        assert float(total.detach()) == pytest.approx(1.0, abs=1e-4)


def context_of_all(spec: DataSpec) -> Tensor:
    return torch.zeros(spec.levels**spec.dimensions, dtype=torch.int64)


def _of_odd_shape(model: Fittable, x: Tensor, labels: Tensor | None) -> Iterator[Tensor]:
    """What can be asked beside samples, each of the shape of the data."""
    if isinstance(model, Autoregressive):
        pixels = x.shape[-2:] if x.ndim == 4 else x.shape[1:]
        nothing = torch.zeros(pixels, dtype=torch.bool)
        first = (model.rank == 0).reshape(pixels)
        done = model.complete(x, first, seed=3, context=labels)
        assert done.shape == x.shape
        assert torch.equal(done[..., first], x[..., first])
        for method in (m for m in model.methods if m in ("naive", "incremental")):
            drawn = model.sample(4, seed=1, context=labels, method=method)
            assert torch.equal(drawn, model.sample(4, seed=1, context=labels))
        for bad in (torch.zeros(3, 3, 3, dtype=torch.bool), nothing.float()):
            with pytest.raises(InvalidData, match="observed"):
                model.complete(x, bad, context=labels)
        yield done
    if isinstance(model, EncoderDecoder):
        z = model.encode(x, labels)
        for image in (model.decode(z, labels), model.reconstruct(x, labels)):
            assert image.shape == x.shape
            yield image
        assert model.decode_mean(z, labels).shape == x.shape
        assert model.interpolate((x, x), 3, context=labels).shape == (4, 3, *x.shape[1:])


@pytest.mark.parametrize("name", MODELS)
def test_presets_take_vectors_or_the_model_says_who_does(name: str) -> None:
    for length in (1, 24, 784):
        spec = DataSpec("vectors", (length,), 2)
        found = MODELS[name]
        settings, fit = found.preset(spec), found.fit_preset(spec)
        assert fit.steps > 0
        assert getattr(settings, "prior", "none") != "local"  # dimensions have no distance
        with torch.device("meta"):
            if name in VECTORS:
                assert found.load()(spec, settings).spec.shape == (length,)
            else:
                with pytest.raises(InvalidSetting, match=VECTOR_MODELS):
                    found.load()(spec, settings)
    with pytest.raises(InvalidSetting, match="reshape"):
        runs.build(name, DataSpec("flat", (4, 4), 2))


def test_a_vae_of_vectors_is_dense() -> None:
    spec = DataSpec("vectors", (6,), 2)
    with pytest.raises(InvalidSetting, match="network=dense"):
        runs.build("vae", spec, {"network": "conv"})


@pytest.mark.parametrize(("name", "spec", "conditional"), CASES)
def test_every_question_about_images_refuses_what_is_none(
    name: str, spec: str, conditional: bool
) -> None:
    model = built(name, SPECS[spec], conditional)
    x, context, top = images(SPECS[spec]), context_for(model, 4), SPECS[spec].levels
    questions: dict[str, Callable[[Tensor], Any]] = {}
    if isinstance(model, TractableDensity):
        questions["log_prob"] = lambda bad: model.log_prob(bad, context)
    if isinstance(model, LatentVariable):
        noise = Noise("bad")
        questions |= {
            "elbo": lambda bad: model.elbo(bad, noise, context),
            "elbo_terms": lambda bad: model.elbo_terms(bad, noise, context),
            "importance_bound": lambda bad: model.importance_bound(bad, 2, noise, context),
            "posterior": lambda bad: model.posterior(bad, context),
        }
    if isinstance(model, HasLoss):
        questions["loss"] = lambda bad: model.loss(bad, context)
    if isinstance(model, EncoderDecoder):
        questions |= {
            "encode": lambda bad: model.encode(bad, context),
            "features": lambda bad: model.features(bad, context),
            "reconstruct": lambda bad: model.reconstruct(bad, context),
            "interpolate (first)": lambda bad: model.interpolate((bad, x), 2, context=context),
            "interpolate (last)": lambda bad: model.interpolate((x, bad), 2, context=context),
        }
    if isinstance(model, Autoregressive):
        observed = torch.zeros(x.shape[2:], dtype=torch.bool)
        questions["conditional"] = lambda bad: model.conditional(bad, 0, 0, 0, context)
        questions["complete"] = lambda bad: model.complete(bad, observed, context=context)
    for question, ask in questions.items():
        for bad, said in (
            (x[:, :, :-1], "shape"),
            (x[:0], "an empty batch"),
            (x / top, "integers"),
            (torch.full_like(x, top), rf"\[0, {top}\)"),
            (x - top, rf"\[0, {top}\)"),
        ):
            with pytest.raises(InvalidData, match=said):
                ask(bad)
            assert question


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("shape", "levels"),
    [((1, 8, 8), 17), ((1, 28, 28), 2), ((3, 32, 32), 256), ((3, 64, 64), 256), ((1, 28, 28), 256)],
)
def test_presets_fit_the_data(name: str, shape: tuple[int, ...], levels: int) -> None:
    spec = DataSpec("preset", shape, levels, classes=("a", "b"))
    if not fits(name, spec):
        return
    found = MODELS[name]
    settings = found.preset(spec)
    # Shapes alone are computed: no memory, no time.
    with torch.device("meta"):
        # Labels have no sides: two of the shapes are enough.
        both = name in CONDITIONAL and spec.side in (8, 32)
        for conditional in (False, True)[: 1 + both]:
            condition = {"conditional": conditional} if name in CONDITIONAL else {}
            model = found.load()(spec, dataclasses.replace(settings, **condition))
            context = torch.zeros(2, dtype=torch.int64) if conditional else None
            x = torch.zeros(2, *shape, dtype=torch.int64)
            if isinstance(model, Autoregressive):
                assert model.conditionals(x, context).shape == (
                    2,
                    model.head.parameters,
                    *shape[1:],
                )
            elif isinstance(model, OrderAgnostic):
                groups = 1 if model.head.couples_channels else shape[0]
                known = torch.zeros(2, groups, *shape[1:], dtype=torch.bool)
                parameters = model.predictions(x, known, context)
                assert parameters.shape == (2, model.head.parameters, *shape[1:])
            elif isinstance(model, Mixture):
                assert model.members()[0].conditionals(x, context).shape[2:] == shape[1:]
            elif isinstance(model, LatentVariable):
                q = model.posterior(x, context)
                assert q.mean.shape == (2, model.latent)
                out = model.decoder_output(q.mean, context)
                parameters = model.likelihood_given_z.conditionals(x, out)
                assert parameters.shape == (2, model.head.parameters, *shape[1:])
            elif isinstance(model, EncoderDecoder):
                maps = model.decoded_features
                z = model.encode(x, context)
                assert z.shape == (2, model.latent)
                assert model.decoder_output(z, context).shape == (2, maps, *shape[1:])
            elif isinstance(model, ImplicitDensity):
                generated = model.generate(torch.zeros(2, model.settings.latent), context)
                assert generated.shape == (2, *shape)
                assert adversary_of(model)(generated, context).shape == (2,)
            elif isinstance(model, EnergyBased):
                assert model.free_energy(x, context).shape == (2,)
                assert model.features(x).shape == (2, model.hidden)
            elif isinstance(model, DiscreteLatent):
                codes = model.encode(x, context)
                assert codes.shape == (2, *model.prior.spec.shape)
                assert model.prior.conditionals(codes).shape[1] == model.prior.spec.levels
                out = model.decoder_output(codes, context)
                assert out.shape == (2, model.head.parameters, *shape[1:])
            elif isinstance(model, Dequantized):
                assert model.log_density(x.float() + 0.5, context).shape == (2,)
            elif isinstance(model, TractableDensity):
                assert model.log_prob(x, context).shape == (2,)
            else:
                pytest.fail(f"{name}: a kind that this suite does not know")


def test_every_entry_of_the_registry_names_its_model() -> None:
    for name, found in MODELS.items():
        assert name == found.name
        assert issubclass(found.load(), Fittable)
        assert found.summary.endswith(".")
        assert dataclasses.is_dataclass(found.settings)
