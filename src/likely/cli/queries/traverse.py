"""`likely traverse RUN`.

Draw what the code of a run says: traversal.png and .gif (each unit moved, the
one that says most first), interpolation.png (between examples, straight and
around), codes.png (codes by class), and manifold.png for two-dimensional codes.
What a unit says is its KL to the prior where that is known unit by unit, under
N(0, I) and in a hierarchy, else the variance of the codes. For models with an
encoder.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from likely.cli.output import answer
from likely.cli.parser import Command, Option, positive, whole
from likely.cli.saved import data_of, opened
from likely.errors import InvalidSetting

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = """\
  likely traverse runs/vae
  likely traverse runs/vae --units 0,2 --example 5
"""
OPTIONS: dict[str, Option] = {
    "--units": ("N,N,..", None, None, "which units of the code, from 0 [those that say most, at "
                "most 10]"),
    "--example": ("N", whole(0), 0, "validation example whose code is moved, of at most 2000 that "
                 "are read [0]"),
    "--steps": ("N", whole(2, 200), 9, "positions per unit, at most 200 [9]"),
    "--reach": ("X", positive, 2.5, "how far a unit moves, in standard deviations of the codes "
                "[2.5]"),
    "--attribute": ("NAME", None, (), "also move along the direction of this factor or attribute "
                    "of the data, as size of shapes; may be repeated"),
    "--out": ("DIR", None, None, "where the pictures go [RUN/samples]"),
}  # fmt: skip
MOST = 10

COMMAND = Command(EXAMPLE, OPTIONS, about=__doc__, of_run=True)


def run(options: argparse.Namespace) -> int:
    """Draw and write."""
    from pathlib import Path

    import torch

    from likely.cli.progress import working
    from likely.density import StandardNormal
    from likely.files import refuse_unwritable
    from likely.files.figures import save_figure
    from likely.files.sheets import animation, grid_sheet, save_png
    from likely.jobs.codes import traverse
    from likely.runs.checkpoint import write_bytes

    saved = opened(options)
    model = traverse.with_encoder(saved.model)
    train, _ = data_of(saved)
    data = train.validation or train
    folder = Path(options.out).expanduser() if options.out else saved.directory / "samples"
    refuse_unwritable(folder / "traversal.png")
    spec, title = model.spec, f"{saved.name} on {model.spec.name}"
    written: list[Path] = []

    def sheet(name: str, images: Any, caption: str) -> None:
        path = folder / f"{name}.png"
        save_png(grid_sheet(images, spec.levels, f"{title}: {caption}"), path)
        written.append(path)

    with working(f"drawing the codes of {saved.name}"):
        codes = traverse.codes_of(model, data)
        units = _units(options.units) or codes.order[:MOST]
        moved = traverse.traversal(
            model, codes, units, options.example, options.steps, options.reach
        )
        strengths = ", ".join(f"{unit} ({float(codes.strength[unit]):.2g})" for unit in units)
        sheet(
            "traversal", moved, f"example {options.example}, a unit a row, moved by "
            f"{options.reach:g} standard deviations each way; unit ({codes.measure}): {strengths}",
        )  # fmt: skip
        frames = [*moved.unbind(1), *moved.flip(1).unbind(1)[1:-1]]
        written.append(folder / "traversal.gif")
        write_bytes(written[-1], animation(frames, spec.levels, columns=min(5, len(units))))
        for name in options.attribute:
            rows = range(min(6, len(codes.z)))
            images = traverse.along(model, codes, name, rows, options.steps, options.reach)
            sheet(
                f"along-{name.lower()}",
                images,
                f"{len(rows)} examples moved along the direction of {name}",
            )
        count = max(1, min(4, len(codes.z) // 2))
        pairs = [
            torch.from_numpy(codes.data[part].astype("int64")).to(model.device)
            for part in (slice(0, count), slice(count, 2 * count))
        ]
        context = None if codes.context is None else codes.context[:count]
        lines = [
            model.interpolate((pairs[0], pairs[1]), options.steps, spherical=s, context=context)
            for s in (False, True)
        ]
        both = torch.stack(lines, 1).flatten(0, 1).cpu()
        # Codes of many normal coordinates have nearly one length, which a straight line leaves.
        turned = isinstance(model.prior, StandardNormal) and codes.z.shape[1] > 2
        right = "the row below keeps their length" if turned else "the line is the right one"
        sheet(
            "interpolation",
            both,
            "pairs of examples, each on the line between the codes and, a row below, around 0: "
            + right,
        )
        if codes.z.shape[1] == 2:
            sheet(
                "manifold", traverse.manifold(model, codes), "the plane of the two units, decoded"
            )
        written.append(folder / "codes.png")
        figure = traverse.code_map(codes, spec.classes, f"{title}: {len(codes.z):,} examples")
        save_figure(figure, written[-1])
    ranked = [(unit, float(codes.strength[unit])) for unit in codes.order]
    record = {
        "run": str(saved.directory), "units": units,
        "strength": {str(unit): value for unit, value in ranked}, "strength_unit": codes.unit,
        "strength_is": codes.measure,
        "files": [str(path) for path in written],
    }  # fmt: skip
    return answer(
        options,
        record,
        f"units by {codes.measure}: " + ", ".join(f"{u} {value:.3g}" for u, value in ranked[:MOST]),
        *(f"  {path}" for path in written),
    )


def _units(text: str | None) -> list[int]:
    """ "0,3,7" as numbers."""
    words = [] if text is None else text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise InvalidSetting(f'--units: expected numbers of units, as 0,3,7, given "{text}"')
    return [int(word) for word in words]
