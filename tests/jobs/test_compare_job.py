"""The main job, with few steps: what it writes, refuses and takes up again."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from likely import runs
from likely.ask import Guarantee
from likely.data import load
from likely.density import Fittable
from likely.errors import InvalidData, InvalidSetting
from likely.estimate import Relation
from likely.jobs.compare import CompareSettings, Outcome, compare, run
from likely.models import ONE_OF_EACH_KIND
from likely.training.loop import fit
from likely.verify import Proofs, verify, weights_digest

job = importlib.import_module("likely.jobs.compare")  # the name is also that of the function
FEW = CompareSettings(steps=6, samples=60, importance_samples=3)
DIGITS = {"name": "digits"}
PROVED: dict[str, Proofs] = {}  # by the digest of the weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def outcome(folder: Path) -> Outcome:
    stages: list[str] = []
    drafts: set[str] = set()

    def progress(stage: str, done: float, total: float) -> None:
        stages.append(stage)
        if (folder / "report.html").exists():
            drafts.add((folder / "report.html").read_text())

    def remembered(model: Fittable, *arguments: Any, **options: Any) -> Proofs:
        PROVED[weights_digest(model)] = proofs = verify(model, *arguments, **options)
        return proofs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "verify", remembered)
        found = run([], DIGITS, folder, FEW, progress=progress)
    for name in ONE_OF_EACH_KIND:
        assert f"fitting {name}" in stages
    # From the beginning there is a page, with pictures; it says what it waits for.
    assert all("Still fitting: " in page and "data:image/png" in page for page in drafts)
    assert {page.count('id="model-') for page in drafts} >= {0, 1, 2}
    return found


@pytest.fixture
def quick_proofs(outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proofs at their length were seen in `outcome`: they hold of the same weights."""

    def known(model: Fittable, *arguments: Any, **options: Any) -> Proofs:
        proofs = PROVED.get(weights_digest(model))
        return proofs or verify(model, *arguments, **{**options, "quick": True})

    monkeypatch.setattr(job, "verify", known)


def test_one_of_each_kind_is_measured_as_its_kind_can_be(outcome: Outcome) -> None:
    assert outcome.finished
    assert outcome.report is not None
    relations = {}
    for model in outcome.report.models:
        nll = [e for e in model.result.estimates if (e.quantity, e.unit) == ("nll", "nats")]
        relations[model.result.kind] = {e.relation for e in nll}
        assert any(e.quantity == "frechet" for e in model.result.estimates)
        assert model.notes[0].startswith("All ")  # the proofs
    assert relations == {
        "explicit, tractable": {Relation.EXACT},
        "explicit, approximate": {Relation.UPPER},
        "implicit": set(),
    }


