"""The report of a comparison: a self-contained HTML file, and the same as JSON.

`Report` holds plain values and images; it knows no model. The page makes no request (its content
security policy forbids any), has its style and images inline, follows the reader's light or dark
setting, and escapes every value.
"""

from __future__ import annotations

import dataclasses
import html
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from likely.data.spec import Dataset, DataSpec
from likely.errors import InvalidData
from likely.evaluate.compare import ComparisonTable, ModelResult
from likely.evaluate.features import Extractor, Images, checked_images
from likely.evaluate.neighbours import nearest_images
from likely.files import write_bytes
from likely.files.charts import Panel
from likely.files.sheets import grid_sheet, neighbour_sheet, png, sample_sheet
from likely.report.page import clean, render, stems
from likely.report.tables import terminal_table


@dataclasses.dataclass(frozen=True)
class NeighbourPairs:
    """Samples with their nearest training images.

    Attributes:
        samples: integers [N, C, H, W].
        neighbours: nearest first, integers [N, K, C, H, W].
        distance: of each neighbour, [N, K].
        space: what the distance is taken in, as "pixels" or "features".
    """

    samples: Images
    neighbours: Images
    distance: Images
    space: str


@dataclasses.dataclass(frozen=True)
class ModelReport:
    """The report on one model.

    Attributes:
        result: the numbers and answers.
        samples: integers [N, C, H, W], as drawn: not chosen; of sequences a picture of them, a PNG.
        summary: one line: what it is, and its paper.
        settings: of the model and the fit; may be nested.
        parameters: number of weights.
        seconds: of the fit, or None.
        status: how the fit ended, a sentence.
        panels: training curves.
        neighbours: nearest training images of some samples, one entry for each space.
        notes: sentences on its health and verification.
        sheets: further images by caption (reconstructions, completions), row by row, integers
            [R, N, C, H, W].
        pictures: further plots by caption, PNG.
        sounds: files to listen to by suffix, as ".mid", written beside the report.
    """

    result: ModelResult
    samples: Images | bytes | None = None
    summary: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    parameters: int | None = None
    seconds: float | None = None
    status: str = ""
    panels: tuple[Panel, ...] = ()
    neighbours: tuple[NeighbourPairs, ...] = ()
    notes: tuple[str, ...] = ()
    sheets: Mapping[str, Images] = dataclasses.field(default_factory=dict)
    pictures: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    sounds: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, repr=False)
class Report:
    """A whole comparison.

    Attributes:
        title: heading of the page.
        train, test: specifications of the data that was fitted and evaluated on.
        extractor: `Extractor.description`.
        comparison: the table; its models are those of `models`, in the same order.
        models: one entry for each model.
        training_images: some training images to look at beside the samples, of sequences a plot of
            some (PNG), or None.
        environment: versions and machine, in words.
        command: reproduces the report.
        created: date and time, in words.
        pending: models that are still being fitted, with words on how far they are; such a report
            is a draft.
        others: training and test data of further runs, where not all are of `train` and `test`.
    """

    title: str
    train: DataSpec
    test: DataSpec
    extractor: str
    comparison: ComparisonTable
    models: tuple[ModelReport, ...]
    training_images: Images | bytes | None = None
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    command: str = ""
    created: str = ""
    pending: tuple[str, ...] = ()
    others: tuple[tuple[DataSpec, DataSpec], ...] = ()

    def __post_init__(self) -> None:
        ours = [model.result.name for model in self.models]
        theirs = [result.name for result in self.comparison.results]
        if ours != theirs:
            raise InvalidData(
                f"a report needs the models of its comparison, {theirs}, given {ours}"
            )

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), width=100, color_system=None)
        with console.capture() as text:
            console.print(terminal_table(self.comparison))
        return text.get()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        page = html.escape(render(self))
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 700px; border: 0"></iframe>'

    def levels(self, model: ModelReport) -> int:
        """The levels of a model's images; runs of other data may be compared, too."""
        return (model.result.data or self.test).levels


@dataclasses.dataclass(frozen=True)
class ReportFiles:
    """What `write_report` wrote."""

    html: Path
    json: Path
    sheets: tuple[Path, ...]
    sounds: tuple[Path, ...] = ()


def neighbour_pairs(
    samples: Images, train: Dataset, extractor: Extractor, *, count: int = 12, k: int = 4
) -> tuple[NeighbourPairs, ...]:
    """The first samples with their nearest training images, in pixels and in features.

    Args:
        samples: integers [N, C, H, W]; the first `count` are taken.
        train: the training set that the model has seen.
        extractor: of the features.
        count: samples.
        k: neighbours of each.
    """
    x = checked_images(samples, train.spec)[:count]
    pairs = []
    for space, features in (("pixels", None), (f"{extractor.name} features", extractor)):
        near, images = nearest_images(x, train, features, k)
        pairs.append(NeighbourPairs(x, images, near.distance, space))
    return tuple(pairs)


