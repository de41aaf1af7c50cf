"""Clusters and maps of codes against known structure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import likely
from likely import models
from likely.data.spec import Dataset
from likely.errors import InvalidSetting
from likely.evaluate.structure import CLUSTERINGS, clustered, mapped
from likely.jobs.clusters import clusters

pytest.importorskip("sklearn")


def blobs() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = np.arange(120) % 3
    centres = 8.0 * np.eye(5)[:3]
    return (centres[labels] + random.normal(size=(120, 5))).astype(np.float32), labels


@pytest.mark.parametrize("name", CLUSTERINGS)
def test_clusters_that_are_there_are_known_again(name: str) -> None:
    codes, labels = blobs()
    clustering = clustered(codes, name, 3, labels)
    assert clustering.nmi == pytest.approx(1.0)
    assert clustering.ari == pytest.approx(1.0)
    shuffled = clustered(codes, name, 3, np.random.default_rng(1).permutation(labels))
    assert shuffled.ari is not None
    assert abs(shuffled.ari) < 0.1
    assert clustered(codes, name, 3).nmi is None
    with pytest.raises(InvalidSetting, match="expected 1 to 120 clusters"):
        clustered(codes, name, 121)


def test_a_map_keeps_neighbours_and_pca_is_a_projection() -> None:
    codes, _ = blobs()
    for name in ("pca", "t-sne"):
        made = mapped(codes, name)
        assert made.places.shape == (120, 2)
        assert made.trustworthiness > 0.75
    plane = codes[:, :2] - codes[:, :2].mean(0)
    flat = mapped(np.concatenate([plane, np.zeros((120, 3), np.float32)], 1), "pca")
    assert flat.trustworthiness > 0.999
    distances = np.linalg.norm(flat.places, axis=1)
    assert np.allclose(distances, np.linalg.norm(plane, axis=1), atol=1e-4)
    with pytest.raises(InvalidSetting, match="did you mean"):
        mapped(codes, "tsne")


def test_umap_by_its_library() -> None:
    pytest.importorskip("umap")
    assert mapped(blobs()[0], "umap").trustworthiness > 0.75


def test_the_structure_of_a_run(digits: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    train, _ = digits
    settings = {"latent": 3, "network": "dense", "hidden": 8}
    run = likely.fit(models.VAE(train.spec, **settings), train, steps=3, progress=False)
    run.save(tmp_path / "vae")
    structure = clusters(tmp_path / "vae", n=60, maps=("pca",))
    assert structure.layer == "code"
    assert "k-means of the pixels" in str(structure)
    assert [c["of"] for c in structure.to_json()["clusterings"]] == ["code", "code", "pixels"]
    assert structure.plot(tmp_path / "clusters.png").stat().st_size > 5000
