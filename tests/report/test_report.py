"""Laws of the report: self-contained, escaped, whole, and the same numbers as its JSON."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from likely.data.spec import Dataset
from likely.errors import InvalidData
from likely.estimate import Estimate
from likely.evaluate.classifier import NetworkFeatures
from likely.evaluate.compare import compare_models
from likely.files import charts
from likely.files.charts import Panel, Series, line_chart, panels_from_metrics, ticks
from likely.files.sheets import YELLOW, data_uri, grid_sheet, neighbour_sheet, sample_sheet
from likely.report.page import render
from likely.report.report import Report, report_json, write_report
from likely.report.tables import number
from toy_report import toy_report


@pytest.fixture(scope="module")
def report(digits: tuple[Dataset, Dataset], extractor: NetworkFeatures) -> Report:
    return toy_report(*digits, extractor, n=100)


class Links(HTMLParser):
    """Every address that the page names, and whether its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "data")]
        if tag not in ("meta", "img", "br", "line", "polyline", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "polyline", "circle"):
            assert self.open.pop() == tag


def parsed(page: str) -> Links:
    links = Links()
    links.feed(page)
    assert links.open == [], "a tag is left open"
    return links


def test_the_page_asks_for_nothing(report: Report) -> None:
    page = render(report)
    links = parsed(page)
    assert links.addresses
    assert all(a.startswith(("data:image/png;base64,", "#")) for a in links.addresses)
    assert not links.tags & {"script", "link", "iframe", "object", "embed"}
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src &#x27;none&#x27;" in page


def test_every_number_and_every_reason_is_on_the_page(report: Report) -> None:
    page = html.unescape(render(report))
    for result in report.comparison.results:
        for estimate in result.estimates:
            assert number(estimate) in page
        for answer in result.answers.values():
            assert answer.reason in page
    for estimate in report.comparison.floor:
        assert number(estimate) in page
    for text in (report.train.fingerprint, report.test.fingerprint, report.extractor):
        assert text in page
    assert "no density" in page
    assert "the generator draws few modes" in page
    assert "fit.steps" in page


def test_pictures_of_a_run_are_on_the_page(report: Report) -> None:
    first = dataclasses.replace(report.models[0], pictures={"Its codes": b"a picture"})
    page = render(dataclasses.replace(report, models=(first, *report.models[1:])))
    encoded = base64.b64encode(b"a picture").decode()
    assert f'<img class="plotted" src="data:image/png;base64,{encoded}" alt="Its codes">' in page


def test_every_value_is_escaped(report: Report) -> None:
    evil = '<script>alert("x")</script>'
    model = report.models[0]
    result = dataclasses.replace(model.result, name=evil)
    bad = dataclasses.replace(
        report,
        title=evil,
        extractor=evil,
        command=evil,
        environment={evil: evil},
        comparison=compare_models([result], report.comparison.floor),
        models=(
            dataclasses.replace(
                model,
                result=result,
                summary=evil,
                status=evil,
                notes=(evil,),
                settings={evil: evil},
                sheets={evil: model.samples[None, :2]},
                panels=(Panel(evil, (Series(evil, [0, 1], [1, 2]),), evil, evil),),
            ),
        ),
    )
    page = render(bad)
    assert "script" not in parsed(page).tags
    assert page.count(html.escape(evil)) >= 14


def test_json_carries_the_numbers_of_the_page(report: Report, tmp_path: Path) -> None:
    files = write_report(report, tmp_path / "out")
    record = json.loads(files.json.read_text())
    table = report.comparison
    for column, written in zip(table.columns, record["comparison"]["columns"], strict=True):
        assert (written["quantity"], written["best"]) == (column.quantity, table.best(column))
        for name, cell in written["cells"].items():
            own = table.cells[name, column]
            expected = own.value if isinstance(own, Estimate) else None
            assert cell.get("value") == expected
    estimates = [Estimate.from_json(e) for e in record["models"][0]["estimates"]]
    assert tuple(estimates) == report.models[0].result.estimates
    assert record["data"]["test"]["fingerprint"] == report.test.fingerprint
    assert record["sentences"] == report.comparison.sentences()
    distance = record["models"][0]["neighbours"][0]["distance"]
    assert np.allclose(distance, report.models[0].neighbours[0].distance)


def test_files_are_whole_and_sheets_are_pictures(report: Report, tmp_path: Path) -> None:
    files = write_report(report, tmp_path)
    assert files.html.read_text() == render(report)
    assert len(files.sheets) == 1 + 3 * 3
    for path in files.sheets:
        with Image.open(path) as image:
            assert image.width > 100
    written = {p for p in tmp_path.rglob("*") if p.is_file()}
    assert written == {files.html, files.json, *files.sheets}


