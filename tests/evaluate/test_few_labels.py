"""Classifiers from few labels: fair draws, choices inside the labels, known answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import likely
from likely.ask import features
from likely.ask.layers import Layers
from likely.data.spec import Dataset
from likely.errors import InvalidData, InvalidSetting, Unanswerable
from likely.evaluate.baselines import (
    LabelSpreading,
    folds_of,
    logistic_regression,
    nearest_neighbour,
)
from likely.evaluate.few_labels import (
    Classifier,
    Encoder,
    FineTuning,
    Probe,
    chosen_probe,
    fine_tuned,
    fitted,
    stratified,
)
from likely.evaluate.scores import scored
from likely.models import (
    DCGAN,
    FVSBN,
    VAE,
    Autoencoder,
    GatedPixelCNN,
    PixelCNNPP,
    PixelSNAIL,
)
from likely.models.gan.adversary import adversary_of
from likely.models.gan.gan import DenseDiscriminator
from sizes import SMALL
from toy_data import dataset

pytest.importorskip("sklearn")
QUICK = FineTuning(rates=(1e-3,), updates=8, checkpoints=(0.5, 1.0), folds=2)


def bars(n: int, seed: int = 0) -> Dataset:
    """Images of 6 x 6 with a bright row; the class is a third of the height."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, n)
    values = random.integers(0, 2, (n, 1, 6, 6)).astype(np.uint8)
    rows = 2 * labels + random.integers(0, 2, n)
    values[np.arange(n), 0, rows] = 3
    return dataset(values, 4, labels)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    data = bars(200)
    model = VAE(data.spec, latent=3, network="dense", hidden=12)
    return Encoder(Layers(model), torch.from_numpy(data.x.astype(np.int64)))


def test_draws_are_stratified_repeat_and_contain_each_other() -> None:
    labels = np.random.default_rng(0).integers(0, 4, 100)
    few, more = (stratified(labels, 4, count, seed=5) for count in (3, 8))
    assert np.bincount(labels[few]).tolist() == [3, 3, 3, 3]
    assert set(few) < set(more)
    assert (few == stratified(labels, 4, 3, seed=5)).all()
    assert set(few) != set(stratified(labels, 4, 3, seed=6))
    assert len(stratified(labels, 4, 0, seed=5)) == 100
    with pytest.raises(InvalidData, match="60 labelled examples of each class"):
        stratified(labels, 4, 60, seed=0)


def test_every_class_is_in_every_fold_and_a_single_example_makes_none() -> None:
    labels = np.repeat([0, 1, 2], 4)
    folds = folds_of(labels, 3)
    assert sorted(np.concatenate(folds)) == list(range(12))
    assert all(set(labels[fold]) == {0, 1, 2} for fold in folds)
    assert len(folds_of(np.array([0, 0, 1, 1, 1]), 3)) == 2
    assert folds_of(np.array([0, 1, 1]), 3) == []


def test_scores_of_known_predictions() -> None:
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55]])
    scores = scored(p, np.array([0, 1, 1, 1]))
    assert scores.accuracy == 0.75
    assert scores.confusion.tolist() == [[1, 0], [1, 2]]
    # Each in a bin of its own: gaps 0.1, 0.8, 0.3, 0.45 over four examples.
    assert scores.calibration_error == pytest.approx((0.1 + 0.8 + 0.3 + 0.45) / 4)
    both = scores + scores
    assert (both.accuracy, both.calibration_error) == (0.75, scores.calibration_error)
    assert sum(n for n, _, _ in scores.to_json()["reliability"]) == 4


def test_a_fit_of_all_weights_begins_as_the_probe(encoder: Encoder) -> None:
    data, others = bars(30, seed=1), bars(20, seed=2)
    x, scored_images = (torch.from_numpy(d.x.astype(np.int64)) for d in (data, others))
    assert data.labels is not None
    probe = Probe("layer-2", 0.1, 0.0)
    begun = Classifier(encoder, "layer-2", 3).eval()
    labelled = encoder.features(x, "layer-2")
    begun.start_at(labelled, data.labels, 0.1)
    wanted = logistic_regression(
        labelled, data.labels, 3, encoder.features(scored_images, "layer-2"), 0.1
    )
    assert np.allclose(begun.probabilities(scored_images), wanted, atol=1e-5)
    before = {name: w.clone() for name, w in encoder.layers.state_dict().items()}
    moved = fitted(encoder, probe, x, data.labels, 3, 1e-2, [20], scored_images, 0, 32)[0]
    assert np.abs(moved - wanted).max() > 1e-2
    # The encoder itself stays as it is: the next draw begins from it.
    assert all((before[name] == w).all() for name, w in encoder.layers.state_dict().items())


def test_a_probe_of_two_classes_and_of_a_class_without_example(encoder: Encoder) -> None:
    data = bars(40, seed=3)
    assert data.labels is not None
    kept = np.flatnonzero(data.labels < 2)
    x = torch.from_numpy(data.x[kept].astype(np.int64))
    network = Classifier(encoder, "code", 3).eval()
    labelled = encoder.features(x, "code")
    network.start_at(labelled, data.labels[kept], 1.0)
    p = network.probabilities(x)
    wanted = logistic_regression(labelled, data.labels[kept], 3, labelled, 1.0)
    assert np.abs(p[:, :2] / p[:, :2].sum(1, keepdims=True) - wanted[:, :2]).max() < 1e-4
    assert p[:, 2].max() < p[:, :2].max(1).min()


