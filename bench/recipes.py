"""What bench/mnist.py trains: settings of each model and of its fit."""

from __future__ import annotations

import dataclasses
from typing import Any

from likely.data.spec import DataSpec
from likely.models.vectors.settings import FVSBNSettings, MADESettings
from likely.settings import FitSettings
from likely.training.adversarial import RelativisticGAN
from likely.training.objectives import (
    ContrastiveDivergence,
    ImportanceWeighted,
    NegativeELBO,
    NegativeLogLikelihood,
    Objective,
    OrderAgnosticLikelihood,
    QuantisedBound,
    SubsampledLikelihood,
)

MNIST = DataSpec("mnist", (1, 28, 28), 2)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is trained: settings of the model and of the fit.

    Attributes:
        model, changes: the name, and what differs from its preset.
        fit, objective: of the fit.
        importance_samples: k of the bound L_k on the test split, for latent-variable models.
    """

    model: str
    changes: dict[str, Any]
    fit: FitSettings
    objective: Objective = dataclasses.field(default_factory=NegativeLogLikelihood)
    importance_samples: int = 500


def _fit(**changes: Any) -> FitSettings:
    return dataclasses.replace(
        FitSettings(batch_size=100, validate_every=500, log_every=50), **changes
    )


# Orthogonal updates of small batches, down to a rate of zero: fewer images than Adam for one value.
MUON = _fit(
    learning_rate=0.01,
    batch_size=16,
    optimizer="muon",
    schedule="linear",
    warmup=200,
    beta1=0.95,
    beta2=0.99,
    clip=100.0,
    validate_every=1000,
)

DENSE = {"latent": 50, "network": "dense", "hidden": 200, "layers": 2}
CONV_FIT = _fit(steps=12_500, learning_rate=1.5e-3, warmup=500)
PIXEL_FIT = dataclasses.replace(CONV_FIT, steps=10_000, log_every=100)
# Batches that are worth the cost of an orthogonal update.
DENSE_FIT = dataclasses.replace(MUON, steps=25_000, batch_size=100)

# Encoder and codes stay as they are for the last two fifths, for prior and decoder to fit them.
VQ = _fit(steps=5_000, learning_rate=3e-3, batch_size=64, schedule="linear", ema=0.998)

# Without momentum, averaged weights; no clipping, which would hide the gradient penalty's effect.
GAN_FIT = _fit(
    steps=12_000,
    learning_rate=1.5e-3,
    batch_size=64,
    final_learning_rate=0.1,
    beta1=0.0,
    beta2=0.9,
    clip=0.0,
    validate_every=0,
)

RECIPES = {
    "gated-pixelcnn": Recipe(
        "gated-pixelcnn",
        {
            "channels": 32,
            "layers": 9,
            "kernel": 3,
            "first_kernel": 7,
            "dilations": (1, 2, 4),
            "head_channels": 64,
        },
        dataclasses.replace(MUON, steps=4_000, validate_every=500, compile=True),
    ),
    # Not trained to its end yet.
    "gated-pixelcnn-orders": Recipe(
        "gated-pixelcnn-orders",
        {
            "channels": 64,
            "layers": 10,
            "kernel": 3,
            "first_kernel": 7,
            "dilations": (1, 2, 4),
            "head_channels": 64,
        },
        dataclasses.replace(MUON, steps=8_000, batch_size=64, learning_rate=0.015),
        SubsampledLikelihood(),
    ),
    "attention": Recipe(
        "attention",
        {
            "channels": 48,
            "blocks": 2,
            "convolutions": 2,
            "kernel": 3,
            "first_kernel": 7,
            "heads": 4,
            "head_size": 16,
            "head_channels": 64,
            "dropout": 0.0,
        },
        dataclasses.replace(MUON, steps=3_000, validate_every=500),
    ),
    "multiscale-pixelcnn": Recipe(
        "multiscale-pixelcnn",
        {
            "channels": 32,
            "small_layers": 6,
            "layers": 6,
            "first_kernel": 7,
            "map_channels": 32,
            "head_channels": 64,
            "dropout": 0.1,
        },
        _fit(steps=16_000, learning_rate=2e-3, batch_size=16, warmup=200, validate_every=1000),
    ),
    "parallel-multiscale": Recipe(
        "parallel-multiscale",
        {"channels": 64, "blocks": 4, "dropout": 0.1},
        _fit(steps=16_000, learning_rate=1e-3, batch_size=32, warmup=200, validate_every=1000),
    ),
    "pixelcnn": Recipe(
        "pixelcnn",
        {
            "channels": 48,
            "layers": 12,
            "first_kernel": 7,
            "dilations": (1, 2, 4),
            "head_channels": 64,
        },
        dataclasses.replace(MUON, steps=7_000, batch_size=32, compile=True),
    ),
    # Without weight normalisation: orthogonal updates do not depend on the weights' scale.
    "pixelcnn-pp": Recipe(
        "pixelcnn-pp",
        {"channels": 32, "blocks": 1, "scales": 3, "dropout": 0.0, "weight_norm": False},
        dataclasses.replace(MUON, steps=5_000),
    ),
    "fvsbn": Recipe(
        "fvsbn",
        {"prior": "local"},
        dataclasses.replace(
            FVSBNSettings.fit_preset(MNIST), validate_every=250, validation_examples=0, log_every=50
        ),
    ),
    # One Gaussian for all weights.
    "fvsbn-flat": Recipe(
        "fvsbn",
        {"prior": "none"},
        _fit(
            steps=4000,
            learning_rate=0.01,
            weight_decay=2e-5,
            validate_every=250,
            validation_examples=0,
        ),
    ),
    "nade": Recipe(
        "nade",
        {"hidden": 500},
        _fit(steps=6000, learning_rate=0.01, warmup=50, ema=0.99, validation_examples=1000),
    ),
    "deep-nade": Recipe(
        "deep-nade",
        {"hidden": 500, "layers": 2},
        _fit(
            steps=50_000,
            learning_rate=1e-3,
            warmup=200,
            validate_every=10_000,
            validation_examples=500,
            log_every=100,
        ),
        OrderAgnosticLikelihood(),
    ),
    "made": Recipe(
        "made",
        {"hidden": 7840, "layers": 1, "prior": "local"},
        dataclasses.replace(
            MADESettings.fit_preset(MNIST),
            validate_every=250,
            validation_examples=2000,
            log_every=50,
        ),
    ),
    # As published, at one layer: wide, as an output reads only the hidden units of lower degree,
    # and few see the last pixels.
    "made-flat": Recipe(
        "made",
        {"hidden": 8000, "layers": 1, "masks": 4, "dropout": 0.0, "prior": "none"},
        _fit(
            steps=3_000,
            learning_rate=4e-3,
            schedule="linear",
            ema=0.99,
            validate_every=250,
            validation_examples=1000,
        ),
        SubsampledLikelihood(),
    ),
    # Small enough that its weights, 5 MB, can be kept. Of four networks of that size the best by
    # validation: two layers, and one without direct connections, had more nats.
    "made-small": Recipe(
        "made",
        {"hidden": 400, "layers": 1, "masks": 1, "prior": "none"},
        dataclasses.replace(
            MADESettings.fit_preset(MNIST),
            steps=3_000,
            learning_rate=4e-3,
            validate_every=250,
            validation_examples=2000,
            log_every=50,
        ),
    ),
    "diagonal-bilstm": Recipe(
        "diagonal-bilstm",
        {"hidden": 16, "layers": 7, "head_channels": 32},
        dataclasses.replace(MUON, steps=16_000),
    ),
    # What less than an hour on a busy processor allows.
    "diagonal-bilstm-short": Recipe(
        "diagonal-bilstm",
        {"hidden": 16, "layers": 3, "head_channels": 32},
        _fit(
            steps=1500,
            learning_rate=4e-3,
            batch_size=16,
            ema=0.99,
            validate_every=250,
            validation_examples=1000,
            log_every=25,
        ),
    ),
    "row-lstm": Recipe(
        "row-lstm",
        {"hidden": 16, "layers": 7, "head_channels": 32},
        dataclasses.replace(MUON, steps=8_000),
    ),
    "vae": Recipe("vae", {"latent": 50, "channels": 16}, CONV_FIT, NegativeELBO(warmup=2000)),
    # The same trunk. Validation is best after some 26,000 updates, and those weights are kept.
    "vae-flow-prior": Recipe(
        "vae",
        {"latent": 40, "channels": 16, "prior": "flow", "flow_layers": 16, "flow_hidden": 256},
        dataclasses.replace(CONV_FIT, steps=40_000, validate_every=1000),
        NegativeELBO(warmup=2000),
        importance_samples=100,  # annealing is nearer, and dearer
    ),
    # One network, two bounds (Burda et al. 2016: 200 units twice, 50 latents), as many updates:
    # `iwae-5`, then `iwae-50` from its weights.
    "vae-dense": Recipe(
        "vae",
        DENSE,
        dataclasses.replace(DENSE_FIT, steps=33_000),
        NegativeELBO(warmup=2000),
        5_000,
    ),
    "iwae-5": Recipe("vae", DENSE, DENSE_FIT, ImportanceWeighted(k=5), 5_000),
    "iwae-50": Recipe("vae", DENSE, DENSE_FIT, ImportanceWeighted(k=50), 5_000),
    # A code, and a small network by pixels that is told it.
    "pixel-vae": Recipe(
        "pixel-vae",
        {
            "latent": 50,
            "channels": 16,
            "prior": "flow",
            "flow_layers": 16,
            "flow_hidden": 256,
            "local": "pixelcnn",
            "maps": 8,
            "local_channels": 12,
            "local_layers": 2,
            "local_first_kernel": 7,
            "local_head_channels": 24,
        },
        PIXEL_FIT,
        NegativeELBO(warmup=2000),
        importance_samples=100,
    ),
    # Its network by pixels with no code to be told: what the code is worth.
    "pixel-vae-decoder": Recipe(
        "pixelcnn", {"channels": 12, "layers": 2, "first_kernel": 7, "head_channels": 24}, PIXEL_FIT
    ),
    # The paper's loss: nothing makes the codes cheap, and all of them are used.
    "vq-vae": Recipe(
        "vq-vae",
        {"quantiser": "ema", "codes": 512},
        VQ,
        QuantisedBound(encoder_steps=3000),
    ),
    # With what the codes cost in the encoder's loss: a far better bound with far fewer codes.
    "vq-vae-rate": Recipe(
        "vq-vae",
        {"quantiser": "fsq", "grid_levels": (8, 8, 8)},
        VQ,
        QuantisedBound(rate=0.3, warmup=1000, encoder_steps=3000),
    ),
    # Plain steps up the gradient: Adam moves the weights of pixels that are seldom on as fast as
    # all others.
    "rbm": Recipe(
        "rbm",
        {"hidden": 500, "chains": 100},
        _fit(
            steps=160_000,
            learning_rate=0.05,
            optimizer="sgd",
            weight_decay=2e-4,
            schedule="linear",
            clip=0.0,
            validate_every=20_000,
            log_every=100,
        ),
        ContrastiveDivergence(k=1),
    ),
    # Three layers of codes; free nats of each, so that none stays empty.
    "hierarchical-vae": Recipe(
        "hierarchical-vae",
        {"layers": 3, "latent": 4, "channels": 16, "blocks": 1},
        _fit(steps=16_000, learning_rate=1.5e-3, warmup=500, log_every=100),
        NegativeELBO(warmup=3000, free_nats=1.0),
    ),
    # The discriminator sees generated images as they are sampled, rounded to two levels.
    "dcgan": Recipe(
        "dcgan",
        {"latent": 64, "channels": 48, "rounds": True},
        GAN_FIT,
        RelativisticGAN(penalty=1.0),
    ),
}


def _bigger(name: str, changes: dict[str, Any], **fit: Any) -> Recipe:
    """A recipe with other sizes and another fit."""
    recipe = RECIPES[name]
    changed, fitted = recipe.changes | changes, dataclasses.replace(recipe.fit, **fit)
    return Recipe(recipe.model, changed, fitted, recipe.objective)


# Fashion-MNIST.
FASHION = {
    "dcgan": Recipe("dcgan", {"latent": 64, "channels": 48}, GAN_FIT, RelativisticGAN(penalty=1.0))
}

# For a GPU: larger networks and batches. Finished there: pixelcnn, row-lstm (--steps 7500) and
# diagonal-bilstm; the others have not been run to their end.
ON_A_GPU = {
    "pixelcnn": _bigger("pixelcnn", {}, steps=5_000, learning_rate=0.015, compile=False),
    "gated-pixelcnn-orders": _bigger("gated-pixelcnn-orders", {}, compile=False),
    "row-lstm": _bigger("row-lstm", {"hidden": 32}, batch_size=64, ema=0.995),
    "diagonal-bilstm": _bigger("diagonal-bilstm", {"hidden": 32}, steps=4_500, batch_size=64,
                               ema=0.995),
    "attention": _bigger("attention", {"channels": 64, "blocks": 3, "convolutions": 3,
                                       "dropout": 0.1},
                         steps=16_000, batch_size=64, learning_rate=0.015),
    "pixelcnn-pp": _bigger("pixelcnn-pp", {"blocks": 2, "dropout": 0.1}, steps=8_000,
                           batch_size=64, learning_rate=0.015),
}  # fmt: skip

# For `--start-from`, where continuing needs other settings than the beginning.
CONTINUED = {
    # The network fitted on the GPU overfits after 5,000 updates (validation 80.91). It resumes with
    # wider kernels, a wider triangle, whose new taps begin at zero, and with dropout.
    "row-lstm": _bigger("row-lstm", {"hidden": 32, "kernel": 5, "first_kernel": 13,
                                     "dropout": 0.1},
                        steps=2_400, batch_size=64, learning_rate=0.006, warmup=100, ema=0.995,
                        validate_every=200),
    # Updates by k = 5 cost a third as much; only the last ones are by k = 50.
    "iwae-50": dataclasses.replace(
        RECIPES["iwae-50"],
        fit=dataclasses.replace(DENSE_FIT, steps=8_000, learning_rate=0.005),
    ),
    # Its codes are in use already: no warm-up of their price, under which it would unlearn them.
    "pixel-vae": dataclasses.replace(RECIPES["pixel-vae"], objective=NegativeELBO()),
}  # fmt: skip
