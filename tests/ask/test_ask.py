"""Every query to every model: `likely.ask` agrees with the method, and what is declared is true."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import likely
from likely.ask import QUERIES, Guarantee, answers, ask, decompress
from likely.ask.likelihood import measure_of
from likely.density import (
    Autoregressive,
    EncoderDecoder,
    EnergyBased,
    ExpectedStatistics,
    Fittable,
    GenerativeModel,
    ImplicitDensity,
    LatentVariable,
)
from likely.density.completion import codes
from likely.errors import InvalidSetting, Unanswerable
from likely.models import MODELS
from likely.models.gan.adversary import adversary_of
from likely.noise import Noise
from sizes import COLOUR
from test_conformance import SPECS, built, context_for, images
from test_own_models import Generator, Hidden, Independent

OWN: dict[str, type[GenerativeModel]] = {
    "own-tractable": Independent, "own-approximate": Hidden, "own-implicit": Generator,
}  # fmt: skip
NAMES = [*MODELS, *OWN]
# Arguments of a function here that the method of the same name does not have.
EXTRA = {"features": {"adversary"}, "colorize": {"particles"}}


@pytest.fixture(autouse=True)
def _small_proposals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weighed codes need few draws to be right, and many only to be good."""
    monkeypatch.setattr(codes, "SPREAD", 8)


def model_of(name: str, conditional: bool = False) -> Fittable:
    if name in OWN:
        return OWN[name](SPECS["levels"]).eval()  # type: ignore[arg-type]
    spec = SPECS["levels"]
    if name in COLOUR:
        spec = dataclasses.replace(spec, shape=(3, *spec.shape[1:]))
    return built(name, spec, conditional)


def first_half(model: Fittable, x: Tensor) -> Tensor:
    """Pixels that come first in the order of the model, bool [H, W]."""
    rank = torch.arange(x[0, 0].numel()).reshape(x.shape[2:])
    if isinstance(model, Autoregressive):
        rank = model.rank
    return rank <= rank.max() // 2


def arguments(model: Fittable, query: str, x: Tensor) -> tuple[tuple[Any, ...], Any]:
    """A valid call of a query, without the model."""
    context = context_for(model, len(x))
    pairs = 4 if isinstance(model, GenerativeModel) else (x, x.flip(0))
    if query in ("arithmetic", "walk") and context is not None:
        context = 1  # for all
    positional: dict[str, tuple[Any, ...]] = {
        "sample": (4,), "conditional": (x, 2, 1), "complete": (x, first_half(model, x)),
        "interpolate": (pairs, 3), "stream": (4,), "walk": (pairs, 3),
        "upscale": (x[:, :, ::2, ::2], 3), "colorize": (x[:, :1], 3),
        "forecast": (x, 3),
    }  # fmt: skip
    options: dict[str, Any] = {"context": context}
    if query == "arithmetic":
        codes = torch.randn(4, getattr(model, "latent", 2))
        group = x if isinstance(model, EncoderDecoder) else codes
        positional["arithmetic"] = ([group, group.flip(0)], [group[:3]])
    method = getattr(type(model), query, None)
    if query == "complete" and method and "particles" in inspect.signature(method).parameters:
        options["particles"] = 16
    if query == "invert":
        options |= {"steps": 2, "restarts": 1 if isinstance(model, EncoderDecoder) else 2}
    return positional.get(query, (x,)), options


def expected_shape(model: Fittable, query: str, x: Tensor) -> tuple[int, ...]:
    if query in ("likelihood", "posterior"):
        return (4,) if query == "likelihood" else (4, model.latent)
    if query in ("features", "conditional", "stream"):
        # Of VQ-VAE, 2 x 2 x 3; of RBM, its hidden units.
        described = getattr(model.settings, "latent", getattr(model, "hidden", x.shape[-1] * 3))
        if isinstance(model, ExpectedStatistics):
            described = model.settings.components
        if isinstance(model, LatentVariable):
            described = model.latent
        return (4, described if query == "features" else model.spec.levels)
    if query == "arithmetic":
        return (9, *x.shape[1:])
    several = ("interpolate", "walk", "upscale", "colorize")
    return (4, 3, *x.shape[1:]) if query in several else tuple(x.shape)


