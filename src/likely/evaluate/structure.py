"""Structure of unlabelled data: clusters and maps of codes, by scikit-learn and umap-learn.

Scores that need the labels, which the clustering did not see: normalised mutual information (NMI,
in [0, 1]) and the adjusted Rand index (ARI, 0 for a random clustering, 1 for the classes), Vinh,
Epps and Bailey 2010, https://jmlr.org/papers/v11/vinh10a.html. The score of a map that needs no
labels is its trustworthiness (Venna and Kaski 2001): 1 where the nearest neighbours on the map are
neighbours among the codes, too.
"""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from typing import Any, Literal, get_args

import numpy as np

from likely.errors import InvalidSetting, MissingDependency, nearest
from likely.evaluate.baselines import Features, scikit_learn
from likely.evaluate.scores import Floats, Integers

ClusteringName = Literal["k-means", "gaussian-mixture"]
MapName = Literal["pca", "t-sne", "umap"]
CLUSTERINGS: tuple[ClusteringName, ...] = get_args(ClusteringName)
MAPS: tuple[MapName, ...] = get_args(MapName)
# Neighbours whose preservation trustworthiness measures.
NEIGHBOURS = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Clustering:
    """Clusters of some examples.

    Attributes:
        name: of the method.
        members: cluster of each example, [N].
        nmi: normalised mutual information with the labels; None without labels.
        ari: adjusted Rand index against the labels; None without labels.
    """

    name: str
    members: Integers
    nmi: float | None
    ari: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class Map:
    """Codes in the plane.

    Attributes:
        name: of the method.
        places: [N, 2].
        trustworthiness: of the 10 nearest neighbours, in [0, 1].
    """

    name: str
    places: Floats
    trustworthiness: float


def clustered(
    codes: Features, name: str, count: int, labels: Integers | None = None, seed: int = 0
) -> Clustering:
    """Cluster codes without their labels; score the clusters with them.

    Args:
        codes: [N, F].
        name: k-means (10 starts), or gaussian-mixture (full covariances, 1e-3 on the diagonal).
        count: of clusters.
        labels: classes [N], or None.
        seed: of the starts.

    Raises:
        InvalidSetting: no such method, or more clusters than examples.
        MissingDependency: scikit-learn is not installed.
    """
    if not 1 <= count <= len(codes):
        raise InvalidSetting(f"expected 1 to {len(codes)} clusters, given {count}")
    model: Any
    if name == "k-means":
        model = scikit_learn("cluster").KMeans(count, n_init=10, random_state=seed)
    elif name == "gaussian-mixture":
        model = scikit_learn("mixture").GaussianMixture(count, reg_covar=1e-3, random_state=seed)
    else:
        raise InvalidSetting(f'there is no clustering "{name}": {nearest(name, CLUSTERINGS)}')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what did not converge is scored as it is
        members = np.asarray(model.fit_predict(codes), np.int64)
    if labels is None:
        return Clustering(name, members, None, None)
    scores = scikit_learn("metrics")
    nmi = float(scores.normalized_mutual_info_score(labels, members))
    return Clustering(name, members, nmi, float(scores.adjusted_rand_score(labels, members)))


def mapped(codes: Features, name: str, seed: int = 0) -> Map:
    """Put codes in the plane.

    Args:
        codes: [N, F], N of at least 25 for t-sne and umap.
        name: pca, t-sne (van der Maaten and Hinton 2008) or umap (McInnes et al. 2018).
        seed: of the start.

    Raises:
        InvalidSetting: no such method.
        MissingDependency: scikit-learn, or for umap umap-learn, is not installed.
    """
    places = np.asarray(_method(name, len(codes), seed).fit_transform(codes), np.float64)
    neighbours = min(NEIGHBOURS, max(1, len(codes) // 2 - 1))
    score = scikit_learn("manifold").trustworthiness(codes, places, n_neighbors=neighbours)
    return Map(name, places, float(score))


def _method(name: str, n: int, seed: int) -> Any:
    if name == "pca":
        return scikit_learn("decomposition").PCA(2, random_state=seed)
    if name == "t-sne":
        perplexity = min(30.0, (n - 1) / 3)
        return scikit_learn("manifold").TSNE(2, perplexity=perplexity, random_state=seed)
    if name == "umap":
        try:
            return importlib.import_module("umap").UMAP(n_components=2, random_state=seed, n_jobs=1)
        except ImportError as error:
            raise MissingDependency(
                f"umap needs umap-learn ({error}); install with: pip install 'likely[umap]'"
            ) from error
    raise InvalidSetting(f'there is no map "{name}": {nearest(name, MAPS)}')
