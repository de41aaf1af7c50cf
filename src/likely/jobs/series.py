"""Files of sequences as compressed files, and back, beside other coders' sizes.

A table comes back byte for byte: its numbers are those of the model's columns, written with its
probabilities; how each is printed, the header, times and all other cells are kept beside them. Of
.npz and .mat all arrays come back with their names, types and values.
"""

from __future__ import annotations

import base64
import bz2
import collections
import io
import itertools
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from likely.ask.compress import Compressed, Decompressed, compress
from likely.data.readers import read_npz
from likely.data.sequences import files
from likely.data.sequences.like import read_like, rows_of
from likely.data.sequences.spec import MISSING, Column, SequenceSpec
from likely.density import SequenceDensity
from likely.errors import InvalidData, InvalidSetting
from likely.files import reading, write_bytes

Array = npt.NDArray[Any]
# As printed; "32.3" is a number of 3 decimals that went through float32.
FORMATS = (*(f".{d}f" for d in range(10)), "", ".10g", *(f"32.{d}" for d in range(7)))
TABLES = (".csv", ".tsv")
SPLITS = ("train", "validation", "test")


def compress_series(
    model: SequenceDensity,
    source: Path,
    out: Path,
    *,
    label: int | None = None,
    block: int | None = None,
    time: str | None = None,
    series: str | None = None,
    run: str = "",
    progress: Callable[[int], None] | None = None,
) -> tuple[Compressed, dict[str, int]]:
    """Compress a table (.csv, .tsv), .npz or .mat of sequences into a file, written atomically.

    Args:
        model: whose probabilities are used.
        source: the file, in the columns of the model's data.
        out: the compressed file.
        label: class of all sequences, for a conditional model.
        block: sequences that stand side by side.
        time, series: columns of a table, as `read_like` takes them.
        run: the directory of the model, which the file then names.
        progress: called with the number of values done.

    Returns:
        The file, and bits of what is in it beside the model's, and of the source by other coders.

    Raises:
        InvalidData: values off the model's columns; quoted cells.
        InvalidSetting: a model with covariates, or another kind of file.
    """
    spec = model.spec
    if spec.covariates:
        raise InvalidSetting("a model with covariates reads what the file itself would have to say")
    data = read_like(source, spec, time=time, series=series)
    if source.suffix.lower() in TABLES:
        layout = _of_table(source, data.values, spec, _order(source, spec, time, series))
    elif source.suffix.lower() == ".npz":
        layout = _of_npz(source, data.values, spec)
    elif source.suffix.lower() == ".mat":
        lengths = [[len(roll) for roll in part] for part in files.rolls(source)]
        layout = {"kind": "mat", "lengths": lengths}
    else:
        raise InvalidSetting(f"{source}: expected .csv, .tsv, .npz or .mat")
    kept = lzma.compress(json.dumps(layout).encode(), preset=9 | lzma.PRESET_EXTREME)
    about = {
        "kind": "series", "run": run, "start": int(data.start[0]), "suffix": source.suffix.lower(),
        "layout": base64.b64encode(kept).decode(),
    }  # fmt: skip
    context = label if model.classes else None
    x = torch.from_numpy(data.batch(slice(None)).x)
    compressed = compress(model, x, context, block, about, progress)
    write_bytes(out, compressed.content)
    raw = source.read_bytes()
    sizes = {
        "xz": len(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)),
        "bz2": len(bz2.compress(raw, 9)),
    }
    return compressed, {"layout": 8 * len(kept), **{name: 8 * n for name, n in sizes.items()}}


def restore(result: Decompressed, spec: SequenceSpec, out: Path, name: str) -> Path:
    """Write again what `compress_series` read; returns where.

    Args:
        result: what was decompressed.
        spec: of the model's data.
        out: a file of the same ending, or a folder.
        name: of the compressed file, for errors.
    """
    about = result.header.about
    with reading(Path(name), "layout"):
        layout = json.loads(lzma.decompress(base64.b64decode(about["layout"])))
        target = out if out.suffix.lower() == about["suffix"] else out / f"series{about['suffix']}"
        x, lengths = result.x.cpu().numpy(), about["lengths"]
        values = np.concatenate([row[:length] for row, length in zip(x, lengths, strict=True)])
        if layout["kind"] == "table":
            content = _table(layout, values, spec)
        elif layout["kind"] == "npz":
            content = _npz(layout, values, spec)
        else:
            content = _mat(layout, values)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(target, content)
    return target


# -- tables --------------------------------------------------------------------------------------


def _of_table(source: Path, values: Array, spec: SequenceSpec, order: list[int]) -> dict[str, Any]:
    with reading(source):
        text = source.read_bytes().decode()
    if '"' in text:
        raise InvalidData(f"{source}: cells in quotes are not compressed; write it without them")
    lines, delimiter = text.split("\n"), _delimiter(text, source.suffix.lower())
    rows = [i for i, line in enumerate(lines) if line.strip("\r")]
    cells = [lines[i].split(delimiter) for i in rows]
    header = [cell.strip("\ufeff\r ") for cell in cells[0]]
    places = [header.index(column.name) for column in spec.columns]
    forms: list[dict[str, Any]] = []
    for k, (column, place) in enumerate(zip(spec.columns, places, strict=True)):
        texts = [cells[1 + row][place] for row in order]
        form = _form(column, values[:, k], [t.rstrip("\r") for t in texts])
        for row, level, cell in zip(order, values[:, k].tolist(), texts, strict=True):
            # What the form would print is left out; an end of line that a cell holds stays.
            plain = cell.rstrip("\r")
            if plain == _printed(form, column, level):
                cells[1 + row][place] = cell[len(plain) :]
        forms.append(form)
    for i, row_cells in zip(rows, cells, strict=True):
        lines[i] = delimiter.join(row_cells)
    return {
        "kind": "table", "delimiter": delimiter, "places": places, "forms": forms,
        "order": None if order == sorted(order) else order, "text": "\n".join(lines),
    }  # fmt: skip


