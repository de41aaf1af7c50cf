"""Compute the terms of docs/latents.md on a VAE of two latent coordinates: its table and picture.

python docs/make_latent_terms.py

With two coordinates log p(x) is exact by quadrature, so the third KL term, which no fit can
compute, is known as well. The picture has the terms of fits of more and more updates.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

import likely
from likely import data, models
from likely.density import LatentVariable
from likely.evaluate.annealed import annealed
from likely.evaluate.likelihood import latent_diagnostics
from likely.evaluate.quadrature import quadrature

PAGE = Path(__file__).parent / "latents.md"
PICTURE = Path(__file__).parent / "pictures" / "latent-terms.png"
START, END = "<!-- terms -->\n", "<!-- end -->"
UPDATES = (10, 25, 50, 100, 200, 400, 600)


class Terms(NamedTuple):
    """Nats per test image; distortion and rate are of the same draws of z."""

    distortion: float
    rate: float
    exact: float

    @property
    def bound(self) -> float:
        """The negative ELBO."""
        return self.distortion + self.rate

    @property
    def gap(self) -> float:
        """KL(q(z|x) || p(z|x))."""
        return self.bound - self.exact


def fitted(updates: int) -> tuple[LatentVariable, Terms]:
    """A VAE after so many updates, and its terms on the test split."""
    train, test = data.load("digits")
    model = models.VAE(train.spec, latent=2)
    likely.fit(model, train, steps=updates, progress=False)
    assert isinstance(model, LatentVariable)
    used = latent_diagnostics(model, test)
    exact = quadrature(model, test).nats()
    return model, Terms(used.distortion.value, used.rate.value, exact.value)


def rows(model: LatentVariable, terms: Terms) -> list[tuple[str, str]]:
    """(term, nats in words)."""
    _, test = data.load("digits")
    near = annealed(model, test, simulated=0, temperatures=20, chains=8, importance_samples=50)
    _, weighted, by_annealing, _ = (bound.nats() for bound in near.bounds)
    return [
        (r"distortion, $\mathbb{E}_q[-\log p(x \mid z)]$", f"{terms.distortion:.2f}"),
        (r"rate, $\mathrm{KL}(q(z \mid x) \,\|\, p(z))$", f"{terms.rate:.2f}"),
        (r"negative ELBO, their sum", f"<= {terms.bound:.2f}"),
        (r"$\mathrm{KL}(q(z \mid x) \,\|\, p(z \mid x))$, the gap", f"{terms.gap:.2f}"),
        (r"$-\log p(x)$ by quadrature, without the gap", f"= {terms.exact:.2f}"),
        (r"$-L_{50}$", f"<= {weighted.value:.2f}"),
        ("annealed, 20 temperatures", f"<= {by_annealing.value:.2f}"),
    ]


def drawn(terms: list[Terms]) -> None:
    """Left the bound and what it bounds, right the two KL terms, against the updates."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(UPDATES, [t.bound for t in terms], "o-", color="#cc3311", label="negative ELBO")
    left.plot(UPDATES, [t.exact for t in terms], "o-", color="black", label="-log p(x), exact")
    left.plot(UPDATES, [t.distortion for t in terms], "o-", color="#b5b5b5", label="distortion")
    right.plot(UPDATES, [t.rate for t in terms], "o-", color="#4477aa", label="rate, KL(q || p(z))")
    right.plot(UPDATES, [t.gap for t in terms], "o-", color="#cc3311", label="gap, KL(q || p(z|x))")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xlabel("updates")
        axes.set_ylabel("nats per test image")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend()
    right.set_ylim(bottom=0)
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    """Write the table and the picture."""
    fits = [fitted(updates) for updates in UPDATES]
    drawn([terms for _, terms in fits])
    table = rows(*fits[-1])
    lines = ["| term | nats per image |", "|---|---|", *(f"| {a} | {b} |" for a, b in table)]
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + START + "\n".join(lines) + "\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
