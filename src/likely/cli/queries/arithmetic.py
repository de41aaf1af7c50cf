"""`likely arithmetic RUN --plus GROUP --minus GROUP`.

Add and subtract the mean codes of groups of images. Without a group: the sheet of
samples with their numbers, to choose three or more of each kind from. A group by
attributes is of training images where the run has an encoder, and else of samples
that a classifier labels; its test accuracy is printed first. On the sheet stand the
groups with their means, and the result with images around it. For unconditional
models that decode codes.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from likely.cli.output import answer
from likely.cli.parser import Command, Option, positive, whole
from likely.cli.saved import data_of, opened, path_of
from likely.errors import InvalidSetting

if TYPE_CHECKING:
    from likely.density import Decoder
    from likely.runs.saved import SavedRun

EXAMPLE = """\
  likely arithmetic runs/dcgan
  likely arithmetic runs/dcgan --plus 3,17,40 --plus 2,5,9 --minus 8,21,30
  likely arithmetic runs/vae --plus class=3 --plus class=7 --minus class=1
"""
OPTIONS: dict[str, Option] = {
    "--plus": ("GROUP", None, (), "a group whose mean code is added: numbers of samples, or what "
               "its images are, as \"Smiling, not Male\" or \"size > 0.2\"; may be repeated"),
    "--minus": ("GROUP", None, (), "a group whose mean code is subtracted; may be repeated"),
    "--accuracy": ("", None, False, "say how often the difference of two mean codes gives an image "
                   "an attribute and leaves the others, against a random direction"),
    "--attribute": ("NAME", None, (), "of the accuracy: an attribute; may be repeated [all]"),
    "--group": ("N", whole(3), 100, "of the accuracy: codes per mean [100]"),
    "--starts": ("N", whole(2), 500, "of the accuracy: images to move [500]"),
    "--reach": ("X", positive, 0.25, "how far the images around the result are from it [0.25]"),
    "--samples": ("N", whole(3), 64, "numbered samples to choose from [64]"),
    "--seed": ("N", whole(0), 0, "seed of the samples [0]"),
    "-o --out": ("FILE.png", None, None, "where the sheet goes "
                 "[RUN/samples/arithmetic.png]"),
}  # fmt: skip

COMMAND = Command(EXAMPLE, OPTIONS, about=__doc__, of_run=True)


def run(options: argparse.Namespace) -> int:
    """Choose, calculate and write."""
    from likely.cli.progress import working
    from likely.density import Decoder
    from likely.files import refuse_unwritable
    from likely.files.sheets import numbered_sheet, save_png
    from likely.jobs.codes import arithmetic
    from likely.jobs.codes.steering import decoded

    out = path_of(options.out, ".png", "--out")
    saved = opened(options)
    model = saved.model
    if not isinstance(model, Decoder):
        from likely.ask.query import no_code, refusal

        raise refusal(model, no_code(model))
    if model.classes or model.context_shape:
        raise InvalidSetting(
            f"{saved.name} is conditional: its classes are chosen by --label, and its codes are of "
            "what is left; arithmetic is for unconditional runs"
        )
    folder = saved.directory / "samples"
    title = f"{saved.name} on {model.spec.name}"
    if options.accuracy:
        return _accuracy(saved, model, options)
    if not options.plus:
        if options.minus:
            raise InvalidSetting("--minus needs a group that is added: --plus")
        out = out or folder / f"numbered-{options.seed}.png"
        refuse_unwritable(out)
        images = decoded(model, model.drawn_codes(options.samples, seed=options.seed))
        caption = f"{title}: {options.samples} samples, seed {options.seed}, not chosen"
        save_png(numbered_sheet(images, model.spec.levels, caption), out)
        return answer(
            options,
            {"run": str(saved.directory), "sheet": str(out), "n": options.samples},
            f"{options.samples} numbered samples: {out}",
            "choose three or more of each kind: --plus 3,17,40 --plus 2,5,9 --minus 8,21,30",
        )
    out = out or folder / "arithmetic.png"
    refuse_unwritable(out)
    texts = [*options.plus, *options.minus]
    by_number = all(arithmetic.numbers_of(text) for text in texts)
    train = None if by_number else data_of(saved)[0]
    with working(f"adding and subtracting codes of {saved.name}"):
        groups, about = arithmetic.chosen_groups(
            model,
            texts,
            train,
            lambda: _noted(_classifier(saved)),
            samples=options.samples,
            seed=options.seed,
        )
        count = len(options.plus)
        result = model.arithmetic(
            groups[:count], groups[count:], reach=options.reach, seed=options.seed
        )
        caption = f"{title}: {about}; {result.about}"
        save_png(arithmetic.sum_sheet(model, result, options.plus, options.minus, caption), out)
    sizes = [len(group) for group in result.groups]
    record = {
        "run": str(saved.directory), "plus": list(options.plus), "minus": list(options.minus),
        "sizes": sizes, "groups": about, "result": result.about, "code": result.code.tolist(),
        "sheet": str(out),
    }  # fmt: skip
    return answer(
        options,
        record,
        f"{about}, {', '.join(map(str, sizes))} of the groups",
        f"the result: {result.about}",
        f"  {out}",
    )


def _classifier(saved: SavedRun) -> Any:
    """The classifier of the attributes of a run's data."""
    from likely.cli.progress import counting
    from likely.jobs.codes import steering

    train, test = data_of(saved)
    with counting("fitting a classifier of attributes") as show:
        return steering.attribute_classifier(train, test, progress=show)


def _noted(classifier: Any) -> Any:
    """The same classifier, after a line with its test accuracy."""
    from likely.cli.output import note

    note(str(classifier))
    return classifier


def _accuracy(saved: SavedRun, model: Decoder, options: argparse.Namespace) -> int:
    """The table of flips."""
    from likely.cli.progress import counting
    from likely.density import EncoderDecoder
    from likely.jobs.codes import steering

    train, test = data_of(saved)
    classifier = _classifier(saved)
    wanted = [classifier.names[classifier.place(name)] for name in options.attribute]
    wanted = wanted or list(classifier.names)
    pool = steering.labelled_codes(model, classifier, train, 4000, options.seed)
    if isinstance(model, EncoderDecoder):
        start = steering.labelled_codes(model, classifier, test, options.starts).codes
        start = start[: options.starts]
    else:
        start = model.drawn_codes(options.starts, seed=options.seed + 1)
    rows = []
    with counting("moving images") as show:
        for name in wanted:
            rows.append(
                steering.flips(
                    model, classifier, name, pool, start, group=options.group, seed=options.seed
                )
            )
            show(len(rows), len(wanted))
    table = {
        "run": str(saved.directory), "codes": pool.about, "group": options.group,
        "classifier": {name: e.to_json() for name, e in classifier.accuracy.items()},
        "attributes": [row.to_json() for row in rows],
    }  # fmt: skip
    wide = max(map(len, wanted))
    return answer(
        options,
        table,
        str(classifier),
        f"{saved.name}: {pool.about}; groups of {options.group}; percent of images, minus chance",
        *(
            f"  {row.attribute:{wide}}  comes {row.flipped} (a random direction {row.by_chance}, "
            f"difference {row.gained})"
            + (
                ""
                if row.kept is None
                else f"\n  {'':{wide}}  others stay {row.kept} (a random direction "
                f"{row.kept_by_chance}, difference {row.spared})"
            )
            for row in rows
        ),
    )
