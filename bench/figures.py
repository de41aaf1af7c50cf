"""How the figures of a result are printed: each with its relation, its error and a name."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

# A name that holds one of these is a likelihood: `<=` where it is a bound, `=` where it is exact.
LIKELIHOODS = ("nats", "bits-per-dim")
BOUNDS = re.compile(r"elbo|-iw\d+-|-bound-|-ais-|[-/]gap-|/vae|/flow-")
# Not a likelihood of the model, though in nats; of an RBM, log Z by annealing is a lower bound.
OTHER_NATS, OPTIMISTIC = re.compile(r"/(kl|rate)-nats|-gain-nats"), re.compile(r"/rbm/.*-ais-")
ERRORS = ("-standard-error", "/standard-error", "-spread")


def error_of(name: str, record: dict[str, Any]) -> tuple[float | None, str]:
    """The error of a figure, where the result keeps one, and the name that it stands under."""
    figures = record["figures"]
    runs, part = record["about"].get("runs", {}), name.split("/")[1]
    if name.startswith("ablation/") and "/validation-" in name and part in runs:
        nats = [run["nats"] for run in runs[part]]
        return (max(nats) - min(nats)) * figures[name] / statistics.mean(nats), ""
    if "again" in (checked := record["about"].get(part, {})) and name.endswith("/nats"):
        return checked["again"]["standard_error"], ""
    stem = name.removesuffix("/nats").removesuffix("/value")
    for key in (name + end for name in (name, stem) for end in ERRORS):
        if key in figures and key != name:
            return figures[key], key
    estimate = estimate_of(name, record["about"])
    return (None, "") if estimate is None else (estimate["standard_error"], "")


def estimate_of(name: str, about: dict[str, Any]) -> dict[str, Any] | None:
    """The estimate that a figure is the value of: of samples, or of training images."""
    of = "floor" if "/floor/" in name else "samples"
    kept = about.get(of, [])
    if "rows" in about and of == "samples":
        kept = about["rows"].get(name.split("/")[1], {}).get("samples", [])
    quantity = name.rsplit("/", 1)[-1]
    return next((e for e in kept if isinstance(e, dict) and e["quantity"] == quantity), None)


def relation_of(name: str, record: dict[str, Any]) -> str:
    """How a figure relates to the truth; nothing for what was counted or timed."""
    if name.endswith("/difference-nats"):
        return ""
    if "worth" in name or name.endswith("/worse-nats"):
        return "~"
    if OTHER_NATS.search(name):
        return "="
    if OPTIMISTIC.search(name):
        return ">="
    if name.endswith("/exact-nats"):
        return "="
    if any(word in name for word in LIKELIHOODS):
        return "<=" if BOUNDS.search(name) else "="
    if estimate_of(name, record["about"]) is not None or error_of(name, record)[0] is not None:
        return "~"
    return ""


def shown(name: str, record: dict[str, Any]) -> str:
    """A figure with its relation and its error, to the digits that the error leaves."""
    value, relation = record["figures"][name], relation_of(name, record)
    error, _ = error_of(name, record)
    if not relation:
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.5g}"
    if error is None:
        return f"{relation} {value:.5g} (error not kept)"
    digits = 2 if error == 0 else max(0, 1 - math.floor(math.log10(error)))
    return f"{relation} {value:.{digits}f} ± {error:.{digits}f}"


def read(path: Path) -> dict[str, Any]:
    """A result as `bench.common.write_result` wrote it."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def markdown(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def table(record: dict[str, Any]) -> str:
    """Name and value, one per row."""
    figures = record["figures"]
    errors = {error_of(name, record)[1] for name in figures}
    # Speeds of the rows were measured on several machines; mnist-static-rates has one for all.
    # The floor is the same for all rows: the page shows it once.
    names = [
        name
        for name in figures
        if not (name in errors or name.endswith("/sampling-speed") or "/floor/" in name)
    ]
    return markdown(["figure", "value"], [[f"`{name}`", shown(name, record)] for name in names])


def grid(
    record: dict[str, Any], rows: Mapping[str, str], columns: Mapping[str, str], corner: str
) -> str:
    """A table of the figures `<prefix><end>`, where the result has them.

    Args:
        record: a result.
        rows: label of a row -> prefix of the names of its figures.
        columns: heading of a column -> end of the names.
        corner: heading of the labels.
    """
    lines = [
        [label, *(short(prefix + end, record) for end in columns.values())]
        for label, prefix in rows.items()
    ]
    return markdown([corner, *columns], [line for line in lines if any(line[1:])])


def short(name: str, record: dict[str, Any]) -> str:
    """A figure in a table: to three digits where it was counted or timed; empty where missing."""
    value = record["figures"].get(name)
    if value is None:
        return ""
    if relation_of(name, record):
        return shown(name, record)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def parts(record: dict[str, Any], prefix: str, end: str) -> list[str]:
    """What stands between a prefix and an end in the names of figures, in their order."""
    return [
        name.removeprefix(prefix).removesuffix(end)
        for name in record["figures"]
        if name.startswith(prefix) and name.endswith(end)
    ]


def folded(path: Path) -> str:
    """The figures of a result by their names, its commands and machine, folded away."""
    record = read(path)
    environment = record["environment"]
    cores, threads = environment["cpu_count"], environment["threads"]
    machine = [
        *([environment["cuda_device"]] if environment.get("cuda_device") else []),
        environment["processor"],
        f"{cores} core{'s' if cores > 1 else ''}",
        f"{threads} thread{'s' if threads > 1 else ''}",
        f"torch {environment['torch']}",
        "AMX" if environment["amx"] else "no AMX",
    ]
    many = len(record["figures"]) > 200
    body = f"The {len(record['figures'])} figures are in the file.\n" if many else table(record)
    commands = record.get("parts", {"": record}).values()
    ran = "; ".join(dict.fromkeys(f"`{part['command']}`, {part['date']}" for part in commands))
    return (
        f"<details>\n<summary>Figures of bench/results/{path.name}</summary>\n\n{body}\n"
        f"{ran}: {', '.join(machine)}.\n\n</details>\n"
    )
