"""The accuracy of arithmetic on a planted generator: its directions are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from likely.cli import main
from likely.data.spec import Dataset, DataSpec, digest_of
from likely.density import ImplicitDensity, StandardNormal
from likely.errors import InvalidData, InvalidSetting
from likely.estimate import Estimate, Relation
from likely.evaluate.classifier import ClassifierSettings
from likely.jobs.codes import arithmetic, steering
from likely.jobs.codes.invert import Inversions, Recovered
from likely.noise import Noise

SPEC = DataSpec("planted", (1, 1, 4), 256)
NAMES = ("first", "fourth", "second", "third")


class Plain(ImplicitDensity):
    """The image is the code: four coordinates, four pixels."""

    latent = 4

    def __init__(self) -> None:
        super().__init__(SPEC, 0)
        self.scale = torch.nn.Parameter(torch.tensor(0.2))

    @property
    def prior(self) -> StandardNormal:
        return StandardNormal(4)

    def latents(self, noise: Noise, n: int) -> Tensor:
        return noise.normal(n, 4)

    def generate(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return (self.scale * z).reshape(-1, 1, 1, 4).clamp(-1, 1)


class Signs:
    """Reads the sign of a pixel without error."""

    def scores(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 4)[:, [0, 3, 1, 2]].float() - 127.5


def planted(rivals: list[list[int]] | None = None) -> steering.AttributeClassifier:
    rivals = rivals or [[0], [1], [2], [3]]
    return steering.AttributeClassifier(NAMES, rivals, Signs(), {})  # type: ignore[arg-type]


def test_flips_and_kept_are_counted_right() -> None:
    """The direction is (1.6, 0, 0, 0): from below 0 it crosses in P(0 < u < 1.6 | u > 0) of draws.

    Each code goes back to its length, which changes no sign.
    """
    model, classifier = Plain().eval(), planted()
    pool = steering.labelled_codes(model, classifier, Plain.__new__(Dataset), 4000)
    assert "labelled by the classifier" in pool.about
    assert torch.equal(pool.has[:, 0], pool.codes[:, 0] > 0)
    start = model.drawn_codes(1500, seed=9)
    found = steering.flips(model, classifier, "first", pool, start, group=1500)
    shift = 2.0 * np.sqrt(2.0 / np.pi)
    below = start[start[:, 0] < -0.01, 0]
    expected = 100.0 * float((below > -shift).double().mean())
    assert found.flipped.value == pytest.approx(expected, abs=2.0)
    assert found.kept.value > 97.0
    # By chance: the sign of a coordinate of the moved code, by simulation with other noise.
    codes = start[start[:, 0] < -0.01]
    drawn = torch.randn(codes.shape, generator=torch.manual_seed(5))
    by = shift * drawn / drawn.norm(dim=1, keepdim=True)
    came = 100.0 * float((codes + by)[:, 0].gt(0).double().mean())
    assert found.by_chance.value == pytest.approx(came, abs=4.0)
    assert found.gained.value == pytest.approx(found.flipped.value - found.by_chance.value)
    assert found.spared.value == pytest.approx(found.kept.value - found.kept_by_chance.value)
    assert found.flipped.n == int((~classifier(model.decode(start))[:, 0]).sum())
    # Three of a group say less: the others change more often.
    few = steering.flips(model, classifier, "first", pool, start, group=3)
    assert few.kept.value < found.kept.value - 3.0


def test_rivals_do_not_count_as_others() -> None:
    """The second pixel goes down whenever the first goes up; as its rival it is not asked."""

    class Opposed(Plain):
        def generate(self, z: Tensor, context: Tensor | None = None) -> Tensor:
            z = torch.cat([z[:, :1], -z[:, :1], z[:, 2:]], 1)
            return super().generate(z)

    model = Opposed().eval()
    start = model.drawn_codes(400, seed=9)
    kept = []
    for rivals in (None, [[0, 2], [1], [0, 2], [3]]):
        classifier = planted(rivals)
        pool = steering.labelled_codes(model, classifier, Plain.__new__(Dataset), 1000)
        kept.append(steering.flips(model, classifier, "first", pool, start, group=300).kept.value)
    assert kept[0] < 75.0 < 95.0 < kept[1]


def test_where_all_are_rivals_no_other_is_counted() -> None:
    """As of data whose only attributes are the classes of its label."""
    model, classifier = Plain().eval(), planted([[0, 1, 2, 3]] * 4)
    pool = steering.labelled_codes(model, classifier, Plain.__new__(Dataset), 1000)
    found = steering.flips(model, classifier, "first", pool, model.drawn_codes(200), group=300)
    assert found.kept is found.kept_by_chance is found.spared is None
    assert found.flipped.value > found.by_chance.value
    assert set(found.to_json()) == {"attribute", "flipped", "by_chance", "gained"}


def test_what_cannot_be_measured_is_refused() -> None:
    model, classifier = Plain().eval(), planted()
    pool = steering.labelled_codes(model, classifier, Plain.__new__(Dataset), 50)
    start = model.drawn_codes(20, seed=1)
    with pytest.raises(InvalidSetting, match=r'no attribute "frist".*first'):
        steering.flips(model, classifier, "frist", pool, start)
    with pytest.raises(InvalidData, match="a group takes 100"):
        steering.flips(model, classifier, "first", pool, start)


def test_attributes_come_from_classes_factors_and_columns() -> None:
    kind, x = np.array([0, 1, 2, 1]), np.array([0.3, 0.4, 0.6, 0.7])
    spec = DataSpec("planted", (1, 2, 2), 4, n=4, classes=("ellipse", "square", "triangle"))
    dataset = Dataset(
        spec,
        np.zeros((4, 1, 2, 2), np.uint8),
        labels=kind,
        attributes={"dim": np.array([True, False, False, True])},
        factors={"kind": kind.astype(np.float64), "x": x},
    )
    columns = steering.attributes_of(dataset)
    names = sorted(columns)
    assert names == ["dim", "ellipse", "square", "triangle", "x"]
    assert columns["x"].tolist() == [False, False, True, True]
    assert columns["square"].tolist() == [False, True, False, True]
    rivals = steering.exclude_each_other(dataset, names)
    assert rivals == [[0], [1, 2, 3], [1, 2, 3], [1, 2, 3], [4]]


def test_a_classifier_says_its_accuracy_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = []
    for n in (600, 200):
        values = rng.integers(0, 256, size=(n, 1, 4, 4)).astype(np.uint8)
        spec = DataSpec("planted", (1, 4, 4), 256, n=n, digest=digest_of(values))
        bright = {"bright": rng.uniform(size=n) < 0.5}
        values[bright["bright"]] |= 128
        parts.append(Dataset(spec, values, attributes=bright))
    settings = ClassifierSettings(steps=150, features=8)
    classifier = steering.attribute_classifier(*parts, settings, cache=tmp_path)
    assert classifier.names == ("bright",)
    accuracy = classifier.accuracy["bright"]
    assert (accuracy.n, accuracy.value > 0.9) == (200, True)
    assert "test accuracy in percent (n = 200): bright 9" in str(classifier)
    read = classifier(torch.from_numpy(parts[1].values.astype(np.int64)))
    right = (read[:, 0].numpy() == parts[1].attributes["bright"]).mean()
    assert float(right) == pytest.approx(accuracy.value)


def test_a_text_chooses_examples() -> None:
    columns = {"triangle": np.array([1, 1, 0, 0], bool), "7": np.array([0, 1, 0, 1], bool)}
    factors = {"size": np.array([0.1, 0.2, 0.3, 0.4])}
    for text, expected in {
        "triangle": [1, 1, 0, 0],
        "not triangle": [0, 0, 1, 1],
        "triangle, size > 0.15": [0, 1, 0, 0],
        "size<0.35, not triangle": [0, 0, 1, 0],
        "size = 0.4": [0, 0, 0, 1],
        "class=7": [0, 1, 0, 1],
    }.items():
        assert arithmetic.satisfying(text, columns, factors).tolist() == [bool(e) for e in expected]
    assert arithmetic.numbers_of("3, 17,40") == [3, 17, 40]
    assert arithmetic.numbers_of("size") is None
    for text, said in {
        "trangle": "triangle",
        "sise > 1": "size",
        "size > big": "no number",
    }.items():
        with pytest.raises(InvalidSetting, match=said):
            arithmetic.satisfying(text, columns, factors)


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GAN and a VAE of digits after two steps."""
    out = tmp_path_factory.mktemp("steered")
    small = "--data digits --steps 2 --latent 5"
    assert main(["fit", "dcgan", *small.split(), "--channels", "4", "--out", f"{out}/dcgan"]) == 0
    words = f"{small} --network dense --hidden 8 --layers 1 --out {out}/vae"
    assert main(["fit", "vae", *words.split()]) == 0
    return out