def test_the_report_is_on_disk_and_names_what_is_not_known(outcome: Outcome, folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert "no density" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    record = json.loads((folder / "report.json").read_text())
    assert record["comparison"]["models"][0]["name"] == "gated-pixelcnn"
    assert (folder / "sheets" / "dcgan.png").stat().st_size > 500


def test_the_whole_report_waits_for_nothing(outcome: Outcome, folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert "Still fitting" not in page
    assert "refresh" not in page


def test_a_comparison_that_is_interrupted_resumes(
    quick_proofs: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(job, "ONE_OF_EACH_KIND", ("vae", "fvsbn"))  # a process each is enough

    def interrupt(stage: str, done: float, total: float) -> None:
        if stage == "fitting vae" and done:
            raise KeyboardInterrupt

    many = dataclasses.replace(FEW, steps=20)
    stopped = run([], DIGITS, tmp_path, many, progress=interrupt)
    assert not stopped.finished
    assert stopped.status.startswith("stopped by SIGINT; the fits are saved in ")
    assert (tmp_path / "runs" / "vae" / "state.safetensors").exists()
    assert run([], DIGITS, tmp_path, many).finished


def test_fits_that_are_done_are_taken_up(
    outcome: Outcome, quick_proofs: None, folder: Path
) -> None:
    """Again, nothing is refitted and every number but the clock's is the same."""
    before = {
        name: (folder / "runs" / name / "state.safetensors").stat().st_mtime_ns
        for name in ONE_OF_EACH_KIND
    }
    again = run([], DIGITS, folder, FEW)
    for name, time in before.items():
        assert (folder / "runs" / name / "state.safetensors").stat().st_mtime_ns == time
    assert again.report is not None
    assert outcome.report is not None
    for old, new in zip(outcome.report.models, again.report.models, strict=True):
        numbers = [
            [e.value for e in model.result.estimates if e.quantity != "sampling-speed"]
            for model in (old, new)
        ]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-6)


def test_runs_are_compared_and_other_data_get_other_columns(
    outcome: Outcome, quick_proofs: None, folder: Path, tmp_path: Path
) -> None:
    train, _ = load("digits", binarize="threshold")
    model = runs.build("vae", train.spec)
    directory = tmp_path / "binary"
    fit(model, train, steps=3, out=directory)
    found = run([folder / "runs" / "vae", directory], None, tmp_path / "out", FEW)
    assert found.report is not None
    columns = [
        c for c in found.report.comparison.columns if (c.quantity, c.unit) == ("nll", "nats")
    ]
    assert len({c.fingerprint for c in columns}) == 2
    page = (tmp_path / "out" / "report.html").read_text()
    header = page[page.index("<header>") : page.index("</header>")]
    for model in found.report.models:
        assert model.result.data is not None
        assert model.result.data.fingerprint in header
    assert [pair[0].fingerprint for pair in found.report.others] == [train.spec.fingerprint]
    with pytest.raises(InvalidData, match="17 levels"):
        run([folder / "runs" / "vae"], {"name": "digits", "binarize": "threshold"}, tmp_path, FEW)


def test_what_cannot_be_compared_is_refused(outcome: Outcome, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="needs run directories"):
        run([], None, tmp_path)
    with pytest.raises(InvalidSetting, match="different names"):
        run([folder / "runs" / "vae", folder / "runs" / "vae"], None, tmp_path, FEW)
    with pytest.raises(InvalidSetting, match="not a run"):
        run([tmp_path], None, tmp_path, FEW)
    with pytest.raises(InvalidSetting, match="test or validation"):
        CompareSettings(split="train")


def test_models_in_memory_are_compared_and_shown(
    outcome: Outcome, quick_proofs: None, folder: Path
) -> None:
    train, test = load("digits")
    models = [runs.load(folder / "runs" / name).model for name in ("vae", "vae")]
    report = compare(*models, data=(train, test), settings=FEW)
    assert [model.result.name for model in report.models] == ["VAE", "VAE 2"]
    assert "VAE 2" in str(report) == repr(report)
    assert report._repr_html_().startswith("<iframe srcdoc=")
    same = compare(runs.load(folder / "runs" / "vae"), settings=FEW)
    assert outcome.report is not None
    vae = next(m for m in outcome.report.models if m.result.name == "vae")
    assert same.models[0].result.estimates[0] == vae.result.estimates[0]
    dcgan = next(m for m in outcome.report.models if m.result.name == "dcgan")
    assert dcgan.result.answers["features"].guarantee is Guarantee.APPROXIMATE
    with pytest.raises(InvalidSetting, match="give data="):
        compare(models[0])
    with pytest.raises(InvalidSetting, match="give fitted models; or data"):
        compare(data="digits")


def test_a_vae_of_two_latents_is_compared_by_its_integral(quick_proofs: None) -> None:
    """A bound and an exact likelihood leave a gap; two exact ones are decided."""
    train, test = load("digits")
    few = test.take(slice(0, 80))
    model = runs.build(
        "vae", train.spec, {"latent": 2, "network": "dense", "hidden": 8, "layers": 1}, 0
    )
    report = compare(model, data=(train, few), settings=FEW)
    likelihoods = [e for e in report.models[0].result.estimates if e.quantity == "nll"]
    assert [e.relation for e in likelihoods[::2]] == [Relation.UPPER] * 2 + [Relation.EXACT]
    cells = [cell for cell in str(report).splitlines() if cell.strip().startswith("nll")]
    assert f"={likelihoods[-2].value:.1f}" in cells[0].replace(" ", "")