def write_report(report: Report, directory: Path) -> ReportFiles:
    """Write report.html, report.json, the PNG sheets and the sounds, each atomically.

    Args:
        report: what to write.
        directory: created if missing; sheets go to `directory/sheets`, sounds to `sounds`.
    """
    sheets = {directory / "sheets" / f"{n}.png": image for n, image in _sheets(report).items()}
    sounds = {
        directory / "sounds" / f"{stem}{suffix}": sound
        for stem, model in zip(stems(report), report.models, strict=True)
        for suffix, sound in model.sounds.items()
    }
    for path, content in (sheets | sounds).items():
        write_bytes(path, content)
    record = json.dumps(report_json(report), indent=1, allow_nan=False, ensure_ascii=False)
    write_bytes(directory / "report.json", (record + "\n").encode())
    write_bytes(directory / "report.html", render(report).encode())
    return ReportFiles(
        directory / "report.html", directory / "report.json", tuple(sheets), tuple(sounds)
    )


def write_draft(report: Report, directory: Path) -> Path:
    """Write report.html alone, atomically; it reloads itself until the whole report is there."""
    write_bytes(directory / "report.html", render(report).encode())
    return directory / "report.html"


def _data_json(train: DataSpec, test: DataSpec) -> dict[str, Any]:
    return {
        role: {**spec.to_json(), "fingerprint": spec.fingerprint}
        for role, spec in (("train", train), ("test", test))
    }


def report_json(report: Report) -> dict[str, Any]:
    """The numbers of the report as plain values; what is not finite becomes None."""
    record = {
        "title": report.title,
        "created": report.created,
        "command": report.command,
        "data": _data_json(report.train, report.test),
        "other_data": [_data_json(*pair) for pair in report.others],
        "extractor": report.extractor,
        "environment": dict(report.environment),
        "comparison": report.comparison.to_json(),
        "sentences": report.comparison.sentences(),
        "models": [_model_json(model) for model in report.models],
    }
    plain: dict[str, Any] = _plain(record)
    return plain


def _model_json(model: ModelReport) -> dict[str, Any]:
    return {
        "name": model.result.name,
        "kind": model.result.kind,
        "summary": model.summary,
        "estimates": [estimate.to_json() for estimate in model.result.estimates],
        "settings": model.settings,
        "parameters": model.parameters,
        "seconds": model.seconds,
        "status": model.status,
        "notes": list(model.notes),
        "curves": [
            {"title": panel.title, "name": line.name, "x": list(line.x), "y": list(line.y)}
            for panel in model.panels
            for line in panel.series
        ],
        "neighbours": [
            {"space": pairs.space, "distance": pairs.distance.tolist()}
            for pairs in model.neighbours
        ],
    }


def _plain(value: Any) -> Any:
    """Only what JSON has: paths and enumerations become text, non-finite numbers None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def _sheets(report: Report) -> dict[str, bytes]:
    """Every sheet as a PNG of its own, by file name, with a caption."""
    sheets: dict[str, Image.Image | bytes] = {}
    if isinstance(report.training_images, bytes):
        sheets["training"] = report.training_images
    elif report.training_images is not None:
        sheets["training"] = sample_sheet(
            report.training_images,
            report.train.levels,
            caption=f"{report.train.name}: training images",
        )
    for stem, model in zip(stems(report), report.models, strict=True):
        name, levels = model.result.name, report.levels(model)
        if isinstance(model.samples, bytes):
            sheets[stem] = model.samples
        elif model.samples is not None:
            count = len(model.samples)
            sheets[stem] = sample_sheet(
                model.samples, levels, caption=f"{name}: {count} samples, not chosen"
            )
        for caption, picture in model.pictures.items():
            sheets[f"{stem}-{clean(caption)}"] = picture
        for pairs in model.neighbours:
            sheets[f"{stem}-neighbours-{clean(pairs.space)}"] = neighbour_sheet(
                pairs.samples,
                pairs.neighbours,
                levels,
                caption=f"{name}: samples, and their nearest training images in {pairs.space} "
                "(yellow)",
            )
        for caption, images in model.sheets.items():
            sheets[f"{stem}-{clean(caption)}"] = grid_sheet(images, levels, f"{name}: {caption}")
    return {
        name: sheet if isinstance(sheet, bytes) else png(sheet) for name, sheet in sheets.items()
    }