def test_sheets_of_a_run_of_other_data_have_the_levels_of_its_data(
    report: Report, tmp_path: Path
) -> None:
    model = report.models[0]
    spec = dataclasses.replace(report.test, levels=2)
    result = dataclasses.replace(model.result, data=spec)
    two = (model.samples > report.test.levels // 2).long()
    binary = dataclasses.replace(model, result=result, samples=two, neighbours=())
    mixed = dataclasses.replace(report, models=(binary,), comparison=compare_models([result]))
    (path,) = (p for p in write_report(mixed, tmp_path).sheets if p.stem != "training")
    drawn = sample_sheet(two, 2)
    with Image.open(path) as sheet:
        assert sheet.crop((0, 0, *drawn.size)).tobytes() == drawn.tobytes()


def test_names_that_would_share_a_file_are_kept_apart(report: Report, tmp_path: Path) -> None:
    first, second = (
        dataclasses.replace(m, result=dataclasses.replace(m.result, name=name))
        for m, name in zip(report.models[:2], ("a/b", "a b"), strict=True)
    )
    both = dataclasses.replace(
        report, models=(first, second), comparison=compare_models([first.result, second.result])
    )
    names = [path.name for path in write_report(both, tmp_path).sheets]
    assert len(set(names)) == 7
    assert all(re.fullmatch(r"[a-z0-9-]+\.png", name) for name in names)


def test_what_json_lacks_becomes_null(report: Report) -> None:
    model = dataclasses.replace(
        report.models[0], settings={"path": Path("x"), "limit": math.inf, "deep": {"a": (1, 2)}}
    )
    changed = dataclasses.replace(report, models=(model, *report.models[1:]))
    settings = report_json(changed)["models"][0]["settings"]
    assert settings == {"path": "x", "limit": None, "deep": {"a": [1, 2]}}


def test_models_of_another_comparison_are_refused(report: Report) -> None:
    with pytest.raises(InvalidData, match="needs the models of its comparison"):
        dataclasses.replace(report, models=report.models[:2])


# -- sheets -----------------------------------------------------------------------------------


def test_a_sheet_shows_every_value_of_every_image() -> None:
    """Each image is found again, enlarged by a whole factor, at its place."""
    x = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4) % 17
    sheet = np.asarray(sample_sheet(x, 17, columns=2, scale=3))
    margin = 2
    for place in (0, 1):
        left = margin + place * (12 + margin)
        cell = sheet[margin : margin + 12, left : left + 12]
        expected = np.rint(x[place].numpy().transpose(1, 2, 0) * 255 / 16)
        assert (cell[::3, ::3] == expected).all()
        assert (cell[2::3, 2::3] == expected).all()


@pytest.mark.parametrize(("count", "columns"), [(64, 8), (60, 10), (25, 5), (1, 1), (7, 4)])
def test_the_last_row_is_full_where_it_can_be(count: int, columns: int) -> None:
    sheet = sample_sheet(torch.zeros(count, 1, 8, 8, dtype=torch.int64), 2, scale=1)
    assert sheet.width == columns * (8 + 2) + 2


def test_small_images_are_enlarged_and_captions_fit() -> None:
    digits = sample_sheet(torch.zeros(4, 1, 8, 8, dtype=torch.int64), 17, columns=2)
    faces = sample_sheet(torch.zeros(4, 3, 64, 64, dtype=torch.int64), 256, columns=2)
    assert digits.width > 90
    assert faces.width < 150
    text = "a caption that is much too long for one line of such a narrow sheet"
    captioned = sample_sheet(
        torch.zeros(4, 1, 8, 8, dtype=torch.int64), 17, columns=2, caption=text
    )
    assert captioned.width == digits.width
    assert captioned.height > digits.height + 40


def test_neighbours_and_only_neighbours_have_a_yellow_frame() -> None:
    samples = torch.full((2, 1, 8, 8), 1)
    neighbours = torch.zeros(2, 3, 1, 8, 8, dtype=torch.int64)
    sheet = np.asarray(neighbour_sheet(samples, neighbours, 2, columns=1, scale=4))
    yellow = (sheet == np.array(YELLOW)).all(2)
    row = yellow[20]  # through the first row of images: two sides of two pixels for each frame
    assert row.sum() == 3 * 2 * 2
    white = (sheet == 255).all(2)
    assert white[20].sum() == 32
    assert np.flatnonzero(white[20]).max() < np.flatnonzero(row).min()


def test_a_grid_keeps_its_rows() -> None:
    x = torch.arange(2 * 5 * 8 * 8).reshape(2, 5, 1, 8, 8) % 17
    assert grid_sheet(x, 17).tobytes() == sample_sheet(x.flatten(0, 1), 17, columns=5).tobytes()