@pytest.mark.parametrize(
    ("name", "conditional"), [*((n, False) for n in NAMES), *((n, True) for n in MODELS)]
)
def test_asking_is_calling_the_method_and_answers_are_true(name: str, conditional: bool) -> None:
    model = model_of(name, conditional)
    for query in QUERIES:
        print(query)  # shown where it fails
        check_query(model, query)


def check_query(model: Fittable, query: str) -> None:
    x = images(model.spec)
    given, options = arguments(model, query, x)
    answer = answers(model)[query]
    assert answer.reason
    if answer.guarantee is Guarantee.NONE:
        with pytest.raises(Unanswerable) as error:
            ask(model, query, *given, **options)
        assert str(error.value) == f"{type(model).__name__}: {answer.reason}"
        assert not callable(getattr(type(model), query, None))
        return
    replied = likely.ask(model, query, *given, **options)
    if query == "compress":
        back = decompress(model, replied.content).x
        assert torch.equal(back.to(torch.int64), x)
        return
    if query == "likelihood":
        noise = (Noise("likelihood", 0),) if answer.guarantee is Guarantee.BOUND else ()
        if isinstance(model, EnergyBased):
            direct = measure_of(model).log_prob(x, Noise("unused"), options["context"])
        else:
            method = getattr(model, "elbo" if noise else "log_prob")
            direct = method(x, *noise, options["context"])
    else:
        direct = getattr(model, query)(*given, **options)
    if query == "stream":
        replied, direct = (s.log_table().float() for s in (replied, direct))
    if query == "posterior":
        replied, direct = replied.mean, direct.mean
    if query in ("arithmetic", "invert"):
        replied, direct = replied.images, direct.images
    if query == "surprise":
        replied, direct = replied.nats.float(), direct.nats.float()
    assert torch.equal(replied, direct)
    assert replied.shape == expected_shape(model, query, x)
    whole = query in ("sample", "complete", "reconstruct", "interpolate", "arithmetic", "invert",
                      "walk", "upscale", "colorize")  # fmt: skip
    assert replied.dtype == (torch.int64 if whole else torch.float32)


@pytest.mark.parametrize("name", NAMES)
def test_a_method_has_the_one_form_of_its_query(name: str) -> None:
    """Its arguments begin as those of the function do; how it computes may have more of them."""
    model = model_of(name)
    for query in QUERIES.values():
        method = getattr(type(model), query.name, None)
        # `log_prob` and `elbo` are the one; the other is written once for all models.
        assert method is None or query.name not in ("likelihood", "compress")
        if method is None:
            continue
        form = list(inspect.signature(query.run).parameters.values())[1:]
        of_method = inspect.signature(method).parameters
        for parameter in form:
            if parameter.name not in EXTRA.get(query.name, set()):
                same = of_method[parameter.name]
                assert (same.default, same.kind) == (parameter.default, parameter.kind), query.name
        shared = [p for p in of_method if p in {q.name for q in form}]
        assert shared == [p.name for p in form if p.name in shared]


def test_what_is_asked_wrongly_is_refused() -> None:
    model = model_of("nade")
    with pytest.raises(InvalidSetting, match=r'unknown query "complet": .*complete'):
        ask(model, "complet")
    with pytest.raises(InvalidSetting, match=r"complete\(model.*observed"):
        ask(model, "complete", images(SPECS["levels"]))
    with pytest.raises(InvalidSetting, match="importance_samples"):
        ask(model_of("vae"), "likelihood", images(SPECS["levels"]), importance_samples=0)
    own = model_of("own-approximate")
    with pytest.raises(InvalidSetting, match="no importance-weighted bound"):
        ask(own, "likelihood", images(SPECS["levels"]), importance_samples=2)


def test_a_tighter_bound_can_be_asked_for() -> None:
    model, x = model_of("vae"), images(SPECS["levels"])
    loose, tight = (ask(model, "likelihood", x, importance_samples=k).mean() for k in (1, 100))
    assert loose < tight


