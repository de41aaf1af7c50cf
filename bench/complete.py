"""Completions of 3 x 3 binary images against the enumeration of all 512: total variation.

    python bench/complete.py    # a minute or two

Five models with random weights, large enough that pixels depend on each other; five masks; 100,000
draws of the rest by each method that the model has for the mask. The figure is the largest total
variation between the draws and p(rest | observed); 100,000 independent draws from the truth itself
are at about 0.4 sqrt(states / 100,000), 0.005 for four missing pixels. Writes
bench/results/complete.json.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from common import write_result
from likely import models
from likely.ask.complete import completions
from likely.data.spec import DataSpec
from likely.density import (
    Autoregressive,
    Ensemble,
    Fittable,
    LatentVariable,
    NoSettings,
    TractableDensity,
)

SPEC = DataSpec("tiny", (1, 3, 3), 2)
DRAWS = 100_000
EVERY = torch.tensor(list(itertools.product((0, 1), repeat=9))).reshape(512, 1, 3, 3)
X = torch.tensor([[1, 0, 1], [1, 1, 0], [0, 1, 0]]).reshape(1, 1, 3, 3)
MASKS = {
    "top": "111 110 000", "bottom": "000 011 111", "centre-missing": "111 101 111",
    "checkerboard": "101 010 101", "scattered": "010 111 011",
}  # fmt: skip


def redrawn(model: Fittable, factor: float) -> Fittable:
    """In float64, every weight standard normal times a factor."""
    with torch.no_grad():
        for number, parameter in enumerate(model.double().parameters()):
            generator = torch.Generator().manual_seed(number)
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(factor * noise)
    return model.eval()


def chain(factor: float) -> Autoregressive:
    """A sigmoid belief net whose logits are sums over the pixels before."""
    model = redrawn(models.FVSBN(SPEC), 0.0)
    assert isinstance(model, models.FVSBN)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(model.weight.shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(factor * noise)
    return model


def cases() -> Iterator[tuple[str, Fittable, str]]:
    """(name, model, method)."""
    for method in ("smc", "gibbs"):
        yield f"chain/{method}", chain(4.0), method
    yield "order-agnostic/exact", redrawn(models.DeepNADE(SPEC, hidden=6), 1.0), "exact"
    yield "ensemble/smc", Ensemble([chain(4.0), chain(-2.0)], NoSettings()), "smc"
    yield "product-mixture/exact", models.ProductMixture(SPEC, components=4).double(), "exact"
    vae = redrawn(models.VAE(SPEC, latent=1, hidden=8, layers=1), 0.7)
    yield "vae/importance", vae, "importance"


@torch.no_grad()
def truth(model: Fittable, observed: Tensor) -> Tensor:
    """p(x | observed) of every image, [512]."""
    if isinstance(model, LatentVariable):
        z = torch.linspace(-7, 7, 401, dtype=torch.float64)[:, None]
        output, prior = model.decoder_output(z), model.prior.log_prob(z)
        likelihood = model.likelihood_given_z
        each = [likelihood.log_prob(x.expand(401, 1, 3, 3), output) + prior for x in EVERY]
        p = torch.stack(each).exp().sum(1)
    else:
        assert isinstance(model, TractableDensity)
        if isinstance(model, models.DeepNADE):
            order = (~observed).flatten().double().argsort(stable=True)
            model.rank = order.argsort().reshape(3, 3)
        p = model.log_prob(EVERY).double().exp()
        if isinstance(model, models.DeepNADE):
            model.rank = torch.arange(9).reshape(3, 3)
    p = p.masked_fill(~(EVERY == X)[:, :, observed].all(2).all(1), 0.0)
    return p / p.sum()


def main() -> None:
    """Every model, method and mask."""
    figures: dict[str, float] = {}
    began = time.monotonic()
    for name, model, method in cases():
        for mask, text in MASKS.items():
            observed = torch.tensor([c == "1" for c in text if c != " "]).reshape(3, 3)
            drawn = completions(
                model, X, observed, DRAWS, method=method,
                particles=DRAWS if method != "gibbs" else 256,
            )  # fmt: skip
            code = (drawn.images[0].reshape(-1, 9) * 2 ** torch.arange(8, -1, -1)).sum(1)
            share = torch.bincount(code, minlength=512).double() / DRAWS
            distance = 0.5 * float((share - truth(model, observed)).abs().sum())
            figures[f"complete/{name}/{mask}/tv"] = distance
            print(f"{name:24} {mask:16} {distance:.4f}")
    seconds = round(time.monotonic() - began, 1)
    worst = max(figures.values())
    print(f"largest: {worst:.4f}, {seconds} s")
    about = {"draws": DRAWS, "masks": MASKS, "seconds": seconds}
    write_result("complete", {"complete/enumeration-tv": worst, **figures}, {}, about)


if __name__ == "__main__":
    main()
