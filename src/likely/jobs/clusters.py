"""The structure of a run's codes: clusters and maps of examples, scored with the labels.

likely clusters runs/vae                       the command
likely.clusters("runs/vae", n=2000)            Python
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from likely.ask.layers import Layers
from likely.data.spec import DataSpec
from likely.density import chunks
from likely.devices import choose_device, place
from likely.evaluate.baselines import Features
from likely.evaluate.scores import Integers
from likely.evaluate.structure import (
    CLUSTERINGS,
    Clustering,
    ClusteringName,
    Map,
    MapName,
    clustered,
    mapped,
)
from likely.files.figures import save_figure
from likely.jobs.evaluate import Progress, Split, quiet, split_of, stage
from likely.report.clusters import structure_figure
from likely.runs.saved import SavedRun, load
from likely.settings import at_least, not_negative, typed

BATCH = 500  # images a forward pass


@dataclasses.dataclass(frozen=True)
class ClusterSettings:
    """How codes are clustered and mapped.

    Attributes:
        n: examples, spread evenly over the split.
        count: clusters; 0 for the number of classes, 10 without labels.
        layer: whose features are clustered; "code", or the last one where there is none.
        clusterings: k-means, gaussian-mixture.
        maps: pca, t-sne, umap (needs umap-learn).
        split: test, validation or train.
        seed: of the starts.
        device: auto, cpu, cuda.
    """

    n: int = 2000
    count: int = 0
    layer: str = "code"
    clusterings: tuple[ClusteringName, ...] = CLUSTERINGS
    maps: tuple[MapName, ...] = ("pca", "t-sne")
    split: Split = "test"
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        typed(self)
        at_least(self, 5, "n")
        not_negative(self, "count")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Structure:
    """What was measured of the codes; as text a line per method.

    Attributes:
        model: its name.
        layer: whose features these are.
        data: the split.
        labels: of the examples, [N], or None.
        clusterings: in the order of the settings.
        maps: in the order of the settings.
        pixels: the first clustering, of the pixels: what the codes are compared with.
    """

    model: str
    layer: str
    data: DataSpec
    labels: Integers | None
    clusterings: tuple[Clustering, ...]
    maps: tuple[Map, ...]
    pixels: Clustering

    def __str__(self) -> str:
        n = len(self.pixels.members)
        lines = [f"{self.layer} of {self.model} on {self.data.name}, {self.data.split}, n = {n:,}"]
        for clustering, what in [
            *((c, f"of {self.layer}") for c in self.clusterings),
            (self.pixels, "of the pixels"),
        ]:
            head, scores = f"{clustering.name} {what}", "no labels to score with"
            if clustering.nmi is not None:
                scores = f"NMI {clustering.nmi:.3f}, ARI {clustering.ari:.3f} against the labels"
            lines.append(f"  {head:32}{scores}")
        lines += [f"  {m.name:32}trustworthiness {m.trustworthiness:.3f}" for m in self.maps]
        return "\n".join(lines)

    __repr__ = __str__

    def to_json(self) -> dict[str, Any]:
        """Scores as plain values."""
        return {
            "model": self.model,
            "layer": self.layer,
            "data": self.data.to_json(),
            "n": len(self.pixels.members),
            "clusterings": [
                {"method": c.name, "of": of, "clusters": int(c.members.max()) + 1,
                 "nmi": c.nmi, "ari": c.ari}
                for c, of in [*((c, self.layer) for c in self.clusterings), (self.pixels, "pixels")]
            ],
            "maps": [{"method": m.name, "trustworthiness": m.trustworthiness} for m in self.maps],
        }  # fmt: skip

    def plot(self, path: str | Path) -> Path:
        """Draw the maps, coloured by class, and below them by cluster (.png, .pdf, .svg)."""
        names = self.data.classes if self.labels is not None else ()
        title = f"{self.layer} of {self.model} on {self.data.name}"
        return save_figure(
            structure_figure(title, self.maps, self.clusterings, self.labels, names), path
        )


def clusters(
    run: SavedRun | str | Path,
    settings: ClusterSettings | None = None,
    *,
    progress: Progress = quiet,
    **changes: Any,
) -> Structure:
    """Cluster and map the codes of a run's data.

    Args:
        run: from `likely.load`, or its directory.
        settings: of the methods.
        progress: told of every stage.
        changes: fields of the settings, as maps=("pca", "umap").

    Raises:
        Unanswerable: the run's model gives no features.
        InvalidSetting: no such layer, or more clusters than examples.
        MissingDependency: scikit-learn or umap-learn is not installed.
    """
    settings = dataclasses.replace(settings or ClusterSettings(), **changes)
    run = run if isinstance(run, SavedRun) else load(run)
    train, test = run.datasets()
    part = split_of(train, test, settings.split)
    n = min(settings.n, len(part))
    index = np.arange(n) * len(part) // n
    device = choose_device(settings.device)
    for network in (run.model, run.adversary):
        if network is not None:
            place(network, device)
    layers = Layers(run.model, run.adversary)
    layer = layers.usual(settings.layer)
    x = part.batch(index).x
    with stage(progress, f"encoding {n:,} examples with {run.name}"), torch.no_grad():
        integers = torch.from_numpy(x.astype(np.int64)).to(device)
        features = torch.cat([layers(integers[rows], layer) for rows in chunks(n, BATCH)])
        codes: Features = features.cpu().float().numpy()
    labels = None if part.labels is None else np.asarray(part.labels, np.int64)[index]
    count = settings.count or len(part.spec.classes) or 10
    made = []
    for name in settings.clusterings:
        with stage(progress, f"clustering by {name}"):
            made.append(clustered(codes, name, count, labels, settings.seed))
    pixels = x.reshape(n, -1).astype(np.float32)
    with stage(progress, "clustering the pixels"):
        of_pixels = clustered(pixels, "k-means", count, labels, settings.seed)
    maps = []
    for kind in settings.maps:
        with stage(progress, f"a map by {kind}"):
            maps.append(mapped(codes, kind, settings.seed))
    return Structure(run.name, layer, part.spec, labels, tuple(made), tuple(maps), of_pixels)