def test_the_model_keeps_its_mode_and_no_gradient_is_kept() -> None:
    model = model_of("dcgan").train()
    ask(model, "interpolate", 2)
    assert model.training
    assert not ask(model_of("nade"), "likelihood", images(SPECS["levels"])).requires_grad


def test_codes_of_images_or_drawn_ones() -> None:
    x = images(SPECS["levels"])
    for name in ("vae", "dcgan", "own-implicit"):
        model = model_of(name)
        path = ask(model, "interpolate", 3, steps=4, seed=2)
        assert path.shape == (3, 4, *x.shape[1:])
        assert not torch.equal(path, ask(model, "interpolate", 3, steps=4, seed=3))
        for wrong in ((0, 4), (2, 1)):
            with pytest.raises(InvalidSetting, match="at least"):
                ask(model, "interpolate", *wrong)
    vae = model_of("vae")
    path = ask(vae, "interpolate", (x, x.flip(0)), 5)
    assert torch.equal(path[:, 0], ask(vae, "reconstruct", x))
    assert torch.equal(path[:, 4], ask(vae, "reconstruct", x.flip(0)))
    dcgan = model_of("dcgan")
    path = ask(dcgan, "interpolate", (x, x.flip(0)), 3)
    assert torch.equal(path[:, 0], dcgan.invert(x).images)  # type: ignore[operator]
    with pytest.raises(Unanswerable, match="no distribution to draw from"):
        ask(model_of("autoencoder"), "interpolate", 2)


def test_an_adversary_has_features() -> None:
    """Radford 2016, sec. 5.1; a function of each image alone."""
    x = images(SPECS["levels"])
    for name in ("dcgan", "own-implicit"):
        model = model_of(name)
        assert isinstance(model, ImplicitDensity)
        adversary = adversary_of(model).eval()
        activations = ask(model, "features", x, adversary=adversary)
        assert activations.shape[0] == 4
        assert torch.equal(activations, adversary.features(model.scaled(x)))  # type: ignore[operator]
        assert not activations.requires_grad
        assert answers(model)["features"].guarantee is Guarantee.NONE
        assert answers(model, adversary=adversary)["features"].guarantee is Guarantee.APPROXIMATE
        alone = ask(model, "features", x[:1], adversary=adversary)
        torch.testing.assert_close(alone, activations[:1])
        with pytest.raises(Unanswerable, match="Linear, has no features"):
            ask(model, "features", x, adversary=nn.Linear(1, 1))


def test_answers_are_read_one_per_line() -> None:
    worth = answers(model_of("nade"))
    assert repr(worth["likelihood"]) == "Answer(EXACT, 'the chain rule: a sum of log-conditionals')"
    lines = str(worth).splitlines()
    assert [line.split()[0] for line in lines] == list(QUERIES)
    assert "no answer" in lines[list(QUERIES).index("posterior")]


def test_the_door_and_the_room_have_one_name() -> None:
    import likely.ask as room

    assert callable(likely.ask)
    assert likely.ask is room


PAGE = Path(__file__).parents[2] / "docs" / "ask.md"


def table() -> list[str]:
    """The lines of the page's table: a row for the models that answer alike, a column a query."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, entry in sorted(MODELS.items(), key=lambda item: item[1].class_name):
        found = answers(built(name, SPECS["colour" if name in COLOUR else "binary"])).values()
        cells = tuple("" if a.guarantee is Guarantee.NONE else a.guarantee.value for a in found)
        rows.setdefault(cells, []).append(entry.class_name)
    return [
        f"| | {' | '.join(f'`{name}`' for name in QUERIES)} |",
        f"|---{'|---' * len(QUERIES)}|",
        *(f"| {', '.join(models)} | {' | '.join(cells)} |" for cells, models in rows.items()),
    ]


def test_the_page_says_who_answers_what() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("|")][: len(table())] == table()
    assert set(re.findall(r"^### `(\w+)\(", "\n".join(lines), re.M)) == set(QUERIES)
    for query in QUERIES.values():
        names = [name for name in inspect.signature(query.run).parameters if name != "model"]
        heading = next(line for line in lines if line.startswith(f"### `{query.name}("))
        assert re.findall(r"(\w+)(?:=[^,)]*)?[,)]", heading.split("(", 1)[1]) == names