@pytest.mark.parametrize("name", ["dcgan", "vae"])
def test_the_commands_write_their_pictures(
    name: str, fits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(fits / name)
    samples = fits / name / "samples"
    assert main(["walk", run, "--loops", "2", "--steps", "4"]) == 0
    with Image.open(samples / "walk-0.gif") as image:
        assert image.n_frames >= 2  # type: ignore[attr-defined]
    assert main(["arithmetic", run, "--samples", "12"]) == 0
    assert "choose three or more" in capsys.readouterr().out
    groups = ["--plus", "1,2,3", "--plus", "4,5,6", "--minus", "7,8,9", "--samples", "12"]
    assert main(["arithmetic", run, *groups, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["sizes"] == [3, 3, 3]
    assert ("clipped" in record["result"]) == (name == "dcgan")
    assert main(["invert", run, "--number", "4", "--steps", "1", "--restarts", "2"]) == 0
    said = capsys.readouterr().out
    assert "held-out minus training error" in said or "nearer than held-out" in said
    for file in ("numbered-0", "arithmetic", "inversion", "inverted", "walk-0"):
        assert (samples / f"{file}.png").stat().st_size > 200
    assert main(["arithmetic", run, "--plus", "1,2"]) == 2
    assert "at least 3 codes" in capsys.readouterr().err
    assert main(["arithmetic", run, "--plus", "1,2,99"]) == 2
    assert "no sample 99" in capsys.readouterr().err


def test_groups_by_class_of_a_run_with_an_encoder(
    fits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(fits / "vae")
    assert main(["arithmetic", run, "--plus", "class=3", "--minus", "class=1"]) == 0
    assert "codes of training images" in capsys.readouterr().out
    assert main(["arithmetic", run, "--plus", "class=3", "--minus", "1,2,3"]) == 2
    assert "all groups by numbers" in capsys.readouterr().err


def test_other_images_are_brought_to_the_size_of_the_run(
    fits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        picture = Image.fromarray(np.full((20, 20), 40 * number, np.uint8))
        picture.save(tmp_path / f"{number}.png")
    words = ["--number", "4", "--steps", "1", "--restarts", "1", "--out", str(tmp_path / "out")]
    assert main(["invert", str(fits / "dcgan"), str(tmp_path), *words, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["error"]["n"] == 4
    assert (tmp_path / "out" / "inversion.png").is_file()


def test_the_errors_are_put_in_words() -> None:
    def part(value: float) -> Recovered:
        values = [value - 0.1, value, value + 0.1]
        error = Estimate.mean_of(
            values, unit="", relation=Relation.UPPER, quantity="", fingerprint=""
        )
        x = torch.zeros(3, 1, 2, 2)
        return Recovered(x, x, torch.zeros(3, 2), error, tuple(values), (0, 1, 1))

    def words(own: float, train: float, held_out: float) -> str:
        gap = held_out - train
        return " ".join(
            Inversions(part(own), part(train), part(held_out), gap, gap - 0.2, gap + 0.2).words
        )

    assert "no sign of memorising" in words(1.0, 1.0, 1.1)
    assert "nothing is missing" in words(1.0, 1.0, 1.1)
    assert "remembers" in words(1.0, 1.0, 2.0)
    assert "dropped modes" in words(0.5, 2.0, 2.0)
    assert part(1.0).by_class(("a", "b")) == pytest.approx({"a": 0.9, "b": 1.05})
