"""`likely clusters RUN`.

Cluster the codes of a run's data (k-means, Gaussian mixture) without labels, and
draw them in the plane (PCA, t-SNE, UMAP). Where there are labels, clusters are
scored against them: NMI and ARI, beside k-means of the pixels. Needs scikit-learn.
"""

from __future__ import annotations

import argparse

from likely.cli.parser import Command, Option, whole
from likely.cli.saved import SPLITS, opened, path_of, shown, writable

EXAMPLE = """\
  likely clusters runs/vae
  likely clusters runs/vae -n 500 --map pca --map t-sne -o codes.png
"""
OPTIONS: dict[str, Option] = {
    "-n --number": ("N", whole(5), 2000, "examples, spread over the split [2000]"),
    "--count": ("K", whole(0), 0, "clusters [the number of classes, 10 without labels]"),
    "--layer": ("NAME", None, "code", "whose features are clustered [code, else the last]"),
    "--map": ("NAME", ("pca", "t-sne", "umap"), (), "pca, t-sne or umap (needs umap-learn); may be "
              "repeated [pca and t-sne]"),
    "--split": ("NAME", SPLITS, "test", "test, validation or train "
                "[test]"),
    "--seed": ("N", whole(0), 0, "seed of the starts [0]"),
    "-o --out": ("FILE.png", None, None, "where the picture goes [RUN/clusters.png]"),
}  # fmt: skip

COMMAND = Command(EXAMPLE, OPTIONS, about=__doc__, of_run=True)


def run(options: argparse.Namespace) -> int:
    """Cluster, print, and keep the scores and the picture in the run."""
    from likely.cli.progress import StageProgress
    from likely.files.figures import PICTURES
    from likely.jobs.clusters import ClusterSettings, clusters

    picture = path_of(options.out, PICTURES, "--out")
    settings = ClusterSettings(
        n=options.number,
        count=options.count,
        layer=options.layer,
        maps=tuple(options.map) or ("pca", "t-sne"),
        split=options.split,
        seed=options.seed,
        device=options.device,
    )
    saved = opened(options)
    picture = picture or saved.directory / "clusters.png"
    writable(picture)
    with StageProgress() as progress:
        structure = clusters(saved, settings, progress=progress)
    return shown(options, structure, saved.files / "clusters.json", picture)
