"""The pages of results say what `bench/results` holds, each number with its relation and error."""

from __future__ import annotations

import importlib
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from likely import data

ROOT = Path(__file__).parent.parent


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that imports a module of the benchmarks."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return importlib.import_module


def test_the_pages_are_what_their_generators_write(bench: Any) -> None:
    """After a new result: python bench/mnist_table.py && python bench/tables.py."""
    docs = ROOT / "docs"
    assert bench("mnist_table").built()[0] == (docs / "mnist-table.md").read_text()
    for name, page in bench("tables").pages().items():
        assert page == (docs / f"{name}.md").read_text()


def test_the_page_of_results_is_for_reading(bench: Any) -> None:
    """Figures by their names are folded away, and every result is there with its pictures."""
    pages = [(ROOT / "docs" / f"results{end}.md").read_text() for end in ("", "-mnist")]
    parts = [re.sub(r"<details>.*?</details>\n+", "", p, flags=re.DOTALL) for p in pages]
    assert all(len(part.splitlines()) < 400 for part in parts)
    page, unfolded = "\n".join(pages), "\n".join(parts)
    assert not re.findall(r"^\| `[^`]*/.*$", unfolded, re.MULTILINE)
    for result in (ROOT / "bench" / "results").glob("*.json"):
        assert f"<summary>Figures of bench/results/{result.name}</summary>" in page
        pictures = result.with_suffix("")
        for kind, end in (("samples", ""), ("curve", "-curve")):
            shown = f"](pictures/{result.stem}{end}.png)" in unfolded
            assert shown == (pictures / f"{kind}.png").exists(), result.stem
    scores = re.findall(r"^\| `(.*?)` \| (?:=|<=|no density)", unfolded, re.MULTILINE)
    assert {"dcgan", "vae", "made"} < set(scores)


def test_every_figure_was_measured_by_a_command_that_is_there() -> None:
    """Run as it stands, from the root of the repository."""
    commands = {}
    for path in sorted((ROOT / "bench" / "results").glob("*.json")):
        for command in re.findall(r'"command": "([^"]*)', path.read_text()):
            commands.setdefault(command, path.name)
    assert len(commands) > 50
    for command, name in commands.items():
        program, first, *rest = command.split()
        if program == "likely":
            assert (ROOT / rest[0]).exists(), (name, command)
            continue
        script = rest[0].replace(".", "/") + ".py" if first == "-m" else first
        assert program == "python", (name, command)
        assert (ROOT / script).is_file(), (name, command)


def test_results_name_no_folder_of_a_machine() -> None:
    for path in (ROOT / "bench" / "results").rglob("*.json*"):
        assert not re.search(r'[" ]/(tmp|home|root|work|Users)/', path.read_text()), path


def test_every_likelihood_says_how_it_relates_to_the_truth() -> None:
    page = "\n".join((ROOT / "docs" / f"results{end}.md").read_text() for end in ("", "-mnist"))
    rows = re.findall(r"^\| `(.*)` \| (.*) \|$", page, re.MULTILINE)
    likelihoods = [
        (name, value)
        for name, value in rows
        if re.search(r"nats|bits-per-dim", name)
        and not name.endswith(("/difference-nats", "-gain-nats", "/kl-nats", "/rate-nats"))
    ]
    assert len(likelihoods) > 40
    for name, value in likelihoods:
        form = r"(=|[<>]=|~) -?[\d.]+ (± [\d.]+|\(error not kept\))$"
        assert re.match(form, value), (name, value)
        bound = not name.endswith("/exact-nats") and any(
            part in name for part in ("elbo", "-iw", "-bound-", "-ais-", "gap-", "/vae", "/flow-")
        )
        optimistic = "/rbm/" in name and "-ais-" in name  # log Z is bounded from below
        assert (value[:2] == ">=") == optimistic, name
        assert (bound and not optimistic) == value.startswith("<="), name
    distances = [value for name, value in rows if name.endswith(("/frechet", "/kid", "/recall"))]
    assert len(distances) > 40
    assert all(re.match(r"~ .* ± ", value) for value in distances)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("set/pixelcnn/test-nats", "= 80.25 ± 0.20"),
        ("set/vae/test-iw500-nats", "<= 83.881 (error not kept)"),
        ("set/vae-small/validation-bits-per-dim", "<= 6.622 (error not kept)"),
        ("set/a-over-b/nats", "= 0.646 ± 0.020"),
        ("set/pixelcnn/frechet", "~ 0.62 ± 0.14"),
        ("set/pixelcnn/floor/frechet", "~ 0.34 ± 0.10"),
        ("set/seconds", "3.25"),
    ],
)
def test_a_figure_is_printed_with_its_relation_and_error(name: str, shown: str, bench: Any) -> None:
    record = {
        "figures": {
            "set/pixelcnn/test-nats": 80.2491, "set/pixelcnn/test-nats-standard-error": 0.1972,
            "set/vae/test-iw500-nats": 83.8811, "set/vae-small/validation-bits-per-dim": 6.622,
            "set/a-over-b/nats": 0.6461, "set/a-over-b/standard-error": 0.0196,
            "set/pixelcnn/frechet": 0.6182, "set/pixelcnn/floor/frechet": 0.3353,
            "set/seconds": 3.25,
        },
        "about": {
            "samples": [{"quantity": "frechet", "standard_error": 0.1433}],
            "floor": [{"quantity": "frechet", "standard_error": 0.1045}],
        },
    }  # fmt: skip
    tables = bench("tables")
    assert tables.shown(name, record) == shown
    assert "standard-error" not in tables.table(record)