def _table(layout: dict[str, Any], values: Array, spec: SequenceSpec) -> bytes:
    lines, delimiter = layout["text"].split("\n"), layout["delimiter"]
    rows = [i for i, line in enumerate(lines) if line.strip("\r")]
    order = layout["order"] or range(len(values))
    for row, levels in zip(order, values.tolist(), strict=True):
        cells = lines[rows[1 + row]].split(delimiter)
        for column, form, place, level in zip(
            spec.columns, layout["forms"], layout["places"], levels, strict=True
        ):
            if not cells[place].rstrip("\r"):
                cells[place] = _printed(form, column, level) + cells[place]
        lines[rows[1 + row]] = delimiter.join(cells)
    return "\n".join(lines).encode()


def _delimiter(text: str, suffix: str) -> str:
    return "\t" if suffix == ".tsv" else max(",;\t", key=text[:4096].count)


def _order(source: Path, spec: SequenceSpec, time: str | None, series: str | None) -> list[int]:
    """Rows of the table in the order of the sequences."""
    taken = [column.name for column in spec.columns]
    parts = rows_of(files.read_table(source), source, taken, time, series)
    return [int(row) for part in parts for row in part]


def _form(column: Column, levels: Array, texts: list[str]) -> dict[str, Any]:
    """How a column prints its levels: a format, and what is printed otherwise."""
    known = [(int(v), t) for v, t in zip(levels, texts, strict=True) if v != MISSING]
    form: dict[str, Any] = {"format": "", "words": {}}
    if not column.names:
        few = known[:: max(1, len(known) // 400)]
        form["format"] = max(
            FORMATS, key=lambda f: sum(_number(f, column, level) == text for level, text in few)
        )
    counts: dict[int, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for level, text in known:
        counts[level][text] += 1
    for level, said in counts.items():
        word = said.most_common(1)[0][0]
        if word != _printed(form, column, level):
            form["words"][str(level)] = word
    return form


def _printed(form: dict[str, Any], column: Column, level: int) -> str:
    """The cell of a level; empty for what is missing."""
    if level == MISSING:
        return ""
    word = form["words"].get(str(level))
    if word is None:
        word = column.names[level] if column.names else _number(form["format"], column, level)
    return str(word)


def _number(form: str, column: Column, level: int) -> str:
    number = column.offset + column.step * level
    if form.startswith("32"):
        return repr(float(np.float32(round(number, int(form[3:])))))
    return format(number, form) if form else repr(number)


# -- arrays --------------------------------------------------------------------------------------


def _of_npz(source: Path, values: Array, spec: SequenceSpec) -> dict[str, Any]:
    arrays = read_npz(source)
    names = ["x"] if "x" in arrays and "len" in arrays else [
        f"{word}_x" for words in files.SPLITS for word in words if f"{word}_x" in arrays
    ]  # fmt: skip
    taken, first = {}, 0
    for name in names:
        x = arrays.pop(name)
        part = values[first : first + len(x)]
        first += len(x)
        wide = x[:, None] if x.ndim == 1 else x
        again = _as_numbers(part, spec, x.dtype).reshape(wide.shape)
        same = (again == wide) | ((again != again) & (wide != wide))
        others = [[int(i), int(k), wide[i, k].item()] for i, k in np.argwhere(~same)]
        taken[name] = {"dtype": x.dtype.str, "shape": list(x.shape), "others": others}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    rest = base64.b64encode(buffer.getvalue()).decode()
    return {"kind": "npz", "names": taken, "rest": rest}


def _npz(layout: dict[str, Any], values: Array, spec: SequenceSpec) -> bytes:
    with np.load(io.BytesIO(base64.b64decode(layout["rest"])), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    first = 0
    for name, kept in layout["names"].items():
        count, dtype = kept["shape"][0], np.dtype(kept["dtype"])
        wide = _as_numbers(values[first : first + count], spec, dtype)
        first += count
        for i, k, value in kept["others"]:
            wide[i, k] = value
        arrays[name] = wide.reshape(kept["shape"])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _as_numbers(values: Array, spec: SequenceSpec, dtype: np.dtype[Any]) -> Array:
    numbers = np.stack([c.numbers(values[:, k]) for k, c in enumerate(spec.columns)], 1)
    return numbers.astype(dtype)


def _mat(layout: dict[str, Any], values: Array) -> bytes:
    import scipy.io

    content, first = {}, 0
    for key, lengths in zip(("train", "valid", "test"), layout["lengths"], strict=True):
        cells = np.empty((1, len(lengths)), object)
        for number, (begin, stop) in enumerate(itertools.pairwise(np.cumsum([first, *lengths]))):
            cells[0, number] = values[begin:stop].astype(np.uint8)
        first += sum(lengths)
        content[f"{key}data"] = cells
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, content, do_compression=True)
    return buffer.getvalue()