def test_a_choice_reads_no_label_outside_the_draw(encoder: Encoder) -> None:
    """The result is a function of the labelled images: the others are given without labels."""
    data, others = bars(12, seed=4), bars(9, seed=5)
    x, scored_images = (torch.from_numpy(d.x.astype(np.int64)) for d in (data, others))
    assert data.labels is not None
    features_of = {name: encoder.features(x, name) for name in encoder.layers.names}
    probe = chosen_probe(features_of, data.labels, 3, QUICK)
    assert probe.layer in encoder.layers.names
    first, chosen = fine_tuned(encoder, probe, x, data.labels, 3, scored_images, QUICK, 0)
    again, _ = fine_tuned(encoder, probe, x, data.labels, 3, scored_images[:4], QUICK, 0)
    assert chosen["updates"] in (4, 8)
    assert np.allclose(first[:4], again)


def test_nearest_neighbour_and_spreading_against_scikit_learn() -> None:
    """The graph that is extended draw by draw is the one of all examples together."""
    from sklearn.neighbors import KNeighborsClassifier, kneighbors_graph
    from sklearn.semi_supervised import LabelSpreading as Published

    random = np.random.default_rng(0)
    x, y = (random.normal(size=(n, 5)).astype(np.float32) for n in (12, 60))
    labels = np.arange(12) % 3
    by_distance = KNeighborsClassifier(1).fit(x, labels).predict(y)
    assert (nearest_neighbour(x, labels, 3, y).argmax(1) == by_distance).all()
    together = np.concatenate([y, x])
    graph = kneighbors_graph(together, 11, include_self=True)
    graph = graph.maximum(graph.T)
    published = Published(kernel=lambda _a, _b: graph, alpha=0.99, max_iter=100)
    published.fit(together, np.concatenate([np.full(60, -1), labels]))
    p = LabelSpreading(y)(x, labels, 3)
    assert np.allclose(p, published.label_distributions_[:60], atol=1e-6)


def test_layers_of_every_kind_of_network_carry_gradients() -> None:
    data = bars(5)
    x = torch.from_numpy(data.x.astype(np.int64))
    vae = VAE(data.spec, latent=3, network="conv", channels=4)
    layers = Layers(vae)
    assert layers.names[-1] == "code"
    assert torch.allclose(layers(x), features(vae, x))
    gan = DCGAN(data.spec, latent=4, channels=4)
    dense = DenseDiscriminator(36, 0)
    for model, adversary in (
        (gan, adversary_of(gan)),
        (gan, dense),
        (GatedPixelCNN(data.spec, channels=4, layers=3, head_channels=4), None),
        (PixelSNAIL(data.spec), None),
        (PixelCNNPP(data.spec), None),
        (vae, None),
        (Autoencoder(data.spec, network="dense", hidden=8), None),
        (Autoencoder(data.spec, network="conv", channels=4), None),
    ):
        layers = Layers(model, adversary)
        assert layers.names, model
        for name, values in layers.all(x).items():
            assert values.shape[0] == 5
            assert values.ndim == 2
            assert values.requires_grad, name
    with pytest.raises(InvalidSetting, match="did you mean"):
        layers.chosen("layer1")


@pytest.mark.parametrize("name", ["vq-vae", "rbm", "bernoulli-mixture"])
def test_features_are_a_layer_that_is_read_and_not_moved(name: str, tmp_path: Path) -> None:
    data = bars(60)
    model = likely.runs.build(name, data.spec, SMALL[name])
    run = likely.fit(model, data, steps=2, batch_size=8, progress=False)
    run.save(tmp_path / "run")
    layers = Layers(run.model)
    x = torch.from_numpy(data.x[:5].astype(np.int64))
    assert layers.names == ("features",)
    assert torch.equal(layers(x), features(run.model, x))
    labelled = (data, bars(20, seed=1))
    few: dict[str, Any] = {"per_class": (4,), "seeds": 1, "baselines": False}
    made = likely.classify(tmp_path / "run", labelled, modes=("frozen",), **few)
    assert "frozen" in made.fractions[0].methods
    with pytest.raises(Unanswerable, match=r"joint and scratch would move.*--mode frozen"):
        likely.classify(tmp_path / "run", labelled, **few)


def test_a_line_of_one_draw_keeps_its_words_apart(tmp_path: Path) -> None:
    data = bars(60)
    model = likely.runs.build("vae", data.spec, SMALL["vae"])
    run = likely.fit(model, data, steps=2, batch_size=8, progress=False)
    run.save(tmp_path / "run")
    made = likely.classify(
        tmp_path / "run", (data, bars(20, seed=1)), per_class=(4,), seeds=1, modes=("frozen",)
    )
    assert "(n = 1, error unknown) calibration error" in str(made)


def test_networks_without_layers_and_conditional_ones_are_refused() -> None:
    data = bars(5)
    with pytest.raises(Unanswerable, match="gives no hidden layers"):
        Layers(FVSBN(data.spec))
    with pytest.raises(Unanswerable, match="gives no hidden layers"):
        Layers(DCGAN(data.spec, latent=4, channels=4))
