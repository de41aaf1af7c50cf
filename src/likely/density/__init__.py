r"""The taxonomy of generative models and the queries of each kind.

    GenerativeModel
      TractableDensity      log p(x) exactly           (fully visible belief nets, PixelCNN, ...)
        Autoregressive        log p(x) = sum_i log p(x_i | x_<i), in any order of the pixels
        SequenceDensity       log p(x) = sum_t log p(x_t | x_<t), a state carried over time
        Mixture               log p(x) = log (1/K) sum_k p_k(x)
        Split                 log p(x) = log p(base) + log p(rest | base)
        ExpectedStatistics    re-estimated by EM         (mixtures of products)
      ApproximateDensity    a bound on log p(x)        (variational autoencoders)
        LatentVariable        log p(x) >= E_q[log p(x|z) + log p(z) - log q(z|x)]
        DiscreteLatent        log p(x) >= log p(c(x)) + log p(x|c(x)), c a map of integers
        Dequantized           log P(x) >= E_q[log p(x + u) - log q(u|x)], p of real numbers (flows)
        LatentSequence        log p(x) >= E log p^(x), a latent at each step, a particle filter
      EnergyBased           log p(x) = -F(x) - log Z, Z unknown (Boltzmann machines)
      ImplicitDensity       samples only               (GANs)
      ImplicitSequence      samples only, step after step from noise

Beside it stand an `EncoderDecoder` without a density (a plain autoencoder), and whatever else is
`Fittable`.

The class says what is known: an implicit model has no `log_prob` to misuse. Shared code is
here; a model supplies its networks. Every random result is a function of the weights and a
seed.

Values are integers in [0, levels), shape [B, *spec.shape]; log-probabilities are in nats per
example, shape [B].

Sources: Goodfellow 2016 (tutorial on GANs: the taxonomy), https://arxiv.org/abs/1701.00160; Kingma
and Welling 2014 (eqs. 2, 3), https://arxiv.org/abs/1312.6114; Burda, Grosse and Salakhutdinov
2016 (eq. 8), https://arxiv.org/abs/1509.00519.
"""

# What is imported here is what the room offers.
# mypy: implicit-reexport
# ruff: noqa: F401

from __future__ import annotations

from likely.density.chain import Autoregressive, Drawing, Surprise, fill_naively
from likely.density.coarse import CoarseToFine, Upscales
from likely.density.codes import (
    Arithmetic,
    Decoder,
    EncoderDecoder,
    Ends,
    Group,
)
from likely.density.completion import PARTICLES, Completions
from likely.density.completion.agnostic import OrderAgnostic
from likely.density.conditional import HasConditional
from likely.density.decoded import AutoregressiveLikelihood, FactorizedLikelihood, Likelihood
from likely.density.dequantized import Dequantized, Dequantizer, UniformDequantizer
from likely.density.discrete import DiscreteLatent, QuantisedTerms
from likely.density.energy import EnergyBased, LogPartition
from likely.density.fittable import (
    Fittable,
    HasLoss,
    NoSettings,
    captured,
    chunks,
    condition_of,
    conditioned_on,
    evaluating,
    inputs_of,
    nan_names,
    reading_of,
    weights_digest,
)
from likely.density.implicit import ImplicitDensity, PlaysAgainst
from likely.density.inversion import Inversion
from likely.density.latent import (
    ChooseCode,
    DiagonalGaussian,
    GaussianMixture,
    LatentVariable,
    LayeredPosterior,
    LayeredPrior,
    Passed,
    Posterior,
    mean_level,
)
from likely.density.mixture import Ensemble, Mixture, OrderMixture, Subsampled
from likely.density.sequence.implicit import ImplicitSequence
from likely.density.sequence.latent import LatentSequence
from likely.density.sequence.model import Continues, SequenceModel, scored_steps
from likely.density.sequence.over_time import SequenceDensity
from likely.density.sequence.steps import FillsGaps, State, Steps
from likely.density.shell import Prior, Shell, StandardNormal, UniformCube
from likely.density.split import Lifting, Split
from likely.density.statistics import ExpectedStatistics, HasExpectation
from likely.density.taxonomy import (
    ApproximateDensity,
    GenerativeModel,
    TractableDensity,
    generative,
    no_density,
)
from likely.heads import at_least_float