def test_published_figures_are_printed_as_the_papers_print_them(bench: Any) -> None:
    """To the digit, with a source each, beside rows that lose to them too; no other model's."""
    page = (ROOT / "docs" / "mnist-table.md").read_text()
    published = bench("published").PUBLISHED
    printed = {
        "diagonal-bilstm": "79.20", "row-lstm": "80.54", "pixelcnn": "81.30", "nade": "88.33",
        "made": "86.64", "fvsbn": "97.45", "vae-flow-prior": "80.09", "vae-dense": "88.71",
        "iwae-50": "87.10", "pixel-vae": "79.03",
    }  # fmt: skip
    for name, figure in published.items():
        assert figure.nats == printed[name.split("-narrow")[0].split("-flat")[0].split("-small")[0]]
        assert figure.link.startswith("https://")
    table, _, rest = page.partition("Written by")
    cells = dict(re.findall(r"^\| `(.*?)` \| .*? \| (.*?) \|", table, re.MULTILINE))
    assert len(cells) > 12
    for name, cell in cells.items():
        assert cell == (published[name].nats if name in published else ""), name
        assert name not in published or f"]({published[name].link})" in rest
    assert cells["gated-pixelcnn"] == ""


def test_a_warm_restart_shows_all_parts_of_its_training(bench: Any) -> None:
    table = bench("mnist_table")
    first = {"steps": 500, "seconds": 10.0, "trained on": "NVIDIA H200"}
    second = {"steps": 2_000, "trained on": "AMD EPYC", "before": first}
    row = table.Row("any", {"steps": 30, "seconds": 1.0, "before": second})
    assert table.whole_training(row) == [
        "500 + 2,000 + 30", "10 + not kept + 1", "H200 + one core + one core",
    ]  # fmt: skip
    for result in (ROOT / "bench" / "results").glob("mnist-static-*.json"):
        record = json.loads(result.read_text())
        if "before" in record["settings"]:
            name = result.stem.removeprefix("mnist-static-")
            assert len(table.Row(name, record["about"]).parts) > 1, name


def test_the_gallery_shows_every_picture_with_the_figures_of_the_table() -> None:
    gallery = (ROOT / "docs" / "gallery.md").read_text()
    shown = set(re.findall(r"^```{figure} pictures/(\S+)$", gallery, re.MULTILINE))
    kept = {path.name for path in (ROOT / "docs" / "pictures").iterdir()}
    pages = {*(ROOT / "docs").glob("*.md")}
    pages -= {ROOT / "docs" / f"{name}.md" for name in ("gallery", "results-mnist")}
    text = "".join(page.read_text() for page in [ROOT / "README.md", *pages])
    elsewhere = set(re.findall(r"pictures/([^)\s]+)", text))
    assert kept - shown <= elsewhere
    assert shown <= kept
    table = (ROOT / "docs" / "mnist-table.md").read_text()
    nats = dict(re.findall(r"^\| `(.*?)` \| (<?= [\d.]+) ±", table, re.MULTILINE))
    for name, figure in nats.items():
        caption = gallery.partition(f"pictures/mnist-static-{name}.png")[2].partition("```")[0]
        assert f", {figure} nats" in caption, name


def test_modes_are_counted_as_the_protocols_say(bench: Any) -> None:
    games, rng = bench("games"), np.random.default_rng(0)
    _, test = data.load("gaussians-25")
    real = games.of_grid(test.values[:2500])
    assert real["modes"] == 25
    assert real["high-quality"] == pytest.approx(0.9889, abs=0.006)
    assert 0.001 < real["kl"] < 0.012  # 0.0048 on average
    few = test.values[test.labels < 5][:1000]
    assert games.of_grid(few)["modes"] == 5
    assert games.of_grid(few)["kl"] == pytest.approx(math.log(5), abs=0.01)
    away = np.full((10, 2), 2**15 + 6553, np.uint16)  # (1, 1), between four modes
    assert games.of_grid(away)["high-quality"] == games.of_grid(away)["modes"] == 0
    assert games.coverage(rng.integers(1000, size=26_000), 1000)[1] == pytest.approx(
        0.0195, abs=2e-3
    )
    assert games.coverage(np.zeros(7, np.int64), 1000) == (1, pytest.approx(math.log(1000)))


def test_modes_are_tabled_beside_their_ceilings(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, games = bench("tables"), bench("games")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert list(tables.modes()) == []
    seed = {"modes": 25.0, "high-quality": 0.93, "kl": 0.02}
    grid = {"rows": {"relativistic": {"seeds": [seed] * 5}}}
    stacked = {
        "rows": {"packed": {"modes": 990, "kl": 0.2}}, "published": games.PUBLISHED,
    }  # fmt: skip
    prefix = "gan/stacked-mnist"
    figures = {f"{prefix}/{key}": 1.0 for key in ("floor-modes", "floor-kl", "judge-accuracy")}
    for name, about, values in (
        ("gan-gaussians-25", grid, {}), ("gan-stacked-mnist", stacked, figures),
    ):  # fmt: skip
        record = {"figures": values, "about": about, "settings": {"ceilings": games.CEILINGS},
                  "command": "", "date": "", "environment": {}}  # fmt: skip
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    monkeypatch.setattr(tables, "folded", lambda path: path.name)
    text = "\n".join(tables.modes())
    assert "| relativistic | 25 | 0.93 | 0.02 | 5 |" in text
    assert "| the true law | 25 | 0.9889 | 0.0047 |  |" in text
    assert "| packed | 990 | 0.200 |" in text
    assert "| published: pac-dcgan-2 | 1000 | 0.06 |" in text
