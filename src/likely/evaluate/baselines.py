"""Classifiers without a network of ours, for a comparison: by scikit-learn, on the pixels.

Each is given the labelled images and the images that it is scored on, and returns probabilities.
Label spreading (Zhou et al. 2004, "Learning with Local and Global Consistency") is transductive: it
reads the images that it is scored on, without their labels, when it is fitted.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from likely.density import chunks
from likely.errors import MissingDependency
from likely.evaluate.scores import Floats, Integers

Features = npt.NDArray[np.float32]
# (labelled features [M, F], their labels [M], number of classes, features to score [N, F]) ->
# probabilities [N, C].
Classifier = Callable[[Features, Integers, int, Features], Floats]

# Strengths of the penalty that logistic regression is offered, C of scikit-learn.
PENALTIES = (1e-2, 1e-1, 1.0)
NEIGHBOURS = 10
SPREAD = 0.99


def scikit_learn(module: str) -> Any:
    """A module of scikit-learn.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise MissingDependency(
            "this needs scikit-learn; install with: pip install 'likely[sklearn]'"
        ) from error


def logistic_regression(
    x: Features, labels: Integers, classes: int, scored: Features, penalty: float = 1.0
) -> Floats:
    """Multinomial logistic regression with a quadratic penalty (C of scikit-learn)."""
    model = scikit_learn("linear_model").LogisticRegression(C=penalty, max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 200 iterations are enough for these digits of accuracy
        model.fit(x, labels)
    probabilities: Floats = np.zeros((len(scored), classes))
    probabilities[:, model.classes_] = model.predict_proba(scored)
    return probabilities


def nearest_neighbour(x: Features, labels: Integers, classes: int, scored: Features) -> Floats:
    """The class of the nearest labelled example in Euclidean distance, with certainty."""
    nearest = np.concatenate(
        [part.argmin(1).numpy() for part in _distances(scored, x)] or [np.zeros(0, np.int64)]
    )
    certain: Floats = np.eye(classes)[labels[nearest]]
    return certain


class LabelSpreading:
    """Labels spread along a graph of nearest neighbours over labelled and scored examples.

    The graph of the scored examples is the same for every draw of labels, so it is made once.

    Args:
        scored: the examples that are scored, [N, F].
    """

    def __init__(self, scored: Features) -> None:
        self.scored = scored
        parts = [part.topk(min(NEIGHBOURS + 1, len(scored)), 1, largest=False)
                 for part in _distances(scored, scored)]  # fmt: skip
        self.distances = torch.cat([part.values for part in parts])
        self.neighbours = torch.cat([part.indices for part in parts])

    def __call__(self, x: Features, labels: Integers, classes: int) -> Floats:
        """Probabilities of the scored examples, [N, C]; x of the labelled ones, [M, F]."""
        n = len(self.scored)
        graph = self._graph(x)
        model = scikit_learn("semi_supervised").LabelSpreading(
            kernel=lambda _a, _b: graph, alpha=SPREAD, max_iter=100
        )
        targets = np.full(n + len(x), -1)
        targets[n:] = labels
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rows that no label reaches; 100 steps
            model.fit(np.arange(n + len(x), dtype=float)[:, None], targets)
        reached = model.label_distributions_[:n]
        probabilities: Floats = np.full((n, classes), 1e-9)
        probabilities[:, model.classes_] += reached
        probabilities /= probabilities.sum(1, keepdims=True)
        return probabilities

    def _graph(self, x: Features) -> Any:
        """Symmetric 0-1 matrix of neighbours, scored examples first, [N + M, N + M]."""
        from scipy.sparse import csr_matrix

        n, m = len(self.scored), len(x)
        to_labelled = torch.cat(_distances(self.scored, x))  # [N, M]
        distances = torch.cat([self.distances, to_labelled], 1)
        labelled = torch.arange(n, n + m).expand(n, m)
        candidates = torch.cat([self.neighbours, labelled], 1)
        near = distances.topk(NEIGHBOURS + 1, 1, largest=False).indices
        rows = [candidates.gather(1, near)]
        among = torch.cat(_distances(x, x))  # [M, M]
        both = torch.cat([to_labelled.t(), among], 1)
        rows.append(both.topk(min(NEIGHBOURS + 1, n + m), 1, largest=False).indices)
        columns = torch.cat([part.flatten() for part in rows]).numpy()
        starts = np.cumsum([0] + [part.shape[1] for part in rows for _ in range(len(part))])
        graph = csr_matrix((np.ones(len(columns)), columns, starts), shape=(n + m, n + m))
        return graph.maximum(graph.T)


def _distances(x: Features, others: Features, size: int = 1000) -> list[torch.Tensor]:
    """Squared Euclidean distances of some rows after others, [size, M] each."""
    b = torch.from_numpy(others)
    norms = b.square().sum(1)
    parts = [torch.from_numpy(x[rows]) for rows in chunks(len(x), size)]
    return [norms - 2 * part @ b.t() + part.square().sum(1, keepdim=True) for part in parts]


def folds_of(labels: Integers, most: int) -> list[Integers]:
    """Positions of the examples of each fold; every class is in every fold if it can be.

    Args:
        labels: classes of the labelled examples, [M].
        most: number of folds; fewer where a class has fewer examples, none where one has a
            single example.
    """
    counts = np.bincount(labels)
    count = min(most, int(counts[counts > 0].min()))
    if count < 2:
        return []
    number = np.zeros(len(labels), np.int64)
    for label in np.flatnonzero(counts):
        members = np.flatnonzero(labels == label)
        number[members] = np.arange(len(members)) % count
    return [np.flatnonzero(number == fold) for fold in range(count)]


def cross_validated(
    classifier: Callable[..., Floats],
    choices: Sequence[Any],
    x: Features,
    labels: Integers,
    classes: int,
    folds: Sequence[Integers],
) -> tuple[float, float, Any]:
    """The best of some choices, by accuracy inside the labelled examples.

    Args:
        classifier: called as a `Classifier`, with the choice as a fifth argument.
        choices: the default one in the middle; that is taken where there are no folds.
        x: features of the labelled examples, [M, F].
        labels: [M].
        classes: number of classes.
        folds: from `folds_of`.

    Returns:
        (accuracy, mean log probability of the true class, the choice); ties by the latter.
    """
    if not folds:
        return 0.0, 0.0, choices[len(choices) // 2]
    results = []
    for choice in choices:
        right, log_probability = 0.0, 0.0
        for held_out in folds:
            kept = np.setdiff1d(np.arange(len(labels)), held_out)
            p = classifier(x[kept], labels[kept], classes, x[held_out], choice)
            right += float((p.argmax(1) == labels[held_out]).sum())
            true = p[np.arange(len(held_out)), labels[held_out]]
            log_probability += float(np.log(np.maximum(true, 1e-12)).sum())
        results.append((right, log_probability, choice))
    return max(results, key=lambda result: result[:2])