def test_sheets_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(InvalidData, match="a grid needs"):
        grid_sheet(torch.zeros(2, 1, 8, 8, dtype=torch.int64), 2)
    with pytest.raises(InvalidData, match="1 or 3 channels"):
        sample_sheet(torch.zeros(2, 2, 8, 8, dtype=torch.int64), 2)
    with pytest.raises(InvalidData, match="at least one image"):
        sample_sheet(torch.zeros(0, 1, 8, 8, dtype=torch.int64), 2)
    with pytest.raises(InvalidData, match="expected neighbours"):
        neighbour_sheet(torch.zeros(2, 1, 8, 8, dtype=torch.int64), torch.zeros(3, 1, 1, 8, 8), 2)


def test_a_data_uri_is_the_picture() -> None:
    sheet = sample_sheet(torch.ones(3, 1, 8, 8, dtype=torch.int64), 2)
    content = base64.b64decode(data_uri(sheet).removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(content)) as back:
        assert (np.asarray(back) == np.asarray(sheet)).all()


# -- charts -----------------------------------------------------------------------------------


def test_the_data_of_every_run_stand_in_header_footer_and_record(report: Report) -> None:
    other = dataclasses.replace(report.train, name="others"), report.test
    both = dataclasses.replace(report, others=(other,))
    header, rest = render(both).split("</header>")
    for spec in (report.train, report.test, *other):
        assert f"<code>{spec.fingerprint}</code>" in header
        assert f"{spec.name}, fingerprint {spec.fingerprint}" in rest
    (record,) = report_json(both)["other_data"]
    assert record["train"]["name"] == "others"
    assert report_json(report)["other_data"] == []


def points_of(svg: str) -> list[list[tuple[float, float]]]:
    lines = re.findall(r'points="([^"]*)"', svg)
    return [
        [(float(x), float(y)) for x, y in (point.split(",") for point in line.split())]
        for line in lines
    ]


def test_a_line_rises_where_its_values_rise() -> None:
    svg = line_chart(Panel("p", (Series("up", [0, 1, 2], [1.0, 2.0, 4.0]),)))
    (line,) = points_of(svg)
    assert [x for x, _ in line] == sorted(x for x, _ in line)
    down = [y for _, y in line]
    assert down[0] > down[1] > down[2]
    assert (down[1] - down[2]) / (down[0] - down[1]) == pytest.approx(2.0, rel=0.02)


def test_long_lines_are_thinned_and_bad_values_left_out() -> None:
    y = [math.sin(i / 500.0) for i in range(10_000)]
    y[5] = math.nan
    y[7] = math.inf
    svg = line_chart(Panel("p", (Series("a", range(10_000), y), Series("b", [0], [math.nan]))))
    (line,) = points_of(svg)
    assert 300 < len(line) < 500
    assert "nan" not in svg
    assert "inf" not in svg
    assert "nothing was recorded" in line_chart(Panel("empty", (Series("b", [0], [math.nan]),)))


def test_constant_and_single_points_can_be_drawn() -> None:
    assert points_of(line_chart(Panel("p", (Series("a", [1, 2], [3.0, 3.0]),))))
    assert "circle" in line_chart(Panel("p", (Series("a", [1], [0.0]),)))


def heights(svg: str) -> list[float]:
    """Down the chart of the points of its line, 0 at the upper edge and 1 at the lower."""
    (line,) = points_of(svg)
    return [(y - charts.TOP) / (charts.HEIGHT - charts.TOP - charts.BOTTOM) for _, y in line]


def test_only_a_first_twentieth_of_the_points_is_cut() -> None:
    """Of fewer than twenty all are shown."""
    for steps in range(2, 20):
        y = [100.0, *(1.0 / step for step in range(1, steps))]
        shown = heights(line_chart(Panel("p", (Series("a", range(steps), y),))))
        assert all(0.0 <= height <= 1.0 for height in shown)
    y = [100.0, *(1.0 / step for step in range(1, 100))]
    first, *rest = heights(line_chart(Panel("p", (Series("a", range(100), y),))))
    assert first < 0.0
    assert min(rest) < 0.5


def test_players_share_a_chart_and_learning_rates_have_none() -> None:
    records = [
        {"step": 1.0, "generator_loss": 1.0, "discriminator_loss": 2.0, "learning_rate": 0.1},
        {"step": 2.0, "generator_loss": 1.5, "discriminator_loss": 1.0, "own": 3.0},
        {"step": 3.0, "gradient_norm_generator": 1.0, "gradient_norm_discriminator": 2.0},
    ]
    panels = panels_from_metrics(records, "nats per example")
    names = [[line.name for line in panel.series] for panel in panels]
    assert names == [
        ["generator_loss", "discriminator_loss"],
        ["gradient_norm_generator", "gradient_norm_discriminator"],
        ["own"],
    ]
    assert (panels[0].series[0].x, panels[0].series[0].y) == ([1.0, 2.0], [1.0, 1.5])


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3e-4, 7e-4), (79.2, 160.0), (1e6, 3e6)])
def test_ticks_are_round_few_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 6
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)
    step = found[1] - found[0]
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert round(mantissa, 6) in (1.0, 2.0, 5.0)
    assert ticks(1.0, 1.0) == [1.0]
