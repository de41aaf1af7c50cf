"""A density for the codes of a fitted model, which makes an autoencoder generative.

    likely prior runs/autoencoder --density flow --out runs/generative     the command
    likely.with_prior("runs/autoencoder", density="flow")                  Python

A decoder is fitted to the codes of examples. Where codes are drawn from another distribution, as
from N(0, I) after a fit that hardly weighed the KL term, it decodes to noise. What the codes are
drawn from is fitted here, and encoder and decoder stay as they are.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from likely import runs
from likely.ask.query import no_code, refusal
from likely.data.spec import Dataset
from likely.density import Fittable, GenerativeModel, LatentVariable, generative, reading_of
from likely.errors import InvalidSetting
from likely.models.autoencoder.autoencoder import Autoencoder
from likely.models.autoencoder.generative import GenerativeAutoencoder
from likely.models.registry import MODELS
from likely.models.vae.vae import VariationalAutoencoder
from likely.nn.codes import CodeDensity
from likely.noise import Noise
from likely.runs.checkpoint import digest_of
from likely.runs.directory import AnotherRun
from likely.runs.saved import SavedRun
from likely.settings import FitSettings, converted
from likely.training.loop import Progress, fit_whole
from likely.training.objectives import CodeLikelihood, HasCodeDensity
from likely.training.run import Run

# Of a flow over codes; the other densities need no gradient.
FIT = FitSettings(steps=2000, batch_size=100, learning_rate=1e-3, ema=0.99)
# Codes that a density starts at.
FIRST = 10_000
# What the names of the weights of a VAE's prior begin with.
PRIOR = ("prior_", "pseudo_")


def with_prior(
    fitted: Run | SavedRun | Fittable | str | Path,
    data: Dataset | None = None,
    density: CodeDensity = "flow",
    *,
    steps: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress | bool | None = None,
    **changes: Any,
) -> GenerativeModel:
    """A generative model of an autoencoder's encoder and decoder and a density of its codes.

    A VAE keeps its posterior and its decoder and gets another prior, so it has a bound on log p(x)
    before and after. A plain autoencoder becomes implicit: it can be sampled.

    Args:
        fitted: an autoencoder or a VAE, a run of one, or its directory; it is not changed.
        data: training set; that of the run when None.
        density: gaussian (full covariance), mixture (of Gaussians), flow (RealNVP) or
            autoregressive (a masked flow).
        steps: updates of a flow; a Gaussian and a mixture are fitted without gradients.
        seed: of the codes, the order of the data, and the initial weights of a flow.
        out: directory of a new run; nothing is written when None.
        progress: as for `likely.fit`.
        changes: further settings of the density, as density_layers=4 (prior of a VAE:
            flow_layers=4).

    Raises:
        Unanswerable: a model without an encoder.
        InvalidSetting: a model whose prior cannot be replaced, no data, or another run in `out`.
        KeyboardInterrupt: a signal stopped the fit; with `out`, the same call resumes it.
    """
    converted("density", density, CodeDensity)
    if isinstance(fitted, str | Path):
        fitted = runs.load(fitted)
    base = fitted if isinstance(fitted, Fittable) else fitted.model
    if data is None and not isinstance(fitted, Fittable):
        data = fitted.train if isinstance(fitted, SavedRun) else fitted.data
    if data is None:
        raise InvalidSetting("give the training set whose codes the density is fitted to")
    model = _composed(base, density, changes, seed)
    assert isinstance(model, HasCodeDensity)
    model.code_density.start_at(_codes(model, data, seed))
    if density in ("gaussian", "mixture"):
        if out is not None:
            runs.save(out, model, data)
        return generative(model)
    model.origin = f"{base.origin}, with a density of its codes"
    # The density begins at codes, which differ in the last bit by processor: the base says it.
    model.origin_weights = digest_of(base.state_dict())
    settings = dataclasses.replace(
        FIT,
        seed=seed,
        steps=steps or FIT.steps,
        batch_size=min(FIT.batch_size, len(data)),
        warmup=min(FIT.warmup, steps or FIT.steps),
    )
    try:
        fit_whole(model, data, CodeLikelihood(), settings, out=out, progress=progress)
    except AnotherRun as error:
        raise InvalidSetting(f"{error.reason}; give another directory") from error
    return generative(model)


def _composed(
    base: Fittable, density: CodeDensity, changes: dict[str, Any], seed: int
) -> GenerativeAutoencoder | VariationalAutoencoder:
    """The model that holds the weights of the base, and fresh ones for the density."""
    if isinstance(base, GenerativeAutoencoder):
        base = base.autoencoder
    if not isinstance(base, Autoencoder | VariationalAutoencoder):
        if isinstance(base, LatentVariable):
            raise InvalidSetting(
                f"the prior of {type(base).__name__} is part of its class and cannot be replaced; "
                "Autoencoder, VAE and PixelVAE take another"
            )
        raise refusal(base, no_code(base))
    fields = dataclasses.asdict(base.settings)
    made: Fittable
    if isinstance(base, Autoencoder):
        fields |= {"density": density, **changes}
        made = runs.build("generative-autoencoder", base.spec, fields, seed)
        assert isinstance(made, GenerativeAutoencoder)
        made.autoencoder.load_state_dict(base.state_dict())
    else:
        fields |= {"prior": density, **changes}
        registered = MODELS.of(type(base))
        assert registered is not None
        made = runs.build(registered.reference, base.spec, fields, seed)
        assert isinstance(made, VariationalAutoencoder)
        names = {name for name in made.state_dict() if not name.startswith(PRIOR)}
        kept = {name: tensor for name, tensor in base.state_dict().items() if name in names}
        made.load_state_dict(kept, strict=False)
    return made.to(base.device).eval()


@torch.no_grad()
def _codes(
    model: GenerativeAutoencoder | VariationalAutoencoder, data: Dataset, seed: int
) -> Tensor:
    """Codes of training examples, [n, latent]: drawn from q(z | x) where it is a distribution."""
    codes = []
    for rows, x, context in reading_of(model, data, 256, FIRST):
        noise = Noise("prior", seed, rows.start, device=model.device)
        codes.append(model.codes_drawn(x, noise, context))
    return torch.cat(codes)
