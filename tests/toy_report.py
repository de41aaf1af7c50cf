"""A report on three made-up models of the digits, without any model.

"mixture" draws from a Gaussian for each class, "blurred" from smoothed training images, and
"collapsed" knows three digits only, so that the report has something to say of each.
"""

from __future__ import annotations

import numpy as np
import torch

from likely.ask import Answer, Guarantee
from likely.data.spec import Dataset
from likely.estimate import Estimate, Relation, nats_to_bits_per_dim
from likely.evaluate.compare import ModelResult, compare_models
from likely.evaluate.features import Extractor
from likely.evaluate.samples import SampleReference
from likely.files.charts import panels_from_metrics
from likely.report.report import ModelReport, Report, neighbour_pairs

ANSWERS = {
    "explicit, tractable": {
        "sample": Answer(Guarantee.EXACT, "ancestral sampling, one dimension after another"),
        "likelihood": Answer(Guarantee.EXACT, "the chain rule: a sum of log-conditionals"),
        "posterior": Answer(Guarantee.NONE, "it has no latent variables"),
    },
    "explicit, approximate": {
        "sample": Answer(Guarantee.EXACT, "z from the prior, then x from p(x|z)"),
        "likelihood": Answer(Guarantee.BOUND, "p(x) is an integral over z; ELBO bounds it"),
        "posterior": Answer(Guarantee.APPROXIMATE, "q(z|x), the encoder's Gaussian"),
    },
    "implicit": {
        "sample": Answer(Guarantee.EXACT, "one pass of the generator"),
        "likelihood": Answer(Guarantee.NONE, "it defines no density: it only maps noise"),
        "posterior": Answer(Guarantee.NONE, "it has no encoder"),
    },
}


def samples_of(train: Dataset, n: int) -> dict[str, torch.Tensor]:
    """Integers [n, 1, 8, 8] for each made-up model."""
    assert train.labels is not None
    generator = np.random.default_rng(0)
    x = train.values.astype(np.float64).reshape(len(train), -1)
    drawn = []
    for label in generator.integers(0, 10, n):
        own = x[train.labels == label]
        drawn.append(generator.multivariate_normal(own.mean(0), np.cov(own.T)))
    few = x[np.isin(train.labels, [0, 1, 7])]
    found = {
        "mixture": np.stack(drawn),
        "blurred": (x[:n] + np.roll(x[:n], 1, 1) + np.roll(x[:n], 8, 1)) / 3.0,
        "collapsed": few[generator.integers(0, len(few), n)] + generator.normal(0, 2, (n, 64)),
    }
    return {
        name: torch.from_numpy(v.round().clip(0, 16).astype(np.int64)).reshape(n, 1, 8, 8)
        for name, v in found.items()
    }


def made_up_results(
    reference: SampleReference, samples: dict[str, torch.Tensor]
) -> list[ModelResult]:
    """Sample metrics that are real, and likelihoods that are not."""
    generator = np.random.default_rng(1)
    difficulty = generator.normal(90.0, 15.0, 200)
    relations = {"mixture": Relation.EXACT, "blurred": Relation.UPPER, "collapsed": None}
    results = []
    for (name, relation), kind in zip(relations.items(), ANSWERS, strict=True):
        estimates = reference.metrics(samples[name])
        per_example = {}
        if relation is not None:
            values = difficulty + generator.normal(0.0, 2.0, 200)
            if relation is Relation.UPPER:
                values += 4.0
            nll = Estimate.mean_of(
                values.tolist(),
                unit="nats",
                relation=relation,
                quantity="nll",
                fingerprint=reference.test.spec.fingerprint,
            )
            estimates = [nll, nll.scaled(nats_to_bits_per_dim(64), "bits/dim"), *estimates]
            per_example = {("nll", "nats"): values.tolist()}
        speed = Estimate(
            40.0 if name == "mixture" else 2500.0,
            "images/s",
            Relation.APPROXIMATE,
            "sampling-speed",
            3.0,
            3,
            "machine",
            False,
        )
        results.append(ModelResult(name, kind, (*estimates, speed), ANSWERS[kind], per_example))
    return results


def toy_report(train: Dataset, test: Dataset, extractor: Extractor, n: int = 200) -> Report:
    """The whole report."""
    reference = SampleReference(train, test, extractor, n=n)
    samples = samples_of(train, n)
    results = made_up_results(reference, samples)
    steps = np.arange(10, 2001, 10)
    noise = np.random.default_rng(2)
    models = []
    for result in results:
        drawn = samples[result.name]
        loss = 80 + 120 * np.exp(-steps / 150) + noise.normal(0, 2, len(steps))
        records: list[dict[str, float]] = []
        for step, value in zip(steps, loss, strict=True):
            if result.kind == "implicit":
                wave = float(np.sin(step / 90.0)) * 0.1
                record = {"generator_loss": 0.8 + wave, "discriminator_loss": 1.2 - wave}
                record["discriminator_accuracy"] = 0.6 + wave
            else:
                record = {"nll": float(value)}
                if step % 200 == 0:
                    record["validation"] = float(value) + 3.0
            records.append({"step": float(step), "learning_rate": 1e-3, **record})
        models.append(
            ModelReport(
                result,
                drawn,
                summary="A made-up model of the digits (Nobody 2026).",
                settings={"model": {"channels": 32, "layers": 5}, "fit": {"steps": 2000}},
                parameters=123456,
                seconds=83.0,
                status="all 2,000 steps done",
                panels=panels_from_metrics(records, "nats per example"),
                neighbours=neighbour_pairs(drawn, train, extractor, count=9),
                notes=("the generator draws few modes",) if result.kind == "implicit" else (),
            )
        )
    return Report(
        title="Three made-up models of the digits",
        train=train.spec,
        test=test.spec,
        extractor=extractor.description,
        comparison=compare_models(results, reference.floor),
        models=tuple(models),
        training_images=torch.from_numpy(train.values[:64].astype(np.int64)),
        environment={"torch": torch.__version__, "device": "CPU"},
        command="likely compare --data digits",
        created="2026-11-23 12:00",
    )
