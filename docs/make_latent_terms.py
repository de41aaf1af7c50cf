"""Compute the terms of docs/latents.md on a VAE of two latent coordinates, and write its table.

python docs/make_latent_terms.py

With two coordinates log p(x) is exact by quadrature, so the third KL term, which no fit can
compute, is known as well.
"""

from __future__ import annotations

from pathlib import Path

import likely
from likely import data, models
from likely.evaluate.annealed import annealed
from likely.evaluate.likelihood import latent_diagnostics

PAGE = Path(__file__).parent / "latents.md"
START, END = "<!-- terms -->\n", "<!-- end -->"


def rows() -> list[tuple[str, str]]:
    """(term, nats in words)."""
    train, test = data.load("digits")
    model = likely.fit(models.VAE(train.spec, latent=2), train, steps=600, progress=False).model
    near = annealed(model, test, simulated=0, temperatures=20, chains=8, importance_samples=50)
    used = latent_diagnostics(model, test)
    elbo, weighted, by_annealing, exact = (bound.nats() for bound in near.bounds)
    gap = near.bounds[0].values - near.bounds[3].values
    return [
        (r"distortion, $\mathbb{E}_q[-\log p(x \mid z)]$", f"{used.distortion.value:.2f}"),
        (r"rate, $\mathrm{KL}(q(z \mid x) \,\|\, p(z))$", f"{used.rate.value:.2f}"),
        (r"negative ELBO, their sum by other draws of $z$", f"<= {elbo.value:.2f}"),
        (r"$\mathrm{KL}(q(z \mid x) \,\|\, p(z \mid x))$, the gap", f"{float(gap.mean()):.2f}"),
        (r"$-\log p(x)$ by quadrature", f"= {exact.value:.2f}"),
        (r"$-L_{50}$", f"<= {weighted.value:.2f}"),
        ("annealed, 20 temperatures", f"<= {by_annealing.value:.2f}"),
    ]


def main() -> None:
    """Write the table."""
    lines = ["| term | nats per image |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows())]
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + START + "\n".join(lines) + "\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
