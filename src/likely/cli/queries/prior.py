"""`likely prior RUN --density flow --out RUN2`.

Fit a density to the codes of a run and save encoder, decoder and density as a
new run. An autoencoder can then be sampled; a VAE has another prior in its bound.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from likely.cli.output import answer
from likely.cli.parser import Command, Option, whole
from likely.cli.saved import data_of, opened

EXAMPLE = """\
  likely prior runs/autoencoder --density flow --out runs/generative
  likely prior runs/vae --density gaussian --out runs/vae-gaussian
"""
OPTIONS: dict[str, Option] = {
    "--density": ("NAME", ("gaussian", "mixture", "flow", "autoregressive"), "flow",
                  "of the codes: gaussian (full covariance), mixture (of Gaussians), flow "
                  "(RealNVP) or autoregressive (a masked flow) [flow]"),
    "--out": ("DIR", None, ..., "directory of the new run; the old one stays as it is"),
    "--steps": ("N", whole(1), None, "updates of a flow; gaussian and mixture need none [2000]"),
    "--seed": ("N", whole(0), 0, "seed of codes, data order and initial weights [0]"),
}  # fmt: skip

COMMAND = Command(EXAMPLE, OPTIONS, about=__doc__, of_run=True)


def run(options: argparse.Namespace) -> int:
    """Fit and save."""
    from likely.cli.progress import working
    from likely.evaluate.prior import prior_gap
    from likely.jobs.codes.prior import with_prior

    saved = opened(options)
    train, _ = data_of(saved)
    out = Path(options.out).expanduser()
    density = f"{'an' if options.density[0] in 'aeiou' else 'a'} {options.density} density"
    with working(f"fitting {density} to the codes of {saved.name}"):
        model = with_prior(
            saved, density=options.density, steps=options.steps, seed=options.seed, out=out,
            progress=False,
        )  # fmt: skip
    held_out = train.validation or train
    gaps = [prior_gap(m, held_out, seed=options.seed) for m in (saved.model, model)]
    record = {
        "run": str(saved.directory), "density": options.density, "out": str(out),
        "kind": model.kind, "before": gaps[0].to_json(), "after": gaps[1].to_json(),
    }  # fmt: skip
    return answer(
        options,
        record,
        f"{saved.name} with {density} of its codes ({model.kind})",
        f"  before: {gaps[0]}",
        f"  after:  {gaps[1]}",
        f"saved in {out}\n\nnext:\n  likely sample {out} -n 64 -o samples.png",
        f"  likely evaluate {out} --split validation",
    )
